"""Things owned by a savepoint: passed to its parent on release, dropped on rollback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from sqlalchemy.orm import Session, SessionTransaction

T = TypeVar("T")


class PerSavepoint(Generic[T]):
    """An ordered list of things, each owned by the transaction or savepoint it was added in.

    Its owner calls `release` when a savepoint is released (SQLAlchemy's `after_commit` with a
    nested transaction), and `drop` when a transaction has ended (`after_transaction_end`).
    """

    __slots__ = ("_owned",)

    def __init__(self) -> None:
        self._owned: list[tuple[SessionTransaction | None, T]] = []

    def __bool__(self) -> bool:
        return bool(self._owned)

    def __iter__(self) -> Iterator[tuple[SessionTransaction | None, T]]:
        return iter(self._owned)

    def add(self, owner: SessionTransaction | None, thing: T) -> None:
        """Add a thing owned by a transaction."""
        self._owned.append((owner, thing))

    def release(self, savepoint: SessionTransaction) -> None:
        """Pass what a released savepoint owns to the transaction around it."""
        self._owned = [
            (savepoint.parent if owner is savepoint else owner, thing)
            for owner, thing in self._owned
        ]

    def drop(self, ended: SessionTransaction) -> None:
        """Drop what an ended transaction and the savepoints inside it own."""
        self._owned = [pair for pair in self._owned if not is_within(pair[0], ended)]

    def take(self) -> list[T]:
        """Remove and return all things."""
        things = [thing for _, thing in self._owned]
        self._owned = []
        return things


def innermost_transaction(session: Session) -> SessionTransaction | None:
    """Return the savepoint or transaction that the next statement belongs to."""
    return session.get_nested_transaction() or session.get_transaction()


def is_within(transaction: SessionTransaction | None, ancestor: SessionTransaction) -> bool:
    """Return whether a transaction is this one, or a savepoint in it at any depth."""
    while transaction is not None and transaction is not ancestor:
        transaction = transaction.parent
    return transaction is not None
