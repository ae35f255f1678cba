"""The statements of an upsert, on each database.

The statements are executed with a list of parameters, one set for each row. That keeps the order of
the rows, allows the same key twice, and keeps the statement short.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnDefault,
    ColumnElement,
    Dialect,
    Insert,
    Integer,
    Update,
    and_,
    bindparam,
    case,
    insert,
    literal_column,
    update,
)
from sqlalchemy.sql import visitors
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from sqlmodel_crud_utils._core.dialects import features_of, own_insert
from sqlmodel_crud_utils._core.models.policies import elsewhere
from sqlmodel_crud_utils._core.parameters import prefix_for
from sqlmodel_crud_utils._core.queries.keys import equals_key
from sqlmodel_crud_utils._core.visibility.criteria import visible_in
from sqlmodel_crud_utils._core.writes.insert_statements import counts_duplicates
from sqlmodel_crud_utils._core.writes.targets import Target
from sqlmodel_crud_utils.exceptions import ValidationError

Parameters = list[dict[str, Any]]


def insert_statement(target: Target, *, returning: bool) -> Insert:
    """Return the INSERT of rows whose keys the database generates and returns in order."""
    statement = insert(target.model)
    if not returning:
        return statement
    keys = [target.columns[name] for name in target.key]
    return statement.returning(*keys, sort_by_parameter_order=True)


def upsert_statement(
    target: Target,
    names: Iterable[str],
    parameters: Parameters,
    dialect: Dialect,
    *,
    counting: bool = False,
) -> tuple[Insert, Parameters | None]:
    """Return the INSERT that updates existing rows, and its parameters.

    Args:
        target: What to write to.
        names: The fields that the rows give.
        parameters: The rows, by column keys, as `insert_parameters` makes them.
        dialect: The dialect of the database.
        counting: Whether MySQL counts the existing rows.
    """
    if features_of(dialect).conflict == "ON DUPLICATE KEY":
        return _on_duplicate_key(target, names, parameters, dialect, counting=counting)
    return on_conflict(target, target.model, names, dialect), parameters


def on_conflict(target: Target, entity: Any, names: Iterable[str], dialect: Dialect) -> Any:
    """Return the INSERT into a model, or its table, that updates existing rows."""
    # inline() keeps SQLAlchemy from fetching the new key: there may be none.
    statement = own_insert(dialect, entity).inline()
    key = target.conflicting
    assigned = _assignments(target, names, statement.excluded)
    if not assigned:
        return statement.on_conflict_do_nothing(index_elements=key)
    criteria = visible_in(target.table, elsewhere())
    where = and_(*criteria) if criteria else None
    return statement.on_conflict_do_update(index_elements=key, set_=assigned, where=where)


def _on_duplicate_key(
    target: Target,
    names: Iterable[str],
    parameters: Parameters,
    dialect: Dialect,
    *,
    counting: bool,
) -> tuple[Insert, Parameters | None]:
    statement = own_insert(dialect, target.model).inline()
    # MySQL has no DO NOTHING, and INSERT IGNORE would hide other errors too.
    first = target.columns[target.key[0]]
    assigned = _assignments(target, names, statement.inserted) or {first: first}
    criteria = visible_in(target.table, elsewhere())
    if criteria:
        # MySQL has no WHERE here, so rows of others are assigned their own values.
        assigned = {
            column: case((and_(*criteria), value), else_=column)
            for column, value in assigned.items()
        }
    changes = {column.key: value for column, value in assigned.items()}
    if counting:
        taken = () if assigned.keys() == {first} else changes
        changes |= counts_duplicates(target, dialect, taken)
    statement = statement.on_duplicate_key_update(changes)
    if not any(_has_bind(value) for value in assigned.values()):
        return statement, parameters
    # The drivers rewrite the statement's text to insert many rows at once, and fail if a parameter
    # follows the VALUES.
    columns = target.table.columns
    rows = [{columns[key]: value for key, value in row.items()} for row in parameters]
    return statement.values(rows), None


def _has_bind(value: ColumnElement[Any]) -> bool:
    return any(element.__visit_name__ == "bindparam" for element in visitors.iterate(value))


def update_statement(target: Target, names: Iterable[str]) -> Update | None:
    """Return the UPDATE by key of the rows' fields, or None without fields.

    Its parameters are those of `update_parameters`.
    """
    prefix = prefix_for(target.table)
    criteria = equals_key([target.columns[name] for name in target.key], prefix)
    assigned: dict[Column[Any], Any] = {
        target.columns[name]: bindparam(f"{prefix}{name}")
        for name in names
        if name in target.overwritten
    }
    if not assigned:
        return None
    assigned.update(_next_version(target))
    criteria += [*target.criteria, *visible_in(target.table, elsewhere())]
    return update(target.model).where(*criteria).values(assigned)


def _assignments(
    target: Target,
    names: Iterable[str],
    proposed: ReadOnlyColumnCollection[str, Any],
) -> dict[Column[Any], ColumnElement[Any]]:
    """Return the assignments of a conflict: empty if none of the caller's fields is written."""
    given = [target.columns[name] for name in names if name in target.overwritten]
    if not given:
        return {}
    assigned: dict[Column[Any], ColumnElement[Any]] = {
        column: proposed[column.key] for column in given
    }
    for name, column in target.columns.items():
        if column.onupdate is not None and column not in assigned:
            assigned.update(_on_update(target, name, column))
    assigned.update(_next_version(target))
    return assigned


class _NoRow:
    """The context of an `onupdate` function in an upsert, which has no single current row."""

    def __init__(self, model: type[Any], name: str) -> None:
        self._model = model
        self._name = name

    def __getattr__(self, _: str) -> NoReturn:
        raise ValidationError(
            f"the onupdate of {self._model.__name__}.{self._name} reads the row that is "
            f"written, which an upsert cannot provide; give {self._name} in the rows, or use "
            "update_row",
            field=self._name,
        )


def _on_update(
    target: Target, name: str, column: Column[Any]
) -> dict[Column[Any], ColumnElement[Any]]:
    # SQLAlchemy ignores `onupdate` in an INSERT, ON CONFLICT or not.
    onupdate = column.onupdate
    if not isinstance(onupdate, ColumnDefault):
        return {}
    value: Any = onupdate.arg
    if onupdate.is_callable:
        value = onupdate.arg(_NoRow(target.model, name))
    return {column: value if onupdate.is_clause_element else _parameter(target, name, value)}


def _next_version(target: Target) -> dict[Column[Any], ColumnElement[Any]]:
    generator = target.facts.mapper.version_id_generator
    version = target.facts.version
    if version is None or not callable(generator):  # the database sets the version
        return {}
    column = target.columns[version]
    if isinstance(column.type, Integer):
        return {column: column + literal_column("1")}
    return {column: _parameter(target, version, generator(None))}


def _parameter(target: Target, name: str, value: Any) -> BindParameter[Any]:
    prefix, column = prefix_for(target.table), target.columns[name]
    return bindparam(f"{prefix}{name}", value, type_=column.type)
