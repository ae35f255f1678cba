"""The primitives that differ between the two APIs, for async; `_runtime_sync` is the sync twin.

Both modules have the same names with the same parameters, so that the code in `_async/` stays the
same when it is generated.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Dialect, Engine, Executable, Table
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from sqlmodel_crud_utils._core.connections.engine_settings import EnginePlan, build_engine
from sqlmodel_crud_utils._core.connections.redis_options import options_for_redis
from sqlmodel_crud_utils._core.errors.translation import translate
from sqlmodel_crud_utils._core.errors.wrong_sessions import wrong_session
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.writes.copying import (
    copy_statement,
    quoted_name_of,
    refused_values,
)
from sqlmodel_crud_utils._loops import LoopPool, PerLoop, track_loops
from sqlmodel_crud_utils._session import sent_statements
from sqlmodel_crud_utils._session.autocommit_reads import NO_OPTIONS, with_autocommit
from sqlmodel_crud_utils._session.replica_sessions import Replicas, RoutedSession
from sqlmodel_crud_utils._session.routing import as_writing
from sqlmodel_crud_utils._session.sharing import Sharing
from sqlmodel_crud_utils._session.sole_use import is_used_by_others
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = [
    "CAN_LOAD",
    "DRIVERS",
    "AnySession",
    "AsyncEngine",
    "AsyncSession",
    "Function",
    "RedisClients",
    "SQLModelAsyncSession",
    "Signal",
    "Work",
    "ask",
    "async_sessionmaker",
    "call_hook",
    "copy_rows",
    "dialect_of",
    "event_loop",
    "execute",
    "execute_writing",
    "make_engine",
    "open_stream",
    "pause",
    "require_callable",
    "require_engine",
    "require_session",
    "routed_sessions",
    "run_on_connection",
    "run_sync",
    "run_with",
    "runner",
    "shielded",
    "sync_engine",
    "sync_session",
    "take_turn",
    "wait_for",
    "within",
]

AnySession = AsyncSession | async_scoped_session[Any]

# The driver that a plain URL means.
DRIVERS = {
    "postgresql": "asyncpg",
    "sqlite": "aiosqlite",
    "mysql": "asyncmy",
    "mariadb": "asyncmy",
}

# Returns whether a lazy load can be awaited in the calling code, as in `run_sync`.
CAN_LOAD: Callable[[], bool] | None = in_greenlet

_P = ParamSpec("_P")
_R = TypeVar("_R")

Work = Callable[[], Awaitable[_R]]
"""A function without parameters that does I/O."""


Function = Callable[..., Awaitable[_R]]
"""A function that does I/O."""


def require_session(session: Any) -> AsyncSession:
    """Return the session itself; for a scoped session, the registry's current one."""
    found = session() if isinstance(session, async_scoped_session) else session
    if isinstance(found, AsyncSession):
        return found
    raise wrong_session("async", session)


def sync_session(session: AsyncSession) -> Session:
    """Return the plain session inside, for work without I/O."""
    return session.sync_session


def dialect_of(session: AsyncSession, facts: Facts) -> Dialect:
    """Return the dialect of the database that holds the model's table."""
    try:
        return session.sync_session.get_bind(facts.mapper).dialect
    except UnboundExecutionError as error:
        raise translate(error, facts.model) from error


async def execute(
    session: AsyncSession,
    statement: Executable,
    params: Any = None,
    *,
    execution_options: Mapping[str, Any] | None = None,
) -> Any:
    """Execute a statement; return SQLAlchemy's own `Result`, also for SQLModel's sessions."""
    # SQLModel's own `execute` warns, and its `exec` unwraps some results but not others.
    run = (
        AsyncSession.execute if isinstance(session, SQLModelAsyncSession) else type(session).execute
    )
    options = with_autocommit(sync_session(session), execution_options or NO_OPTIONS)
    return await run(session, statement, params, execution_options=options)


