"""Reading database URLs, and choosing the driver for each API."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from sqlalchemy.engine import URL, make_url

from sqlmodel_crud_utils import _runtime_async, _runtime_sync
from sqlmodel_crud_utils._core.connections.urls import (
    for_asyncpg,
    is_memory,
    resolve_url,
    without_secrets,
)
from sqlmodel_crud_utils.exceptions import ValidationError

ASYNC = _runtime_async.DRIVERS
SYNC = _runtime_sync.DRIVERS
SECRET = "hunter2"


def traceback_of(error: BaseException) -> str:
    """Return the full traceback of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


@pytest.mark.parametrize(
    ("plain", "for_async", "for_sync"),
    [
        ("postgresql", "postgresql+asyncpg", "postgresql+psycopg"),
        ("postgres", "postgresql+asyncpg", "postgresql+psycopg"),
        ("POSTGRESQL", "postgresql+asyncpg", "postgresql+psycopg"),
        ("mysql", "mysql+asyncmy", "mysql+pymysql"),
        ("mariadb", "mariadb+asyncmy", "mariadb+pymysql"),
    ],
)
def test_a_plain_scheme_gets_the_driver_of_each_api(
    plain: str, for_async: str, for_sync: str
) -> None:
    """One URL serves both APIs; all of it but the scheme stays."""
    url = f"{plain}://ann:pw@host:5433/heroes?application=x"
    for drivers, expected in ((ASYNC, for_async), (SYNC, for_sync)):
        resolved = resolve_url(url, drivers)
        assert resolved == make_url(url).set(drivername=expected)


def test_plain_sqlite_gets_the_driver_of_each_api() -> None:
    """SQLite's file and memory URLs keep their name."""
    assert resolve_url("sqlite:///a.db", ASYNC) == make_url("sqlite+aiosqlite:///a.db")
    assert resolve_url("sqlite://", SYNC) == make_url("sqlite+pysqlite://")


@pytest.mark.parametrize(
    ("scheme", "drivers"),
    [
        ("postgresql+asyncpg", ASYNC),
        ("postgresql+psycopg", ASYNC),
        ("postgresql+psycopg_async", ASYNC),
        ("mysql+aiomysql", ASYNC),
        ("mariadb+asyncmy", ASYNC),
        ("postgresql+psycopg", SYNC),
        ("postgresql+psycopg2", SYNC),
        ("mysql+mysqldb", SYNC),
        ("mariadb+pymysql", SYNC),
    ],
)
def test_a_driver_that_fits_is_kept(scheme: str, drivers: dict[str, str]) -> None:
    """A driver in the URL is the caller's choice; psycopg 3 works for both APIs."""
    assert resolve_url(f"{scheme}://host/db", drivers).drivername == scheme


@pytest.mark.parametrize(
    ("scheme", "drivers", "right"),
    [
        ("postgresql+psycopg2", ASYNC, r"postgresql\+asyncpg:// or plain postgresql://"),
        ("postgres+pg8000", ASYNC, r"postgresql\+asyncpg:// or plain postgresql://"),
        ("mysql+pymysql", ASYNC, r"mysql\+asyncmy:// or plain mysql://"),
        ("postgresql+asyncpg", SYNC, r"postgresql\+psycopg:// or plain postgresql://"),
        ("postgresql+psycopg_async", SYNC, r"postgresql\+psycopg:// or plain postgresql://"),
        ("mariadb+asyncmy", SYNC, r"mariadb\+pymysql:// or plain mariadb://"),
    ],
)
def test_a_driver_of_the_other_api_is_refused(
    scheme: str, drivers: dict[str, str], right: str
) -> None:
    """The text names the driver and what would be right."""
    with pytest.raises(ValidationError, match=right) as caught:
        resolve_url(f"{scheme}://ann:{SECRET}@host/db", drivers)
    assert scheme.partition("+")[2] in str(caught.value)
    assert SECRET not in traceback_of(caught.value)


