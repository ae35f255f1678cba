"""What is to run after a commit, kept on the session until it is known to be committed.

A callback belongs to the transaction or savepoint in which it was registered, and goes when that
one is rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from sqlmodel_crud_utils._core.blocks import innermost_transaction

_KEY = "sqlmodel_crud_utils.commit_callbacks"

Callback = Callable[[], Any]


@dataclass(slots=True)
class _Queue:
    waiting: list[tuple[SessionTransaction | None, Callback]] = field(default_factory=list)
    due: list[Callback] = field(default_factory=list)


def add(session: Session, callback: Callback) -> None:
    """Register a callback with the session's innermost transaction."""
    queue = session.info.get(_KEY)
    if queue is None:
        queue = session.info[_KEY] = _Queue()
        event.listen(session, "after_commit", _on_commit)
        event.listen(session, "after_soft_rollback", _on_rollback)
        event.listen(session, "after_transaction_end", _on_end)
    queue.waiting.append((innermost_transaction(session), callback))


def take_due(session: Session) -> list[Callback]:
    """Return the callbacks whose transaction is committed, and forget them."""
    queue: _Queue | None = session.info.get(_KEY)
    if queue is None:
        return []
    due, queue.due = queue.due, []
    return due


def _on_commit(session: Session) -> None:
    queue = session.info[_KEY]
    queue.due += [callback for _, callback in queue.waiting]
    queue.waiting.clear()


def _on_rollback(session: Session, rolled_back: SessionTransaction) -> None:
    queue = session.info[_KEY]
    queue.waiting = [
        (owner, callback) for owner, callback in queue.waiting if not _is_within(owner, rolled_back)
    ]


def _is_within(owner: SessionTransaction | None, ancestor: SessionTransaction) -> bool:
    if owner is None:  # registered before any transaction: goes with the first one that fails
        return ancestor.parent is None
    current: SessionTransaction | None = owner
    while current is not None and current is not ancestor:
        current = current.parent
    return current is not None


def _on_end(session: Session, transaction: SessionTransaction) -> None:
    # A session that is closed ends its transaction without a commit or a rollback event.
    if transaction.parent is None:
        session.info[_KEY].waiting.clear()
