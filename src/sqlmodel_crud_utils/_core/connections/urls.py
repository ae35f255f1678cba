"""Database URLs: reading them, and the driver that each API needs.

No message here quotes a URL: one that could not be read may have its password anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlencode

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from sqlmodel_crud_utils.exceptions import ValidationError

_BACKENDS = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "sqlite": "sqlite",
    "mysql": "mysql",
    "mariadb": "mariadb",
}
_MAX_PORT = 65_535

# What libpq reads from a URL, and asyncpg only from the DSN that it can be given.
_LIBPQ_ONLY = frozenset(
    {
        "application_name",
        "options",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
    }
)


def bad_url(message: str) -> ValidationError:
    """Return the error for a URL that cannot be used."""
    return ValidationError(message, field="database_url")


def resolve_url(database_url: str | URL, drivers: Mapping[str, str]) -> URL:
    """Return the URL with the driver that fits the API.

    Args:
        database_url: What the caller gave.
        drivers: The API's own driver for each backend.
    """
    url = _read(database_url)
    name, _, driver = url.drivername.lower().partition("+")
    if name not in _BACKENDS:
        known = ", ".join(dict.fromkeys(_BACKENDS.values()))
        raise bad_url(f"{name!r} is not a supported database; there are: {known}")
    backend = _BACKENDS[name]
    _check_parts(url, backend)
    url = url.set(drivername=f"{backend}+{driver or drivers[backend]}")
    _check_driver(url, drivers)
    return _with_uri_flag(url) if backend == "sqlite" else url


def is_memory(url: URL) -> bool:
    """Tell whether every new connection to this SQLite URL would see a database of its own."""
    name = url.database or ":memory:"
    if name == ":memory:":
        return True
    return (
        name in {"file:", "file::memory:"}
        or url.query.get("mode") == "memory"
        # Shared between connections, but gone with the last one of them.
        or url.query.get("vfs") == "memdb"
    )


def without_secrets(url: URL) -> tuple[URL, dict[str, str]]:
    """Split off the passwords that stand in the query, which SQLAlchemy would show."""
    names = [name for name in url.query if "passw" in name.lower()]
    secrets = {name: str(url.query[name]) for name in names}
    return url.difference_update_query(names), secrets


def with_asyncpg_dsn(url: URL, secrets: Mapping[str, str]) -> tuple[URL, dict[str, str]]:
    """Move what asyncpg takes in a DSN only into one, so that one URL serves both APIs.

    Args:
        url: The URL, without its secrets.
        secrets: The secrets that its query had.

    Returns:
        The URL without what was moved, and the secrets with a DSN in their place.
    """
    given = {**url.query, **secrets}
    moved = {name: given[name] for name in sorted(_LIBPQ_ONLY.intersection(given))}
    arguments = {name: value for name, value in secrets.items() if name not in moved}
    if moved:
        arguments["dsn"] = f"postgresql://?{urlencode(moved)}"
    return url.difference_update_query(list(moved)), arguments


def _read(database_url: str | URL) -> URL:
    if isinstance(database_url, URL):
        return database_url
    if not isinstance(database_url, str):
        raise bad_url(f"must be a str or a SQLAlchemy URL, not {type(database_url).__name__}")
    if not database_url.strip():
        raise bad_url("must not be empty")
    if database_url != database_url.strip():
        raise bad_url("must have no whitespace around it")
    if database_url.count("@") > 1 and not database_url.startswith("sqlite"):
        # Otherwise the part after the first one would pass for the host, and be shown.
        raise bad_url('has more than one "@"; write %40 for one inside of the user or password')
    # The parser's own error goes no further, as it may quote what is a part of the password.
    with suppress(ArgumentError, ValueError):
        return make_url(database_url)
    raise bad_url(
        "cannot be read; write postgresql://user:password@host:5432/name or sqlite:///file.db, "
        "with special characters in the user or password percent-encoded"
    )


def _check_parts(url: URL, backend: str) -> None:
    if backend == "sqlite":
        if url.username or url.password or url.host or url.port:
            raise bad_url(
                "names a host, which SQLite has not; write sqlite:///relative.db, "
                "sqlite:////absolute/path.db or sqlite:///:memory:"
            )
    elif url.port is not None and not 0 < url.port <= _MAX_PORT:
        # Not quoted: in a URL without a host the password passes for the port.
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


def _with_uri_flag(url: URL) -> URL:
    """Say that a file name is a URI; SQLite would take it for a name on disk otherwise."""
    if (url.database or "").startswith("file:") and "uri" not in url.query:
        return url.update_query_dict({"uri": "true"})
    return url
