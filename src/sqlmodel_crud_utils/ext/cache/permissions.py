"""Whether a session may read from the cache, and whether it may fill it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from sqlmodel_crud_utils._session.changes import pending_of
from sqlmodel_crud_utils._session.snapshots import may_be_kept, sees_what_others_see
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_clean


def may_read(session: Session) -> bool:
    """Return whether a session may read from the cache.

    It may not if its transaction has written or is about to write, or reads an old snapshot.
    """
    return not has_written(session) and sees_what_others_see(session)


def may_fill(session: Session) -> bool:
    """Return whether a session's last read may be stored for others."""
    return not has_written(session) and may_be_kept(session)


def has_written(session: Session) -> bool:
    """Return whether a session has written, or is about to write, anything uncommitted."""
    return bool(pending_of(session)) or not is_clean(session)
