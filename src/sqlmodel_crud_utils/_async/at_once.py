"""How a row is written with one statement, past the flush, and as if there had been one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel_crud_utils._async.operations import Rows, Write, outcome_of
from sqlmodel_crud_utils._async.queries import find_for, refuse_missing, remember
from sqlmodel_crud_utils._core.models import key_names
from sqlmodel_crud_utils._core.statements import key_values
from sqlmodel_crud_utils._runtime_async import AsyncSession, dialect_of, run_sync, sync_session
from sqlmodel_crud_utils._session.by_key import NOT_AT_ONCE, NOT_THERE, ByKey, Sought
from sqlmodel_crud_utils._session.single_inserts import insert_at_once
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, SQLModelCRUDError


def alone(write: Write, key: Any, pk_field: str | Sequence[str] | None) -> Sought | None:
    """Return the row that a write looks for, None where there is more to it than its statement."""
    if write.hooks or (write.inside and not write.strict):
        return None
    session, model = write.session, write.model
    names = key_names(model, pk_field, key)
    values = key_values(model, names, key)
    return Sought(sync_session(session), dialect_of(session, model), model, names, key, values)


async def written_at_once(
    write: Write, change: ByKey | None, *, include_deleted: bool
) -> tuple[bool, Any] | None:
    """Change or delete a row by its key, and commit outside a block.

    Args:
        write: The write.
        change: The statement; None where it takes a flush.
        include_deleted: Whether the row may be soft-deleted.

    Returns:
        Whether it was done, and the row as far as it is known; None where nothing was done, as it
        takes a SELECT and a flush.
    """
    if change is None:
        return None
    session, row, inside = write.session, change.row, write.inside

    async def work() -> Rows:
        rows = await run_sync(session, change.run, inside)
        remember(session, rows, row.model, include_deleted=include_deleted)
        return rows

    outcome = await outcome_of(write, work)
    if outcome is NOT_AT_ONCE:
        return None
    if isinstance(outcome, DatabaseConnectionError):
        raise outcome from outcome.original_error  # as from the search that was spared
    if isinstance(outcome, SQLModelCRUDError):
        found = await find_for(write, row.key, row.names, include_deleted=include_deleted)
        return False, found
    if outcome is NOT_THERE:
        refuse_missing(write, row.key, row.names)
        return False, None
    return True, outcome[0] if outcome else None


async def inserted_at_once(
    session: AsyncSession, row: Any, *, unless_there: bool = False
) -> bool | None:
    """Insert a new row; tell whether that was done, or another row was in its way.

    Returns:
        None where nothing was done, as it takes a flush.
    """
    plain, dialect = sync_session(session), dialect_of(session, type(row))
    new = insert_at_once(plain, dialect, row, unless_there=unless_there)
    return None if new is None else await run_sync(session, new.run, plain)
