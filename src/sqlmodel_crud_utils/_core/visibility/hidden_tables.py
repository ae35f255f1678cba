"""Criteria for hidden rows in places that SQLAlchemy's loader criteria do not reach.

These are tables that a SELECT names without their model: in the EXISTS of `any()` and `has()`
(before SQLAlchemy 2.1; in 2.1 where a model is related to itself), as the link table of a
many-to-many relationship, or because the caller wrote it so; and the tables of an UPDATE or DELETE
beside the model that it writes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy import (
    Alias,
    AliasedReturnsRows,
    ColumnElement,
    Delete,
    Executable,
    FromClause,
    Insert,
    Join,
    Select,
    TableSample,
    Update,
    Values,
    and_,
)
from sqlalchemy.orm import Mapper, QueryableAttribute
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import FromGrouping, ScalarValues

from sqlmodel_crud_utils._core.sqlalchemy_internals import (
    add_criteria,
    columns_of,
    criteria_in,
    criteria_of,
    froms_of,
    is_orm,
    joins_of,
    notes_of,
    options_of,
    set_joins,
    tables_in,
    unvisited_sql_of,
    values_in,
)
from sqlmodel_crud_utils._core.visibility.criteria import TableCriteria

_E = TypeVar("_E", bound=Executable)

WITH_ROWS = (Insert, Values, ScalarValues)
"""What has rows in its text."""


def mappers_in(statement: Executable) -> set[Mapper[Any]]:
    """Return the mappers of all models that a statement names."""
    annotated = (notes_of(element) for element in elements_of(statement))
    return {notes["parentmapper"] for notes in annotated if "parentmapper" in notes}


def hide(statement: _E, rules: TableCriteria) -> _E:
    """Return the statement with criteria for the tables that it names without their model."""
    if not concerns(statement, rules):
        return statement
    changes = {
        "select": partial(_hide_in_select, rules),
        "join": partial(_hide_in_join, rules),
        "update": partial(_hide_in_write, rules),
        "delete": partial(_hide_in_write, rules),
    }
    how = {"stop_on": _kept(statement, rules), "detect_subquery_cols": True}
    copy: Any = visitors.cloned_traverse
    changed: _E = copy(statement, how, changes)
    return changed


def _kept(statement: Executable, rules: TableCriteria) -> list[Any]:
    """Return the parts that are not copied: those without a change, and uncopyable ones."""
    elements = list(elements_of(statement))
    kept = [option for element in elements for option in options_of(element)]
    for element in elements:
        entity = notes_of(element).get("parententity")
        if entity is not None and entity.is_aliased_class:
            # An alias of a model would still refer to the original subquery.
            kept.append(entity.selectable)
        elif isinstance(element, AliasedReturnsRows) and not concerns(element, rules):
            kept.append(element)
    return kept


def concerns(part: Any, rules: TableCriteria) -> bool:
    """Return whether a statement, or a part of it, needs criteria for tables."""
    return any(_concerns(element, rules) for element in elements_of(part))


def has_bare_join(select: Select[Any], rules: TableCriteria) -> bool:
    """Return whether a SELECT joins a table without a condition, to which one could be added."""
    return any(
        condition is None and _criterion(_first(target), rules) is not None
        for target, condition, *_ in joins_of(select)
        if not isinstance(target, QueryableAttribute)
    )


def subqueries_of(write: Update | Delete) -> set[FromClause]:
    """Return the subqueries and CTEs that the criteria and the values of a write name."""
    given = (*criteria_of(write), *values_in(write))
    tables = {table for each in given for table in tables_in(each)}
    return {table for table in tables if isinstance(table, AliasedReturnsRows | Values)}


def elements_of(part: Any) -> Iterator[Any]:
    """Yield all parts of a statement or an expression, itself included."""
    for element in visitors.iterate(part):
        yield element
        for criterion in criteria_in(options_of(element)):
            yield from elements_of(criterion)
        if isinstance(element, Update | Delete):
            # SQLAlchemy's visitors do not go from a column to its subquery.
            for table in subqueries_of(element):
                yield from elements_of(table)
        elif isinstance(element, WITH_ROWS):
            for value in unvisited_sql_of(element):
                yield from elements_of(value)


def _concerns(element: Any, rules: TableCriteria) -> bool:
    if isinstance(element, Select):
        return bool(_criteria(element, rules)) or any(
            _join_criterion(join, rules) is not None for join in joins_of(element)
        )
    if isinstance(element, Update | Delete):
        return bool(_criteria_of_write(element, rules))
    return isinstance(element, Join) and unaliased(_first(element.right)) in rules


def _hide_in_select(rules: TableCriteria, select: Select[Any]) -> None:
    # Called with a copy of the caller's SELECT.
    add_criteria(select, _criteria(select, rules))
    set_joins(select, (_hide_in_setup_join(rules, join) for join in joins_of(select)))


def _hide_in_write(rules: TableCriteria, write: Update | Delete) -> None:
    add_criteria(write, _criteria_of_write(write, rules))


def _hide_in_join(rules: TableCriteria, join: Join) -> None:
    # In a nested JOIN, the conditions cover all of its tables but the first. SQLAlchemy's criteria
    # do not reach into a JOIN, not even to its models.
    table = _first(join.right)
    rule = rules.get(unaliased(table))
    if rule is not None:
        join.onclause = and_(cast("ColumnElement[bool]", join.onclause), rule(table))


def _hide_in_setup_join(rules: TableCriteria, join: tuple[Any, ...]) -> tuple[Any, ...]:
    criterion = _join_criterion(join, rules)
    if criterion is None:
        return join
    target, condition, *rest = join
    if isinstance(condition, QueryableAttribute):
        return target, condition.and_(criterion), *rest
    if isinstance(target, QueryableAttribute):
        return target.and_(criterion), condition, *rest
    return target, and_(condition, criterion), *rest


def _join_criterion(join: tuple[Any, ...], rules: TableCriteria) -> ColumnElement[bool] | None:
    """Return the criterion for the table that `Select.join()` adds, or the one between."""
    target, condition, *_ = join
    for attribute in (target, condition):
        if isinstance(attribute, QueryableAttribute):
            link = attribute.property.secondary
            return rules[link](link) if link in rules else None
    # Without a condition, SQLAlchemy only finds the foreign key at compile time.
    return None if condition is None else _criterion(_first(target), rules)


def _criteria(select: Select[Any], rules: TableCriteria) -> list[ColumnElement[bool]]:
    found = (_criterion(table, rules, select) for table in _tables(select))
    return [criterion for criterion in found if criterion is not None]


def _tables(select: Select[Any]) -> set[FromClause]:
    """Return the tables in the FROM of a SELECT; of a JOIN, only the first."""
    joins = [table for table in froms_of(select) if isinstance(table, Join)]
    # A joined table gets its criterion in the ON clause, so that an outer join stays one.
    joined = {table for join in joins for table in tables_in(join)}
    for target, *_ in joins_of(select):
        joined.update(tables_in(target) if isinstance(target, Join) else (target,))
    return {*_named(select), *froms_of(select)} - joined | {_first(join) for join in joins}


def _named(select: Select[Any]) -> set[FromClause]:
    """Return the tables that appear only through their columns, except those of models."""
    named: set[FromClause] = set()
    of_models: set[FromClause] = set()
    for column in _unbundled(columns_of(select)):
        is_of_model = is_orm(select) and notes_of(column)
        (of_models if is_of_model else named).update(tables_in(column))
    # exists().where(…) and a relationship's contains() name tables nowhere else. SQLAlchemy's own
    # loads name the table of a model that is selected anyway, whose criteria hold for it.
    for criterion in criteria_of(select):
        named.update(table for table in tables_in(criterion) if table not in of_models)
    return named


def _unbundled(columns: Iterable[Any]) -> Iterator[Any]:
    for column in columns:
        yield from _unbundled(column.clauses) if "bundle" in notes_of(column) else (column,)


def _criteria_of_write(write: Update | Delete, rules: TableCriteria) -> list[ColumnElement[bool]]:
    target = write.table
    # The criteria name further tables, as in UPDATE … FROM, which SQLAlchemy's never reach.
    named = {table for each in criteria_of(write) for table in tables_in(each)}
    tables = named - {target} if _is_of_model(write) else named | {_first(target)}
    return [rules[plain](table) for table in tables if (plain := unaliased(table)) in rules]


def _is_of_model(write: Update | Delete) -> bool:
    # A criterion on a model makes the ORM compile the statement, whatever its target.
    return is_orm(write) and "parententity" in notes_of(write.table)


def _first(table: FromClause) -> FromClause:
    while isinstance(table, Join | FromGrouping):
        table = table.left if isinstance(table, Join) else table.element
    return table


def _criterion(
    table: Any, rules: TableCriteria, select: Select[Any] | None = None
) -> ColumnElement[bool] | None:
    rule = rules.get(unaliased(table))
    return None if rule is None or _has_loader_criteria(table, select) else rule(table)


def unaliased(table: Any) -> Any:
    """Return the table behind an alias, or behind an alias of an alias."""
    while isinstance(table, Alias | TableSample):
        table = table.element
    return table


def _has_loader_criteria(table: FromClause, select: Select[Any] | None) -> bool:
    """Return whether SQLAlchemy treats the table as a model, and adds the criteria itself."""
    if select is not None and not is_orm(select):
        return False
    entity = notes_of(table).get("parententity")
    if isinstance(table, Alias | TableSample):
        # any() of a self-referential model: the criteria miss its anonymous alias.
        return bool(entity is not None and entity.is_aliased_class)
    return entity is not None
