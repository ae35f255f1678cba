"""Database URLs: how they are read, and which driver each API needs.

No message here quotes a URL: in one that cannot be parsed, the password may be anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set as AbstractSet
from contextlib import suppress
from importlib import import_module
from inspect import signature
from math import isfinite
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Dialect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from sqlmodel_crud_utils._core.dialects import FEATURES
from sqlmodel_crud_utils.exceptions import ValidationError

_BACKENDS = {"postgres": "postgresql", **{name: name for name in FEATURES}}
_MAX_PORT = 65_535

# Parameters that libpq reads from a URL, and asyncpg only from a DSN.
_IN_DSN = frozenset(
    {
        "application_name",
        "options",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
    }
)
# Parameters of libpq that asyncpg lacks and that do not affect security.
_LEFT_OUT = frozenset(
    {
        "client_encoding",
        "fallback_application_name",
        "gssdelegation",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "max_protocol_version",
        "sslcompression",
        "sslsni",
        "tcp_user_timeout",
    }
)
# These are dropped too, unless they are required.
_UNLESS_REQUIRED = frozenset({"channel_binding", "gssencmode", "sslcertmode"})

# What asyncpg, and SQLAlchemy's dialect for it, take as numbers that are not negative.
_NUMBERS_OF_ASYNCPG: Mapping[str, type[int | float]] = {
    "command_timeout": float,
    "max_cacheable_statement_size": int,
    "max_cached_statement_lifetime": int,
    "prepared_statement_cache_size": int,
    "statement_cache_size": int,
    "timeout": float,
}
# What psycopg and libpq read as whole numbers, at the first connection.
_NUMBERS_OF_LIBPQ = frozenset(
    {
        "connect_timeout",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "prepare_threshold",
        "tcp_user_timeout",
    }
)

# What SQLite's module and SQLAlchemy's dialect take from a URL, and SQLite itself from a URI.
_SQLITE = frozenset(
    {
        "cached_statements",
        "check_same_thread",
        "detect_types",
        "isolation_level",
        "plugin",
        "timeout",
        "uri",
    }
)
_SQLITE_URI = frozenset({"cache", "immutable", "mode", "modeof", "nolock", "psow", "vfs"})


def bad_url(message: str) -> ValidationError:
    """Return the error for a URL that cannot be used."""
    return ValidationError(message, field="database_url")


def resolve_url(database_url: str | URL, drivers: Mapping[str, str]) -> URL:
    """Return the URL with the driver that fits the API.

    Args:
        database_url: What the caller gave.
        drivers: The API's own driver for each backend.
    """
    url = read_url(database_url)
    name, _, driver = url.drivername.lower().partition("+")
    if name not in _BACKENDS:
        known = ", ".join(dict.fromkeys(_BACKENDS.values()))
        raise bad_url(f"{name!r} is not a supported database; use one of: {known}")
    backend = _BACKENDS[name]
    _check_parts(url, backend)
    url = url.set(drivername=f"{backend}+{driver or drivers[backend]}")
    _check_driver(url, drivers)
    return url if has_server(url) else _sqlite(url)


def has_server(url: URL) -> bool:
    """Return whether a supported URL leads to a server."""
    return FEATURES[url.get_backend_name()].has_server


def is_memory(url: URL) -> bool:
    """Return whether every new connection to this SQLite URL sees a database of its own."""
    name = url.database or ":memory:"
    if name == ":memory:":
        return True
    return (
        name in {"file:", "file::memory:"}
        or url.query.get("mode") == "memory"
        # Connections share this one, but it disappears with the last of them.
        or url.query.get("vfs") == "memdb"
    )


def without_secrets(url: URL) -> tuple[URL, dict[str, str]]:
    """Split off the passwords in the query string, which SQLAlchemy would show."""
    names = [name for name in url.query if "passw" in name.lower()]
    secrets = {name: str(url.query[name]) for name in names}
    return url.difference_update_query(names), secrets


def for_asyncpg(url: URL, secrets: Mapping[str, str]) -> tuple[URL, dict[str, Any]]:
    """Translate the parameters that only libpq knows, so that one URL works for both APIs.

    Args:
        url: The URL, without its secrets.
        secrets: The secrets that its query had.

    Returns:
        The URL without what was translated, and the secrets with arguments in its place.

    Raises:
        ValidationError: Something is required that asyncpg cannot do, or a wrong timeout.
    """
    given = {**url.query, **secrets}
    in_dsn = {name: given[name] for name in sorted(_IN_DSN.intersection(given))}
    left_out = {*_LEFT_OUT.intersection(given), *_UNLESS_REQUIRED.intersection(given)}
    for name in _UNLESS_REQUIRED.intersection(given):
        if given[name] == "require":
            raise bad_url(
                f"has {name}=require, which asyncpg cannot do; leave it out, or write "
                "postgresql+psycopg://"
            )
    arguments: dict[str, Any] = {
        name: value for name, value in secrets.items() if name not in in_dsn
    }
    if in_dsn:
        arguments["dsn"] = f"postgresql://?{urlencode(in_dsn)}"
    if "dbname" in given:
        arguments["database"] = given["dbname"]
    if "connect_timeout" in given:
        arguments["timeout"] = _seconds(given["connect_timeout"])
    for name in _NUMBERS_OF_ASYNCPG.keys() & given:
        arguments[name] = number = _number(name, given[name], _NUMBERS_OF_ASYNCPG[name])
        if number < 0:  # SQLAlchemy would tidy up its cache for ever
            raise bad_url(f"must have 0 or more as {name}")
    translated = {*in_dsn, *left_out, "dbname", "connect_timeout", *_NUMBERS_OF_ASYNCPG}
    return url.difference_update_query(list(translated)), arguments


def _seconds(text: Any) -> float | None:
    """Return a timeout as asyncpg takes it; for libpq 0 is no limit."""
    with suppress(TypeError, ValueError):
        seconds = float(text)
        if isfinite(seconds):
            return seconds if seconds > 0 else None
    raise bad_url("must have a number of seconds as connect_timeout")


def for_psycopg(url: URL, secrets: dict[str, str]) -> tuple[URL, dict[str, Any]]:
    """Check the numbers in a URL, and give psycopg as numbers what libpq does not read.

    Args:
        url: The URL, without its secrets.
        secrets: The secrets that its query had.

    Returns:
        The URL without what became an argument, and the secrets with the arguments.

    Raises:
        ValidationError: Something is not a number.
    """
    arguments: dict[str, Any] = dict(secrets)
    for name in _NUMBERS_OF_LIBPQ.intersection(url.query):
        number = _number(name, url.query[name], int)
        if name == "prepare_threshold":
            arguments[name] = number
    return url.difference_update_query(["prepare_threshold"]), arguments


def _number(name: str, text: Any, kind: type[int | float]) -> int | float:
    with suppress(TypeError, ValueError):
        number = kind(text)
        if isfinite(number):
            return number
    words = "a whole number" if kind is int else "a number"
    raise bad_url(f"must have {words} as {name}")


def check_parameters(url: URL, dialect: Dialect, moved: Iterable[str]) -> None:
    """Refuse parameters that the driver would not take when it connects.

    Args:
        url: The URL of the engine.
        dialect: The dialect of the engine; its driver is there.
        moved: The names of arguments that stood in the query of the URL.
    """
    accepted = _parameters_of(dialect)
    if accepted is None:
        return
    for name in sorted(_OBJECTS[dialect.driver] & url.query.keys()):
        raise bad_url(f"has a parameter {name!r} that takes an object; pass it in connect_args")
    _, arguments = dialect.create_connect_args(url)
    for name in (*arguments, *moved):
        if name not in accepted:
            raise _unknown(name, dialect.driver, accepted)


def _parameters_of(dialect: Dialect) -> AbstractSet[str] | None:
    """Return the parameters that a driver takes from a URL, None if that is not known."""
    if dialect.driver not in _OWN_PARAMETERS:
        return None
    driver = import_module(dialect.driver)
    found = {*_OWN_PARAMETERS[dialect.driver], *signature(driver.connect).parameters}
    if dialect.driver == "psycopg":
        found |= {option.keyword.decode() for option in driver.pq.Conninfo.get_defaults()}
    return found


# Parameters that SQLAlchemy's dialects and `for_asyncpg` consume themselves.
_OWN_PARAMETERS = {
    "asyncmy": (),
    "asyncpg": (
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        *_IN_DSN,
        "connect_timeout",
    ),
    "psycopg": (),
    "pymysql": (),
}

# What drivers take as classes, functions and other objects, which a URL cannot hold.
_OBJECTS: Mapping[str, AbstractSet[str]] = {
    "asyncmy": {"auth_plugin_map", "conv", "cursor_cls", "password_creator", "query_callback"},
    "asyncpg": {"connection_class", "loop", "record_class", "server_settings"},
    "psycopg": {"context", "cursor_factory", "row_factory"},
    "pymysql": {"auth_plugin_map", "conv", "cursorclass"},
}


def _unknown(name: str, driver: str, accepted: Iterable[str]) -> ValidationError:
    from difflib import get_close_matches  # imported here because few programs need it

    # A name that does not look like a parameter may be part of a password.
    quoted = repr(name) if re.fullmatch(_NAME, name) else "with an invalid name"
    similar = get_close_matches(name, accepted, 1)
    hint = f"did you mean {similar[0]!r}?" if similar else "leave it out"
    return bad_url(f"has a parameter {quoted} that {driver} does not have; {hint}")


_NAME = "(?i)[a-z_]{1,40}"


def read_url(database_url: str | URL) -> URL:
    """Parse a URL; the error for one that cannot be parsed does not quote it."""
    if isinstance(database_url, URL):
        return database_url
    if not isinstance(database_url, str):
        raise bad_url(f"must be a str or a SQLAlchemy URL, not {type(database_url).__name__}")
    if not database_url.strip():
        raise bad_url("must not be empty")
    if database_url != database_url.strip():
        raise bad_url("must have no whitespace around it")
    if database_url.count("@") > 1 and not database_url.startswith("sqlite"):
        # Otherwise the text after the first "@" would be taken for the host, and be shown.
        raise bad_url('has more than one "@"; write %40 for one inside the user or password')
    # The parser's own error is not chained: it may quote part of the password.
    with suppress(ArgumentError, ValueError):
        return make_url(database_url)
    raise bad_url(
        "cannot be read; write postgresql://user:password@host:5432/name or sqlite:///file.db, "
        "with special characters in the user or password percent-encoded"
    )


def _check_parts(url: URL, backend: str) -> None:
    if not FEATURES[backend].has_server:
        if url.username or url.password or url.host or url.port:
            raise bad_url(
                "has a host, but SQLite URLs cannot have one; write sqlite:///relative.db, "
                "sqlite:////absolute/path.db or sqlite:///:memory:"
            )
    elif url.port is not None and not 0 < url.port <= _MAX_PORT:
        # Not quoted: in a URL without a host, the password is parsed as the port.
        raise bad_url(f"must have a port from 1 to {_MAX_PORT}")


def _check_driver(url: URL, drivers: Mapping[str, str]) -> None:
    """Refuse a driver that is unknown or made for the other API."""
    backend, _, driver = url.drivername.partition("+")
    own = url.set(drivername=f"{backend}+{drivers[backend]}")
    right = f"write {own.drivername}:// or plain {backend}://"
    is_async = own.get_dialect().is_async
    try:
        dialect = url.get_dialect()
    except (NoSuchModuleError, ValueError):
        raise bad_url(f"{backend} has no driver {driver!r}; {right}") from None
    # psycopg is one name for two dialects.
    fitting = dialect.get_async_dialect_cls(url) if is_async else dialect
    if fitting.is_async != is_async:
        api, other = ("async", "sync") if is_async else ("sync", "async")
        raise bad_url(f"{driver} is a driver for {other} code, and this is the {api} API; {right}")


def _sqlite(url: URL) -> URL:
    """Mark a file name as a URI; otherwise SQLite would take it for a name on disk."""
    if (url.database or "").startswith("file:") and "uri" not in url.query:
        url = url.update_query_dict({"uri": "true"})
    is_uri = str(url.query.get("uri", "")).lower() in _TRUE
    for name in url.query:
        if name in _SQLITE_URI and not is_uri:
            raise bad_url(
                f"has the SQLite URI parameter {name!r} but is not a URI; "
                f"write sqlite:///file:heroes.db?{name}=..."
            )
        # A custom VFS may have parameters of its own.
        if name not in _SQLITE | _SQLITE_URI and not (is_uri and "vfs" in url.query):
            raise _unknown(name, "SQLite", _SQLITE | _SQLITE_URI)
    return url


_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
