"""What a query's rows must be: filters and expressions, alone, negated or as alternatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from sqlalchemy import ColumnElement, Dialect, and_, false, func, not_, or_
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import coercions, roles

from sqlmodel_crud_utils._core.expressions import require_own
from sqlmodel_crud_utils._core.filters import where_clauses
from sqlmodel_crud_utils.exceptions import ValidationError


@dataclass(frozen=True, slots=True)
class Condition:
    """One criterion of a query.

    Attributes:
        build: Returns it as SQL; with True, related rows count that are soft-deleted.
        foreign: Whether there is SQL of the caller's in it.
    """

    build: Callable[[bool], ColumnElement[bool]]
    foreign: bool = False


def matches(model: type[Any], lookups: Mapping[str, Any], dialect: Dialect) -> Condition:
    """Return the condition that a row meets all of the filters; a mistake in them raises."""
    return _checked(_all_of(model, lookups, dialect))


def differs(model: type[Any], lookups: Mapping[str, Any], dialect: Dialect) -> Condition:
    """Return the condition that a row doesn't meet all of the filters.

    A filter that finds neither true nor false, as for a NULL, is not met.
    """
    all_of = _all_of(model, lookups, dialect)
    return _checked(lambda deleted: not_(func.coalesce(all_of(deleted), false())))


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
    return _checked(
        lambda deleted: or_(*(condition.build(deleted) for condition in conditions)),
        foreign=any(condition.foreign for condition in conditions),
    )


def meets(model: type[Any], given: Any) -> Condition:
    """Return the condition that a caller's expression is true."""
    expression = _expression(model, given)
    return Condition(lambda _: expression, foreign=True)


def _all_of(
    model: type[Any], lookups: Mapping[str, Any], dialect: Dialect
) -> Callable[[bool], ColumnElement[bool]]:
    kept = {name: _kept(value) for name, value in lookups.items()}
    return lambda deleted: and_(*where_clauses(model, kept, dialect, include_deleted=deleted))


def _kept(value: Any) -> Any:
    """Return a value that stays as it is: the query may run later, and more than once."""
    if isinstance(value, Iterator):
        return list(value)
    return copy(value) if isinstance(value, list | set | dict) else value


def _checked(build: Callable[[bool], ColumnElement[bool]], *, foreign: bool = False) -> Condition:
    # Built at once for the mistakes in it, and kept for the query.
    kept = cache(build)
    kept(False)
    return Condition(kept, foreign=foreign)


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
