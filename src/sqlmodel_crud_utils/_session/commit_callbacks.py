"""Callbacks to run after a commit, kept on the session until the commit is known to be done.

A callback belongs to the transaction or savepoint in which it was registered. A released savepoint
passes it to the transaction around it; a savepoint that is rolled back drops it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session, SessionTransaction

from sqlmodel_crud_utils._session.blocks import block_of
from sqlmodel_crud_utils._session.savepoints import PerSavepoint, innermost_transaction
from sqlmodel_crud_utils._session.state import forget, noted, state_of

Callback = Callable[[], Any]


def add(session: Session, callback: Callback) -> None:
    """Register a callback with the session's innermost transaction."""
    if block_of(session) is not None and not session.in_transaction():
        # After an explicit commit: what follows belongs to the rest of the block.
        session.begin()
    state = state_of(session)
    state.waiting = state.waiting or PerSavepoint()
    state.waiting.add(innermost_transaction(session), callback)


def has_waiting(session: Session) -> bool:
    """Return whether a rollback would drop callbacks."""
    return bool(noted(session).waiting)


def take_due(session: Session) -> list[Callback]:
    """Remove and return the callbacks whose transaction is committed."""
    due = noted(session).due
    forget(session, "due")
    return due or []


def committed(session: Session, savepoint: SessionTransaction | None) -> None:
    """Mark callbacks as due after a commit; after a released savepoint, pass them to its parent."""
    waiting = noted(session).waiting
    if waiting is None:
        return
    if savepoint is not None:
        waiting.release(savepoint)
        return
    state = state_of(session)
    state.due = [*(state.due or ()), *waiting.take()]


def ended(session: Session, transaction: SessionTransaction) -> None:
    """Drop the callbacks of a transaction that ended without a commit.

    Called for every end, even if SQLAlchemy fires no rollback event, as after a failed flush or
    when a session is closed. Callbacks of a commit are no longer waiting by then.
    """
    waiting = noted(session).waiting
    if waiting is None:
        return
    if transaction.parent is None:
        forget(session, "waiting")  # including those registered before the transaction began
    else:
        waiting.drop(transaction)
