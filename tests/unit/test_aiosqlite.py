"""The connection of our own to SQLite, called as SQLAlchemy's dialect calls it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from hypothesis import given, strategies as st

from sqlmodel_crud_utils._aiosqlite import connect
from tests.properties import examples

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {}) SELECT x FROM n"

# --- cancellation --------------------------------------------------------------------------------


async def test_a_write_that_nobody_waits_for_is_rolled_back(tmp_path: Path) -> None:
    """The rollback comes after it, though there was no transaction when it was asked for."""
    connection = await connect(f"{tmp_path}/a.db")
    await connection.create_function("sleep", 1, time.sleep)
    await connection.execute("CREATE TABLE t (x)")
    async with connection.cursor() as cursor:
        reading = asyncio.ensure_future(connection.execute_fetchall("SELECT sleep(0.1)"))
        writing = asyncio.ensure_future(cursor.execute("INSERT INTO t VALUES (1)"))
        await asyncio.sleep(0.02)
        writing.cancel()
        reading.cancel()
        assert not connection.in_transaction
        await connection.rollback()
        assert not connection.in_transaction
        assert list(await connection.execute_fetchall("SELECT * FROM t")) == []
    await connection.close()


async def test_rows_that_nobody_waits_for_are_given_up(tmp_path: Path) -> None:
    """Closing the cursor ends its statement, and with it the lock."""
    connection = await connect(f"{tmp_path}/a.db")
    await connection.create_function("sleep", 1, time.sleep)
    cursor = await connection.cursor()
    statement = f"SELECT x, sleep(0.1 * (x = 1)) FROM ({NUMBERS.format(5000)})"
    reading = asyncio.ensure_future(cursor.execute(statement))
    await asyncio.sleep(0.02)
    reading.cancel()
    await cursor.close()
    with pytest.raises(sqlite3.ProgrammingError):
        await cursor.execute("SELECT 1")
    await connection.close()


async def test_closing_waits_for_the_statement(tmp_path: Path) -> None:
    """What runs comes to its end, and what comes after is refused."""
    connection = await connect(f"{tmp_path}/a.db")
    await connection.create_function("sleep", 1, time.sleep)
    cursor = await connection.cursor()
    running = asyncio.ensure_future(cursor.execute("SELECT sleep(0.1)"))
    await asyncio.sleep(0.02)
    await connection.close()
    assert await (await running).fetchall() == [(None,)]
    with pytest.raises(ValueError, match="closed"):
        await cursor.execute("SELECT 1")
    with pytest.raises(ValueError, match="active"):
        await connection.commit()


# --- what a cursor does, compared with aiosqlite's own ------------------------------------------

Step = tuple[str, tuple[Any, ...]]

STATEMENTS: list[Step] = [
    ("execute", ("CREATE TABLE IF NOT EXISTS t (x INTEGER UNIQUE)",)),
    ("execute", ("INSERT INTO t VALUES (?)", [1])),
    ("execute", ("UPDATE t SET x = x + 100",)),
    ("execute", ("DELETE FROM t",)),
    ("execute", ("SELECT x AS y FROM t ORDER BY x",)),
    ("execute", (NUMBERS.format(2500),)),
    ("execute", (NUMBERS.format(1000),)),
    ("execute", ("SELEC",)),
    ("executemany", ("INSERT INTO t VALUES (?)", [(5,), (6,)])),
    ("executemany", ("SELECT ?", [(5,)])),
]
FETCHES: list[Step] = [
    ("fetchone", ()),
    ("fetchmany", ()),
    ("fetchmany", (7,)),
    ("fetchmany", (1200,)),
    ("fetchall", ()),
]


async def observed(cursor: Any, step: Step) -> Any:
    """What a step gives, and what the cursor says after it."""
    name, arguments = step
    try:
        given = await getattr(cursor, name)(*arguments)
    except sqlite3.Error as error:
        given = repr(error)
    given = None if given is cursor else given
    return given, cursor.description, cursor.rowcount, cursor.lastrowid


async def replay(connection: aiosqlite.Connection, steps: list[Step], size: int) -> list[Any]:
    """All that a cursor says while it goes through some steps."""
    async with connection.cursor() as cursor:
        cursor.arraysize = size
        seen = [await observed(cursor, step) for step in steps]
        await cursor.execute(NUMBERS.format(3000))
        seen.append([row async for row in cursor])
    await connection.commit()
    seen.append(await connection.execute_fetchall("SELECT name FROM sqlite_master"))
    await connection.close()
    return seen


def played(make: Callable[[], Awaitable[Any]], steps: list[Step], size: int) -> list[Any]:
    """Go through some steps in a loop of their own."""

    async def play() -> list[Any]:
        return await replay(await make(), steps, size)

    with asyncio.Runner() as runner:
        return runner.run(play())


@examples(200)
@given(
    st.lists(st.sampled_from(STATEMENTS + FETCHES), min_size=1, max_size=12),
    st.integers(min_value=1, max_value=3),
)
def test_a_cursor_says_what_aiosqlites_says(steps: list[Step], size: int) -> None:
    """Rows, columns, counts, keys and errors, whatever the order of the calls."""
    usual = played(lambda: aiosqlite.connect(":memory:"), steps, size)
    ours = played(lambda: connect(":memory:"), steps, size)
    assert ours == usual
