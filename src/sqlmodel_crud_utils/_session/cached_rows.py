"""Objects whose rows came from a cache, and which therefore must not be flushed.

Such a row may be outdated, and a flush based on it would undo what others wrote meanwhile. So the
flush is refused until the row is read from the database.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._session import kept_rows
from sqlmodel_crud_utils.exceptions import ValidationError

# For all sessions: a program may move an object to another session, where it is as outdated.
_cached: weakref.WeakSet[InstanceState[Any]] = weakref.WeakSet()


def note(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Note that objects came from a cache; the next query that returns them refreshes them."""
    found = set(states)
    _cached.update(found)
    kept_rows.note_more(session, found)


def refreshed(state: InstanceState[Any], _context: Any, names: Iterable[str] | None) -> None:
    """Forget an object once all of its columns were read from the database."""
    if state not in _cached:
        return
    facts = facts_of(state.class_)
    if names is None or set(names) >= facts.columns.keys() - facts.queried:
        _cached.discard(state)


def check_flush(session: Session) -> None:
    """Refuse to write rows that came from a cache.

    Raises:
        ValidationError: One of them was changed or deleted; nothing was written.
    """
    if not _cached:
        return
    dirty = (row for row in session.dirty if instance_state(row) in _cached)
    changed = (row for row in dirty if session.is_modified(row, include_collections=False))
    deleted = (row for row in session.deleted if instance_state(row) in _cached)
    for row in (*changed, *deleted):
        facts = facts_of(type(row))
        if facts.version is None:
            raise ValidationError(
                f"this {facts.model.__name__} row came from the cache and cannot be written; "
                "read it without the cache, refresh() it, or use update_row or delete_row"
            )
