"""How a statement leaves out hidden rows: one option, and rules for tables.

SQLAlchemy's loader criteria reach the model itself, joined entities, aliases, subqueries and
related rows, loaded now or later. `any()` and `has()` (before 2.1), tables that a statement names
without their model and the link tables of many-to-many relationships are beyond them;
`hidden_tables` writes the criteria for these into the statement.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Executable, true
from sqlalchemy.orm import (
    FromStatement,
    InstrumentedAttribute,
    LoaderCriteriaOption,
    Mapper,
    UserDefinedOption,
    aliased,
)
from sqlalchemy.orm.interfaces import CriteriaOption
from sqlalchemy.sql.visitors import InternalTraversal

from sqlmodel_crud_utils._core.memoizing import Store, cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.policies import (
    Policy,
    Visibility,
    elsewhere,
    holding,
    mappers_of,
)
from sqlmodel_crud_utils._core.sqlalchemy_internals import (
    add_criteria,
    cache_key_of,
    group_texts,
    noted,
    options_of,
    set_options,
)
from sqlmodel_crud_utils._core.visibility import hidden_tables
from sqlmodel_crud_utils._core.visibility.criteria import rules_of, visible_in

_E = TypeVar("_E", bound=Executable)


class _Criterion(LoaderCriteriaOption):
    """The criterion of a policy, made for each entity that a statement names.

    SQLAlchemy could take a lambda instead, but it caches by the lambda's code and closure, which is
    wrong for one that calls other functions.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.base, true(), include_aliases=True)
        self._policy = policy

    def _all_mappers(self) -> Iterator[Mapper[Any]]:
        return iter(mappers_of(self._policy))

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        if ext_info.is_aliased_class and ext_info.name == _past(self._policy):
            return true()
        notes = {"for_loader_criteria": self}
        criterion = self._policy.criterion(ext_info.entity)
        return noted(criterion, notes)


@cached
def _criterion_of(policy: Policy) -> _Criterion:
    return _Criterion(policy)


class Hiding(CriteriaOption, UserDefinedOption):
    """Leaves hidden rows out of a statement, and of what is loaded later with its rows.

    It is one option whatever the models are, so that SQLAlchemy's key for the statement stays
    short; the entities are looked up when the statement is compiled. It goes along with rows that
    are pickled.
    """

    payload: Visibility
    propagate_to_loaders = True
    _cache_key_traversal = [("policies", InternalTraversal.dp_plain_obj)]  # noqa: RUF012

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that apply."""
        return holding(self.payload)

    def process_compile_state(self, compile_state: Any) -> None:
        """Add the criteria to a statement that is compiled."""
        self.get_global_criteria(compile_state.global_attributes)

    def get_global_criteria(self, attributes: dict[Any, Any]) -> None:
        """Add the criteria to SQLAlchemy's attributes of the statement's entities."""
        for policy in self.policies:
            _criterion_of(policy).get_global_criteria(attributes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _hiding, (self.payload,)


@cached
def _hiding(visibility: Visibility) -> Hiding:
    return Hiding(visibility)


@cached
def hiding_options(visibility: Visibility, *models: type[Any]) -> tuple[Hiding, ...]:
    """Return the options for queries; empty if no policy applies."""
    concerned = any(_is_concerned(facts_of(model), visibility) for model in models)
    return (_hiding(visibility),) if concerned else ()


@cached
def _is_concerned(facts: Facts, visibility: Visibility) -> bool:
    """Return whether a policy applies to any row that a query of the model may load."""
    rules = rules_of(visibility)
    return any(
        facts_of(each.class_).policies_in(visibility)
        or any(relationship.secondary in rules for relationship in each.relationships)
        for each in facts.read_along()
    )


@cached
def revealing(model: type[Any], policy: Policy) -> Any:
    """Return an alias that a policy does not apply to, for a query of related rows.

    It is known by its name, which is a part of what SQLAlchemy keeps compiled statements by.
    """
    return aliased(model, name=_past(policy))


def _past(policy: Policy) -> str:
    return f"past_{policy.name}"


def hide(statement: _E, visibility: Visibility, model: type[Any]) -> _E:
    """Hide rows from the results of a statement of the library.

    That goes for the model itself, joined entities and aliases, and related rows that come with
    the rows (selectin, joined) or later (lazy loading). A statement of models that no policy is
    about comes back as it is.
    """
    return _with_first(statement, hiding_options(visibility, model))


def hide_anywhere(statement: _E, visibility: Visibility, *models: type[Any]) -> _E:
    """Hide rows from a caller's statement, whether it reads or writes.

    It may name more than the models: other entities, their tables, `any()` and `has()`.
    """
    rules = rules_of(visibility)
    if not rules:
        return statement
    names_tables, options = _needs(statement, visibility, models)
    hidden = _with_first(
        hidden_tables.hide(statement, rules) if names_tables else statement, options
    )
    return of_caller(hidden) if options else hidden


_CALLERS = "sqlmodel_crud_utils.of_caller"


def of_caller(statement: _E) -> _E:
    """Mark a statement of the library that contains the caller's SQL."""
    changed = statement.execution_options(**{_CALLERS: True})
    group_texts(changed)
    return changed


