"""Connections to SQLite for asyncio that make one trip to their thread per statement.

aiosqlite makes four of them: for the cursor, to execute, to fetch, and to close. On a small
statement they cost more than SQLite does.

Only the thread touches a cursor of SQLite, from its beginning to its end. If the garbage collector
freed one, it would wait for the lock of the connection, and with it the event loop would: up to the
end of a statement that waits for what another task of that loop holds.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from functools import partial
from threading import Thread
from typing import Any, Self, cast

import aiosqlite

# How many rows come along with a statement. Of a longer result the rest stays in SQLite until it
# is asked for, so that a stream of rows needs memory for these only.
_ROWS_PER_TRIP = 1000


def connect(database: str, **options: Any) -> QuickConnection:
    """Return a connection for `await`, with the parameters of `sqlite3.connect`."""
    return QuickConnection(partial(sqlite3.connect, database, factory=_SQLite, **options))


class QuickConnection(aiosqlite.Connection):
    """An aiosqlite connection whose cursors bring the rows along, and that skips idle trips.

    It belongs to no event loop: what one of them asks is answered in that one.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=_ROWS_PER_TRIP)
        # The last trip that was begun, and the last one that the thread has finished.
        self._begun: object = None
        self._finished: object = None
        # Cursors of SQLite whose readers are gone.
        self._abandoned: deque[sqlite3.Cursor] = deque()
        # Until version 0.22 of aiosqlite the connection was a thread, now it has one.
        thread = self if isinstance(self, Thread) else self._thread
        # A connection that is left open must not keep the program from ending.
        thread.daemon = True

    def cursor(self) -> Cursor:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return a cursor, for `async with` or `await`; the first statement opens it."""
        return Cursor(self)

    async def commit(self) -> None:
        """Commit the transaction, if there is one."""
        if self._may_have_work():
            await super().commit()

    async def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        if self._may_have_work():
            await super().rollback()

    @property
    def is_under_way(self) -> bool:
        """Whether the thread still works, perhaps for somebody who was cancelled meanwhile."""
        return self._finished is not self._begun

    @property
    def sqlite(self) -> _SQLite:
        """The connection of the thread."""
        return cast(_SQLite, self._conn)

    def abandon(self, cursor: sqlite3.Cursor) -> None:
        """Let the thread close a cursor of SQLite before it does anything else."""
        self._abandoned.append(cursor)

    def _may_have_work(self) -> bool:
        return self.is_under_way or self.in_transaction or bool(self._abandoned)

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        trip = self._begun = object()
        # The thread remembers its last trip until the next one, but no cursor with it.
        work = [partial(fn, *args, **kwargs)]

        def run() -> Any:
            try:
                while self._abandoned:
                    self.sqlite.finish(self._abandoned.popleft())
                return work.pop()()
            finally:
                self._finished = trip

        return await super()._execute(run)  # type: ignore[no-untyped-call]


class _SQLite(sqlite3.Connection):
    """A connection that keeps its cursors until they are closed, and is gone when it is closed.

    With a cursor left, SQLite would keep the closed connection and its lock on the file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: set[sqlite3.Cursor] = set()

    def begin(self) -> sqlite3.Cursor:
        """Return a new cursor."""
        cursor = self.cursor()
        self._kept.add(cursor)
        return cursor

    def finish(self, cursor: sqlite3.Cursor) -> None:
        """Close a cursor."""
        cursor.close()
        self._kept.discard(cursor)

    def close(self) -> None:
        for cursor in self._kept:
            cursor.close()
        self._kept.clear()
        super().close()


class Cursor:
    """A cursor that executes, and fetches the first rows, in one trip.

    Attributes:
        arraysize: How many rows `fetchmany` returns.
        description: The columns of the result, None for a statement without one.
        rowcount: How many rows the last statement changed, -1 if it was no change.
        lastrowid: The key of the last row that was inserted.
    """

    def __init__(self, connection: QuickConnection) -> None:
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._connection = connection
        self._rows: deque[Any] = deque()
        # There is one as long as it has rows left.
        self._source: sqlite3.Cursor | None = None

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

    def __del__(self) -> None:
        """Leave what has not been read to the thread."""
        if self._source is not None:
            self._connection.abandon(self._source)

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Cursor:
        """Execute a statement."""
        await self._travel(self._run, "execute", sql, () if parameters is None else parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Cursor:
        """Execute a statement for each set of parameters."""
        await self._travel(self._run, "executemany", sql, parameters)
        return self

    async def executescript(self, sql_script: str) -> Cursor:
        """Execute several statements."""
        await self._travel(self._run, "executescript", sql_script)
        return self

    async def fetchone(self) -> Any:
        """Return the next row, None at the end."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows, `arraysize` of them unless a number is given."""
        wanted = self.arraysize if size is None else size
        if self._source is not None and len(self._rows) < wanted:
            await self._travel(self._read, max(wanted, _ROWS_PER_TRIP))
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    async def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        if self._source is not None:
            await self._travel(self._read, None)
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def close(self) -> None:
        """Give up what has not been fetched."""
        # A statement that nobody waits for any more may be under way.
        if self._source is not None or self._connection.is_under_way:
            await self._connection._execute(self._finish)
        self._rows.clear()

    async def _travel(self, work: Callable[..., None], *args: Any) -> None:
        await self._connection._execute(self._carry_out, work, *args)

    # What follows runs in the thread.

    def _carry_out(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except BaseException:
            self._finish()
            raise

    def _run(self, method: str, *args: Any) -> None:
        self._finish()
        self._rows.clear()
        self.description, self.rowcount = None, -1
        self._source = source = self._connection.sqlite.begin()
        getattr(source, method)(*args)
        self.description = source.description
        if source.lastrowid is not None:
            self.lastrowid = source.lastrowid
        self._read(_ROWS_PER_TRIP)

    def _read(self, count: int | None) -> None:
        source = self._source
        if source is None:
            return
        rows = source.fetchall() if count is None else source.fetchmany(count)
        self.rowcount = source.rowcount
        self._rows.extend(rows)
        if len(rows) != count:
            self._finish()

    def _finish(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            self._connection.sqlite.finish(source)