@pytest.mark.parametrize("driver", ["nope", "asyncpg+psycopg"])
def test_an_unknown_driver_is_refused(driver: str) -> None:
    """SQLAlchemy would speak of a plugin that it can't load."""
    with pytest.raises(ValidationError, match="postgresql has no driver") as caught:
        resolve_url(f"postgresql+{driver}://ann:{SECRET}@host/db", ASYNC)
    assert SECRET not in traceback_of(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must not be empty"),
        ("  ", "must not be empty"),
        ("postgresql://host/db\n", "no whitespace around"),
        ("heroes.db", "cannot be read"),
        (f"ann:{SECRET}@host/db", "cannot be read"),
        (f"postgresql:/ann:{SECRET}@host/db", "cannot be read"),
        (f"postgresql://ann:{SECRET}@host:port/db", "cannot be read"),
        (f"postgresql://ann:{SECRET}/db", "cannot be read"),
        ("postgresql://ann:87654321/db", "port from 1 to 65535"),
        ("postgresql://host:0/db", "port from 1 to 65535"),
        (f"postgresql://ann:a@{SECRET}@host/db", "write %40"),
        (f"mysql://ann:a@b/{SECRET}@host/db", "write %40"),
        (f"oracle://ann:{SECRET}@host/db", "'oracle' is not a supported database"),
        ("sqlite://heroes.db", "write sqlite:///relative.db"),
        (f"sqlite://ann:{SECRET}@/heroes.db", "write sqlite:///relative.db"),
    ],
)
def test_a_bad_url_is_refused_and_not_quoted(url: str, message: str) -> None:
    """A URL that is written wrongly may have its password at any place."""
    with pytest.raises(ValidationError, match=message) as caught:
        resolve_url(url, SYNC)
    assert caught.value.field == "database_url"
    text = traceback_of(caught.value)
    assert SECRET not in text
    assert "87654321" not in text
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", [None, 5, b"sqlite://", ["sqlite://"]])
def test_a_url_of_a_wrong_type_is_refused(url: Any) -> None:
    """The text names the type."""
    with pytest.raises(ValidationError, match=f"not {type(url).__name__}"):
        resolve_url(url, ASYNC)


def test_a_url_object_is_accepted() -> None:
    """SQLAlchemy's URL needs no percent-encoding."""
    url = URL.create("postgresql", "ann", "p@ss/word", "host", database="heroes")
    resolved = resolve_url(url, ASYNC)
    assert resolved.password == "p@ss/word"
    assert resolved.drivername == "postgresql+asyncpg"


def test_an_at_sign_is_no_trouble_in_a_file_name() -> None:
    """SQLite URLs have no user whose end it could be."""
    assert resolve_url("sqlite:///a@b@c.db", SYNC).database == "a@b@c.db"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite://", True),
        ("sqlite:///", True),
        ("sqlite:///:memory:", True),
        ("sqlite:///file::memory:", True),
        ("sqlite:///file::memory:?cache=shared", True),
        ("sqlite:///file::memory:?cache=shared&uri=true", True),
        ("sqlite:///file:name?mode=memory&cache=shared", True),
        ("sqlite:///file:/name?vfs=memdb", True),
        ("sqlite:///file:", True),
        ("sqlite:///heroes.db", False),
        ("sqlite:////srv/heroes.db", False),
        ("sqlite:///file:heroes.db?mode=ro", False),
        ("sqlite:///memory", False),
    ],
)
def test_databases_in_memory_are_told_from_files(url: str, expected: bool) -> None:
    """Those in memory need one shared connection, URIs included."""
    assert is_memory(resolve_url(url, SYNC)) is expected


def test_a_file_uri_is_marked_as_one() -> None:
    """Without the flag SQLite would make a file with that name."""
    assert resolve_url("sqlite:///file:a.db?mode=ro", SYNC).query == {"mode": "ro", "uri": "true"}
    assert resolve_url("sqlite:///file:a.db?uri=false", SYNC).query == {"uri": "false"}


