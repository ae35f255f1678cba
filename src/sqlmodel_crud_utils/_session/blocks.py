"""The state of a session's `transaction()` blocks, kept on the session itself.

A *level* is one `with transaction(...)`; the outermost level is the database transaction, each
inner one a savepoint. When the database refuses a statement, the innermost transaction is *doomed*:
PostgreSQL ignores everything that follows and silently turns the COMMIT into a ROLLBACK, so the
level must not pretend to have succeeded. Rolling back a savepoint also removes its refusals.
"""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import InstanceState, Session, SessionTransaction

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.errors.driver_errors import is_cut_connection
from sqlmodel_crud_utils._core.errors.translation import ends_transaction
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._session.databases import begin_again_immediate, begin_immediate
from sqlmodel_crud_utils._session.modes import USUAL, Modes, begin_in
from sqlmodel_crud_utils._session.savepoints import (
    PerSavepoint,
    innermost_transaction,
    is_within,
)
from sqlmodel_crud_utils._session.sqlalchemy_internals import (
    is_autocommitting,
    is_in_context_manager,
    rollback_exception,
)
from sqlmodel_crud_utils._session.state import forget, noted, state_of
from sqlmodel_crud_utils._session.transaction_state import begins_on, connections_of, is_lost
from sqlmodel_crud_utils.exceptions import ValidationError


@dataclass(slots=True, weakref_slot=True)
class BlockState:
    """The state that a session's nested levels share, from the outermost entry to its exit."""

    session: weakref.ref[Session]
    in_callers: bool = False
    """Whether the block is a savepoint in the caller's own `with session.begin()`."""
    modes: Modes = USUAL
    locks_first: bool = True
    """Whether SQLite's lock is taken at the beginning, not by the first change or savepoint."""
    depth: int = 0
    committed: bool = False
    """Whether a part of the block is committed: by an explicit commit, or at the end."""
    kept: weakref.WeakSet[InstanceState[Any]] = field(default_factory=weakref.WeakSet)
    refusals: PerSavepoint[BaseException] = field(default_factory=PerSavepoint)

    def keep(self, states: Iterable[InstanceState[Any]]) -> None:
        """Remember rows that must stay loaded after the commit."""
        self.kept.update(states)

    def doom(self, error: BaseException, *, wholly: bool = False) -> None:
        """Note that the innermost transaction, or the whole one, had a statement refused."""
        session = self.session()
        if session is None:
            return
        doomed = session.get_transaction() if wholly else innermost_transaction(session)
        if doomed is not None:
            self.refusals.add(doomed, error)

    def refusal(self, savepoint: SessionTransaction | None) -> BaseException | None:
        """Return the first error that doomed this savepoint (with None, the block), or None."""
        errors = (
            error
            for doomed, error in self.refusals
            if savepoint is None or is_within(doomed, savepoint)
        )
        return next(errors, None)

    def lost(self, error: BaseException) -> None:
        """Note that the whole transaction is gone; the latest refusal, if any, is the cause."""
        behind = [earlier for _, earlier in self.refusals]
        self.doom(behind[-1] if behind else error, wholly=True)


def block_of(session: Session) -> BlockState | None:
    """Return the block the session is in, or None."""
    return noted(session).block


def refuse_in_reading(session: Session) -> None:
    """Refuse a write in a read-only block; not every database would."""
    if only_reads(session):
        raise ValidationError("it is read-only; write with another session", field="session")


def only_reads(session: Session) -> bool:
    """Return whether the session is in a read-only block."""
    block = block_of(session)
    return block is not None and block.modes.read_only


def in_callers_block(session: Session) -> bool:
    """Return whether the session is in the caller's own `with session.begin()` or a nested one.

    That block commits on exit, so nothing else may: SQLAlchemy would refuse further statements.
    """
    return is_in_context_manager(session) and block_of(session) is None


def is_inside(session: Session) -> bool:
    """Return whether a block will commit: the library's, or the caller's own."""
    return is_in_context_manager(session) or block_of(session) is not None


def behind(session: Session, error: Exception) -> Exception:
    """Return the cause of a `PendingRollbackError` if it is known, or else the error itself."""
    if not isinstance(error, PendingRollbackError):
        return error
    block, transaction = block_of(session), session.get_transaction()
    failure = None if block is None else block.refusal(None)
    if failure is None and transaction is not None:
        failure = rollback_exception(transaction)
    return failure if isinstance(failure, Exception) and ends_transaction(failure) else error


def may_try_again(session: Session, error: Exception) -> bool:
    """Return whether the transaction survived an error, so that another statement may be tried."""
    return not ends_transaction(error) and not is_lost(session)


def enter(session: Session, modes: Modes = USUAL, *, locks_first: bool = True) -> BlockState:
    """Enter one more level and return the session's block."""
    block = block_of(session)
    if block is None:
        block = BlockState(weakref.ref(session), in_callers_block(session), modes, locks_first)
        state_of(session).block = block
    block.depth += 1
    return block


