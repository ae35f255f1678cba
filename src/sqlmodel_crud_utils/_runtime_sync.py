"""The primitives that differ between the two APIs, for sync; `_runtime_async` is the async twin."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from os import getpid
from threading import Event, current_thread
from time import sleep
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Dialect, Engine, Executable, Table, create_engine
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel import Session as SQLModelSession

from sqlmodel_crud_utils._core.connections.engine_settings import EnginePlan, build_engine
from sqlmodel_crud_utils._core.connections.redis_options import options_for_redis
from sqlmodel_crud_utils._core.errors.translation import translate
from sqlmodel_crud_utils._core.errors.wrong_sessions import wrong_session
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.writes.copying import (
    COLUMN_TYPES,
    check_ranges,
    copy_statement,
    quoted_name_of,
    refused_values,
)
from sqlmodel_crud_utils._session import sent_statements
from sqlmodel_crud_utils._session.autocommit_reads import NO_OPTIONS, with_autocommit
from sqlmodel_crud_utils._session.liveness import ReconnectingPool
from sqlmodel_crud_utils._session.replica_sessions import Replicas, RoutedSession
from sqlmodel_crud_utils._session.routing import as_writing
from sqlmodel_crud_utils._session.sharing import Sharing
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = [
    "CAN_LOAD",
    "DRIVERS",
    "AnySession",
    "Engine",
    "Function",
    "RedisClients",
    "SQLModelSession",
    "Session",
    "Signal",
    "Work",
    "ask",
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
    "sessionmaker",
    "shielded",
    "sync_engine",
    "sync_session",
    "take_turn",
    "wait_for",
    "within",
]

AnySession = Session | scoped_session[Any]

# The driver that a plain URL means.
DRIVERS = {
    "postgresql": "psycopg",
    "sqlite": "pysqlite",
    "mysql": "pymysql",
    "mariadb": "pymysql",
}

# A lazy load always works.
CAN_LOAD: Callable[[], bool] | None = None

_P = ParamSpec("_P")
_R = TypeVar("_R")

Work = Callable[[], _R]
"""A function without parameters that does I/O."""


Function = Callable[..., _R]
"""A function that does I/O."""


def require_session(session: Any) -> Session:
    """Return the session itself; for a scoped session, the registry's current one."""
    found = session() if isinstance(session, scoped_session) else session
    if isinstance(found, Session):
        return found
    raise wrong_session("sync", session)


def sync_session(session: Session) -> Session:
    """Return the session; the async twin unwraps it."""
    return session


def dialect_of(session: Session, facts: Facts) -> Dialect:
    """Return the dialect of the database that holds the model's table."""
    try:
        return session.get_bind(facts.mapper).dialect
    except UnboundExecutionError as error:
        raise translate(error, facts.model) from error


def execute(
    session: Session,
    statement: Executable,
    params: Any = None,
    *,
    execution_options: Mapping[str, Any] | None = None,
) -> Any:
    """Execute a statement; return SQLAlchemy's own `Result`, also for SQLModel's sessions."""
    options = with_autocommit(sync_session(session), execution_options or NO_OPTIONS)
    return session.execute(statement, params, execution_options=options)


def execute_writing(
    session: Session,
    statement: Executable,
    params: Any = None,
    *,
    execution_options: Mapping[str, Any] | None = None,
) -> Any:
    """Execute a statement that is part of a write, on the database that a flush would go to."""
    with as_writing(session):
        return execute(session, statement, params, execution_options=execution_options)


def open_stream(
    session: Session, model: type[Any], statement: Executable, batch_size: int
) -> tuple[Connection, Any]:
    """Execute a SELECT whose rows are fetched in batches; return its connection and result."""
    result: Any = session.execute(statement, execution_options={"yield_per": batch_size})
    return result.raw.connection, result


def run_sync(session: Session, func: Callable[..., _R], *args: Any) -> _R:
    """Call a function that does I/O with the session."""
    return func(*args)


def run_on_connection(
    session: Session, func: Callable[[Connection], _R], model: type[Any] | None = None
) -> _R:
    """Call a function with the session's connection for writes (to a model)."""
    bind = {} if model is None else {"mapper": facts_of(model).mapper}
    with as_writing(session):
        connection = session.connection(bind_arguments=bind)
    return func(connection)


def run_with(connection: Connection, func: Callable[[Connection], _R]) -> _R:
    """Call a function with a plain connection."""
    return func(connection)


