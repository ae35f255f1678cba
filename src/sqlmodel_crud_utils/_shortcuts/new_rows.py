"""New rows that are written without a flush and end up in the same state as after one.

A flush checks row by row what is checked here for all rows at once: that nothing depends on the
rows, that there are no listeners, and that only their columns have to be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from types import NoneType
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Dialect, Integer, func, select, text
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql.expression import ClauseElement

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.listeners import listens_to_rows
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.writes.copying import quoted_name_of
from sqlmodel_crud_utils._core.writes.insert_statements import insert_into
from sqlmodel_crud_utils._core.writes.shapes import ColumnValues, Shape
from sqlmodel_crud_utils._core.writes.targets import Target, target_of
from sqlmodel_crud_utils._session import changes
from sqlmodel_crud_utils._session.changes import Change
from sqlmodel_crud_utils._session.sqlalchemy_internals import add_pending, register_persistent
from sqlmodel_crud_utils._shortcuts.choosing import FLUSH, listens_to_session
from sqlmodel_crud_utils._shortcuts.driver_rows import (
    driver_insert,
    execute_rows,
    is_made_here,
    stands_alone,
)

# Fewer rows are not worth it.
QUICK_FROM = 100

_SQL = "__clause_element__"


class NewRows(NamedTuple):
    """Pending objects of one model.

    Attributes:
        target: The table that they are written to.
        states: Their states.
        shape: The values of their fields.
        filled: The fields that the objects lack.
        key: The key field that the database generates, if any.
    """

    target: Target
    states: list[InstanceState[Any]]
    shape: Shape
    filled: tuple[str, ...]
    key: str | None

    @property
    def model(self) -> type[Any]:
        """Their model."""
        return self.target.model

    def keyed(self, keys: ColumnValues) -> NewRows:
        """Return the rows with the keys that the database has generated."""
        key = self.key or ""
        shape = self.shape
        shape = shape._replace(names=(*shape.names, key), columns=[*shape.columns, keys])
        return self._replace(shape=shape, filled=(*self.filled, key), key=None)

    def attach(self, session: Session) -> None:
        """Make the objects persistent and fill in generated values, as a flush does."""
        columns = dict(zip(self.shape.names, self.shape.columns, strict=True))
        for name in self.filled:
            for state, value in zip(self.states, columns[name], strict=True):
                state.dict[name] = value
        add_pending(session, self.states)
        register_persistent(session, self.states)
        self._report(session)

    def _report(self, session: Session) -> None:
        if changes.need_of(self.model):
            keys = [tuple(state.identity or ()) for state in self.states]
            names = self.target.columns
            values = [{name: state.dict.get(name) for name in names} for state in self.states]
            changes.report(session, Change(self.model, "create", keys, values))


def new_rows_of(
    session: Session, rows: Sequence[Any], dialect: Dialect, drivers: Mapping[str, str]
) -> NewRows | None:
    """Return the rows if they can be written without a flush, or else None.

    Args:
        session: The session that writes; nothing is queried here.
        rows: The rows.
        dialect: The dialect of its database.
        drivers: The supported driver of each database.
    """
    facts = facts_of(type(rows[0]))
    features = features_of(dialect)
    knows_keys = features.single_writer or features.has_copy
    knows_how = knows_keys and dialect.driver == drivers[dialect.name]
    if len(rows) < QUICK_FROM or not knows_how:
        return None
    if not facts.is_plain or len(facts.columns) < 2 or not _is_idle(session, facts):
        return None
    states = [instance_state(row) for row in rows]
    if len(set(states)) < len(states) or not all(_is_fresh(facts, state) for state in states):
        return None
    return _with_values(target_of(facts.model), states)


def _is_idle(session: Session, facts: Facts) -> bool:
    """Return whether a flush would have nothing else to do, and no listeners to call."""
    if session.new or session.dirty or session.deleted:
        return False
    if type(session).flush is not Session.flush:
        return False
    is_written_unheard = not listens_to_rows(facts, "insert")
    return is_written_unheard and not listens_to_session(session, *FLUSH)


def _is_fresh(facts: Facts, state: InstanceState[Any]) -> bool:
    """Return whether a row is new and not linked with other rows."""
    if state.key is not None or state.class_ is not facts.model:
        return False
    loaded = state.dict
    return not any(loaded.get(name) for name in facts.relationships)


# --- values --------------------------------------------------------------------------------------


def _with_values(target: Target, states: list[InstanceState[Any]]) -> NewRows | None:
    names = tuple(target.columns)
    try:
        rows = [itemgetter(*names)(state.dict) for state in states]
    except KeyError:  # a field that was never set is left to the flush
        return None
    given: dict[str, ColumnValues] = {}
    filled: list[str] = []
    key = None
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        if set(map(type, values)) == {NoneType} and _is_counted(target.columns[name]):
            key = name
            continue
        written = _written(target, name, values)
        if written is None:
            return None
        given[name] = written
        if written is not values:
            filled.append(name)
    shape = Shape(0, len(states), tuple(given), list(given.values()))
    return NewRows(target, states, shape, tuple(filled), key)


def _written(target: Target, name: str, values: ColumnValues) -> ColumnValues | None:
    """Return the values that a flush would write for a field, or None if only a flush knows."""
    column, kinds = target.columns[name], set(map(type, values))
    if any(issubclass(kind, ClauseElement) or hasattr(kind, _SQL) for kind in kinds):
        return None
    if name == target.facts.version:
        generator = target.facts.mapper.version_id_generator
        return [generator(None) for _ in values] if callable(generator) else None
    if NoneType not in kinds or column.type.should_evaluate_none or not _is_filled(column):
        return values
    if len(kinds) > 1 or not is_made_here(column) or not stands_alone(column.default):
        return None
    default: Any = column.default
    return [default.arg if default.is_scalar else default.arg(None) for _ in values]


def _is_filled(column: Column[Any]) -> bool:
    """Return whether a column without a value may become anything but NULL."""
    has_default = column.default is not None or column.server_default is not None
    return has_default or column.primary_key or column.computed is not None


def _is_counted(column: Column[Any]) -> bool:
    counted = column is column.table.autoincrement_column and isinstance(column.type, Integer)
    return counted and column.default is None and column.server_default is None


# --- written -------------------------------------------------------------------------------------

_TAKE_KEYS = text(
    "WITH owned AS MATERIALIZED (SELECT pg_get_serial_sequence(:table, :column)::regclass AS keys)"
    " SELECT nextval(keys) FROM owned, generate_series(1, :count)"
)


def take_keys(new: NewRows, connection: Connection) -> NewRows | None:
    """Return the rows with keys from PostgreSQL's sequence, or None if the column owns none."""
    if new.key is None:
        return new
    table = new.target.table
    parameters = {
        "table": quoted_name_of(table),
        "column": new.target.columns[new.key].name,
        "count": new.shape.size,
    }
    keys = connection.execute(_TAKE_KEYS, parameters).scalars().all()
    return None if None in keys else new.keyed(keys)


def insert_rows(new: NewRows, dialect: Dialect, connection: Connection) -> NewRows | None:
    """Insert the rows on SQLite, which has a single writer; return them with their keys.

    Return None if the keys are unclear, because other rows were inserted too, as by a trigger.
    """
    prepared = driver_insert(new.target, insert_into(new.target.table), new.shape, dialect)
    if prepared is None:
        return None
    if new.key is None:
        execute_rows(*prepared, connection)
        return new
    key = new.target.columns[new.key]
    highest = connection.execute(select(func.max(key))).scalar()
    execute_rows(*prepared, connection)
    made = select(func.min(key), func.max(key), func.count(key))
    above = made if highest is None else made.where(key > highest)
    lowest, last, count = connection.execute(above).one()
    keys = range(lowest, last + 1)
    return new.keyed(keys) if count == len(keys) == new.shape.size else None
