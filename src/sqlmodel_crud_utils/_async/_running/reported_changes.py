"""Report changes to subscribers that may query the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel_crud_utils._core.queries.keys import Key
from sqlmodel_crud_utils._runtime_async import AsyncSession, run_sync, sync_session
from sqlmodel_crud_utils._session import changes
from sqlmodel_crud_utils._session.changes import Change


async def report(session: AsyncSession, change: Change) -> None:
    """Report to subscribers that rows were written."""
    if changes.need_of(change.model):
        await run_sync(session, changes.report, sync_session(session), change)


async def announce(session: AsyncSession, model: type[Any], keys: Sequence[Key]) -> None:
    """Pass the keys of the rows that a write may reach to the witnesses."""
    await run_sync(session, changes.announce_keys, sync_session(session), model, keys)
