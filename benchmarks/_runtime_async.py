"""What the cases need in two kinds; `_runtime_sync.py` has the same names for sync."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncScalarResult, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

import sqlmodel_crud_utils.aio as library
from benchmarks.databases import tune

__all__ = [
    "API",
    "AsyncEngine",
    "AsyncSession",
    "library",
    "make_engine",
    "make_pooled_engine",
    "open_rows",
    "plain_engine",
    "together",
]

API = "async"


def make_engine(url: str, **options: Any) -> AsyncEngine:
    """Return an engine created with plain SQLAlchemy."""
    engine = create_async_engine(url, **options)
    tune(engine.sync_engine)
    return engine


def make_pooled_engine(url: str, **options: Any) -> AsyncEngine:
    """Return an engine created by the library."""
    engine = library.create_pooled_engine(url, **options)
    tune(engine.sync_engine)
    return engine


def plain_engine(engine: AsyncEngine) -> Engine:
    """Return the plain engine inside."""
    return engine.sync_engine


async def open_rows(session: AsyncSession, statement: Any) -> AsyncScalarResult[Any]:
    """Execute a SELECT of a model, and stream its rows."""
    return await session.stream_scalars(statement)


async def together(function: Callable[[], Awaitable[Any]], times: int) -> list[Any]:
    """Call a function many times concurrently."""
    return await asyncio.gather(*(function() for _ in range(times)))
