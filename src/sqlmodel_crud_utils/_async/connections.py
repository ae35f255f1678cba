"""Engines with a connection pool, and the sessions on them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy.engine import URL

from sqlmodel_crud_utils._async._running.settling import let_go
from sqlmodel_crud_utils._core.connections.engines import (
    Password,
    PoolStatus,
    check_ping_after,
    check_row_security,
    plan_engine,
)
from sqlmodel_crud_utils._core.observers import observed
from sqlmodel_crud_utils._runtime_async import (
    CAN_LOAD,
    DRIVERS,
    AsyncEngine,
    SQLModelAsyncSession,
    ask,
    async_sessionmaker,
    make_engine,
    require_callable,
    require_engine,
    routed_sessions,
    shielded,
    sync_engine,
)
from sqlmodel_crud_utils._session.autocommit_reads import may_read_alone
from sqlmodel_crud_utils._session.engine_events import (
    prepare_engine,
    replace_dead_connections,
    secure_rows,
)
from sqlmodel_crud_utils._session.engines import status_of
from sqlmodel_crud_utils._session.events import listen_to_loads
from sqlmodel_crud_utils._session.lazy_loads import KEY, Strictness, checked
from sqlmodel_crud_utils._session.replicas import replicas_of
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = ["PoolStatus", "create_pooled_engine", "get_session", "pool_status", "session_factory"]


def create_pooled_engine(
    database_url: str | URL,
    pool_size: int = 5,
    max_overflow: int = 10,
    pool_timeout: float = 30,
    *,
    pool_ping_after: float = 0.5,
    autocommit_reads: bool = True,
    password: Password | None = None,
    pgbouncer: bool = False,
    row_security: bool = False,
    **kwargs: Any,
) -> AsyncEngine:
    """Create an engine whose pool replaces lost connections.

    A plain URL (`postgresql://`, `postgres://`, `sqlite://`, `mysql://`, `mariadb://`) gets the
    driver that fits this API; a driver in the URL is kept if it fits too. On SQLite foreign keys
    are checked; a file is in WAL mode, and a connection waits up to 30 seconds for another one's
    lock (`timeout` in the URL or in `connect_args` changes that); a database in memory has one
    connection, which all sessions share.

    No password shows in the engine's `repr`, in a log line or in an error.

    Args:
        database_url: Where the database is.
        pool_size: How many connections are kept, 1 or more.
        max_overflow: How many more there may be for a while; -1 is no limit.
        pool_timeout: How many seconds to wait for a connection when all are in use. Then the
            library's functions raise `DatabaseConnectionError`.
        pool_ping_after: How many seconds a connection may have rested in the pool to be handed out
            without being asked whether it lives; 0 asks each time, `math.inf` never. SQLite is
            not asked. A connection that turns out to be dead at the first statement on it is
            replaced, and the statement is sent again, except under AUTOCOMMIT.
        autocommit_reads: Whether PostgreSQL gets a read of the library without BEGIN and ROLLBACK
            around it, outside transaction blocks and as long as nothing is written: one round
            trip instead of three. It is so under READ COMMITTED only, where the transaction would
            change nothing, and not with `pgbouncer` or `row_security`.
        password: The password, if the URL leaves it out; it wins over one in the URL. A callable
            is asked for it at each new connection, which is what rotating tokens need.
        pgbouncer: Whether the URL is that of a PgBouncer in transaction mode, which hands a server
            connection to somebody else after each transaction: then no prepared statement outlives
            its transaction. It is for PostgreSQL.
        row_security: Whether each transaction tells PostgreSQL the tenant in scope, which the
            policies of `mixins.row_security` ask for. A role for which these do not hold is
            refused at the first connection.
        **kwargs: More arguments of SQLAlchemy's `create_async_engine`; they win over what this
            function sets: `hide_parameters=True`, for instance, which keeps values out of
            tracebacks unless `echo` is passed. `connect_args` are added to its own.

    Returns:
        The engine. It connects when it is first used; call its `dispose` at the end.

    Raises:
        ValidationError: A URL, number or argument that cannot be used, or a driver that is not
            installed; the text names the extra to install.
        TenantError: With `row_security`, at the first connection: the role is a superuser or has
            BYPASSRLS, or a table of tenants has no policies that hold for the role.

    Example:
        >>> memory = create_pooled_engine("sqlite://")
        >>> pool_status(memory)["size"]
        1
        >>> await memory.dispose()
    """
    if callable(password):
        require_callable(password, "password")
    check_ping_after(pool_ping_after)
    pool = {"pool_size": pool_size, "max_overflow": max_overflow, "pool_timeout": pool_timeout}
    plan = plan_engine(database_url, DRIVERS, pool, password, kwargs, pgbouncer=pgbouncer)
    if row_security:
        check_row_security(plan)
    with observed("create_pooled_engine"):
        engine = make_engine(plan)
        prepare_engine(sync_engine(engine), plan, ask)
        replace_dead_connections(
            sync_engine(engine),
            math.inf if "pool_pre_ping" in kwargs else pool_ping_after,
            autocommit_reads=autocommit_reads and not row_security and may_read_alone(plan),
        )
        if row_security:
            secure_rows(sync_engine(engine))
        return engine


def session_factory(
    engine: AsyncEngine,
    *,
    replicas: Sequence[AsyncEngine] = (),
    strict_loading: bool | Literal["n_plus_one"] | None = None,
    **kwargs: Any,
) -> async_sessionmaker[SQLModelAsyncSession]:
    """Return a factory of SQLModel sessions on an engine.

    With `replicas`, a session reads from one of them until it writes, and from then on from the
    primary, until it is closed. See `use_primary`, `read_after` and `replication_token`.

    Args:
        engine: The engine; with replicas, that of the primary.
        replicas: Engines of databases that follow the primary, asked in turn. A SELECT without a
            lock, outside a transaction block, goes there; everything else, `text()` too, to
            the primary. What a replica that fails cannot answer, the primary answers; the
            replica is left alone for 5 seconds.
        strict_loading: What lazy loads are refused, as in the function `strict_loading`; left out,
            True in `aio`, where they fail anyway, and False in `sync`.
        **kwargs: Settings of the sessions; what is not given is as SQLAlchemy has it.

    Returns:
        SQLAlchemy's `async_sessionmaker`: call it for a session, or its `begin()` for one that is
        one transaction: the functions of the library flush in its block, and its end commits.

    Raises:
        ValidationError: An engine of the other API, a replica of another kind of database, or a
            mode that `strict_loading` does not take.

    Example:
        >>> new_session = session_factory(engine)
        >>> async with new_session() as other:
        ...     await other.scalar(select(1))
        1
    """
    found = require_engine(engine)
    copies = _engines(replicas)
    settings = kwargs | _strict(strict_loading, kwargs.get("info"))
    with observed("session_factory"):
        return _sessions(found, copies, settings)


def _strict(mode: bool | Literal["n_plus_one"] | None, info: Any) -> dict[str, Any]:
    """Return the setting that makes sessions strict, beside what their program keeps there."""
    mode = checked(CAN_LOAD is not None if mode is None else mode)
    if not mode:
        return {}
    listen_to_loads()
    return {"info": {**(info or {}), KEY: Strictness(mode, CAN_LOAD)}}


def _engines(replicas: Sequence[AsyncEngine]) -> list[AsyncEngine]:
    if not isinstance(replicas, Sequence):
        raise ValidationError(
            f"must be a list of engines, not {type(replicas).__name__}", field="replicas"
        )
    return [require_engine(each) for each in replicas]


def _sessions(
    engine: AsyncEngine, replicas: Sequence[AsyncEngine], settings: Mapping[str, Any]
) -> async_sessionmaker[SQLModelAsyncSession]:
    if not replicas:
        return async_sessionmaker(engine, class_=SQLModelAsyncSession, **settings)
    copies = replicas_of(sync_engine(engine), [sync_engine(each) for each in replicas])
    return routed_sessions(engine, copies, settings)


def get_session(
    engine: AsyncEngine, *, replicas: Sequence[AsyncEngine] = (), **kwargs: Any
) -> Callable[[], AsyncIterator[SQLModelAsyncSession]]:
    """Return a FastAPI dependency that gives each request a session of its own.

    The session is closed after the request; what was not committed is rolled back. A connection
    that has died meanwhile is dropped and logged, and does not fail the request.

    For routes, take `session_dependency` of `ext.fastapi` instead: it commits, and many clients of
    sync routes do not block each other.

    Args:
        engine: The engine.
        replicas: Engines of its replicas, as in `session_factory`.
        **kwargs: Settings of the sessions, as in `session_factory`.

    Returns:
        A function for `Depends`; elsewhere `contextlib` makes a context manager of it.

    Raises:
        ValidationError: An engine of the other API.

    Example:
        In an application: `session: AsyncSession = Depends(get_session(engine))`.

        >>> dependency = get_session(engine)
        >>> async for request_session in dependency():
        ...     await request_session.scalar(select(1))
        1
    """
    found = require_engine(engine)
    copies = _engines(replicas)
    with observed("get_session"):
        new_session = _sessions(found, copies, kwargs)

    async def open_session() -> AsyncIterator[SQLModelAsyncSession]:
        session = new_session()
        try:
            yield session
        finally:
            await shielded(let_go, session)

    return open_session


def pool_status(engine: AsyncEngine) -> PoolStatus:
    """Return how many connections an engine's pool keeps and how many are in use.

    A pool that does not count its connections (`NullPool`) reports zeros.

    Args:
        engine: The engine.

    Returns:
        A dict of `size`, `checked_in`, `checked_out` and `overflow` (never below 0).

    Raises:
        ValidationError: An engine of the other API.

    Example:
        >>> sorted(pool_status(engine))
        ['checked_in', 'checked_out', 'overflow', 'size']
    """
    pool = require_engine(engine).pool
    with observed("pool_status"):
        return status_of(pool)
