"""What the tests need in two kinds; `tests/_runtime_async.py` has the same names for async."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Engine, create_engine as make_engine
from sqlalchemy.orm import Session as PlainSession, scoped_session, sessionmaker
from sqlmodel import Session, SQLModel

__all__ = [
    "Engine",
    "PlainSession",
    "Session",
    "make_engine",
    "make_sqlite",
    "make_tables",
    "scoped",
    "together",
]


def make_sqlite(name: str = ":memory:", **options: Any) -> Engine:
    """Return a plain engine for a file of SQLite, or for one in memory."""
    return make_engine(f"sqlite:///{name}", **options)


def make_tables(engine: Engine) -> None:
    """Create all tables."""
    SQLModel.metadata.create_all(engine)


def together(*functions: Callable[[], None]) -> None:
    """Run functions side by side, each in a thread of its own."""
    with ThreadPoolExecutor(len(functions)) as threads:
        for done in [threads.submit(function) for function in functions]:
            done.result()


def scoped(engine: Engine, **options: Any) -> scoped_session[Any]:
    """Return a registry that gives each thread a SQLModel session of its own."""
    return scoped_session(sessionmaker(engine, class_=Session, **options))
