"""A pool for async engines that outlive an event loop, or serve several of them.

A connection of asyncpg, asyncmy or psycopg belongs to the loop that created it. In another loop, a
new connection takes its place in the pool, so that the pool's limits apply to the whole process.
Connections to SQLite belong to no loop. Clients of other servers, such as Redis, are created for
each loop.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy import AsyncAdaptedQueuePool, Dialect, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.queue import Empty, Full

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._session.liveness import Reconnects
from sqlmodel_crud_utils._session.sqlalchemy_internals import unlock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_C = TypeVar("_C")

_LOOP = "sqlmodel_crud_utils.loop"


class LoopQueue:
    """The idle connections, for tasks of any number of event loops and threads."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._entries: deque[ConnectionPoolEntry] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._leaving = LeavingConnections()
        self._lock = threading.Lock()

    def qsize(self) -> int:
        """Return the number of idle connections."""
        return len(self._entries)

    def put(self, entry: ConnectionPoolEntry, _block: bool = True) -> None:
        """Add an idle connection; raise `Full` if there are enough."""
        with self._lock:
            if 0 < self.maxsize <= len(self._entries):
                raise Full
            self._entries.append(entry)
        self._wake_one()

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        """Take a connection that the running loop can use, or raise `Empty`.

        Args:
            block: Whether to wait for one.
            timeout: How many seconds to wait.
        """
        entry = await_only(self._wait(timeout)) if block else self._take()
        if entry is None:
            raise Empty
        return entry

    def take_out_connections_of(self, loop: asyncio.AbstractEventLoop) -> list[Any]:
        """Remove and return the idle connections that belong to a loop."""
        with self._lock:
            entries = [each for each in self._entries if each.info.get(_LOOP) is loop]
            taken = [_taken_out(entry) for entry in entries]
        return [connection for connection in taken if connection is not None]

    async def _wait(self, seconds: float | None) -> ConnectionPoolEntry | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    waiter = asyncio.get_running_loop().create_future()
                    entry = self._take(waiter)
                    if entry is not None:
                        return entry
                    await self._woken(waiter)
        return None

    async def _woken(self, waiter: asyncio.Future[None]) -> None:
        try:
            await waiter
        except BaseException:
            with suppress(ValueError):
                self._waiting.remove(waiter)
            if not waiter.cancelled():
                # It was woken, but will not take the connection.
                self._wake_one()
            raise

    def _take(self, waiter: asyncio.Future[None] | None = None) -> ConnectionPoolEntry | None:
        """Return a connection, or None if all are in use; then the waiter is woken later."""
        loop = _running_loop()
        with self._lock:
            entry = self._pick(loop)
            if entry is None and waiter is not None:
                self._waiting.append(waiter)
        if entry is not None and not _is_usable(entry, loop):
            self._leaving.take_out(entry)
        self._leaving.close_those_of_ended_loops(loop)
        return entry

    def _pick(self, loop: asyncio.AbstractEventLoop | None) -> ConnectionPoolEntry | None:
        if not self._entries:
            return None
        in_order = reversed(self._entries) if self.use_lifo else self._entries
        entry = next((each for each in in_order if _is_usable(each, loop)), self._entries[0])
        self._entries.remove(entry)
        return entry

    def _wake_one(self) -> None:
        while True:
            try:
                waiter = self._waiting.popleft()
            except IndexError:
                return
            loop = waiter.get_loop()
            if loop is _running_loop():
                self._wake(waiter)
                return
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._wake, waiter)
                return

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            self._wake_one()
        else:
            waiter.set_result(None)


class LeavingConnections:
    """Connections of other loops that must be closed, each in its own loop while that runs."""

    def __init__(self) -> None:
        self._all: dict[Any, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()

    def take_out(self, entry: Any) -> None:
        """Remove the connection of a pool entry, and close it."""
        loop = entry.info[_LOOP]
        connection = _taken_out(entry)
        if not hasattr(connection, "terminate"):
            # psycopg's connection can be closed without its loop.
            connection.driver_connection.pgconn.finish()
            return
        self._all[connection] = loop
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._close, connection)

    def close_those_of_ended_loops(self, running: asyncio.AbstractEventLoop | None) -> None:
        """Close the connections whose loop has ended."""
        for connection, loop in list(self._all.items()):
            if loop.is_closed() and running is not None:
                # Later, because in its greenlet SQLAlchemy would wait for the server.
                running.call_soon(self._close, connection)
            elif loop.is_closed():
                self._close(connection)

    def _close(self, connection: Any) -> None:
        with self._lock:
            loop = self._all.pop(connection, None)
            if loop is not None:
                # uvloop has closed the connection together with the loop, and raises an error.
                refused = (RuntimeError,) if loop.is_closed() else ()
                with _calling_at_once(loop), suppress(*refused):
                    connection.terminate()


@contextmanager
def _calling_at_once(loop: Any) -> Iterator[None]:
    """Make a loop's `call_soon` call functions immediately.

    A closed loop would refuse them, and one that is ending would not get to them.
    """
    with suppress(AttributeError):  # uvloop has no such attribute
        loop.call_soon = _call
    try:
        yield
    finally:
        with suppress(AttributeError):
            del loop.call_soon


