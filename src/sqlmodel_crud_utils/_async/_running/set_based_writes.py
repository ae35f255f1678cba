"""Run a set-based UPDATE or DELETE, and report the rows it reached to subscribers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Delete, Executable, Insert, Update, select

from sqlmodel_crud_utils._async._running.reported_changes import announce, report
from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.queries.keys import among_keys, key_chunks
from sqlmodel_crud_utils._core.writes.table_writes import WriteKind
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    dialect_of,
    execute_writing,
    run_on_connection,
    run_sync,
    sync_session,
)
from sqlmodel_crud_utils._session.changes import (
    REPORTED,
    Change,
    Need,
    need_of,
    recording_of,
)
from sqlmodel_crud_utils._session.databases import begin_immediate

_ROWS_AT_ONCE = 1_000
"""How many rows are read back after a write, and reported to subscribers, at once."""


async def write_set(
    session: AsyncSession,
    facts: Facts,
    statement: Update | Delete,
    criteria: Sequence[ColumnElement[bool]],
    options: Mapping[str, Any],
) -> int:
    """Execute an UPDATE or DELETE, and return how many rows it reached.

    Args:
        session: The session that writes.
        facts: The facts of the rows' model.
        statement: The statement.
        criteria: Its criteria.
        options: The execution options of the statement.
    """
    need = need_of(facts.model)
    if need < Need.KEYS:
        count: int = (await execute_writing(session, statement, execution_options=options)).rowcount
        return count
    operation: WriteKind = "update" if isinstance(statement, Update) else "delete"
    names = tuple(facts.columns) if need >= Need.ROWS and operation == "update" else ()
    options = {**options, **REPORTED}
    if need >= Need.BEFORE:
        recorded = await _recorded_at_once(session, facts, statement, criteria, options)
        if recorded is not None:
            await report(session, Change(facts.model, operation))
            return recorded
    if need < Need.BEFORE and _returns_rows(session, facts, operation):
        found = _columns(facts, names)
        rows = await _fetched(session, statement.returning(*found), options)
    else:
        # The locks keep others from changing the matching rows in between.
        await run_on_connection(session, begin_immediate, facts.model)
        keys = select(*_columns(facts, ())).where(*criteria).with_for_update()
        rows = await _fetched(session, keys, {})
        if need >= Need.BEFORE:
            statement = await _announced(session, facts, statement, rows)
        await execute_writing(session, statement, execution_options=options)
        for part in chunked(rows, _ROWS_AT_ONCE):
            written = await rows_of_keys(session, facts, names, part) if names else part
            await report(session, change_of(facts, operation, names, written))
        return len(rows)
    if rows:
        await report(session, change_of(facts, operation, names, rows))
    return len(rows)


async def _recorded_at_once(
    session: AsyncSession,
    facts: Facts,
    statement: Update | Delete,
    criteria: Sequence[ColumnElement[bool]],
    options: Mapping[str, Any],
) -> int | None:
    """Write with a record made by the database alone; return None if rows have to be read."""
    plain = sync_session(session)
    record = recording_of(plain, facts.model, statement, criteria)
    if record is None:
        return None
    async with session.begin_nested() as savepoint:
        seen = await run_sync(session, record)
        result = await execute_writing(session, statement, execution_options=options)
        count: int = result.rowcount
        if seen in (None, count):
            return count
        # Rows that others inserted meanwhile were written but not recorded.
        await savepoint.rollback()
    return None


async def _announced(
    session: AsyncSession, facts: Facts, statement: Any, rows: Sequence[Any]
) -> Any:
    """Announce the rows; return the statement limited to them, if one list can hold all keys."""
    keys, dialect = [tuple(row) for row in rows], dialect_of(session, facts)
    await announce(session, facts.model, keys)
    if len(next(key_chunks(facts.model, facts.key, keys, dialect), ())) < len(keys):
        return statement
    return statement.where(among_keys(facts.model, facts.key, keys, dialect))


async def insert_returning(
    session: AsyncSession,
    facts: Facts,
    statement: Insert,
    parameters: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    options: Mapping[str, Any],
) -> Sequence[Any]:
    """Insert rows, and return the key and some fields of each that was inserted.

    Args:
        session: The session that writes.
        facts: The facts of the rows' model.
        statement: The INSERT, which may skip duplicates.
        parameters: The rows.
        names: The fields to return after the key.
        options: The execution options of the statement.
    """
    if dialect_of(session, facts).insert_executemany_returning:
        returning = statement.returning(*_columns(facts, names))
        result = await execute_writing(session, returning, parameters, execution_options=options)
        rows: Sequence[Any] = result.all()
        return rows
    keys = [
        (
            await execute_writing(session, statement, row, execution_options=options)
        ).inserted_primary_key
        for row in parameters
    ]
    return await rows_of_keys(session, facts, names, keys)


async def rows_of_keys(
    session: AsyncSession, facts: Facts, names: Sequence[str], keys: Sequence[Any]
) -> Sequence[Any]:
    """Return the key and some fields of the rows that have these keys."""
    columns, listed = _columns(facts, names), [tuple(key) for key in keys]
    dialect = dialect_of(session, facts)
    rows: list[Any] = []
    for chunk in key_chunks(facts.model, facts.key, listed, dialect):
        among = among_keys(facts.model, facts.key, chunk, dialect)
        rows += await _fetched(session, select(*columns).where(among), {})
    return rows


def change_of(
    facts: Facts, operation: WriteKind, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Change:
    """Return the change for rows that consist of their keys, then values of some fields."""
    width = len(facts.key)
    keys = [tuple(row[:width]) for row in rows]
    values = [dict(zip(names, row[width:], strict=True)) for row in rows] if names else None
    return Change(facts.model, operation, keys, values)


def _returns_rows(session: AsyncSession, facts: Facts, operation: WriteKind) -> bool:
    dialect = dialect_of(session, facts)
    can = dialect.update_returning if operation == "update" else dialect.delete_returning
    return can and facts.is_one_table


def _columns(facts: Facts, names: Sequence[str]) -> list[Any]:
    return [facts.attributes[name] for name in (*facts.key, *names)]


async def _fetched(
    session: AsyncSession, statement: Executable, options: Mapping[str, Any]
) -> Sequence[Any]:
    rows: Sequence[Any] = (
        await execute_writing(session, statement, execution_options=options)
    ).all()
    return rows
