"""Connections that died in the pool are replaced before an error surfaces.

A connection that was idle for a while is pinged at checkout. For any other, the first statement
serves as the ping: nothing else depends on that connection yet, so it is replaced, and the
statement is sent again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Pool, QueuePool, TwoPhaseTransaction
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import PoolProxiedConnection

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.errors.driver_errors import is_cut_off, read_driver_error
from sqlmodel_crud_utils._core.errors.translation import says_closed
from sqlmodel_crud_utils._session.autocommit_reads import autocommitting, is_sent_alone
from sqlmodel_crud_utils._session.databases import IN_TRANSACTION
from sqlmodel_crud_utils._session.sqlalchemy_internals import record_of

_C = TypeVar("_C")

_IDLE_SINCE = "sqlmodel_crud_utils.idle_since"
_UNUSED = "sqlmodel_crud_utils.unused"

# For how many seconds a first statement is retried. After that, it may have been killed on
# purpose.
_PATIENCE = 5.0
# How often connecting is tried if the connection is lost each time.
_ATTEMPTS = 10


class Reconnects(Pool):
    """A pool that tries again if a new connection is lost during its set-up."""

    def connect(self) -> PoolProxiedConnection:
        """Return a connection of the pool."""
        return _with_retries(super().connect)


class ReconnectingPool(Reconnects, QueuePool):
    """SQLAlchemy's `QueuePool`, with retries."""


def _with_retries(connect: Callable[[], _C]) -> _C:
    for _ in range(_ATTEMPTS - 1):
        try:
            return connect()
        except Exception as error:
            if not is_cut_off(error) and not says_closed(error):
                raise
    return connect()


def mark_idle(_connection: Any, entry: Any) -> None:
    """Note when a connection was returned to the pool."""
    entry.info[_IDLE_SINCE] = monotonic()


def pinged_after(ping_after: float, dialect: Dialect) -> Callable[..., None]:
    """Return a listener that pings a connection at checkout if it was idle for long.

    Args:
        ping_after: After how many idle seconds it is pinged.
        dialect: The dialect of its engine.
    """

    def ask(connection: Any, entry: Any, _proxy: Any) -> None:
        # A new connection was never idle: its `info` is new, too.
        since = entry.info.get(_IDLE_SINCE, math.inf)
        if monotonic() - since >= ping_after and not _is_alive(dialect, connection):
            raise InvalidatePoolError

    return ask


def _is_alive(dialect: Dialect, connection: Any) -> bool:
    try:
        return dialect.do_ping(connection)
    except Exception as error:
        if not _is_lost(dialect, error, connection):
            raise
        return False


def _is_lost(dialect: Dialect, error: BaseException, connection: Any, cursor: Any = None) -> bool:
    """Return whether an error means that the connection is gone."""
    if not isinstance(error, dialect.loaded_dbapi.Error):
        return False
    found = read_driver_error(error)
    return (
        dialect.is_disconnect(error, connection, cursor)
        # A server's last message may arrive before the connection is closed.
        or (found is not None and found.problem == "connection")
        or is_cut_off(error)
    )


def detect_loss(context: ExceptionContext) -> None:
    """Make the pool drop lost connections that SQLAlchemy does not recognize as lost."""
    connection = context.connection
    if context.is_disconnect or connection is None or connection.closed or connection.invalidated:
        return
    context.is_disconnect = _is_lost(
        context.dialect, context.original_exception, connection.connection
    )


def tolerate_lost_connections(dialect: Any) -> None:
    """Suppress the error of a transaction's end on a lost connection if nothing can be lost."""

    def ending(method: Callable[[Any], None], only_unused: bool) -> Callable[[Any], None]:
        def end(proxy: Any) -> None:
            is_unused = _UNUSED in (proxy.record_info or {})
            try:
                method(proxy)
            except Exception as error:
                if (only_unused and not is_unused) or not _is_lost(dialect, error, proxy):
                    raise
                # It is still in use; the pool replaces it later.
                proxy.invalidate(error, soft=True)

        return end

    # No event can suppress the error.
    dialect.do_rollback = ending(dialect.do_rollback, only_unused=False)
    dialect.do_commit = ending(dialect.do_commit, only_unused=True)


# --- the first statement -------------------------------------------------------------------------


def mark_unused(_connection: Any, entry: Any, _proxy: Any) -> None:
    """Note at checkout that nothing was sent on a connection yet."""
    entry.record_info[_UNUSED] = True


