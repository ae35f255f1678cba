"""The settings of an engine: pool numbers, driver options, SQLite's pragmas, the password."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeVar
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import QueuePool, StaticPool
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from sqlmodel_crud_utils._core.connections.urls import (
    bad_url,
    check_parameters,
    for_asyncpg,
    for_psycopg,
    has_server,
    is_memory,
    resolve_url,
    without_secrets,
)
from sqlmodel_crud_utils._core.dialects import FEATURES
from sqlmodel_crud_utils.exceptions import ValidationError

# How many seconds a connection waits for another one's lock on a SQLite file.
SQLITE_BUSY_TIMEOUT = 30.0

_DRIVERS_OF_EXTRAS = frozenset({"aiosqlite", "asyncpg", "psycopg", "asyncmy", "pymysql"})

# They encode a str as Latin-1, unlike the server; a failure to do so raises an error that contains
# the whole password.
_DRIVERS_THAT_TAKE_BYTES = frozenset({"asyncmy", "pymysql"})

_E = TypeVar("_E")

Password = str | SecretStr | Callable[[], Any]


class PoolStatus(TypedDict):
    """The state of an engine's pool.

    Attributes:
        size: How many connections the pool keeps.
        checked_in: How many of them wait to be used.
        checked_out: How many connections are in use.
        overflow: How many of those go beyond `size`.
    """

    size: int
    checked_in: int
    checked_out: int
    overflow: int


@dataclass(frozen=True, repr=False)
class EnginePlan:
    """The complete settings of an engine.

    Attributes:
        url: The URL, with the driver.
        arguments: What `create_engine` takes beside the URL.
        password: Returns the password for a new connection; None for a fixed one.
        moved: The names of arguments that stood in the query of the URL.
    """

    url: URL
    arguments: dict[str, Any]
    password: Callable[[], Any] | None
    moved: tuple[str, ...] = ()

    def with_queue(self, pool: type[QueuePool]) -> EnginePlan:
        """Return the plan with this kind of pool in place of SQLAlchemy's `QueuePool`."""
        if self.arguments.get("pool") is not None or self.arguments.get("poolclass") is not None:
            return self
        return replace(self, arguments={**self.arguments, "poolclass": pool})


def plan_engine(
    database_url: str | URL,
    drivers: Mapping[str, str],
    pool: Mapping[str, Any],
    password: Password | None,
    options: Mapping[str, Any],
    *,
    pgbouncer: bool = False,
) -> EnginePlan:
    """Check and complete the caller's settings, without connecting or importing a driver.

    Args:
        database_url: The caller's URL.
        drivers: The API's own driver for each backend.
        pool: `pool_size`, `max_overflow` and `pool_timeout`.
        password: The caller's password, given beside the URL.
        options: Further arguments of `create_engine`; they win.
        pgbouncer: Whether a PgBouncer in transaction mode is in between.
    """
    check_pool_numbers(**pool)
    url = resolve_url(database_url, drivers)
    given = options.get("connect_args") or {}
    if not isinstance(given, Mapping):
        raise ValidationError(f"must be a mapping, not {type(given).__name__}", "connect_args")
    _check_password(password, url, options)
    if not has_server(url):
        connect_args: dict[str, Any] = _sqlite_connect_args(url)
    else:
        url, connect_args = _server_connect_args(url)
    if pgbouncer:
        connect_args |= _behind_pgbouncer(url)
    in_query = connect_args.pop("password", None) or connect_args.pop("passwd", None)
    if password is None and "password" not in given:
        password = in_query or url.password
    arguments = {
        # With `echo`, the caller wants to see the parameters.
        "hide_parameters": not options.get("echo"),
        **_pool_arguments(url, pool, options),
        **options,
        "connect_args": {**connect_args, **given},
    }
    source = None if password is None else _source(password)
    return EnginePlan(url, arguments, source, tuple(connect_args))


def build_engine(create: Callable[..., _E], plan: EnginePlan) -> _E:
    """Create the engine; if SQLAlchemy refuses an option, raise a `ValidationError`."""
    try:
        engine: Any = create(plan.url, **plan.arguments)
    except ImportError as error:
        raise bad_url(_missing_driver(plan.url, error)) from error
    except _REFUSALS as error:
        if (name := _refused_parameter(create, plan)) is not None:
            raise bad_url(f"has a value for {name} that it cannot have") from error
        raise ValidationError(f"SQLAlchemy refuses the engine's arguments: {error}") from error
    if not any(plan.arguments.get(name) for name in _CONNECT_OTHERWISE):
        check_parameters(engine.url, engine.dialect, plan.moved)
    made: _E = engine
    return made


_REFUSALS = (ArgumentError, TypeError, ValueError, LookupError, AttributeError)


def _refused_parameter(create: Callable[..., Any], plan: EnginePlan) -> str | None:
    """Return the parameter of the URL that SQLAlchemy cannot read, if it is one of them."""
    bare = plan.url.difference_update_query(list(plan.url.query))

    def is_refused(url: URL) -> bool:
        try:
            create(url, **plan.arguments)  # nothing connects
        except _REFUSALS:
            return True
        return False

    if is_refused(bare):
        return None
    given = plan.url.query
    return next((n for n in given if is_refused(bare.update_query_dict({n: given[n]}))), None)


