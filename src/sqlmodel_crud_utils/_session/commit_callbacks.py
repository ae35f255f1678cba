"""What is to run after a commit, kept on the session until it is known to be committed.

A callback belongs to the transaction or savepoint in which it was registered. A savepoint that is
released hands it on to what is around it; one that ends without that takes it along.
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
        # After a commit by hand: what comes now belongs to the rest of the block.
        session.begin()
    state = state_of(session)
    state.waiting = state.waiting or PerSavepoint()
    state.waiting.add(innermost_transaction(session), callback)


def are_waiting(session: Session) -> bool:
    """Return whether a rollback would drop callbacks."""
    return bool(noted(session).waiting)


def take_due(session: Session) -> list[Callback]:
    """Return the callbacks whose transaction is committed, and forget them."""
    due = noted(session).due
    forget(session, "due")
    return due or []


def committed(session: Session, savepoint: SessionTransaction | None) -> None:
    """Let callbacks run whose transaction is committed, or hand on those of a savepoint."""
    waiting = noted(session).waiting
    if waiting is None:
        return
    if savepoint is not None:
        waiting.release(savepoint)
        return
    state = state_of(session)
    state.due = [*(state.due or ()), *waiting.take()]


def ended(session: Session, transaction: SessionTransaction) -> None:
    """Drop what a transaction that has ended takes along.

    Every end comes here, also where SQLAlchemy tells of no rollback: after a flush that failed,
    when a session is closed. What is committed is not waiting any more.
    """
    waiting = noted(session).waiting
    if waiting is None:
        return
    if transaction.parent is None:
        forget(session, "waiting")  # those that were registered before the transaction began, too
    else:
        waiting.drop(transaction)
