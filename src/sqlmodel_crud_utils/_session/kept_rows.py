"""Rows that stayed loaded after a commit, and so may be outdated.

SQLAlchemy never overwrites what an object holds. Without this note, the next read would return the
values from before the commit, and an update based on them would undo what others wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import InstanceState, Session

from sqlmodel_crud_utils._core.listeners import has_listeners
from sqlmodel_crud_utils._core.returned_rows import states_of
from sqlmodel_crud_utils._session import state
from sqlmodel_crud_utils._session.sqlalchemy_internals import has_deleted, is_clean
from sqlmodel_crud_utils._session.state import noted, state_of


def are_all(session: Session, states: Sequence[InstanceState[Any]]) -> bool:
    """Return whether the session holds these rows and no other object that a commit changes."""
    held = session.identity_map
    return (
        0 < len(states) == len(held)
        and is_clean(session)
        and not has_listeners(session.dispatch, ("before_commit",))  # they may write more
        and all(map(held.contains_state, states))
        and not any(state.callables for state in states)
        and not has_deleted(session)
    )


@contextmanager
def without_expiry(session: Session) -> Iterator[None]:
    """Let a commit inside expire nothing."""
    session.expire_on_commit = False
    try:
        yield
    finally:
        session.expire_on_commit = True


def note(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Note the rows that a commit left loaded; all others have expired."""
    kept = set(states)
    if kept:
        state_of(session).kept = kept
    else:
        state.forget(session, "kept")


def note_more(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Note rows that may be outdated for a reason other than a commit."""
    kept = noted(session).kept or set()
    kept.update(states)
    state_of(session).kept = kept


def forget(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Forget rows that were read again."""
    kept = noted(session).kept
    if kept is not None:
        kept.difference_update(states)


def keys_among(session: Session, rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return the primary keys of those rows that are kept."""
    kept = noted(session).kept
    if not kept:
        return []
    states = states_of(rows)
    return [each.identity for each in states if each in kept and each.identity is not None]


def has_any(session: Session) -> bool:
    """Return whether the session holds kept rows; expunged ones may live on elsewhere."""
    kept = noted(session).kept
    return kept is not None and any(each.session is session for each in kept)
