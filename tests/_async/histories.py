"""Helpers for the tests of the history."""

from __future__ import annotations

from typing import Any

from sqlmodel_crud_utils.aio import (
    write_row,
)
from sqlmodel_crud_utils.ext.history.aio import (
    get_change_history,
)
from tests._runtime_async import (
    AsyncSession,
)
from tests.history_models import (
    Pallet,
)


async def changes_of(session: AsyncSession, row_key: Any, model: type[Any]) -> list[Any]:
    """Return what was changed in a row: operations with the changes of the fields."""
    found = await get_change_history(row_key, session, model)
    return [(each.operation, each.changes) for each in found]


async def new_pallet(session: AsyncSession, name: str = "a", stock: int = 1) -> Any:
    """Write a pallet, and return its key."""
    _, pallet = await write_row(Pallet(name=name, stock=stock), session)
    return pallet.id
