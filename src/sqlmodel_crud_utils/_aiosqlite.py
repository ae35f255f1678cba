"""Connections to SQLite for asyncio that make one trip to their thread per statement.

aiosqlite makes four of them: for the cursor, to execute, to fetch, and to close. On a small
statement they cost more than SQLite does.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from functools import partial
from threading import Thread
from typing import Any, Self
from weakref import WeakSet

import aiosqlite

# How many rows come along with a statement. Of a longer result the rest stays in SQLite until it
# is asked for, so that a stream of rows needs memory for these only.
_ROWS_PER_TRIP = 1000


def connect(database: str, **options: Any) -> Connection:
    """Return a connection for `await`, with the parameters of `sqlite3.connect`."""
    return Connection(partial(sqlite3.connect, database, **{"factory": _Closing, **options}))


class Connection(aiosqlite.Connection):
    """An aiosqlite connection whose cursors bring the rows along, and that skips idle trips.

    It belongs to no event loop: what one of them asks is answered in that one.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=_ROWS_PER_TRIP)
        # The last trip that was begun, and the last one that the thread has finished.
        self._begun: object = None
        self._finished: object = None
        # Until version 0.22 of aiosqlite the connection was a thread, now it has one.
        thread = self if isinstance(self, Thread) else self._thread
        # A connection that is left open must not keep the program from ending.
        thread.daemon = True

    def cursor(self) -> Cursor:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return a cursor, for `async with` or `await`; the first statement opens it."""
        return Cursor(self)

    async def commit(self) -> None:
        """Commit the transaction, if there is one."""
        if self._may_be_in_transaction():
            await super().commit()

    async def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        if self._may_be_in_transaction():
            await super().rollback()

    @property
    def is_under_way(self) -> bool:
        """Whether the thread still works, perhaps for somebody who was cancelled meanwhile."""
        return self._finished is not self._begun

    def _may_be_in_transaction(self) -> bool:
        return self.is_under_way or self.in_transaction

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        trip = self._begun = object()

        def run() -> Any:
            try:
                return fn(*args, **kwargs)
            finally:
                self._finished = trip

        return await super()._execute(run)  # type: ignore[no-untyped-call]


class _Closing(sqlite3.Connection):
    """A connection that is gone when it is closed.

    SQLite keeps it, with its lock on the file, until the last of its statements is gone, and those
    live on in the traceback of whoever was cancelled.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = super().cursor(*args, **kwargs)
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()
        super().close()


class Cursor:
    """A cursor that executes, and fetches the first rows, in one trip.

    Attributes:
        arraysize: How many rows `fetchmany` returns.
    """

    def __init__(self, connection: Connection) -> None:
        self.arraysize = 1
        self._connection = connection
        self._cursor: sqlite3.Cursor | None = None
        self._rows: deque[Any] = deque()
        self._has_more = False

    def __await__(self) -> Generator[Any, None, Cursor]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the cursor."""
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Return the rows one by one."""
        while rows := await self.fetchmany(_ROWS_PER_TRIP):
            for row in rows:
                yield row

    @property
    def description(self) -> Any:
        """The columns of the result, None if there is none."""
        return None if self._cursor is None else self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed, -1 if it was no change."""
        return -1 if self._cursor is None else self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The key of the last row that was inserted."""
        return None if self._cursor is None else self._cursor.lastrowid

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Cursor:
        """Execute a statement."""
        return await self._run("execute", sql, () if parameters is None else parameters)

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Cursor:
        """Execute a statement for each set of parameters."""
        return await self._run("executemany", sql, parameters)

    async def executescript(self, sql_script: str) -> Cursor:
        """Execute several statements."""
        await self._connection._execute(self._run_script, sql_script)
        return self

    async def fetchone(self) -> Any:
        """Return the next row, None at the end."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows, `arraysize` of them unless a number is given."""
        wanted = self.arraysize if size is None else size
        if self._has_more and len(self._rows) < wanted:
            await self._connection._execute(self._read, max(wanted, _ROWS_PER_TRIP))
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    async def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        if self._has_more:
            await self._connection._execute(self._read, None)
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def close(self) -> None:
        """Give up what has not been fetched."""
        self._rows.clear()
        if self._has_more or self._connection.is_under_way:
            await self._connection._execute(self._close)

    async def _run(self, method: str, *args: Any) -> Cursor:
        await self._connection._execute(self._run_and_read, method, *args)
        return self

    # What follows runs in the thread.

    def _run_and_read(self, method: str, *args: Any) -> None:
        self._rows.clear()
        self._has_more = False
        cursor = self._opened()
        getattr(cursor, method)(*args)
        if cursor.description is not None:
            self._read(_ROWS_PER_TRIP)

    def _run_script(self, sql_script: str) -> None:
        self._opened().executescript(sql_script)

    def _opened(self) -> sqlite3.Cursor:
        if self._cursor is None:
            self._cursor = self._connection._conn.cursor()
        return self._cursor

    def _read(self, count: int | None) -> None:
        cursor = self._opened()
        rows = cursor.fetchall() if count is None else cursor.fetchmany(count)
        self._rows.extend(rows)
        self._has_more = len(rows) == count

    def _close(self) -> None:
        self._has_more = False
        self._opened().close()
