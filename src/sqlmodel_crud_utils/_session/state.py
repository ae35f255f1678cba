"""What the library notes on a session: all of it in one object, under one key of `session.info`."""

from __future__ import annotations

import weakref
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
    """The notes on one session; an attribute is set as long as there is something to note.

    Attributes:
        block: The `transaction()` block that is under way.
        user: Who works with the session.
        transaction: The one that the work is in; none where it has none yet.
        interrupted: Whose work somebody else has ended the transaction of.
        kept: Rows that stayed loaded beyond a commit.
        claims: The rows that the flush under way writes to, if it checks their versions.
        waiting: What runs after the commit.
        due: What runs now, as its commit is done.
        changes: What was written and is not committed yet, for each subscriber.
        announced: The rows whose changes were announced before the flush under way.
        committing: Whether the library's commit is under way and not carried out yet.
        tenant: The scope that the session serves, and the identity map that it began with.
        sharing: How several tasks read with the session.
    """

    block: BlockState | None = None
    user: object | None = None
    transaction: SessionTransaction | None = None
    interrupted: object | None = None
    kept: weakref.WeakSet[InstanceState[Any]] | None = None
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
    """Return the notes on a session, to be read."""
    found: SessionState = session.info.get(_KEY, _NOTHING)
    return found


def state_of(session: Session) -> SessionState:
    """Return the notes on a session, to add to them."""
    found: SessionState | None = session.info.get(_KEY)
    if found is None:
        found = session.info[_KEY] = SessionState()
    return found


def forget(session: Session, note: Note) -> None:
    """Remove a note; with the last one nothing of the library is left on the session."""
    found: Any = session.info.get(_KEY)
    if found is not None:
        notes: dict[str, Any] = vars(found)
        notes.pop(note, None)
        if not notes:
            del session.info[_KEY]