def test_passwords_in_the_query_are_split_off() -> None:
    """SQLAlchemy hides the password of the user only, and shows the query."""
    url, secrets = without_secrets(
        make_url(f"postgresql://host/db?password={SECRET}&sslPassword=x&sslmode=require")
    )
    assert secrets == {"password": SECRET, "sslPassword": "x"}
    assert url.query == {"sslmode": "require"}


def test_libpq_parameters_become_a_dsn_for_asyncpg() -> None:
    """As arguments it refuses sslmode and its like, which psycopg takes."""
    url, secrets = without_secrets(
        make_url(
            "postgresql+asyncpg://host/db?sslmode=require&application_name=a+b"
            "&sslpassword=pw&password=other&command_timeout=5"
        )
    )
    url, arguments = for_asyncpg(url, secrets)
    assert url.query == {}
    assert arguments == {
        "password": "other",
        "command_timeout": 5.0,
        "dsn": "postgresql://?application_name=a+b&sslmode=require&sslpassword=pw",
    }


def test_asyncpg_gets_no_dsn_without_libpq_parameters() -> None:
    """Most URLs have none."""
    url = make_url("postgresql+asyncpg://host/db")
    assert for_asyncpg(url, {}) == (url, {})


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("connect_timeout=5", {"timeout": 5.0}),
        ("connect_timeout=0", {"timeout": None}),
        ("dbname=heroes", {"database": "heroes"}),
        ("keepalives=1&keepalives_idle=30&tcp_user_timeout=5&client_encoding=utf8", {}),
        ("gssencmode=prefer&channel_binding=disable&sslcertmode=allow&sslsni=1", {}),
        (
            "ssl_min_protocol_version=TLSv1.3",
            {"dsn": "postgresql://?ssl_min_protocol_version=TLSv1.3"},
        ),
    ],
)
def test_what_libpq_knows_is_translated_or_left_out(query: str, arguments: Any) -> None:
    """One URL serves both APIs; the dropped options do not affect security."""
    url = make_url(f"postgresql+asyncpg://host/db?{query}")
    assert for_asyncpg(url, {}) == (make_url("postgresql+asyncpg://host/db"), arguments)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("gssencmode=require", "gssencmode=require, which asyncpg cannot do"),
        ("channel_binding=require", "channel_binding=require, which asyncpg cannot do"),
        ("connect_timeout=soon", "number of seconds as connect_timeout"),
        ("connect_timeout=inf", "number of seconds as connect_timeout"),
        ("connect_timeout=1&connect_timeout=2", "number of seconds as connect_timeout"),
    ],
)
def test_what_asyncpg_cannot_do_is_refused(query: str, message: str) -> None:
    """Security that is asked for is not dropped."""
    with pytest.raises(ValidationError, match=message) as caught:
        for_asyncpg(make_url(f"postgresql+asyncpg://host/db?{query}"), {})
    assert caught.value.field == "database_url"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///a.db?bogus=1", "'bogus' that SQLite does not have"),
        ("sqlite:///a.db?timeou=1", "did you mean 'timeout'"),
        ("sqlite:///a.db?mode=ro", r"write sqlite:///file:heroes.db\?mode="),
        ("sqlite:///file:a.db?mode=ro&uri=false", r"write sqlite:///file:heroes.db\?mode="),
        ("sqlite:///file:a.db?mod=ro", "did you mean 'mode'"),
    ],
)
def test_sqlite_takes_its_own_parameters(url: str, message: str) -> None:
    """Those of a URI need one."""
    with pytest.raises(ValidationError, match=message):
        resolve_url(url, SYNC)


def test_a_vfs_may_have_parameters_of_its_own() -> None:
    """SQLite hands all of them on to it."""
    url = resolve_url("sqlite:///file:a.db?vfs=mine&key=1&timeout=5&cache=shared", ASYNC)
    assert url.query["key"] == "1"
