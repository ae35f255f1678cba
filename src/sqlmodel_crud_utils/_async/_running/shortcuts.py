"""Take a shortcut: write a row with one statement, with the same outcome as a flush."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.orm import Session as PlainSession

from sqlmodel_crud_utils._async._running.fetching import find_for, refuse_missing, remember
from sqlmodel_crud_utils._async._running.operations import Write, outcome_of
from sqlmodel_crud_utils._async._running.refusals import Refusal, in_savepoint
from sqlmodel_crud_utils._core.chunks import fitting
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.logs import get_logger, log_failure
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.policies import Visibility
from sqlmodel_crud_utils._core.queries.keys import key_names, key_values
from sqlmodel_crud_utils._core.returned_rows import Untouched, column_values
from sqlmodel_crud_utils._core.visibility.tenancy import leads_to_tenants
from sqlmodel_crud_utils._runtime_async import (
    DRIVERS,
    AsyncSession,
    copy_rows,
    dialect_of,
    run_on_connection,
    run_sync,
    sync_session,
)
from sqlmodel_crud_utils._session.databases import begin_immediate
from sqlmodel_crud_utils._session.tenant_of_session import check_rows
from sqlmodel_crud_utils._shortcuts.by_key import ByKey, Sought
from sqlmodel_crud_utils._shortcuts.choosing import are_allowed
from sqlmodel_crud_utils._shortcuts.driver_rows import Route, driver_copy, route_of
from sqlmodel_crud_utils._shortcuts.new_row import insert_at_once
from sqlmodel_crud_utils._shortcuts.new_rows import NewRows, insert_rows, new_rows_of, take_keys
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, SQLModelCRUDError


def alone(write: Write, key: Any, pk_field: str | Sequence[str] | None) -> Sought | None:
    """Return the row that a write looks for, or None if shortcuts or this write rule it out."""
    if not are_allowed() or write.in_savepoint:
        return None
    session, facts = write.session, write.facts
    names = key_names(facts, pk_field, key)
    values = key_values(facts, names, key)
    return Sought(sync_session(session), dialect_of(session, facts), facts, names, key, values)


async def written_at_once(
    write: Write, change: ByKey | None, visibility: Visibility
) -> tuple[bool, Any] | None:
    """Update or delete a row by its key, and commit outside a block.

    Args:
        write: The write.
        change: The statement; None if a flush is needed.
        visibility: Which rows may be written to.

    Returns:
        Whether the row was written, and the row if it is known; None if nothing was done, because
        a SELECT and a flush are needed.
    """
    if change is None:
        return None
    session, row, inside = write.session, change.row, write.inside

    async def work() -> list[Any] | Untouched:
        rows = await run_sync(session, change.run, inside)
        if not isinstance(rows, Untouched):
            remember(session, rows, row.facts.model, visibility=visibility)
        return rows

    outcome = await outcome_of(write, work)
    if outcome is Untouched.NOT_AT_ONCE:
        return None
    if isinstance(outcome, DatabaseConnectionError):
        log_failure(write.name, write.model, outcome, "debug")
        raise outcome from outcome.original_error  # as the search would have, which was skipped
    if isinstance(outcome, SQLModelCRUDError):
        write.error = outcome
        found = await find_for(write, row.key, row.names, visibility=visibility)
        log_failure(write.name, write.model, outcome)
        return False, found
    if outcome is Untouched.NOT_THERE:
        refuse_missing(write, row.key, row.names)
        return False, None
    write.rows = 1
    return True, outcome[0] if outcome else None


async def inserted_at_once(
    session: AsyncSession, facts: Facts, row: Any, *, skip_existing: bool = False
) -> bool | None:
    """Insert a new row; return whether it was inserted.

    Returns:
        False if a row with one of the unique values exists; None if nothing was done, because a
        flush is needed.
    """
    if not are_allowed():
        return None
    plain, dialect = sync_session(session), dialect_of(session, facts)
    await _check_tenants(session, [row])
    new = insert_at_once(plain, dialect, facts, row, skip_existing=skip_existing)
    return None if new is None else await run_sync(session, new.run, plain)


async def add_and_flush(session: AsyncSession, rows: Sequence[Any]) -> None:
    """Add new rows to the session and write them, by a shortcut if the outcome is the same."""
    await _check_tenants(session, rows)
    if not are_allowed() or not await _written(session, rows):
        dialect = dialect_of(session, facts_of(type(rows[0])))
        for part in fitting(rows, len(rows), dialect, column_values):
            session.add_all(part)
            await session.flush()


async def _check_tenants(session: AsyncSession, rows: Sequence[Any]) -> None:
    # The tenant of a related row may have to be read.
    if any(leads_to_tenants(type(row)) for row in rows):
        await run_sync(session, check_rows, rows)


async def _written(session: AsyncSession, rows: Sequence[Any]) -> bool:
    """Write rows without a flush, all or none; return whether that was possible.

    If the database refuses them, a flush has to raise the right error.
    """
    plain = sync_session(session)
    dialect = dialect_of(session, facts_of(type(rows[0])))
    new = new_rows_of(plain, rows, dialect, DRIVERS)
    if new is None or not await run_on_connection(session, partial(_begin, plain), new.model):
        return False

    async def work() -> NewRows | None:
        written = await _write(session, new, dialect)
        savepoint = session.get_nested_transaction()
        if written is None and savepoint is not None:
            await savepoint.rollback()
        return written

    written = await in_savepoint(session, new.model, work)
    if isinstance(written, Refusal):
        kind = type(written.error).__name__
        get_logger().debug(f"rows are flushed, because the shortcut failed: {kind}")
        return False
    if written is None:
        return False
    await run_sync(session, written.attach, plain)
    return True


def _begin(session: PlainSession, connection: Connection) -> bool:
    begin_immediate(connection)
    return route_of(session, connection) is Route.DRIVER


async def _write(session: AsyncSession, new: NewRows, dialect: Dialect) -> NewRows | None:
    if features_of(dialect).single_writer:
        return await run_on_connection(session, partial(insert_rows, new, dialect), new.model)
    keyed = await run_on_connection(session, partial(take_keys, new), new.model)
    copied = None if keyed is None else driver_copy(new.target, keyed.shape, dialect)
    if copied is None:
        return None
    await copy_rows(session, new.model, new.target.table, *copied)
    return keyed
