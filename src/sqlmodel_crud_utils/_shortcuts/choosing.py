"""Whether a write may go past the unit of work, and what it then owes to the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session
from sqlmodel import SQLModel

from sqlmodel_crud_utils._core.listeners import is_heard
from sqlmodel_crud_utils._core.memoizing import cached

_switched_off = False


def are_allowed() -> bool:
    """Return whether writes may take a shortcut at all."""
    return not _switched_off


@contextmanager
def switched_off() -> Iterator[None]:
    """Let every write of the program go through the unit of work, and through SQLAlchemy, inside.

    The outcome is the same; the tests of behaviour run both ways to show it.
    """
    global _switched_off  # noqa: PLW0603 - one switch for all threads
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def is_unheard(session: Session, *events: str) -> bool:
    """Return whether nobody wants to know, or to decide, how a session writes."""
    # A session that routes statements to several databases goes by the kind of statement.
    return type(session).get_bind is Session.get_bind and not listens_to_session(session, *events)


@cached
def sets_plainly(model: type[Any], names: tuple[str, ...]) -> bool:
    """Return whether to set fields of an instance is all that its class does then."""
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
    """Return whether somebody listens to one of these events of a session."""
    return is_heard(session.dispatch, names)
