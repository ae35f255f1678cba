"""Set-up of an engine's new connections, and the state of its pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import Dialect, Pool, QueuePool, StaticPool
from sqlalchemy.pool import ConnectionPoolEntry, SingletonThreadPool

from sqlmodel_crud_utils._core.connections.engine_settings import (
    _DRIVERS_THAT_TAKE_BYTES,
    EnginePlan,
    PoolStatus,
    _text,
)
from sqlmodel_crud_utils._core.connections.urls import (
    is_memory,
)
from sqlmodel_crud_utils._session.sqlalchemy_internals import connections_of_threads


def status_of(pool: Pool) -> PoolStatus:
    """Return the state of a pool; a pool that does not count its connections reports zeros."""
    if isinstance(pool, QueuePool):
        return PoolStatus(
            size=pool.size(),
            checked_in=pool.checkedin(),
            checked_out=pool.checkedout(),
            # SQLAlchemy counts up from minus the pool's size.
            overflow=max(pool.overflow(), 0),
        )
    size, entries = _kept(pool)
    in_use = [entry.in_use for entry in entries if entry.dbapi_connection is not None]
    return PoolStatus(
        size=size, checked_in=in_use.count(False), checked_out=in_use.count(True), overflow=0
    )


def _kept(pool: Pool) -> tuple[int, Iterable[ConnectionPoolEntry]]:
    """Return how many connections a pool without a queue may keep, and those it holds now."""
    if isinstance(pool, StaticPool):
        # Not `pool.connection`: reading that attribute would connect.
        entry = vars(pool).get("connection")
        return 1, [entry] if entry is not None else []
    if isinstance(pool, SingletonThreadPool):
        return pool.size, connections_of_threads(pool)
    return 0, []


def password_of(
    source: Callable[[], Any], dialect: Dialect, ask: Callable[[Callable[[], Any]], Any]
) -> Callable[..., None]:
    """Return a listener that supplies the password of each new connection."""
    encode = dialect.driver in _DRIVERS_THAT_TAKE_BYTES

    def supply(_dialect: Any, _entry: Any, _args: Any, parameters: dict[str, Any]) -> None:
        secret = _text(ask(source))
        parameters["password"] = secret.encode() if encode else secret

    return supply


def pragmas_of(plan: EnginePlan) -> Callable[..., None]:
    """Return a listener that sets up each new connection to SQLite."""
    import sqlite3  # only if SQLite is used

    is_file = not is_memory(plan.url)
    # With autocommit=False the driver has begun a transaction, in which the pragmas do nothing.
    begun = plan.arguments["connect_args"].get("autocommit") is False

    def set_pragmas(connection: Any, _entry: Any) -> None:
        cursor = connection.cursor()
        if begun:
            cursor.execute("COMMIT")
        cursor.execute("PRAGMA foreign_keys = ON")
        if is_file:
            # A file that is read-only, or currently locked, works without WAL. Any other
            # problem shows at the first statement.
            with suppress(sqlite3.OperationalError):
                cursor.execute("PRAGMA journal_mode = WAL")
        if begun:
            cursor.execute("BEGIN")
        cursor.close()

    return set_pragmas
