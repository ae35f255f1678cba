"""Conditions under which a write may take a shortcut past the unit of work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session
from sqlmodel import SQLModel

from sqlmodel_crud_utils._core.listeners import has_listeners
from sqlmodel_crud_utils._core.memoizing import cached

_switched_off = False


def are_allowed() -> bool:
    """Return whether writes may take a shortcut at all."""
    return not _switched_off


@contextmanager
def switched_off() -> Iterator[None]:
    """Make every write of the program use SQLAlchemy's unit of work inside.

    The outcome is the same; the tests of behaviour run with and without shortcuts to show it.
    """
    global _switched_off  # noqa: PLW0603 - one switch for all threads
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def has_no_listeners(session: Session, *events: str) -> bool:
    """Return whether a session has no listeners to these events and no routing of its own."""
    # A custom `get_bind` may choose the database by the kind of statement.
    return type(session).get_bind is Session.get_bind and not listens_to_session(session, *events)


@cached
def sets_plainly(model: type[Any], names: tuple[str, ...]) -> bool:
    """Return whether assigning these fields has no side effects in the model's class."""
    if not issubclass(model, BaseModel):
        plain: Any = object.__setattr__
        return model.__setattr__ is plain
    config = model.model_config
    return (
        model.__setattr__ is SQLModel.__setattr__
        and not (config.get("frozen") or config.get("validate_assignment"))
        and all(
            name in model.model_fields and not model.model_fields[name].frozen for name in names
        )
    )


FLUSH = ("before_flush", "after_flush", "after_flush_postexec")


def listens_to_session(session: Session, *names: str) -> bool:
    """Return whether a session has a listener to one of these events."""
    return has_listeners(session.dispatch, names)
