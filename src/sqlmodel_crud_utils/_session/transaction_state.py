"""What state a session's transaction is in, as SQLAlchemy knows it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session, SessionTransaction

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._session.sqlalchemy_internals import (
    begun_connections,
    is_autocommitting,
    is_clean,
)
from sqlmodel_crud_utils._session.state import forget, noted, state_of

# Of a session's own transactions, so that an entry lasts no longer than its connection.
_sent: weakref.WeakSet[Connection] = weakref.WeakSet()


def is_lost(session: Session) -> bool:
    """Return whether the session's transaction can only be rolled back.

    It is so after a flush that failed, and when the connection was lost or a statement cut off.
    """
    if not session.in_transaction():
        return False
    return not session.is_active or any(
        connection.invalidated for connection in connections_of(session)
    )


def connections_of(session: Session) -> set[Connection]:
    """Return the connections that the session's transaction has begun on."""
    transaction = session.get_transaction()
    return set() if transaction is None else connections_in(transaction)


def connections_in(transaction: SessionTransaction) -> set[Connection]:
    """Return the connections that a transaction has begun on, after its end too."""
    return {connection for connection, *_ in begun_connections(transaction).values()}


def begins_on(transaction: SessionTransaction, connection: Connection) -> bool:
    """Return whether the connection's transaction begins with this one, and is not joined."""
    if transaction.parent is not None:
        return False
    *_, is_of_session = begun_connections(transaction)[connection]
    return bool(is_of_session)


def abandon(connections: Iterable[Connection]) -> None:
    """Take connections out of the pool that failed while they were given back."""
    kept = [connection for connection in connections if not connection.closed]
    release_locks(kept)
    for connection in kept:
        connection.invalidate()
        connection.close()


def cut_off(session: Session) -> None:
    """Take the session's connections away, so that its transaction can only be rolled back."""
    for connection in connections_of(session):
        connection.invalidate()


def release_locks(connections: Iterable[Connection]) -> None:
    """Undo what connections have begun, before they are thrown away.

    SQLite keeps a closed connection, and its lock on the file, as long as one of its statements
    lives on in a traceback.
    """
    for connection in connections:
        dialect = connection.dialect
        if features_of(dialect).single_writer and not connection.invalidated:
            # Where even this fails, the connection has no transaction any more.
            with suppress(dialect.loaded_dbapi.Error):
                connection.connection.rollback()


def committing(session: Session) -> None:
    """Note that the session is about to commit."""
    state_of(session).committing = True


def is_committing(session: Session) -> bool:
    """Return whether the session was about to commit, and has not."""
    return noted(session).committing


def committed(session: Session) -> None:
    """Note that the session's transaction is committed; a released savepoint is not."""
    if session.get_nested_transaction() is None:
        forget(session, "committing")


def sending_commit(connection: Connection, *_: Any) -> None:
    """Note that a COMMIT is sent next."""
    _sent.add(connection)


def may_be_committed(transaction: SessionTransaction) -> bool:
    """Return whether a COMMIT was sent in a transaction, or each statement is one."""
    connections = connections_in(transaction)
    return not _sent.isdisjoint(connections) or any(map(is_autocommitting, connections))


def has_nothing_to_lose(session: Session) -> bool:
    """Return whether a rollback of what begins now would undo that alone."""
    return not session.in_transaction() and is_clean(session)
