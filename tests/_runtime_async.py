"""What the tests need in two kinds; `tests/_runtime_sync.py` has the same names for sync."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession as PlainSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine as make_engine,
)
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

__all__ = [
    "AsyncEngine",
    "AsyncSession",
    "PlainSession",
    "make_engine",
    "make_sqlite",
    "make_tables",
    "scoped",
    "together",
]


def make_sqlite(name: str = ":memory:", **options: Any) -> AsyncEngine:
    """Return a plain engine for a file of SQLite, or for one in memory."""
    return make_engine(f"sqlite+aiosqlite:///{name}", **options)


async def make_tables(engine: AsyncEngine) -> None:
    """Create all tables."""
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)


async def together(*functions: Callable[[], Awaitable[None]]) -> None:
    """Run functions side by side, each in a task of its own."""
    await asyncio.gather(*(function() for function in functions))


def scoped(engine: AsyncEngine, **options: Any) -> async_scoped_session[Any]:
    """Return a registry that gives each task a SQLModel session of its own."""
    maker = async_sessionmaker(engine, class_=AsyncSession, **options)
    return async_scoped_session(maker, scopefunc=asyncio.current_task)
