"""The library's notes on a session: one object under one key of `session.info`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy.orm import InstanceState, Session, SessionTransaction

from sqlmodel_crud_utils._session.savepoints import PerSavepoint

if TYPE_CHECKING:
    from sqlmodel_crud_utils._session.blocks import BlockState
    from sqlmodel_crud_utils._session.changes import Change, Subscriber, TableChange
    from sqlmodel_crud_utils._session.claims import Claim
    from sqlmodel_crud_utils._session.sharing import Sharing

_KEY = "sqlmodel_crud_utils"

Note = Literal["block", "kept", "claims", "waiting", "due", "changes", "announced", "committing"]


class SessionState:
    """The notes on one session; an attribute is set only while there is something to note.

    Attributes:
        block: The current `transaction()` block.
        user: The work that is using the session.
        transaction: The transaction of that work; None if it has not begun.
        interrupted: The work whose transaction was ended by other work.
        kept: Rows that stayed loaded after a commit.
        claims: The rows that the current flush writes, if it checks their versions.
        waiting: Callbacks to run after the commit.
        due: Callbacks to run now, because their commit is done.
        changes: Uncommitted changes, for each subscriber.
        announced: The rows that were announced before the current flush.
        committing: Whether a commit by the library has begun and is not done.
        tenant: The scope that the session serves, and its identity map at that time.
        sharing: How several tasks share the session.
    """

    block: BlockState | None = None
    user: object | None = None
    transaction: SessionTransaction | None = None
    interrupted: object | None = None
    kept: set[InstanceState[Any]] | None = None
    claims: dict[InstanceState[Any], Claim] | None = None
    waiting: PerSavepoint[Callable[[], Any]] | None = None
    due: list[Callable[[], Any]] | None = None
    changes: PerSavepoint[tuple[Subscriber, Change | TableChange]] | None = None
    announced: set[InstanceState[Any]] | None = None
    committing: bool = False
    tenant: tuple[object, object] | None = None
    sharing: Sharing | None = None


_NOTHING = SessionState()


def noted(session: Session) -> SessionState:
    """Return the notes on a session, for reading only."""
    found: SessionState = session.info.get(_KEY, _NOTHING)
    return found


def state_of(session: Session) -> SessionState:
    """Return the notes on a session, for changing them."""
    found: SessionState | None = session.info.get(_KEY)
    if found is None:
        found = session.info[_KEY] = SessionState()
    return found


def forget(session: Session, note: Note) -> None:
    """Remove a note; with the last one, remove the library's key from the session."""
    found: Any = session.info.get(_KEY)
    if found is not None:
        notes: dict[str, Any] = vars(found)
        notes.pop(note, None)
        if not notes:
            del session.info[_KEY]
