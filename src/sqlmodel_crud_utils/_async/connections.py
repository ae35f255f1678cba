"""Engines with a connection pool, and the sessions on them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy.engine import URL

from sqlmodel_crud_utils._async._running.settling import close_safely
from sqlmodel_crud_utils._core.connections.engine_settings import (
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
from sqlmodel_crud_utils._session.engine_setup import status_of
from sqlmodel_crud_utils._session.events import listen_to_loads
from sqlmodel_crud_utils._session.lazy_loads import KEY, Strictness, checked
from sqlmodel_crud_utils._session.replica_sessions import replicas_of
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
    driver that fits this API; a driver in the URL is kept if it fits too. On SQLite, foreign keys
    are checked. A file uses WAL mode, and a connection waits up to 30 seconds for another one's
    lock (change that with `timeout` in the URL or in `connect_args`). A database in memory has one
    connection, which all sessions share.

    The password never appears in the engine's `repr`, in a log line or in an error.

    Args:
        database_url: Where the database is.
        pool_size: How many connections are kept, 1 or more.
        max_overflow: How many more may be opened temporarily; -1 means no limit.
        pool_timeout: How many seconds to wait for a connection when all are in use. Then the
            library's functions raise `DatabaseConnectionError`.
        pool_ping_after: After how many idle seconds in the pool a connection is checked before use;
            0 checks each time, `math.inf` never. SQLite is not checked. If the first statement on a
            connection shows that it is dead, the connection is replaced and the statement sent
            again, except under AUTOCOMMIT.
        autocommit_reads: Whether the library's reads on PostgreSQL are sent without BEGIN and
            ROLLBACK, outside transaction blocks and as long as nothing is written: one round trip
            instead of three. This applies under READ COMMITTED only, where the transaction would
            change nothing, and not with `pgbouncer` or `row_security`.
        password: The password, if the URL does not contain it; it overrides one in the URL. A
            callable is called for each new connection, as rotating tokens require.
        pgbouncer: Whether the URL is that of a PgBouncer in transaction mode, which may give each
            transaction another server connection. Then no prepared statement outlives its
            transaction. For PostgreSQL only.
        row_security: Whether each transaction sends PostgreSQL the tenant in scope, which the
            policies of `mixins.row_security` need. A role that these policies do not apply to is
            refused at the first connection.
        **kwargs: More arguments for SQLAlchemy's `create_async_engine`. They override what this
            function sets, such as `hide_parameters=True`, which keeps values out of tracebacks
            unless you pass `echo`. `connect_args` are added to those of this function.

    Returns:
        The engine. It connects on first use; call its `dispose` at the end.

    Raises:
        ValidationError: A URL, number or argument that cannot be used, or a driver that is not
            installed; the message names the extra to install.
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

    With `replicas`, a session reads from one of them until it writes; from then on, until it is
    closed, it reads from the primary. See `use_primary`, `read_after` and `replication_token`.

    Args:
        engine: The engine; with replicas, the engine of the primary.
        replicas: Engines of databases that follow the primary, used in turn. A SELECT without a
            lock, outside a transaction block, goes to a replica; everything else, also `text()`,
            goes to the primary. If a replica fails, the primary answers, and the replica is not
            used for 5 seconds.
        strict_loading: Which lazy loads are refused, as in the function `strict_loading`. The
            default is True in `aio`, where they fail anyway, and False in `sync`.
        **kwargs: Settings of the sessions; the defaults are SQLAlchemy's.

    Returns:
        SQLAlchemy's `async_sessionmaker`: call it for a session, or call its `begin()` for a
        session in one transaction: in that block the functions of the library flush, and its end
        commits.

    Raises:
        ValidationError: An engine of the other API, a replica of another kind of database, or a
            mode that `strict_loading` does not accept.

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
    """Return the setting that makes sessions strict, merged with the program's own `info`."""
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
    """Return a FastAPI dependency that opens a session for each request.

    The session is closed after the request; what was not committed is rolled back. If the
    connection has died by then, it is dropped and logged, and the request does not fail.

    For routes, use `session_dependency` of `ext.fastapi` instead: it commits, and many clients of
    sync routes do not block each other.

    Args:
        engine: The engine.
        replicas: Engines of its replicas, as in `session_factory`.
        **kwargs: Settings of the sessions, as in `session_factory`.

    Returns:
        A function for `Depends`. Elsewhere, turn it into a context manager with `contextlib`.

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
            await shielded(close_safely, session)

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
