"""Read the history of a row, and purge old changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete
from sqlmodel import col, select

from sqlmodel_crud_utils._async._running.operations import Read, Write, run_or_raise
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keys import key_values
from sqlmodel_crud_utils._core.writes.purges import deleted_before
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    dialect_of,
    execute,
    execute_writing,
    require_session,
)
from sqlmodel_crud_utils.ext.history.models import ChangeHistory, recorded_of, recorded_of_row

__all__ = ["get_change_history", "purge_change_history"]


async def get_change_history(
    id_str: Any, session_inst: AnySession, model: type[Any]
) -> list[ChangeHistory]:
    """Return the changes of a row, oldest first.

    The history of a deleted row is kept. For models with `TenantMixin`, only changes of the tenant
    in scope are returned.

    Args:
        id_str: The primary key, coerced to the column's type. A composite key is a tuple.
        session_inst: The session to read with.
        model: The table model, with `TrackChangesMixin`.

    Returns:
        The changes. The list is empty for a row that never existed, or that has not changed since
        tracking began.

    Raises:
        ValidationError: A model without the mixin, a key of a wrong type.
        TenantError: The rows belong to tenants, and no tenant is in scope.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> from sqlmodel_crud_utils.ext.history.aio import get_change_history
        >>> from sqlmodel_crud_utils.mixins import acting_as
        >>> _, pallet = await write_row(Pallet(name="Rug", stock=48), session)
        >>> with acting_as("alice"):
        ...     _ = await update_row(pallet.id, {"stock": 49}, session, Pallet)
        >>> *_, change = await get_change_history(pallet.id, session, Pallet)
        >>> change.operation, change.changes, change.changed_by
        ('update', {'stock': [48, 49]}, 'alice')
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    dialect = dialect_of(session, facts)
    of_row = recorded_of_row(model, dialect, key_values(facts, facts.key, id_str))
    statement = select(ChangeHistory).where(*of_row).order_by(col(ChangeHistory.id))
    async with Read(session, facts, "get_change_history") as read:
        changes = list((await execute(session, statement)).scalars())
        read.rows = len(changes)
        return changes


async def purge_change_history(
    session_inst: AnySession, model: type[Any], *, older_than: timedelta | datetime
) -> int:
    """Remove a model's changes that were recorded long enough ago, with one statement.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        session_inst: The session to write with. Its pending changes are flushed first.
        model: The table model, with `TrackChangesMixin`.
        older_than: The least age of the changes; or a datetime with a time zone, before which they
            were made.

    Returns:
        The number of changes removed.

    Raises:
        ValidationError: A model without the mixin, a datetime without a time zone, a negative time.
        TenantError: The rows belong to tenants, and no tenant is in scope.
        QueryExecutionError: The database refused the statement.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> from datetime import timedelta
        >>> from sqlmodel_crud_utils.ext.history.aio import purge_change_history
        >>> await purge_change_history(session, Pallet, older_than=timedelta(days=365))
        0
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    statement = delete(ChangeHistory).where(
        *recorded_of(model, dialect_of(session, facts)),
        col(ChangeHistory.changed_at) < deleted_before(older_than),
    )

    async with Write(session, facts, "purge_change_history", raise_on_error=True) as write:

        async def work() -> Sequence[Any]:
            await session.flush()
            await write.written((await execute_writing(session, statement)).rowcount)
            return []

        await run_or_raise(write, work)
        return write.rows or 0