def is_callers(options: Mapping[str, Any]) -> bool:
    """Return whether execution options have the mark of `of_caller`."""
    return _CALLERS in options


_Needs = tuple[bool, tuple[Hiding, ...]]
"""Whether a statement needs criteria for tables, and the option that it needs."""

_needed: Store[Hashable, _Needs] = Store()


def _needs(statement: Any, visibility: Visibility, models: tuple[type[Any], ...]) -> _Needs:
    """Return what a statement needs; cached for all statements with the same cache key."""

    def found() -> _Needs:
        named = (mapper.class_ for mapper in hidden_tables.mappers_in(statement))
        options = hiding_options(visibility, *{*models, *named})
        return hidden_tables.concerns(statement, rules_of(visibility)), options

    key = cache_key_of(statement)
    return found() if key is None else _needed.get((visibility, models, key), found)


def _with_first(statement: _E, options: tuple[Hiding, ...]) -> _E:
    """Return the statement with these options before its own.

    SQLAlchemy's cache ignores custom options. It may take a statement for a cached one with fewer
    options, and then drop the last options for later loads.
    """
    if not options:
        return statement
    changed = statement.options(*options)
    set_options(changed, (*options, *options_of(statement)))
    return changed


def models_in(statement: Executable) -> tuple[type[Any], ...]:
    """Return the models that a caller's statement names, always in the same order.

    Without a policy that covers any model they do not matter, and the result is empty.
    """
    if not any(map(mappers_of, holding(Visibility()))):
        return ()
    models = (mapper.class_ for mapper in hidden_tables.mappers_in(statement))
    return tuple(sorted(models, key=lambda model: (model.__module__, model.__qualname__)))


def link_criteria(
    attribute: InstrumentedAttribute[Any], visibility: Visibility
) -> list[ColumnElement[bool]]:
    """Return the criteria for the rows of a relationship's link table, if it has one."""
    return visible_in(attribute.property.secondary, visibility)


def hide_in_refresh(statement: Any, visibility: Visibility) -> Any:
    """Hide a row from the statement that reloads its columns by key.

    SQLAlchemy's own criteria don't count there.
    """
    is_shorter = isinstance(statement, FromStatement)  # for columns of a subclass alone
    select: Any = statement.element if is_shorter else statement
    tables = {column.table for column in select.selected_columns}
    criteria = [each for table in tables for each in visible_in(table, visibility)]
    if not is_shorter:
        return select.where(*criteria)
    add_criteria(select, criteria)  # it was made for this load
    return statement


def concerns_callers() -> bool:
    """Return whether a policy applies to any model in statements that are not the library's."""
    return any(map(mappers_of, holding(elsewhere())))


def has_hidden_links(visibility: Visibility) -> bool:
    """Return whether any relationship goes through a link table with hidden rows."""
    rules = rules_of(visibility)
    registries = {mapper.registry for each in holding(visibility) for mapper in mappers_of(each)}
    return any(
        relationship.secondary in rules
        for each in registries
        for mapper in each.mappers
        for relationship in mapper.relationships
    )


def hiding_of(options: Iterable[Any]) -> Hiding | None:
    """Return the hiding option among those of a statement or a row."""
    return next((option for option in options if isinstance(option, Hiding)), None)


def hide_in_tables(part: Any, visibility: Visibility) -> Any:
    """Hide rows of the tables that a statement, or a part of it, names without a model.

    These are the link tables of a relationship's load, or what a caller's expression reads.
    """
    return hidden_tables.hide(part, rules_of(visibility))