def leave(session: Session, block: BlockState) -> None:
    """Leave a level; with the outermost one the block is over."""
    block.depth -= 1
    if block.depth == 0:
        forget(session, "block")


# --- SQLAlchemy's events -------------------------------------------------------------------------

_watched: weakref.WeakKeyDictionary[Connection, weakref.ref[BlockState]] = (
    weakref.WeakKeyDictionary()
)


def begin(session: Session) -> None:
    """Begin the transaction of an outermost level, or adopt the current one."""
    bind = session.bind
    if isinstance(bind, Connection) and bind.in_transaction():
        # The session may join it with a savepoint, and SQLite needs a BEGIN before one.
        begin_immediate(bind)
    if session.in_transaction():
        if bind is not None:  # a session with a bind per model begins on each when it is used
            join(session, session.connection())
        return
    session.begin()  # also for a session with autobegin=False
    if bind is not None:
        session.connection()  # joins the block when it begins: see `begun`


def begin_without_lock(session: Session) -> None:
    """Begin the transaction of an outermost level; connections begin with their first statement."""
    if not session.in_transaction():
        session.begin()
    for connection in connections_of(session):
        join(session, connection)


def join_callers(session: Session) -> None:
    """Begin a block inside the caller's own transaction."""
    if session.bind is not None:
        session.connection()
    for connection in connections_of(session):
        join(session, connection)


def join(session: Session, connection: Connection) -> None:
    """Make a connection part of the session's block."""
    block = block_of(session)
    if block is None:
        return
    _refuse_autocommit(connection)
    _watched[connection] = weakref.ref(block)
    if block.locks_first:
        begin_immediate(connection)


def _refuse_autocommit(connection: Connection) -> None:
    if is_autocommitting(connection):
        raise ValidationError(
            "transaction() cannot undo anything on an engine with isolation_level AUTOCOMMIT; "
            "use an engine with a transactional isolation level",
            field="session",
        )


def begun(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    """Set up a connection whose transaction has begun for the session's block, and join it."""
    block = block_of(session)
    if block is None:
        return
    if begins_on(transaction, connection):
        if block.modes:
            begin_in(connection, block.modes)
        if not block.modes.read_only:
            begin_again_immediate(connection)
    join(session, connection)


def before_savepoint(connection: Connection) -> None:
    """Begin a transaction before a block's savepoint, whose release would otherwise commit."""
    if connection in _watched:
        begin_immediate(connection)


def committed(session: Session) -> None:
    """Pass on the refusals of a released savepoint, or note that a transaction was committed."""
    block = block_of(session)
    committed = None if block is None else innermost_transaction(session)
    if block is not None and committed is not None:
        block.refusals.release(committed)
        block.committed |= committed.parent is None


def ended(session: Session, transaction: SessionTransaction) -> None:
    """Drop the refusals of a transaction that has ended."""
    block = block_of(session)
    if block is not None:
        block.refusals.drop(transaction)


def refused(context: ExceptionContext) -> None:
    """Doom the block of a connection on which the database refused a statement."""
    if not isinstance(context.original_exception, Exception):
        _release_lock(context)
    if is_cut_connection(context.original_exception):
        context.is_disconnect = True
    refusal = context.sqlalchemy_exception
    if context.connection is None or not isinstance(refusal, DBAPIError):
        return
    reference = _watched.get(context.connection)
    block = reference() if reference is not None else None
    if block is not None:
        # If the savepoint is gone, so is the transaction: MySQL ends it in a deadlock.
        if (context.statement or "").startswith("ROLLBACK TO"):
            block.lost(refusal)
        else:
            block.doom(refusal)


def _release_lock(context: ExceptionContext) -> None:
    """End an interrupted statement and its transaction.

    SQLAlchemy discards the connection, but SQLite keeps a closed connection, and its lock on the
    file, as long as a traceback refers to one of its statements.
    """
    connection = context.connection
    # If ending a statement is interrupted as well, SQLAlchemy fires the event again.
    holds_lock = features_of(context.dialect).single_writer
    if not holds_lock or connection is None or connection.invalidated:
        return
    # SQLAlchemy 2.0 keeps aiosqlite's cursor only in local variables.
    traceback.clear_frames(context.original_exception.__traceback__)
    cursor = getattr(context.execution_context, "cursor", None)
    if cursor is not None:
        _finish(cursor.close)
    _finish(connection.connection.rollback)


def _finish(func: Callable[[], object]) -> None:
    """Call a function until it is not interrupted; the first interruption already propagates."""
    while True:
        try:
            func()
        except Exception as error:  # noqa: BLE001 - the connection is discarded either way
            get_logger().error(f"ending an interrupted statement failed: {type(error).__name__}")
        except BaseException:  # noqa: BLE001, S112 - interrupted again: try once more
            continue
        return
