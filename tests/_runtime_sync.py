"""Primitives of the tests that differ between the APIs; `tests/_runtime_async.py` is the twin."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Dialect,
    Engine,
    Executable,
    Result,
    create_engine as make_engine,
)
from sqlalchemy.orm import Session as PlainSession, scoped_session, sessionmaker
from sqlmodel import Session, SQLModel

from tests.results import fetched, first_of

__all__ = [
    "Barrier",
    "Engine",
    "PlainSession",
    "Session",
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


def execute(session: PlainSession, statement: Executable, params: Any = None) -> Result[Any]:
    """Execute a test's own statement; SQLModel's sessions mark `execute` as deprecated."""
    return PlainSession.execute(session, statement, params)


def run_sync(session: PlainSession, func: Callable[..., _R], *args: Any) -> _R:
    """Call a test's own function that does I/O with the session."""
    return func(*args)


def run_on_connection(session: PlainSession, func: Callable[[Connection], _R]) -> _R:
    """Call a function with the connection of the session's transaction."""
    return func(session.connection())


def sync_session(session: PlainSession) -> PlainSession:
    """Return the session itself."""
    return session


def sync_engine(engine: Engine) -> Engine:
    """Return the engine itself."""
    return engine


def dialect_of(session: PlainSession) -> Dialect:
    """Return the dialect of the session's database."""
    return session.get_bind().dialect


def routing(choose: Callable[..., Any]) -> Session:
    """Return a session that asks a function for the engine of each statement."""

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
            return choose(self, mapper, clause)

    return Routing()


def make_sqlite(name: str = ":memory:", **options: Any) -> Engine:
    """Return a plain engine for a file of SQLite, or for one in memory."""
    return make_engine(f"sqlite:///{name}", **options)


def make_tables(engine: Engine, *models: type[SQLModel]) -> None:
    """Create the tables of some models; creating all takes a fifth of a second."""
    SQLModel.metadata.create_all(
        engine, [SQLModel.metadata.tables[str(m.__tablename__)] for m in models]
    )


def answer(schema: Any, source: str, context: Any, variables: Any = None) -> Any:
    """Execute a GraphQL query on a schema of graphql-core or Strawberry."""
    if hasattr(schema, "execute_sync"):
        return schema.execute_sync(source, context_value=context, variable_values=variables)
    from graphql import graphql_sync

    return graphql_sync(schema, source, context_value=context, variable_values=variables)


def together(*functions: Callable[[], None]) -> None:
    """Run functions concurrently, each in its own thread."""
    with ThreadPoolExecutor(len(functions)) as threads:
        for done in [threads.submit(function) for function in functions]:
            done.result()


def pause(seconds: float) -> None:
    """Sleep, so that others can proceed."""
    sleep(seconds)


def in_thread(function: Callable[[], Any]) -> None:
    """Call a blocking function; this is already a thread."""
    function()


def scoped(engine: Engine, **options: Any) -> scoped_session[Any]:
    """Return a registry with a separate SQLModel session for each thread."""
    return scoped_session(sessionmaker(engine, class_=Session, **options))