_CONNECT_OTHERWISE = ("creator", "async_creator", "pool")


def check_pool_numbers(pool_size: Any, max_overflow: Any, pool_timeout: Any) -> None:
    """Refuse numbers that make no pool, or one without the limits that they suggest."""
    if not _is_number(pool_size, int) or pool_size < 1:
        raise ValidationError("must be a whole number, 1 or more", field="pool_size")
    if not _is_number(max_overflow, int) or max_overflow < -1:
        raise ValidationError(
            "must be a whole number, 0 or more; -1 means no limit", field="max_overflow"
        )
    if not _is_number(pool_timeout, int | float) or not 0 < pool_timeout < math.inf:
        raise ValidationError("must be a number of seconds above 0", field="pool_timeout")


def check_ping_after(seconds: Any) -> None:
    """Refuse anything but a number of seconds; 0 and `math.inf` are allowed."""
    if not _is_number(seconds, int | float) or not seconds >= 0:
        raise ValidationError("must be a number of seconds, 0 or more", field="pool_ping_after")


def check_row_security(plan: EnginePlan) -> None:
    """Refuse an engine that cannot set the tenant in each transaction."""
    backend = plan.url.get_backend_name()
    if backend != "postgresql":
        raise ValidationError(f"is for PostgreSQL, not {backend}", field="row_security")
    if plan.arguments.get("isolation_level") == "AUTOCOMMIT":
        raise ValidationError(
            "needs transactions, and isolation_level AUTOCOMMIT has none", field="row_security"
        )


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_password(password: Any, url: URL, options: Mapping[str, Any]) -> None:
    if password is None:
        return
    if not isinstance(password, str | SecretStr) and not callable(password):
        raise _bad_password(
            f"must be a str, a SecretStr or a callable, not {type(password).__name__}"
        )
    if not has_server(url):
        raise _bad_password("must be left out: SQLite has no passwords")
    for name in _CONNECT_OTHERWISE:
        if options.get(name) is not None:
            raise _bad_password(f"must be left out: {name}= connects without it")


def _bad_password(message: str) -> ValidationError:
    return ValidationError(message, field="password")


def _sqlite_connect_args(url: URL) -> dict[str, Any]:
    if is_memory(url):
        # All threads share the one connection.
        settings: dict[str, Any] = {"check_same_thread": False}
    else:
        settings = {"timeout": SQLITE_BUSY_TIMEOUT}
    return {name: value for name, value in settings.items() if name not in url.query}


def _behind_pgbouncer(url: URL) -> dict[str, Any]:
    """Return what keeps a driver from relying on the server connection of its last transaction."""
    driver = url.get_driver_name()
    if driver not in _BEHIND_PGBOUNCER:
        names = ", ".join(_BEHIND_PGBOUNCER)
        raise ValidationError(f"needs one of the drivers {names}, not {driver}", "pgbouncer")
    return dict(_BEHIND_PGBOUNCER[driver])


# No prepared statement outlives its transaction. A statement that is prepared for a single use gets
# a name that is unique on the server connection.
_BEHIND_PGBOUNCER: Mapping[str, Mapping[str, Any]] = {
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
    },
    "psycopg": {"prepare_threshold": None},
    "psycopg2": {},
}


def _server_connect_args(url: URL) -> tuple[URL, dict[str, Any]]:
    url, secrets = without_secrets(url)
    driver = url.get_driver_name()
    if driver == "asyncpg":
        return for_asyncpg(url, secrets)
    return for_psycopg(url, secrets) if driver == "psycopg" else (url, secrets)


def _pool_arguments(
    url: URL, pool: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    if options.get("pool") is not None:
        return {}
    # None lets SQLAlchemy take the queue that fits the API.
    own = None if has_server(url) or not is_memory(url) else StaticPool
    kind = options.get("poolclass") or own or QueuePool
    limits = pool if isinstance(kind, type) and issubclass(kind, QueuePool) else {}
    return {"poolclass": own, **limits}


def _missing_driver(url: URL, error: ImportError) -> str:
    backend, driver = url.get_backend_name(), url.get_driver_name()
    install = f'pip install "sqlmodel-crud-utils[{FEATURES[backend].extra}]"'
    if driver not in _DRIVERS_OF_EXTRAS:
        install = f"install it, or write plain {backend}:// and {install}"
    return f"the driver {driver} cannot be imported ({error}); {install}"


def _source(password: Password) -> Callable[[], Any]:
    if isinstance(password, str | SecretStr):
        _text(password)
        return lambda: password
    return password


def _text(answer: Any) -> str:
    """Return a password as text; no error message reveals it."""
    secret = answer.get_secret_value() if isinstance(answer, SecretStr) else answer
    if not isinstance(secret, str):
        kind = type(answer).__name__
        raise _bad_password(f"must be a str or a SecretStr, but the callable returned {kind}")
    # A driver would fail later, with an error that contains the whole password.
    if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in secret):
        raise _bad_password("must be valid Unicode text without null characters")
    return secret
