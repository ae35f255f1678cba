"""Code for one database: BEGIN on SQLite, snapshots and counts on MySQL, casts with asyncpg."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, StaticPool
from sqlalchemy.pool import SingletonThreadPool

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.writes.insert_statements import SKIPPED
from sqlmodel_crud_utils._session.sqlalchemy_internals import forget_types, level_on_connect

# Return whether a connection is in a transaction, without asking the server.
IN_TRANSACTION: Mapping[str, Callable[[Any], bool]] = {
    "asyncpg": lambda connection: connection.is_in_transaction(),
    "psycopg": lambda connection: connection.pgconn.transaction_status != 0,
    "asyncmy": lambda connection: connection.get_transaction_status(),
    "pymysql": lambda connection: connection.server_status & 1 != 0,
}


def begin_immediate(connection: Connection) -> None:
    """Begin a transaction on SQLite, whose driver begins none for SELECT or SAVEPOINT.

    Without it, the release of the first savepoint would commit. With IMMEDIATE, two blocks that
    read and then write wait for each other; a deferred one would fail at its first write.
    """
    if features_of(connection.dialect).single_writer and not has_begun(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


_SHARING = (StaticPool, SingletonThreadPool)


def begin_again_immediate(connection: Connection) -> None:
    """Replace an engine's own BEGIN, which took no lock, by a BEGIN IMMEDIATE.

    A deferred transaction that has just begun holds nothing: no lock, no snapshot, no change. A
    connection that sessions share, as for databases in memory, is left alone: it may hold changes.
    """
    if not features_of(connection.dialect).single_writer or is_shared(connection):
        return
    if has_begun(connection):
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def is_shared(connection: Connection) -> bool:
    """Return whether sessions share this connection, as for databases in memory."""
    return isinstance(connection.engine.pool, _SHARING)


def has_begun(connection: Connection) -> bool:
    """Return whether SQLite's driver has begun a transaction, as it does at the first change."""
    driver_connection: Any = connection.connection.driver_connection
    begun: bool = driver_connection.in_transaction
    return begun


def sees_commits(connection: Connection) -> bool:
    """Return whether a statement sees commits made since the transaction began."""
    if features_of(connection.dialect).single_writer:
        return True  # no other connection commits while this one writes
    return level_of(connection) in {"READ COMMITTED", "AUTOCOMMIT"}


def level_of(connection: Connection) -> str | None:
    """Return the isolation level of a connection's transaction."""
    dialect: Any = connection.dialect
    levels = (
        connection.get_execution_options().get("isolation_level"),
        level_on_connect(dialect),
        dialect.default_isolation_level,
    )
    return next((level for level in levels if level), None)


def cast_addresses(dialect: Any) -> None:
    """Let asyncpg know addresses and networks for what they are, wherever they stand.

    An INSERT of several rows has them in a subquery. There PostgreSQL takes a parameter without a
    cast for a text, and asyncpg refuses any other object. SQLAlchemy casts all types but these.
    """
    if dialect.driver != "asyncpg":
        return
    from sqlalchemy.dialects.postgresql import CIDR, INET  # only where it is the database

    if INET not in dialect.colspecs:
        dialect.colspecs = {**dialect.colspecs, INET: _cast(INET), CIDR: _cast(CIDR)}
        forget_types(dialect)


def _cast(type_: type[Any]) -> type[Any]:
    return type(type_.__name__, (type_,), {"render_bind_cast": True})


_NAME = "innodb_snapshot_isolation"


def lift_snapshot(connection: Connection) -> bool:
    """Switch snapshot isolation off on MariaDB; return whether it was on."""
    if not getattr(connection.dialect, "is_mariadb", False):
        return False
    setting = connection.exec_driver_sql(f"SHOW VARIABLES LIKE '{_NAME}'").first()
    was_on = setting is not None and setting[1] == "ON"
    if was_on:
        connection.exec_driver_sql(f"SET SESSION {_NAME} = OFF")
    return was_on


def restore_snapshot(connection: Connection) -> None:
    """Switch snapshot isolation back on."""
    connection.exec_driver_sql(f"SET SESSION {_NAME} = ON")


COUNTING: Mapping[str, Any] = {"any_tenant": True}
"""Execution options for counting statements: their SQL text reads no rows of any tenant."""


def start_counting(connection: Connection) -> None:
    """Start counting the duplicates that MySQL skips."""
    connection.exec_driver_sql(f"SET {SKIPPED} = 0")


def skipped(connection: Connection) -> int:
    """Return how many duplicates MySQL has skipped."""
    return int(connection.exec_driver_sql(f"SELECT {SKIPPED}").scalar_one())
