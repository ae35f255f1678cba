"""The connection of our own to SQLite, called as SQLAlchemy's dialect calls it."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
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

# --- opening -------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has ended before the error is raised: it would fail in an ended event loop."""
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    before = set(threading.enumerate())

    async def open_it() -> None:
        with pytest.raises(sqlite3.OperationalError):
            await connect(f"{tmp_path}/no folder/a.db")

    for _ in range(30):
        asyncio.run(open_it())
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert failures == []


# --- cancellation --------------------------------------------------------------------------------


async def test_a_write_that_nobody_waits_for_is_rolled_back(tmp_path: Path) -> None:
    """The rollback comes after it, although no transaction existed when it was requested."""
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
    await be_alone(f"{tmp_path}/a.db")
    await connection.close()


async def test_a_closed_connection_holds_no_lock(tmp_path: Path) -> None:
    """Whoever has not read all rows has lost them."""
    connection = await connect(f"{tmp_path}/a.db")
    await connection.execute_fetchall(f"CREATE TABLE t AS {NUMBERS.format(5000)}")
    cursor = await connection.cursor()
    await cursor.execute("SELECT x FROM t")
    await connection.close()
    await be_alone(f"{tmp_path}/a.db")
    with pytest.raises(ValueError, match="closed"):
        await cursor.fetchall()


async def test_two_tasks_that_read_one_result_share_its_rows() -> None:
    """Each row is read once, and none is left."""
    async with connect(":memory:") as connection, connection.cursor() as cursor:
        await cursor.execute(NUMBERS.format(1700))
        both = await asyncio.gather(cursor.fetchmany(1200), cursor.fetchmany(1200))
        assert [len(rows) for rows in both] == [1200, 500]
        assert await cursor.fetchall() == []


async def be_alone(file: str) -> None:
    """Take an exclusive lock on a file."""
    async with connect(file, timeout=0) as connection:
        await connection.execute_fetchall("BEGIN EXCLUSIVE")


# --- what the garbage collector finds -----------------------------------------------------------


async def test_the_garbage_collector_waits_for_no_statement(tmp_path: Path) -> None:
    """Otherwise the event loop would block, and with it the task that the statement waits for."""
    connection = await connect(f"{tmp_path}/a.db")
    is_collected = threading.Event()
    await connection.create_function("wait", 0, lambda: is_collected.wait(10))
    cursors: list[Any] = [connection.cursor() for _ in range(3)]
    cursors.append(cursors)  # only the collector can free them
    await cursors[0].execute(NUMBERS.format(5000))
    await cursors[1].execute(NUMBERS.format(5))
    with pytest.raises(sqlite3.OperationalError):
        await cursors[2].execute("SELECT abs(-9223372036854775808)")
    waiting = asyncio.ensure_future(connection.execute_fetchall("SELECT wait()"))
    await asyncio.sleep(0.02)
    del cursors
    gc.collect()
    is_collected.set()
    assert await waiting == [(True,)]
    await connection.close()


async def test_what_was_collected_holds_no_lock(tmp_path: Path) -> None:
    """A rollback releases it, although there is no transaction."""
    connection = await connect(f"{tmp_path}/a.db")
    await connection.execute_fetchall(f"CREATE TABLE t AS {NUMBERS.format(5000)}")
    cursor = connection.cursor()
    await cursor.execute("SELECT x FROM t")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await be_alone(f"{tmp_path}/a.db")
    del cursor
    gc.collect()
    await connection.rollback()
    await be_alone(f"{tmp_path}/a.db")
    await connection.close()


async def test_closing_waits_for_the_statement(tmp_path: Path) -> None:
    """The running statement finishes, and later ones are refused."""
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
    ("execute", ("INSERT INTO t VALUES (?)", [1])),
    ("execute", ("UPDATE t SET x = x + 100",)),
    ("execute", ("DELETE FROM t",)),
    ("execute", ("SELECT x AS y FROM t ORDER BY x",)),
    ("execute", (NUMBERS.format(1700),)),
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
    """Return the result of a step, and the cursor's attributes after it."""
    name, arguments = step
    try:
        given = await getattr(cursor, name)(*arguments)
    except sqlite3.Error as error:
        given = repr(error)
    given = None if given is cursor else given
    return given, cursor.description, cursor.rowcount, cursor.lastrowid


async def replay(connection: aiosqlite.Connection, steps: list[Step], size: int) -> list[Any]:
    """Return the cursor's attributes after each of some steps."""
    async with connection.cursor() as cursor:
        cursor.arraysize = size
        await cursor.execute("CREATE TABLE t (x INTEGER UNIQUE)")
        seen = [await observed(cursor, step) for step in steps]
        await cursor.execute(NUMBERS.format(1500))
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


@examples(60)
@given(
    st.lists(st.sampled_from(STATEMENTS + FETCHES), min_size=1, max_size=12),
    st.integers(min_value=1, max_value=3),
)
def test_a_cursor_says_what_aiosqlites_says(steps: list[Step], size: int) -> None:
    """Rows, columns, counts, keys and errors, for any order of calls."""
    usual = played(lambda: aiosqlite.connect(":memory:"), steps, size)
    ours = played(lambda: connect(":memory:"), steps, size)
    assert ours == usual
