"""The primitives of the cases that differ between the APIs; `_runtime_async.py` is the twin."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from sqlalchemy import Engine, ScalarResult, create_engine
from sqlmodel import Session

import sqlmodel_crud_utils.sync as library
from benchmarks.databases import tune

__all__ = [
    "API",
    "Engine",
    "Session",
    "library",
    "make_engine",
    "make_pooled_engine",
    "open_rows",
    "plain_engine",
    "together",
]

API = "sync"


def make_engine(url: str, **options: Any) -> Engine:
    """Return an engine created with plain SQLAlchemy."""
    engine = create_engine(url, **options)
    tune(engine)
    return engine


def make_pooled_engine(url: str, **options: Any) -> Engine:
    """Return an engine created by the library."""
    engine = library.create_pooled_engine(url, **options)
    tune(engine)
    return engine


def plain_engine(engine: Engine) -> Engine:
    """Return the engine; the async twin unwraps it."""
    return engine


def open_rows(session: Session, statement: Any) -> ScalarResult[Any]:
    """Execute a SELECT of a model, and stream its rows."""
    return session.scalars(statement)


def together(function: Callable[[], Any], times: int) -> list[Any]:
    """Call a function many times concurrently, in existing threads."""
    calls = [_threads(times).submit(function) for _ in range(times)]
    return [call.result() for call in calls]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)
