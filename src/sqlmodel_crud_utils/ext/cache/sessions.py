"""When a session may read from the cache, and when it may fill it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from sqlmodel_crud_utils._session.changes import pending_of
from sqlmodel_crud_utils._session.snapshots import may_be_kept, sees_what_others_see
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_clean


def may_read(session: Session) -> bool:
    """Return whether a session may be given what the cache holds.

    Not where its transaction has written something, or has something to write; and not where the
    database shows it an earlier state.
    """
    return not has_written(session) and sees_what_others_see(session)


def may_fill(session: Session) -> bool:
    """Return whether others may be given what a session has just read."""
    return not has_written(session) and may_be_kept(session)


def has_written(session: Session) -> bool:
    """Return whether a transaction holds something that nobody else sees."""
    return bool(pending_of(session)) or not is_clean(session)
