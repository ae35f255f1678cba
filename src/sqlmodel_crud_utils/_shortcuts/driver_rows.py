"""Rows in the form that drivers take: tuples of processed values, without SQLAlchemy's binding.

That binding costs more per row than most databases need to store it. The result is the same: the
types process the values, and Python defaults are filled in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from itertools import repeat
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnDefault,
    Connection,
    Dialect,
    Insert,
    bindparam,
    func,
    select,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType, TypeEngine

from sqlmodel_crud_utils._core.filters.lists import goes_into_array
from sqlmodel_crud_utils._core.parameters import array_of
from sqlmodel_crud_utils._core.writes.shapes import Shape
from sqlmodel_crud_utils._core.writes.targets import Target
from sqlmodel_crud_utils._session.row_security_engines import is_secured
from sqlmodel_crud_utils._shortcuts.choosing import are_allowed, listens_to_session

_Processor = Callable[[Any], Any]

_OPTIONAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Slot(NamedTuple):
    """A column and the source of its values.

    Attributes:
        column: The column.
        field: The field that provides them; None for the column's default.
        processor: Its type's bind processor, if it has one.
    """

    column: Column[Any]
    field: str | None
    processor: _Processor | None

    def values(self, given: dict[str, Sequence[Any]], count: int) -> Iterable[Any]:
        """Return the processed values of `count` rows."""
        raw = self.raw(given, count)
        return raw if self.processor is None else map(self.processor, raw)

    def raw(self, given: dict[str, Sequence[Any]], count: int) -> Iterable[Any]:
        """Return the unprocessed values of `count` rows."""
        return given[self.field] if self.field is not None else self._defaults(count)

    def _defaults(self, count: int) -> Iterable[Any]:
        default: Any = self.column.default
        if default.is_scalar:
            return repeat(default.arg, count)
        return [default.arg(None) for _ in range(count)]


def slots_of(target: Target, names: Sequence[str], dialect: Dialect) -> list[Slot] | None:
    """Return the columns whose values come from Python: given ones, and those with a default.

    Return None if only SQLAlchemy can compute them, because a default depends on the rest of the
    row.
    """
    slots = [_slot(target.columns[name], name, dialect) for name in names]
    given = {slot.column for slot in slots}
    for column in target.table.columns:
        if column not in given and is_made_here(column):
            if not stands_alone(column.default):
                return None
            slots.append(_slot(column, None, dialect))
    return slots


def is_made_here(column: Column[Any]) -> bool:
    """Return whether a column's default is a Python value or function."""
    default = column.default
    return isinstance(default, ColumnDefault) and (default.is_scalar or default.is_callable)


def _slot(column: Column[Any], field: str | None, dialect: Dialect) -> Slot:
    return Slot(column, field, _processor_of(column.type, dialect))


def _processor_of(type_: TypeEngine[Any], dialect: Dialect) -> _Processor | None:
    return type_.dialect_impl(dialect).bind_processor(dialect)


def stands_alone(default: Any) -> bool:
    """Return whether a default ignores the row; SQLAlchemy wraps such functions."""
    if default.is_scalar:
        return True
    try:
        parameters = inspect.signature(default.arg.__wrapped__).parameters.values()
    except (AttributeError, ValueError):
        return False
    return all(each.default is not each.empty or each.kind in _OPTIONAL for each in parameters)


def _rows(slots: Iterable[Slot], shape: Shape) -> list[tuple[Any, ...]]:
    given: dict[str, Sequence[Any]] = dict(zip(shape.names, shape.columns, strict=True))
    return list(zip(*(slot.values(given, shape.size) for slot in slots), strict=True))


class Route(Enum):
    """How directly rows may be passed to the driver."""

    ORDINARY = auto()  # SQLAlchemy has to rewrite statements, as for `schema_translate_map`
    WATCHED = auto()  # there are listeners to executed statements, or COPY is not allowed
    DRIVER = auto()


def route_of(session: Session, connection: Connection) -> Route:
    """Return how directly a session's rows may be passed to the driver."""
    if not are_allowed() or "schema_translate_map" in connection.get_execution_options():
        return Route.ORDINARY
    events = connection.dispatch
    is_watched = (
        listens_to_session(session, "do_orm_execute")
        or events.before_execute
        or events.after_execute
        or is_secured(connection.engine)
    )
    return Route.WATCHED if is_watched else Route.DRIVER


# --- INSERT --------------------------------------------------------------------------------------


def driver_insert(
    target: Target, statement: Insert, shape: Shape, dialect: Dialect
) -> tuple[str, list[tuple[Any, ...]]] | None:
    """Return the text of an INSERT into the table, and the rows in the form that its driver takes.

    Return None if SQLAlchemy has to execute it: it returns rows, its parameters are named, it has
    other parameters than the rows, or a value is refused, for which SQLAlchemy raises the error.
    """
    try:
        slots = slots_of(target, shape.names, dialect)
        if not slots:
            return None
        by_key = {slot.column.key: slot for slot in slots}
        compiled: Any = statement.compile(
            dialect=dialect, column_keys=list(by_key), for_executemany=True
        )
        order = compiled.positiontup
        if order is None or sorted(order) != sorted(by_key) or compiled.effective_returning:
            return None
        return str(compiled), _rows([by_key[key] for key in order], shape)
    except Exception:  # noqa: BLE001 - SQLAlchemy will raise it again
        return None


def execute_rows(text: str, rows: list[tuple[Any, ...]], connection: Connection) -> Any:
    """Execute an INSERT with many rows, and return its result."""
    return connection.exec_driver_sql(text, rows)


# --- arrays --------------------------------------------------------------------------------------


def from_arrays(target: Target, statement: Any, shape: Shape, dialect: Dialect) -> Any:
    """Return a PostgreSQL INSERT with one array parameter for each column.

    Return None if it would not write the same as one with a parameter for each value.
    """
    slots = slots_of(target, shape.names, dialect)
    if not slots or not _can_be_copied(target, slots):
        return None
    if not all(goes_into_array(slot.column.type) for slot in slots):
        return None
    given: dict[str, Sequence[Any]] = dict(zip(shape.names, shape.columns, strict=True))
    arrays = [
        bindparam(None, list(slot.raw(given, shape.size)), type_=array_of(slot.column.type))
        for slot in slots
    ]
    keys = [slot.column.key for slot in slots]
    rows = select(*(func.unnest(array) for array in arrays))
    return statement.from_select(keys, rows, include_defaults=False)


# --- COPY ----------------------------------------------------------------------------------------


def driver_copy(
    target: Target, shape: Shape, dialect: Dialect
) -> tuple[list[str], list[tuple[Any, ...]]] | None:
    """Return the columns of a COPY, and the rows in the form that its driver takes.

    Return None if they have to be inserted: COPY would not write the same, or a value is refused.
    """
    try:
        slots = slots_of(target, shape.names, dialect)
        if not slots or not _can_be_copied(target, slots):
            return None
        return [slot.column.name for slot in slots], _rows(slots, shape)
    except Exception:  # noqa: BLE001 - SQLAlchemy will raise it again
        return None


def _can_be_copied(target: Target, slots: Iterable[Slot]) -> bool:
    written = {slot.column for slot in slots}
    for column in target.table.columns:
        if column in written:
            always = column.identity is not None and column.identity.always
            if always or _is_wrapped_in_sql(column.type):
                return False
        elif column.default is not None:  # SQLAlchemy would render it into the statement
            return False
    return True


def _is_wrapped_in_sql(type_: TypeEngine[Any]) -> bool:
    return type_.bind_expression(bindparam("value", type_=NullType())) is not None
