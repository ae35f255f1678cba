"""Helpers for the tests of hooks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlmodel import select

from sqlmodel_crud_utils.aio import delete_row, transaction, update_row, write_row
from sqlmodel_crud_utils.hooks import clear_hooks
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.hook_models import (
    Event,
    Page,
    Project,
    Task,
)

inside_and_outside = pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])


@asynccontextmanager
async def block(session: AsyncSession, inside: bool) -> AsyncIterator[None]:
    """A transaction() block, or nothing."""
    if inside:
        async with transaction(session, wrap_errors=False):
            yield
    else:
        yield


async def committed(engine: AsyncEngine, model: type[Any]) -> list[str]:
    """The titles, names or texts of the rows that are committed, by their keys."""
    async with AsyncSession(engine) as reader:
        rows = (await reader.exec(select(model).order_by(model.id))).all()
    found = {Task: "title", Page: "title", Project: "name", Event: "text"}[model]
    return [getattr(row, found) for row in rows]


async def is_usable(session: AsyncSession) -> bool:
    """Return whether a session can write and read normally."""
    clear_hooks()
    written, task = await write_row(Task(title="afterwards"), session)
    assert written
    assert task is not None
    return await delete_row(task.id, session, Task)


async def existing_row(session: AsyncSession, title: str, model: Any = Task) -> Any:
    """Write a row without hooks, and return it."""
    row = model(title=title)
    session.add(row)
    await session.commit()
    await session.refresh(row)
    return row


async def perform(operation: str, session: AsyncSession, task: Task, **options: Any) -> Any:
    """Create a row, or update or delete the given one."""
    if operation == "create":
        return await write_row(Task(title="new"), session, **options)
    if operation == "update":
        return await update_row(task.id, {"title": "changed"}, session, Task, **options)
    return await delete_row(task.id, session, Task, **options)
