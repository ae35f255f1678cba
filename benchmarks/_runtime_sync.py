"""What the cases need in two kinds; `_runtime_async.py` has the same names for async."""

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
    """Return an engine made by hand."""
    engine = create_engine(url, **options)
    tune(engine)
    return engine


def make_pooled_engine(url: str, **options: Any) -> Engine:
    """Return an engine of the library."""
    engine = library.create_pooled_engine(url, **options)
    tune(engine)
    return engine


def plain_engine(engine: Engine) -> Engine:
    """Return the engine; the async twin unwraps it."""
    return engine


def open_rows(session: Session, statement: Any) -> ScalarResult[Any]:
    """Execute a SELECT of a model, for rows that are read one after the other."""
    return session.scalars(statement)


def together(function: Callable[[], Any], times: int) -> list[Any]:
    """Call a function many times side by side, in threads that exist already."""
    calls = [_threads(times).submit(function) for _ in range(times)]
    return [call.result() for call in calls]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)