def copy_rows(
    session: Session,
    model: type[Any],
    table: Table,
    names: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Write rows with PostgreSQL's binary COPY, in the transaction of the session.

    Args:
        session: A session on psycopg.
        model: The model, which tells the session which database to use.
        table: The table.
        names: The columns that the rows have values for.
        rows: The values in the form that the driver takes.
    """
    with as_writing(session):
        connection = session.connection(bind_arguments={"mapper": facts_of(model).mapper})
    driver: Any = connection.connection.driver_connection
    quoted = quoted_name_of(table)
    statement = copy_statement(quoted, names)
    sent_statements.notify(statement)
    with refused_values(), driver.cursor() as cursor:
        found = dict(cursor.execute(COLUMN_TYPES, [quoted]).fetchall())
        types = [found[name] for name in names]
        check_ranges(types, rows)
        with cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)


def call_hook(func: Callable[..., Any], *args: Any, **wanted: Any) -> Any:
    """Call a user's function; refuse a coroutine as its result, which would never run."""
    result = func(*args, **wanted)
    if inspect.iscoroutine(result):
        result.close()
        name = getattr(func, "__qualname__", type(func).__qualname__)
        raise ValidationError(
            f"{name} returned a coroutine; the sync API calls plain functions, "
            "async ones belong to sqlmodel_crud_utils.aio"
        )
    return result


def require_callable(func: Callable[..., Any], what: str) -> None:
    """Refuse anything that is not callable, and `async def`, which would never run."""
    if not callable(func):
        raise ValidationError(f"{what} must be callable, not {type(func).__name__}", field=what)
    if _is_async(func):
        name = getattr(func, "__qualname__", type(func).__qualname__)
        raise ValidationError(
            f"{what} {name} is an async function; "
            "the sync API calls plain functions, async ones belong to sqlmodel_crud_utils.aio",
            field=what,
        )


def _is_async(func: Any) -> bool:
    function = getattr(func, "__func__", func)
    if isinstance(function, FunctionType):
        return _is_coroutine_function(function)
    # Other callables may be unhashable.
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(type(func).__call__)


_is_coroutine_function = cached(inspect.iscoroutinefunction)


def require_engine(engine: Any) -> Engine:
    """Return the engine; raise a `ValidationError` for one of the other API."""
    # The plain engine inside an AsyncEngine only works there.
    if isinstance(engine, Engine) and not engine.dialect.is_async:
        return engine
    kind = "one with an async driver" if isinstance(engine, Engine) else type(engine).__name__
    raise ValidationError(
        f"the sync API takes an Engine, not {kind}; "
        "use sqlmodel_crud_utils.aio with an AsyncEngine",
        field="engine",
    )


def routed_sessions(
    engine: Engine, replicas: Replicas, options: Mapping[str, Any]
) -> sessionmaker[SQLModelSession]:
    """Return a factory of sessions that read from replicas."""
    return sessionmaker(engine, class_=RoutedSession, replicas=replicas, **options)


def make_engine(plan: EnginePlan) -> Engine:
    """Create a planned engine."""
    return build_engine(create_engine, plan.with_queue(ReconnectingPool))


def sync_engine(engine: Engine) -> Engine:
    """Return the engine; the async twin unwraps it."""
    return engine


def ask(func: Callable[[], Any]) -> Any:
    """Call a user's function during a connection attempt."""
    answer = func()
    if inspect.iscoroutine(answer):
        # The caller refuses it; without close(), Python would warn that it was never awaited.
        answer.close()
    return answer


def shielded(func: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call a function; without tasks there is no cancellation to guard against."""
    return func(*args, **kwargs)


def take_turn(session: Session, sharing: Sharing) -> None:
    """Do nothing: threads do not share a session."""


def pause(seconds: float) -> None:
    """Sleep, so that others can proceed."""
    sleep(seconds)


def within(_seconds: float | None, func: Function[_R], *args: Any) -> _R:
    """Call a function that does I/O, which must have a timeout of its own."""
    return func(*args)


class RedisClients:
    """The client of redis-py for an address, which all threads share."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._client: Any = None

    def get(self) -> Any:
        """Return the client."""
        if self._client is None:
            self._client = self._made()
        return self._client

    def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _made(self) -> Any:
        from redis import BlockingConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # Failed calls are not retried, which would exceed the timeout.
        retry = Retry(NoBackoff(), 0)
        options = options_for_redis(self._timeout)
        return Redis.from_pool(BlockingConnectionPool.from_url(self._url, retry=retry, **options))


def runner() -> object:
    """Return the current thread."""
    return current_thread()


def event_loop() -> object:
    """Return the scope in which callers can wait for each other: the process.

    A forked process may inherit waits for callers that run in its parent.
    """
    return getpid()


class Signal:
    """An event that happens once and that others wait for."""

    def __init__(self) -> None:
        self._event = Event()

    def give(self) -> None:
        """Wake all waiters."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the event; return whether it has happened."""
        return self._event.wait(seconds)


def wait_for(work: _R) -> _R:
    """Return the result, which is already there."""
    return work
