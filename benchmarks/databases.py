"""The databases of the benchmarks: one of each kind, with tables, dropped at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url

from benchmarks.models import Hero, Reading, Sizes, Table, Team, refilling
from tests.databases import postgresql_url

KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_DRIVERS = {
    "sqlite": {"async": "sqlite+aiosqlite", "sync": "sqlite"},
    "postgresql": {"async": "postgresql+asyncpg", "sync": "postgresql+psycopg"},
}


@dataclass(frozen=True)
class Database:
    """A database with all tables.

    Attributes:
        kind: "sqlite" or "postgresql".
        version: The version of the database.
        urls: Its URLs, with the drivers of the two APIs.
    """

    kind: str
    version: str
    urls: dict[str, str]


@contextmanager
def provide(kind: str, sizes: Sizes) -> Iterator[Database]:
    """Create a database with tables; fill those that are only read."""
    with _address(kind) as url:
        urls = {
            api: url.set(drivername=driver).render_as_string(hide_password=False)
            for api, driver in _DRIVERS[kind].items()
        }
        engine = create_engine(urls["sync"])
        tune(engine)
        Table.metadata.create_all(engine)
        counts: dict[type[Table], int] = {
            Team: sizes.rows // 10,
            Hero: sizes.rows,
            Reading: sizes.depth + sizes.rows,
        }
        with engine.begin() as connection:
            for model, count in counts.items():
                for statement in refilling(model, count, kind):
                    connection.execute(text(statement))
            question = (
                "sqlite_version()" if kind == "sqlite" else "current_setting('server_version')"
            )
            version = str(connection.execute(text(f"SELECT {question}")).scalar())
        engine.dispose()
        yield Database(kind, version.split(maxsplit=1)[0], urls)


def tune(engine: Engine) -> None:
    """Remove the disk from the comparison: SQLite does not wait for it."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _(connection: Any, _record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.execute("PRAGMA busy_timeout = 30000")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()


@contextmanager
def _address(kind: str) -> Iterator[URL]:
    if kind == "sqlite":
        with TemporaryDirectory() as folder:
            yield URL.create("sqlite", database=str(Path(folder, "bench.db")))
        return
    server = make_url(postgresql_url())
    name = f"bench_{os.getpid()}"
    admin = create_engine(
        server.set(drivername=_DRIVERS[kind]["sync"]), isolation_level="AUTOCOMMIT"
    )
    try:
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
            # It does not wait for the disk either.
            connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
        yield server.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        admin.dispose()
