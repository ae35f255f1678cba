"""Rows that stayed loaded beyond a commit, and so may be older than what the database has now.

SQLAlchemy never overwrites what an object holds. Without this note the next read would return the
values from before the commit, and an update that is based on them would undo what others wrote.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import InstanceState, Session

_KEY = "sqlmodel_crud_utils.kept_rows"


def note(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Note the rows that this commit left loaded; all others expired."""
    kept = weakref.WeakSet(states)
    if kept:
        session.info[_KEY] = kept
    else:
        session.info.pop(_KEY, None)


def forget(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Forget rows that were read again."""
    session.info[_KEY].difference_update(states)


def there_are(session: Session) -> bool:
    """Tell whether the session holds such rows."""
    return bool(session.info.get(_KEY))