async def execute_writing(
    session: AsyncSession,
    statement: Executable,
    params: Any = None,
    *,
    execution_options: Mapping[str, Any] | None = None,
) -> Any:
    """Execute a statement that is part of a write, on the database that a flush would go to."""
    with as_writing(session.sync_session):
        return await execute(session, statement, params, execution_options=execution_options)


async def open_stream(
    session: AsyncSession, model: type[Any], statement: Executable, batch_size: int
) -> tuple[Connection, Any]:
    """Execute a SELECT whose rows are fetched in batches; return its connection and result."""

    def opened(plain: Session) -> tuple[Connection, Any]:
        result: Any = plain.execute(statement, execution_options={"yield_per": batch_size})
        return result.raw.connection, result

    return await session.run_sync(opened)


async def run_sync(session: AsyncSession, func: Callable[..., _R], *args: Any) -> _R:
    """Call a function that does I/O with the plain session."""
    return await session.run_sync(lambda _: func(*args))


async def run_on_connection(
    session: AsyncSession, func: Callable[[Connection], _R], model: type[Any] | None = None
) -> _R:
    """Call a function with the session's connection for writes (to a model)."""
    bind = {} if model is None else {"mapper": facts_of(model).mapper}
    with as_writing(session.sync_session):
        connection = await session.connection(bind_arguments=bind)
    return await connection.run_sync(func)


async def run_with(connection: AsyncConnection, func: Callable[[Connection], _R]) -> _R:
    """Call a function with a plain connection."""
    return await connection.run_sync(func)


