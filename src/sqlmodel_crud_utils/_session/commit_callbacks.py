"""What is to run after a commit, kept on the session until it is known to be committed.

A callback belongs to the transaction or savepoint in which it was registered. A savepoint that is
released hands it on to what is around it; one that ends without that takes it along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from sqlmodel_crud_utils._session.blocks import block_of
from sqlmodel_crud_utils._session.savepoints import PerSavepoint, innermost_transaction

_KEY = "sqlmodel_crud_utils.commit_callbacks"

Callback = Callable[[], Any]


@dataclass(slots=True)
class _Queue:
    waiting: PerSavepoint[Callback] = field(default_factory=PerSavepoint)
    due: list[Callback] = field(default_factory=list)


def add(session: Session, callback: Callback) -> None:
    """Register a callback with the session's innermost transaction."""
    queue = session.info.get(_KEY)
    if queue is None:
        queue = session.info[_KEY] = _Queue()
        # Before the caller's listeners: one that fails would hide the commit.
        event.listen(session, "after_commit", _on_commit, insert=True)
        event.listen(session, "after_transaction_end", _on_end)
    if block_of(session) is not None and not session.in_transaction():
        # After a commit by hand: what comes now belongs to the rest of the block.
        session.begin()
    queue.waiting.add(innermost_transaction(session), callback)


def are_waiting(session: Session) -> bool:
    """Return whether a rollback would drop callbacks."""
    queue: _Queue | None = session.info.get(_KEY)
    return queue is not None and bool(queue.waiting)


def take_due(session: Session) -> list[Callback]:
    """Return the callbacks whose transaction is committed, and forget them."""
    queue: _Queue | None = session.info.get(_KEY)
    if queue is None:
        return []
    due, queue.due = queue.due, []
    return due


def _on_commit(session: Session) -> None:
    queue: _Queue = session.info[_KEY]
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        queue.due += queue.waiting.take()
    else:  # SQLAlchemy tells of released savepoints too
        queue.waiting.release(savepoint)


def _on_end(session: Session, transaction: SessionTransaction) -> None:
    # Every end comes here, also where SQLAlchemy tells of no rollback: after a flush that failed,
    # when a session is closed. What is committed is not waiting any more.
    queue: _Queue = session.info[_KEY]
    if transaction.parent is None:
        queue.waiting.take()  # those that were registered before the transaction began, too
    else:
        queue.waiting.drop(transaction)
