"""The table of the benchmarks, and the databases that it is on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy import Engine, create_engine, delete, event, insert, text
from sqlmodel import Field, SQLModel

ROWS = 1_000
NUMBERS = count(1)


class Hero(SQLModel, table=True):
    __tablename__ = "bench_hero"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    secret_name: str = Field(max_length=100)
    age: int | None = Field(default=None, index=True)


def new_values() -> dict[str, Any]:
    """Return the values of a row that is not there yet."""
    number = next(NUMBERS)
    return {"name": f"new {number}", "secret_name": "?", "age": number % 60}


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Give the addresses by name: SQLite in a file, and what TEST_POSTGRESQL_URL names."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"SQLite": f"sqlite+aiosqlite:///{folder}/bench.db"}
        if url := os.environ.get("TEST_POSTGRESQL_URL"):
            found["PostgreSQL"] = url.replace("postgresql://", "postgresql+asyncpg://", 1)
        yield found


def prepare(async_url: str) -> None:
    """Make the table anew, with rows 1 to `ROWS`."""
    engine = create_engine(sync_url(async_url))
    set_up(engine)
    SQLModel.metadata.drop_all(engine)
    SQLModel.metadata.create_all(engine)
    refill(engine)
    engine.dispose()


def refill(engine: Engine) -> None:
    """Leave the first rows only."""
    rows = [{"name": f"hero {n}", "secret_name": "?", "age": n % 60} for n in range(ROWS)]
    with engine.begin() as connection:
        connection.execute(delete(Hero))
        connection.execute(insert(Hero), rows)
        connection.execute(
            text("ANALYZE bench_hero")
        )  # or the plans depend on which statement came first


def set_up(engine: Engine) -> None:
    """Take the disk out of the comparison."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _(connection: Any, _record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.close()


def sync_url(async_url: str) -> str:
    """Return the address with the sync driver."""
    return async_url.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
