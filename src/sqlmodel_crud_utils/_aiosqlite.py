"""Connections to SQLite for asyncio that make one trip to their thread per statement.

aiosqlite makes four: to create the cursor, execute, fetch and close. For a small statement, these
cost more than SQLite itself.

Only the thread uses a SQLite cursor, from creation to close. If the garbage collector freed one in
the event loop, the loop would block on the connection's lock, possibly for the length of a
statement that waits for a lock of another task in the same loop.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from functools import partial
from threading import Thread
from typing import Any, Self, cast

import aiosqlite

# How many rows are fetched with a statement. The rest of a longer result stays in SQLite until it
# is requested, so that a stream holds only this many rows in memory.
_ROWS_PER_TRIP = 1000


def connect(database: str, **options: Any) -> QuickConnection:
    """Return an awaitable connection; the parameters are those of `sqlite3.connect`."""
    return QuickConnection(partial(sqlite3.connect, database, factory=_SQLite, **options))


class QuickConnection(aiosqlite.Connection):
    """An aiosqlite connection that fetches rows with the statement and skips needless trips.

    It belongs to no event loop: each request is answered in the loop that made it.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=_ROWS_PER_TRIP)
        # The last trip that was started, and the last one that the thread has finished.
        self._begun: object = None
        self._finished: object = None
        # What to await for the end of the thread, once it is told to stop.
        self._stopping: Any = None
        # SQLite cursors whose readers are gone.
        self._abandoned: deque[sqlite3.Cursor] = deque()
        # Until aiosqlite 0.22 the connection was a thread; now it has one.
        thread = self if isinstance(self, Thread) else self._thread
        # An open connection must not prevent the program from exiting.
        thread.daemon = True

    def stop(self) -> Any:
        """Tell the thread to stop; the result can be awaited."""
        self._stopping = super().stop()
        return self._stopping

    async def _connect(self) -> aiosqlite.Connection:
        try:
            return await super()._connect()
        except BaseException:
            # aiosqlite does not wait for the thread, which fails if the event loop ends before it.
            if self._stopping is not None:
                await self._stopping
            raise

    def cursor(self) -> Cursor:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return a cursor for `async with` or `await`; the first statement opens it."""
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
        """Whether the thread is still working, perhaps for a task that was cancelled."""
        return self._finished is not self._begun

    @property
    def sqlite(self) -> _SQLite:
        """The thread's own connection."""
        return cast(_SQLite, self._conn)

    def abandon(self, cursor: sqlite3.Cursor) -> None:
        """Schedule a SQLite cursor to be closed before the thread's next work."""
        self._abandoned.append(cursor)

    def _may_have_work(self) -> bool:
        return self.is_under_way or self.in_transaction or bool(self._abandoned)

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        trip = self._begun = object()
        # The thread refers to its last trip until the next one; that must not keep a cursor alive.
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
    """A connection that tracks its cursors and closes them when it is closed.

    SQLite keeps a closed connection, and its lock on the file, while a cursor is open.
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
    """A cursor that executes a statement and fetches the first rows in one trip.

    Attributes:
        arraysize: How many rows `fetchmany` returns by default.
        description: The columns of the result; None for a statement without a result.
        rowcount: How many rows the last statement changed; -1 if it changes none.
        lastrowid: The key of the last inserted row.
    """

    def __init__(self, connection: QuickConnection) -> None:
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._connection = connection
        self._rows: deque[Any] = deque()
        # Set while it has rows left.
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
        """Yield the rows."""
        while rows := await self.fetchmany(_ROWS_PER_TRIP):
            for row in rows:
                yield row

    def __del__(self) -> None:
        """Let the thread close a cursor that was not read to its end."""
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
        """Return the next row, or None at the end."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows: `size` of them, by default `arraysize`."""
        wanted = self.arraysize if size is None else size
        if self._source is not None and len(self._rows) < wanted:
            await self._travel(self._read, max(wanted, _ROWS_PER_TRIP))
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    async def fetchall(self) -> list[Any]:
        """Return all remaining rows."""
        if self._source is not None:
            await self._travel(self._read, None)
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def close(self) -> None:
        """Discard the rows that have not been fetched."""
        # A statement whose task was cancelled may still be running.
        if self._source is not None or self._connection.is_under_way:
            await self._connection._execute(self._finish)
        self._rows.clear()

    async def _travel(self, work: Callable[..., None], *args: Any) -> None:
        await self._connection._execute(self._carry_out, work, *args)

    # The methods below run in the thread.

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