async def copy_rows(
    session: AsyncSession,
    model: type[Any],
    table: Table,
    names: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Write rows with PostgreSQL's binary COPY, in the transaction of the session.

    Args:
        session: A session on asyncpg.
        model: The model, which tells the session which database to use.
        table: The table.
        names: The columns that the rows have values for.
        rows: The values in the form that the driver takes.
    """
    with as_writing(session.sync_session):
        connection = await session.connection(bind_arguments={"mapper": facts_of(model).mapper})
    driver: Any = (await connection.get_raw_connection()).driver_connection
    sent_statements.notify(copy_statement(quoted_name_of(table), names))
    with refused_values():
        await driver.copy_records_to_table(
            table.name, schema_name=table.schema, columns=names, records=rows
        )


async def call_hook(func: Callable[..., Any], *args: Any, **wanted: Any) -> Any:
    """Call a user's function, which may be `def` or `async def`."""
    result = func(*args, **wanted)
    return await result if inspect.isawaitable(result) else result


def require_callable(func: Callable[..., Any], what: str) -> None:
    """Refuse anything that is not callable; the sync twin also refuses `async def`."""
    if not callable(func):
        raise ValidationError(f"{what} must be callable, not {type(func).__name__}", field=what)


def require_engine(engine: Any) -> AsyncEngine:
    """Return the engine; raise a `ValidationError` for one of the other API."""
    if isinstance(engine, AsyncEngine):
        return engine
    raise ValidationError(
        f"the async API takes an AsyncEngine, not {type(engine).__name__}; "
        "use sqlmodel_crud_utils.sync with an Engine",
        field="engine",
    )


def routed_sessions(
    engine: AsyncEngine, replicas: Replicas, options: Mapping[str, Any]
) -> async_sessionmaker[SQLModelAsyncSession]:
    """Return a factory of sessions that read from replicas."""
    return async_sessionmaker(
        engine,
        class_=SQLModelAsyncSession,
        sync_session_class=RoutedSession,
        replicas=replicas,
        **options,
    )


def make_engine(plan: EnginePlan) -> AsyncEngine:
    """Create a planned engine; on SQLite, it uses the library's own connections."""
    if _is_for_own_connections(plan):
        creator = _AiosqliteCreator(plan.url, plan.arguments["connect_args"])
        plan = replace(plan, arguments={**plan.arguments, "async_creator": creator})
    engine = build_engine(create_async_engine, plan.with_queue(LoopPool))
    track_loops(engine.sync_engine)
    return engine


def _is_for_own_connections(plan: EnginePlan) -> bool:
    connects_otherwise = {"creator", "async_creator", "pool"} & plan.arguments.keys()
    # An option of aiosqlite, and a custom connection class.
    asks_for_others = {"iter_chunk_size", "factory"} & plan.arguments["connect_args"].keys()
    is_aiosqlite = plan.url.get_driver_name() == "aiosqlite"
    return is_aiosqlite and not connects_otherwise and not asks_for_others


class _AiosqliteCreator:
    """Connects with aiosqlite, as SQLAlchemy's dialect would."""

    def __init__(self, url: URL, connect_args: Mapping[str, Any]) -> None:
        self._url = url
        self._connect_args = connect_args
        self.parameters = tuple(url.query)  # for the error of a failed connection

    def __call__(self) -> Any:
        # Imported after SQLAlchemy has checked that aiosqlite is installed.
        from sqlmodel_crud_utils._aiosqlite import connect

        positional, named = self._url.get_dialect()().create_connect_args(self._url)
        return connect(*positional, **{**named, **self._connect_args})


def sync_engine(engine: AsyncEngine) -> Engine:
    """Return the plain engine inside."""
    return engine.sync_engine


def ask(func: Callable[[], Any]) -> Any:
    """Call a user's function, `def` or `async def`, during a connection attempt."""
    answer = func()
    return await_only(answer) if inspect.isawaitable(answer) else answer


async def shielded(func: Callable[_P, Awaitable[_R]], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call a function and let it finish, even if the task is cancelled meanwhile.

    The cancellation propagates only when the work is done: an interrupted rollback would leave its
    connection checked out.
    """
    work = asyncio.ensure_future(func(*args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        _report_failure(work)
        raise


async def take_turn(session: AsyncSession, sharing: Sharing) -> None:
    """Wait until no other task uses a shared session."""
    while is_used_by_others(session.sync_session):
        turn = asyncio.get_running_loop().create_future()
        sharing.waiting.append(partial(_wake, turn, sharing))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                sharing.next()  # woken and cancelled at once: pass the turn on
            raise


def _wake(turn: asyncio.Future[None], sharing: Sharing) -> None:
    if turn.done():  # cancelled meanwhile
        sharing.next()
    else:
        turn.set_result(None)


async def pause(seconds: float) -> None:
    """Sleep, so that others can proceed."""
    await asyncio.sleep(seconds)


async def within(seconds: float | None, func: Function[_R], *args: Any) -> _R:
    """Call a function that does I/O; raise a `TimeoutError` after this many seconds."""
    async with asyncio.timeout(seconds):
        return await func(*args)


class RedisClients:
    """Clients of redis-py for an address, one per event loop, because connections belong to one."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._clients: PerLoop[Any] = PerLoop(self._made)

    def get(self) -> Any:
        """Return the client of the running event loop."""
        return self._clients.here()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.take()
        if client is not None:
            await client.aclose()

    def _made(self) -> Any:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Failed calls are not retried, which would exceed the timeout.
        retry = Retry(NoBackoff(), 0)
        options = options_for_redis(self._timeout)
        return Redis.from_pool(BlockingConnectionPool.from_url(self._url, retry=retry, **options))


def runner() -> object:
    """Return the current task."""
    return asyncio.current_task()


def event_loop() -> object:
    """Return the scope in which callers can wait for each other: the event loop."""
    return asyncio.get_running_loop()


class Signal:
    """An event that happens once and that others wait for."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def give(self) -> None:
        """Wake all waiters."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the event; return whether it has happened."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


def wait_for(work: Awaitable[_R]) -> _R:
    """Await something inside a session's greenlet."""
    return await_only(work)


def _report_failure(work: asyncio.Future[Any]) -> None:
    error = None if work.cancelled() else work.exception()
    if error is not None:
        get_logger().error(f"work shielded from a cancellation failed: {type(error).__name__}")