def mark_used(_connection: Any, entry: Any) -> None:
    """Remove that note at checkin."""
    entry.record_info.pop(_UNUSED, None)


def senders(dialect: Dialect, autocommit_reads: bool) -> dict[str, Callable[..., bool]]:
    """Return listeners, by event name, that send statements and retry the first one."""
    names = ("do_execute", "do_execute_no_params", "do_executemany")
    return {name: _sender(dialect, getattr(dialect, name), autocommit_reads) for name in names}


def _sender(
    dialect: Dialect, execute: Callable[..., Any], autocommit_reads: bool
) -> Callable[..., bool]:
    """Return a listener that sends a statement; it returns False to leave that to SQLAlchemy."""

    def execute_alone(cursor: Any, *statement: Any) -> None:
        with autocommitting(statement[-1].root_connection.connection.dbapi_connection):
            execute(cursor, *statement)

    def send(cursor: Any, *statement: Any) -> bool:
        context = statement[-1]
        if context.cursor is not cursor:
            # A later batch of a statement whose first batch was sent on a new connection.
            execute(context.cursor, *statement)
            return True
        is_alone = autocommit_reads and is_sent_alone(context)
        send_it = execute_alone if is_alone else execute
        record_info = context.root_connection.connection.record_info or {}
        if record_info.pop(_UNUSED, False):
            _send_first(dialect, send_it, context, statement)
            if is_alone:  # it leaves nothing on the connection either
                record_info[_UNUSED] = True
            return True
        if is_alone:
            send_it(cursor, *statement)
        return is_alone

    return send


def _send_first(
    dialect: Dialect, execute: Callable[..., Any], context: Any, statement: tuple[Any, ...]
) -> None:
    connection: Connection = context.root_connection
    give_up_at = monotonic() + _PATIENCE
    attempts_left = _ATTEMPTS if _is_replaceable(dialect, context) else 1
    while True:
        try:
            execute(context.cursor, *statement)
            return
        except Exception as error:
            attempts_left -= 1
            proxy = connection.connection
            if (
                attempts_left == 0
                or monotonic() > give_up_at
                or not _is_lost(dialect, error, proxy, context.cursor)
            ):
                raise
            _replace(connection, error)
            renew_cursor(context)


def _is_replaceable(dialect: Dialect, context: Any) -> bool:
    """Return whether losing a connection loses nothing else.

    Code that got hold of the driver's connection may have used it already. A two-phase transaction
    has already begun on it.
    """
    connection: Connection = context.root_connection
    return (
        not IN_TRANSACTION[dialect.driver](connection.connection.driver_connection)
        and not isinstance(connection.get_transaction(), TwoPhaseTransaction)
        and not _is_kept_at_once(dialect, context)
    )


def _is_kept_at_once(dialect: Dialect, context: Any) -> bool:
    """Return whether a statement takes effect even if its connection is lost."""
    autocommits = dialect.detect_autocommit_setting(context.root_connection.connection)
    return autocommits or (context.isddl and features_of(dialect).commits_ddl)


def _replace(connection: Connection, error: Exception) -> None:
    """Replace a lost connection by a new one, in the pool too."""
    proxy: Any = connection.connection
    entry = record_of(connection)
    undo = list(entry.finalize_callback)
    entry.invalidate(error)
    try:
        proxy.dbapi_connection = _with_retries(entry.get_connection)
    except Exception as failure:
        # SQLAlchemy handles the error of a lost connection.
        raise error from failure
    entry.fresh = False
    _set_options(connection)
    entry.finalize_callback.extend(undo)
    connection.engine.pool.dispatch.checkout(proxy.dbapi_connection, entry, proxy)
    entry.record_info.pop(_UNUSED)


def _set_options(connection: Connection) -> None:
    """Give a new connection the settings of the old one, such as the isolation level."""
    dialect: Any = connection.dialect
    options = connection.get_execution_options()
    for name, characteristic in dialect.connection_characteristics.items():
        if name in options:
            characteristic.set_connection_characteristic(
                dialect, connection, connection.connection.dbapi_connection, options[name]
            )


def renew_cursor(context: Any) -> None:
    """Move a statement that is about to be sent to the connection that replaced its own."""
    with suppress(Exception):  # its connection is gone
        context.cursor.close()
    context.cursor = context.create_cursor()
    # SQLAlchemy would pass it the old cursor.
    fetchall: Callable[[Any], Any] = type(context).fetchall_for_returning.__get__(context)
    context.fetchall_for_returning = lambda _: fetchall(context.cursor)
