"""The state of a session's transaction, as known to SQLAlchemy."""

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

# The connections of sessions' own transactions, hence short-lived.
_sent: weakref.WeakSet[Connection] = weakref.WeakSet()


def is_lost(session: Session) -> bool:
    """Return whether the session's transaction can only be rolled back.

    This is so after a failed flush, a lost connection or an interrupted statement.
    """
    if not session.in_transaction():
        return False
    return not session.is_active or any(
        connection.invalidated for connection in connections_of(session)
    )


def connections_of(session: Session) -> set[Connection]:
    """Return the connections on which the session's transaction has begun."""
    transaction = session.get_transaction()
    return set() if transaction is None else connections_in(transaction)


def connections_in(transaction: SessionTransaction) -> set[Connection]:
    """Return the connections on which a transaction has begun, also after its end."""
    return {connection for connection, *_ in begun_connections(transaction).values()}


def begins_on(transaction: SessionTransaction, connection: Connection) -> bool:
    """Return whether this transaction began the connection's, instead of joining it."""
    if transaction.parent is not None:
        return False
    *_, is_of_session = begun_connections(transaction)[connection]
    return bool(is_of_session)


def abandon(connections: Iterable[Connection]) -> None:
    """Discard connections that could not be returned to the pool."""
    kept = [connection for connection in connections if not connection.closed]
    release_locks(kept)
    for connection in kept:
        connection.invalidate()
        connection.close()


def cut_off(session: Session) -> None:
    """Invalidate the session's connections, so that its transaction can only be rolled back."""
    for connection in connections_of(session):
        connection.invalidate()


def release_locks(connections: Iterable[Connection]) -> None:
    """Roll connections back before they are discarded.

    SQLite keeps a closed connection, and its lock on the file, as long as a traceback refers to one
    of its statements.
    """
    for connection in connections:
        dialect = connection.dialect
        if features_of(dialect).single_writer and not connection.invalidated:
            # If even this fails, the connection has no transaction left.
            with suppress(dialect.loaded_dbapi.Error):
                connection.connection.rollback()


def committing(session: Session) -> None:
    """Note that the session is about to commit."""
    state_of(session).committing = True


def is_committing(session: Session) -> bool:
    """Return whether the session was about to commit and has not committed."""
    return noted(session).committing


def committed(session: Session) -> None:
    """Note that the session's transaction is committed; a released savepoint is not."""
    if session.get_nested_transaction() is None:
        forget(session, "committing")


def sending_commit(connection: Connection, *_: Any) -> None:
    """Note that a COMMIT is about to be sent."""
    _sent.add(connection)


def may_be_committed(transaction: SessionTransaction) -> bool:
    """Return whether a COMMIT was sent in a transaction, or each statement commits itself."""
    connections = connections_in(transaction)
    return not _sent.isdisjoint(connections) or any(map(is_autocommitting, connections))


def has_nothing_to_lose(session: Session) -> bool:
    """Return whether a rollback would undo nothing but what the caller is about to do."""
    return not session.in_transaction() and is_clean(session)
