"""Reading the history of a row, and purging what is old."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete
from sqlmodel import col, select

from sqlmodel_crud_utils._async._running.operations import Read, Write, insist
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keys import key_values
from sqlmodel_crud_utils._core.writes.purges import deleted_before
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    execute,
    execute_writing,
    require_session,
)
from sqlmodel_crud_utils.ext.history.models import ChangeHistory, recorded_of
from sqlmodel_crud_utils.ext.history.values import key_text

__all__ = ["get_change_history", "purge_change_history"]


async def get_change_history(
    id_str: Any, session_inst: AnySession, model: type[Any]
) -> list[ChangeHistory]:
    """Return what was changed in a row, the oldest change first.

    Rows that are deleted keep their history. Of rows with a `TenantMixin` it is that of the tenant
    in scope.

    Args:
        id_str: The primary key; it is coerced to the column's type. A composite key is a tuple.
        session_inst: The session to read with.
        model: The table model; it has `TrackChangesMixin`.

    Returns:
        The changes; none for a row that never was there, or was made before it was tracked.

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
    criteria, facts = recorded_of(model), facts_of(model)
    key = key_text(key_values(facts, facts.key, id_str))
    statement = (
        select(ChangeHistory)
        .where(*criteria, col(ChangeHistory.row_key) == key)
        .order_by(col(ChangeHistory.id))
    )
    async with Read(session, facts, "get_change_history") as read:
        changes = list((await execute(session, statement)).scalars())
        read.rows = len(changes)
        return changes


async def purge_change_history(
    session_inst: AnySession, model: type[Any], *, older_than: timedelta | datetime
) -> int:
    """Remove what was recorded of a model's rows long enough ago, with one statement.

    Outside a `transaction()` block the session is committed, or rolled back after a failure, with
    everything else that was pending in it. Inside a block nothing is committed.

    Args:
        session_inst: The session to write with. What is pending in it is flushed first.
        model: The table model; it has `TrackChangesMixin`.
        older_than: How long ago the changes were made at least, or the moment before which they
            were, with a time zone.

    Returns:
        The number of changes that are forgotten.

    Raises:
        ValidationError: A model without the mixin, a moment without a time zone, a negative time.
        TenantError: The rows belong to tenants, and no tenant is in scope.
        QueryExecutionError: The database refuses it.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> from datetime import timedelta
        >>> from sqlmodel_crud_utils.ext.history.aio import purge_change_history
        >>> await purge_change_history(session, Pallet, older_than=timedelta(days=365))
        0
    """
    session = require_session(session_inst)
    statement = delete(ChangeHistory).where(
        *recorded_of(model), col(ChangeHistory.changed_at) < deleted_before(older_than)
    )

    facts = facts_of(model)
    async with Write(session, facts, "purge_change_history", raise_on_error=True) as write:

        async def work() -> Sequence[Any]:
            await session.flush()
            await write.written((await execute_writing(session, statement)).rowcount)
            return []

        await insist(write, work)
        return write.rows or 0
