"""What the tests need in two kinds; `tests/_runtime_sync.py` has the same names for sync."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession as PlainSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine as make_engine,
)
from sqlmodel.ext.asyncio.session import AsyncSession

__all__ = ["AsyncEngine", "AsyncSession", "PlainSession", "make_engine", "scoped"]


def scoped(engine: AsyncEngine, **options: Any) -> async_scoped_session[Any]:
    """Return a registry that gives each task a SQLModel session of its own."""
    maker = async_sessionmaker(engine, class_=AsyncSession, **options)
    return async_scoped_session(maker, scopefunc=asyncio.current_task)
