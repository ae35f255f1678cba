"""Primitives of the tests that differ between the APIs; `tests/_runtime_sync.py` is the twin."""

from __future__ import annotations

import asyncio
from asyncio import Barrier
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Engine, Executable, Result
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession as PlainSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine as make_engine,
)
from sqlalchemy.orm import Session
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.results import fetched, first_of

__all__ = [
    "AsyncEngine",
    "AsyncSession",
    "Barrier",
    "PlainSession",
    "answer",
    "dialect_of",
    "execute",
    "fetched",
    "first_of",
    "in_thread",
    "make_engine",
    "make_sqlite",
    "make_tables",
    "pause",
    "routing",
    "run_on_connection",
    "run_sync",
    "scoped",
    "sync_engine",
    "sync_session",
    "together",
]

_R = TypeVar("_R")


async def execute(session: PlainSession, statement: Executable, params: Any = None) -> Result[Any]:
    """Execute a test's own statement; SQLModel's sessions warn about `execute`."""
    return await PlainSession.execute(session, statement, params)


async def run_sync(session: PlainSession, func: Callable[..., _R], *args: Any) -> _R:
    """Call a test's own function that does I/O with the plain session."""
    return await session.run_sync(lambda _: func(*args))


async def run_on_connection(session: PlainSession, func: Callable[[Connection], _R]) -> _R:
    """Call a function with the connection of the session's transaction."""
    return await session.run_sync(lambda plain: func(plain.connection()))


def sync_session(session: PlainSession) -> Session:
    """Return the plain session, for its events and its state."""
    return session.sync_session


def sync_engine(engine: AsyncEngine) -> Engine:
    """Return the plain engine, for its events and its pool."""
    return engine.sync_engine


def dialect_of(session: PlainSession) -> Dialect:
    """Return the dialect of the session's database."""
    return session.get_bind().dialect


def routing(choose: Callable[..., Any]) -> AsyncSession:
    """Return a session that asks a function for the engine of each statement."""

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
            return choose(self, mapper, clause)

    return AsyncSession(sync_session_class=Routing)


def make_sqlite(name: str = ":memory:", **options: Any) -> AsyncEngine:
    """Return a plain engine for a file of SQLite, or for one in memory."""
    return make_engine(f"sqlite+aiosqlite:///{name}", **options)


async def make_tables(engine: AsyncEngine, *models: type[SQLModel]) -> None:
    """Create the tables of some models; creating all takes a fifth of a second."""
    async with engine.begin() as connection:
        await connection.run_sync(
            SQLModel.metadata.create_all,
            [SQLModel.metadata.tables[str(m.__tablename__)] for m in models],
        )


async def answer(schema: Any, source: str, context: Any, variables: Any = None) -> Any:
    """Execute a GraphQL query on a schema of graphql-core or Strawberry."""
    if hasattr(schema, "execute"):
        return await schema.execute(source, context_value=context, variable_values=variables)
    from graphql import graphql

    return await graphql(schema, source, context_value=context, variable_values=variables)


async def together(*functions: Callable[[], Awaitable[None]]) -> None:
    """Run functions concurrently, each in its own task."""
    await asyncio.gather(*(function() for function in functions))


async def pause(seconds: float) -> None:
    """Sleep, so that others can proceed."""
    await asyncio.sleep(seconds)


async def in_thread(function: Callable[[], Any]) -> None:
    """Call a blocking function in a thread."""
    await asyncio.to_thread(function)


def scoped(engine: AsyncEngine, **options: Any) -> async_scoped_session[Any]:
    """Return a registry with a separate SQLModel session for each task."""
    maker = async_sessionmaker(engine, class_=AsyncSession, **options)
    return async_scoped_session(maker, scopefunc=asyncio.current_task)
