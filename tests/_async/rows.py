"""Rows that a test begins with, and those that it finds in the end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, inspect, select

from tests._runtime_async import AsyncSession, execute, fetched, first_of


async def given(session: AsyncSession, *rows: Any) -> None:
    """Write rows with plain SQLAlchemy, and forget them."""
    session.add_all(rows)
    await session.commit()
    session.expunge_all()


async def stored_rows(session: AsyncSession, model: type[Any]) -> list[Any]:
    """Return the rows as another session sees them, in the order of their keys."""
    async with AsyncSession(session.bind) as other:
        rows = fetched(await execute(other, select(model)))
    return sorted(rows, key=lambda row: inspect(row).identity)


async def count_of(session: AsyncSession, model: type[Any]) -> Any:
    """Return how many rows there are."""
    async with AsyncSession(session.bind) as other:
        return first_of(await execute(other, select(func.count()).select_from(model)))
