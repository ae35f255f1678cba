"""What the tests need in two kinds; `tests/_runtime_async.py` has the same names for async."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine as make_engine
from sqlalchemy.orm import Session as PlainSession, scoped_session, sessionmaker
from sqlmodel import Session

__all__ = ["Engine", "PlainSession", "Session", "make_engine", "scoped"]


def scoped(engine: Engine, **options: Any) -> scoped_session[Any]:
    """Return a registry that gives each thread a SQLModel session of its own."""
    return scoped_session(sessionmaker(engine, class_=Session, **options))
