"""Helpers for the tests of `transaction()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import inspect
from sqlmodel import select

from sqlmodel_crud_utils.aio import delete_row, write_row
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
)
from tests.models import Hero

SessionFactory = Callable[[], AsyncSession]


def hero(name: str, **values: Any) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?", **values)


async def names(engine: AsyncEngine) -> list[str]:
    """Return the committed names."""
    async with AsyncSession(engine) as reader:
        return sorted((await reader.exec(select(Hero.name))).all())


async def assert_usable(session: Any, engine: AsyncEngine) -> None:
    """The connection is back in the pool, and the session can write at once."""
    assert engine.pool.checkedout() == 0
    written, row = await write_row(hero("afterwards"), session)
    assert written
    assert "afterwards" in await names(engine)
    assert await delete_row(row.id, session, Hero)
    assert engine.pool.checkedout() == 0


def loaded(row: Any) -> bool:
    """Whether all columns can be read without a query."""
    return set(inspect(type(row)).column_attrs.keys()) <= row.__dict__.keys()