def _call(callback: Callable[..., object], *args: Any, **_context: Any) -> None:
    callback(*args)


class LoopPool(Reconnects, AsyncAdaptedQueuePool):
    """SQLAlchemy's pool for async engines, for any number of loops."""

    _queue_class: Any = LoopQueue

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_set_up = False
        self._setting_up: dict[None, asyncio.AbstractEventLoop] = {}

    @property
    def queue(self) -> LoopQueue:
        """The idle connections."""
        return cast(LoopQueue, self._pool)

    def connect(self) -> PoolProxiedConnection:
        """Return a connection of the pool.

        The first connection initializes SQLAlchemy's dialect under a lock that only works within
        one loop, so other loops wait here.
        """
        loop = asyncio.get_running_loop()
        while not self._is_set_up and self._setting_up.setdefault(None, loop) is not loop:
            await_only(asyncio.sleep(0.01))
        try:
            proxy = super().connect()
            self._is_set_up = True
            return proxy
        finally:
            self._setting_up.pop(None, None)


def track_loops(engine: Engine) -> None:
    """Make a `LoopPool` track which loop a connection belongs to, and when a loop ends."""
    if not features_of(engine.dialect).has_server:
        event.listen(engine, "connect", _unlock)
        return
    ends: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncIterator[None]] = WeakKeyDictionary()

    @event.listens_for(engine, "connect")
    def mark(_connection: Any, entry: ConnectionPoolEntry) -> None:
        loop = entry.info[_LOOP] = asyncio.get_running_loop()
        if loop not in ends and isinstance(engine.pool, LoopPool):
            ends[loop] = _until_the_end(engine, loop)
            await_only(anext(ends[loop]))


async def _until_the_end(engine: Engine, loop: asyncio.AbstractEventLoop) -> AsyncIterator[None]:
    """Close a loop's connections on its shutdown, which closes all async generators."""
    try:
        yield
    finally:
        pool = cast(LoopPool, engine.pool)
        for connection in pool.queue.take_out_connections_of(loop):
            await _close(engine.dialect, connection)


async def _close(dialect: Dialect, connection: Any) -> None:
    try:
        await greenlet_spawn(dialect.do_terminate, connection)
    except Exception as error:  # noqa: BLE001 - it is lost either way
        get_logger().debug(f"closing a connection failed: {type(error).__name__}")


def run_in_separate_loop(
    engine: AsyncEngine, func: Callable[[Engine], None], *, dispose: bool
) -> None:
    """Call a function with an async engine's plain engine, in a separate event loop.

    A loop that runs in this thread is blocked meanwhile. No connection of the separate loop stays
    in a pool.

    Args:
        engine: The engine; if its pool does not track loops, a new pool is used instead.
        func: The function.
        dispose: Whether the engine is no longer needed.
    """

    async def work() -> None:
        apart = _for_one_loop(engine.sync_engine)
        try:
            await greenlet_spawn(func, apart)
        finally:
            if dispose or apart is not engine.sync_engine:
                await greenlet_spawn(apart.dispose)

    if _running_loop() is None:
        asyncio.run(work())
        return
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, work()).result()


def _for_one_loop(engine: Engine) -> Engine:
    if isinstance(engine.pool, LoopPool) or not features_of(engine.dialect).has_server:
        return engine
    return Engine(
        engine.pool.recreate(),
        engine.dialect,
        engine.url,
        hide_parameters=engine.hide_parameters,
    )


def _unlock(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # SQLAlchemy 2.1 has a lock around statements, which belongs to the first loop that waits for
    # it. It is not needed: the connection's thread runs one statement at a time.
    unlock(connection)


def _is_usable(entry: ConnectionPoolEntry, loop: asyncio.AbstractEventLoop | None) -> bool:
    return entry.dbapi_connection is None or entry.info.get(_LOOP, loop) is loop


def _taken_out(entry: Any) -> Any:
    connection = entry.dbapi_connection
    entry.dbapi_connection = None
    return connection


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


# --- clients of other servers ---------------------------------------------------------------------


class PerLoop(Generic[_C]):
    """A client for each event loop; clients of closed loops are dropped.

    Args:
        make: Makes a client.
    """

    def __init__(self, make: Callable[[], _C]) -> None:
        self._make = make
        self._clients: dict[asyncio.AbstractEventLoop, _C] = {}
        self._lock = threading.Lock()

    def here(self) -> _C:
        """Return the client of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None:
            with self._lock:
                self._drop_old()
                found = self._clients[loop] = self._make()
        return found

    def take(self) -> _C | None:
        """Remove and return the client of the running loop, if it has one."""
        with self._lock:
            self._drop_old()
            return self._clients.pop(asyncio.get_running_loop(), None)

    def _drop_old(self) -> None:
        # Their connections can no longer be closed, which would need the loop.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for loop in [each for each in self._clients if each.is_closed()]:
                del self._clients[loop]
