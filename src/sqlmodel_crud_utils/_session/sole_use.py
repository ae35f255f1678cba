"""One user at a time: concurrent use of a session by two tasks or threads is refused.

SQLAlchemy's sessions do not support it, and notice it only by chance. The user of a session is
identified by its context: what a hook awaits is part of the same work.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import QueuePool

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.errors.translation import shared_session
from sqlmodel_crud_utils._session.state import SessionState, noted, state_of

_sessions: weakref.WeakKeyDictionary[Connection, weakref.ref[Session]] = weakref.WeakKeyDictionary()
_works: ContextVar[tuple[object, ...]] = ContextVar("works", default=())


def is_used_by_others(session: Session) -> bool:
    """Return whether another task or thread is using the session."""
    user = noted(session).user
    return user is not None and user not in _works.get()


def is_interrupted(session: Session) -> bool:
    """Return whether another user has ended, or is ending, the transaction of the current work."""
    state = noted(session)
    if state.user is None:
        return False
    return state.interrupted is state.user or _is_replaced(session, state)


def _is_replaced(session: Session, state: SessionState) -> bool:
    # SQLAlchemy detaches a transaction from its session first, and fires the event of its end once
    # the driver has answered. A commit in between would commit nothing.
    return state.transaction is not None and session.get_transaction() is not state.transaction


def begun(session: Session, connection: Connection) -> None:
    """Note which session has begun a transaction on a connection."""
    _sessions[connection] = weakref.ref(session)
    state = noted(session)
    if state.user is not None and state.transaction is None:
        state.transaction = session.get_transaction()


def rolling_back(connection: Connection, *_: Any) -> None:
    """Invalidate a connection that is rolled back while another user is working with it.

    A driver might otherwise execute the other user's statement after the rollback, outside any
    transaction.
    """
    reference = _sessions.get(connection)
    session = None if reference is None else reference()
    if session is not None and is_used_by_others(session) and not connection.invalidated:
        _interrupt(session)  # first, because the next step may wait, and the other work continues
        _cut_off(connection)


def _cut_off(connection: Connection) -> None:
    if not features_of(connection.dialect).single_writer:
        connection.invalidate()
    elif isinstance(connection.engine.pool, QueuePool):  # others may share one in memory
        # Soft: closed before its next use. sqlite3 may crash if it is closed during a statement.
        connection.connection.invalidate(soft=True)


def ended(session: Session, transaction: SessionTransaction) -> None:
    """Note that a transaction ended, possibly while another user was working in it."""
    state = noted(session)
    if state.transaction is transaction:
        del state.transaction
    if transaction.parent is None and is_used_by_others(session):
        _interrupt(session)


def _interrupt(session: Session) -> None:
    state = state_of(session)
    state.interrupted = state.user


class sole_use:  # noqa: N801 - reads as a function; a generator would cost more than the rest
    """Exclusive use of a session; nested uses are part of the same work.

    Raises:
        ValidationError: Another user is working with the session, or has ended its transaction
            before this work was done.
    """

    __slots__ = ("_before", "_session", "_state", "_work")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._work: object | None = None

    def __enter__(self) -> None:
        """Begin to use the session."""
        self._before = _works.get()
        self._state = state_of(self._session)
        user = self._state.user
        if user is None:
            self._work = self._state.user = object()
            self._state.transaction = self._session.get_transaction()
            _works.set((*self._before, self._work))
        elif user not in self._before:
            raise shared_session()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the session for others."""
        if self._work is not None:
            interrupted = is_interrupted(self._session)
            if interrupted:  # SQLAlchemy no longer knows which objects have a row
                self._session.expunge_all()
            del self._state.user  # the state itself stays: the next use needs it
            vars(self._state).pop("transaction", None)
            if self._state.sharing is not None:
                self._state.sharing.next()
            # Not reset(): work that is abandoned may end in another context.
            _works.set(self._before)
            # An ordinary error is a consequence of the interruption; a cancellation propagates.
            if interrupted and (error is None or isinstance(error, Exception)):
                raise shared_session() from error
