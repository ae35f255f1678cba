"""The conditions of a query: filters and expressions, alone, negated or as alternatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Dialect, and_, false, func, not_, or_
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import coercions, roles

from sqlmodel_crud_utils._core.filters.paths import compared_values, where_clauses, with_parameters
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility
from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils._core.values.expressions import require_own
from sqlmodel_crud_utils.exceptions import ValidationError

Build = Callable[[Visibility], ColumnElement[bool]]


class Condition(NamedTuple):
    """One criterion of a query.

    Attributes:
        build: Returns it as SQL; the visibility says which related rows count.
        foreign: Whether there is SQL of the caller's in it.
        template: What tells it from others that differ in more than their values; None where that
            is not known.
        values: Its values.
    """

    build: Build
    foreign: bool = False
    template: Template | None = None
    values: tuple[Any, ...] = ()


class Template(NamedTuple):
    """The form of a condition of plain comparisons, without the values.

    Attributes:
        names: The names of the filters, with their lookups.
        negated: Whether the rows are meant that don't meet all of them.
    """

    names: tuple[str, ...]
    negated: bool = False

    def condition(self, model: type[Any], dialect: Dialect, prefix: str) -> Condition:
        """Return the condition with parameters for values: `prefix_0`, `prefix_1` and so on."""
        filters = with_parameters(model, self.names, prefix)
        all_of = _all_of(model, filters, dialect)
        return Condition(_not(all_of) if self.negated else all_of)


def matches(
    model: type[Any], lookups: Mapping[str, Any], dialect: Dialect, *, joins: bool = False
) -> Condition:
    """Return the condition that a row meets all of the filters.

    Args:
        model: The model that is queried.
        lookups: The filters.
        dialect: The dialect of the database.
        joins: Whether they are for a statement of the caller's, which may join other tables.
    """
    return _filtered(model, lookups, dialect, negated=False, joins=joins)


def differs(model: type[Any], lookups: Mapping[str, Any], dialect: Dialect) -> Condition:
    """Return the condition that a row doesn't meet all of the filters.

    A filter that finds neither true nor false, as for a NULL, is not met.
    """
    return _filtered(model, lookups, dialect, negated=True)


def _filtered(
    model: type[Any],
    lookups: Mapping[str, Any],
    dialect: Dialect,
    *,
    negated: bool,
    joins: bool = False,
) -> Condition:
    kept = {name: _kept(value) for name, value in lookups.items()}
    all_of = _all_of(model, kept, dialect)
    build = cache(_not(all_of) if negated else all_of)
    values = compared_values(model, kept)
    if values is None:
        criterion = build(USUAL)  # evaluated now, so that a mistake raises at once
        sql = [name for name, value in kept.items() if _has_sql(value)]
        if sql and not joins:
            require_own(model, criterion, sql[0])
        return Condition(build, foreign=bool(sql))
    return Condition(build, template=Template(tuple(kept), negated), values=values)


def _has_sql(value: Any) -> bool:
    return is_sql(value) or (isinstance(value, list | tuple) and any(map(is_sql, value)))


def _not(criterion: Build) -> Build:
    return lambda visibility: not_(func.coalesce(criterion(visibility), false()))


def any_of(model: type[Any], alternatives: Sequence[Any], dialect: Dialect) -> Condition:
    """Return the condition that a row meets an alternative: all filters of a dict, or SQL."""
    if not alternatives or any(isinstance(each, Mapping) and not each for each in alternatives):
        raise ValidationError(
            "any_of takes alternatives, each of them filters or an expression; one is empty"
            if alternatives
            else "any_of takes at least one alternative: filters as a dict, or an expression",
            field="any_of",
        )
    conditions = [
        matches(model, each, dialect) if isinstance(each, Mapping) else meets(model, each)
        for each in alternatives
    ]
    return Condition(
        cache(lambda visibility: or_(*(each.build(visibility) for each in conditions))),
        foreign=any(condition.foreign for condition in conditions),
    )


def meets(model: type[Any], given: Any) -> Condition:
    """Return the condition that a caller's expression is true."""
    expression = _expression(model, given)
    return Condition(lambda _: expression, foreign=True)


def _all_of(model: type[Any], lookups: Mapping[str, Any], dialect: Dialect) -> Build:
    return lambda visibility: and_(*where_clauses(model, lookups, dialect, visibility))


def _kept(value: Any) -> Any:
    """Return a copy of a mutable value: the query may run later, and more than once."""
    if isinstance(value, Iterator):
        return list(value)
    return copy(value) if isinstance(value, list | set | dict) else value


def _expression(model: type[Any], given: Any) -> ColumnElement[bool]:
    if isinstance(given, bool | str) or given is None:
        raise _no_expression(given)
    try:
        expression = coercions.expect(roles.WhereHavingRole, given)
    except ArgumentError as error:
        raise _no_expression(given) from error
    require_own(model, expression, "where")
    return cast("ColumnElement[bool]", expression)


def _no_expression(given: Any) -> ValidationError:
    return ValidationError(
        f"where takes expressions such as Hero.age > 30, and filters by name such as age__gt=30; "
        f"not {type(given).__name__}",
        field="where",
    )
