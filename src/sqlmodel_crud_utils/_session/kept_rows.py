"""Rows that stayed loaded beyond a commit, and so may be older than what the database has now.

SQLAlchemy never overwrites what an object holds. Without this note the next read would return the
values from before the commit, and an update that is based on them would undo what others wrote.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import InstanceState, Session

from sqlmodel_crud_utils._core.rows import states_of

_KEY = "sqlmodel_crud_utils.kept_rows"


def note(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Note the rows that this commit left loaded; all others expired."""
    kept = weakref.WeakSet(states)
    if kept:
        session.info[_KEY] = kept
    else:
        session.info.pop(_KEY, None)


def note_more(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Note rows that may be outdated for another reason than a commit."""
    session.info.setdefault(_KEY, weakref.WeakSet()).update(states)


def forget(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Forget rows that were read again."""
    session.info[_KEY].difference_update(states)


def keys_among(session: Session, rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return the primary keys of those of the rows that are kept."""
    kept: Any = session.info.get(_KEY) or ()
    states = states_of(rows) if kept else []
    return [state.identity for state in states if state in kept and state.identity is not None]


def there_are(session: Session) -> bool:
    """Return whether the session holds such rows."""
    return bool(session.info.get(_KEY))
