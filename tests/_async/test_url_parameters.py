"""Parameters of a URL: one URL for both APIs, and mistakes that show when the engine is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from sqlmodel_crud_utils.aio import create_pooled_engine, get_rows
from sqlmodel_crud_utils.exceptions import (
    DatabaseConnectionError,
    SQLModelCRUDError,
    ValidationError,
)
from tests._runtime_async import AsyncSession
from tests.databases import Database
from tests.models import Hero

LIBPQ = (
    "connect_timeout=5&keepalives=1&keepalives_idle=30&gssencmode=prefer&channel_binding=prefer"
    "&application_name=heroes&client_encoding=utf8&sslsni=0&target_session_attrs=any"
)
DRIVERS = [
    "postgresql",
    "postgresql+psycopg",
    "mysql",
    "mariadb",
    "sqlite",
]


def with_query(database: Database, query: str) -> str:
    """Return the plain URL of a database with a query."""
    url = database.async_url
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}{'&' if '?' in rest else '?'}{query}"


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("driver", ["", "+psycopg"])
async def test_one_url_serves_both_apis(database: Database, driver: str):
    """Parameters of libpq that a driver does not support are translated or dropped."""
    url = with_query(database, LIBPQ).replace("://", f"{driver}://", 1)
    engine = create_pooled_engine(url)
    async with AsyncSession(engine) as session:
        name = await session.scalar(text("SHOW application_name"))
    await engine.dispose()
    assert name == "heroes"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", ["bogus", "sslmod", "passwordd"])
def test_an_unknown_parameter_shows_when_the_engine_is_made(driver: str, name: str):
    """Not at the first connection; the text holds no value."""
    where = "/heroes.db" if driver == "sqlite" else "ann@db.example/heroes"
    with pytest.raises(ValidationError, match=f"a parameter '{name}' that .* not have") as caught:
        create_pooled_engine(f"{driver}://{where}?{name}=hunter2")
    assert caught.value.field == "database_url"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresql://h/d?application_nam=x", "did you mean 'application_name'"),
        ("mysql://h/d?charse=utf8mb4", "did you mean 'charset'"),
        ("postgresql://h/d?%7Bodd%7D=x", "with an invalid name"),
    ],
)
def test_the_error_says_what_was_meant(url: str, hint: str):
    """If a known name is similar; text that is not a name is not quoted."""
    with pytest.raises(ValidationError, match=hint):
        create_pooled_engine(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/d?sslmode=require&sslpassword=x&password=y&options=-c%20jit%3Doff",
        "mysql://h/d?charset=utf8mb4&connect_timeout=5&ssl_ca=x",
        "sqlite:///file:heroes?mode=memory&cache=shared&timeout=5",
        "sqlite:///heroes.db?detect_types=0&isolation_level=IMMEDIATE",
    ],
)
async def test_parameters_that_drivers_have_are_taken(url: str):
    """Nothing connects."""
    await create_pooled_engine(url).dispose()


async def test_a_connection_made_by_a_function_of_ones_own_takes_what_it_likes():
    """The URL is not the driver's then."""

    def creator() -> None:
        raise NotImplementedError

    await create_pooled_engine("postgresql://h/d?bogus=1", creator=creator).dispose()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql+psycopg://h/d?connect_timeout=s3cret", "connect_timeout"),
        ("postgresql+psycopg://h/d?keepalives_idle=s3cret", "keepalives_idle"),
        ("postgresql+psycopg://h/d?prepare_threshold=s3cret", "prepare_threshold"),
        ("postgresql://h/d?connect_timeout=s3cret", "connect_timeout"),
        ("mysql://h/d?connect_timeout=5&read_timeout=s3cret", "read_timeout"),
        ("sqlite:///heroes.db?detect_types=0&timeout=s3cret", "timeout"),
        ("sqlite:///heroes.db?check_same_thread=s3cret", "check_same_thread"),
    ],
)
def test_a_value_that_cannot_be_read_shows_when_the_engine_is_made(url: str, name: str):
    """The error names its parameter, and does not repeat the value."""
    with pytest.raises(ValidationError, match=rf" (as|for) {name}\b") as caught:
        create_pooled_engine(url)
    assert caught.value.field == "database_url"
    assert "s3cret" not in str(caught.value)


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize(
    "query",
    [
        *("sslmode=s3cret", "target_session_attrs=s3cret", "gsslib=s3cret", "service=s3cret"),
        *("ssl_min_protocol_version=s3cret", "client_encoding=s3cret", "sslnegotiation=s3cret"),
        *("options=s3cret", "options=-c%20s3cret%3D1"),
        "sslrootcert=/s3cret&sslmode=verify-ca",
    ],
)
@pytest.mark.parametrize("driver", ["", "+psycopg"])
async def test_a_value_that_postgresql_refuses(database: Database, query: str, driver: str):
    """The first connection says which parameter has it, where that driver reads it at all."""
    engine = create_pooled_engine(with_query(database, query).replace("://", f"{driver}://", 1))
    refused: Exception | None = None
    async with AsyncSession(engine) as session:
        try:
            await get_rows(session, Hero)
        except SQLModelCRUDError as error:
            refused = error
    await engine.dispose()
    assert isinstance(refused, ValidationError | DatabaseConnectionError | None)
    # A Unix socket has no TLS, and nobody reads its certificates.
    if query.startswith(("sslmode=", "options=")):
        assert refused is not None
    if refused is not None:
        assert query.partition("=")[0] in str(refused)
    assert "s3cret" not in str(refused)


@pytest.mark.databases("mysql")
@pytest.mark.parametrize("query", ["ssl=s3cret", "read_timeout=-1", "port=s3cret"])
async def test_a_value_that_mysql_refuses(database: Database, query: str):
    """Its drivers raise errors of Python's before they connect."""
    engine = create_pooled_engine(with_query(database, query))
    async with AsyncSession(engine) as session:
        with pytest.raises(ValidationError, match=rf"check {query.partition('=')[0]}$") as caught:
            await get_rows(session, Hero)
    await engine.dispose()
    assert caught.value.field == "database_url"


async def failure_of_connecting(url: str) -> DatabaseConnectionError:
    """Return the error of the first read of an engine."""
    engine = create_pooled_engine(url)
    async with AsyncSession(engine) as session:
        with pytest.raises(DatabaseConnectionError) as caught:
            await get_rows(session, Hero)
    await engine.dispose()
    assert "s3cret" not in str(caught.value)
    return caught.value


@pytest.mark.databases("mysql")
@pytest.mark.parametrize(
    "query", ["init_command=s3cret", "sql_mode=s3cret", "ssl_ca=/s3cret", "charset=utf8s3cret"]
)
async def test_a_value_that_the_server_of_mysql_refuses(database: Database, query: str):
    """Or that the driver finds wrong on the way; the error names the parameter."""
    name = query.partition("=")[0]
    engine = create_pooled_engine(with_query(database, query))
    async with AsyncSession(engine) as session:
        with pytest.raises((DatabaseConnectionError, ValidationError), match=rf"check {name}$"):
            await get_rows(session, Hero)
    await engine.dispose()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("query", ["cache=s3cret", "mode=s3cret", "vfs=s3cret"])
async def test_a_value_that_sqlite_refuses(tmp_path: Path, query: str):
    """The file is not opened, and the error names the parameter."""
    failure = await failure_of_connecting(f"sqlite:///file:{tmp_path}/heroes.db?uri=true&{query}")
    assert str(failure).endswith(f"check {query.partition('=')[0]}")


@pytest.mark.databases("postgresql", "mysql")
async def test_parameters_are_suspects_only_while_the_reason_is_unknown(database: Database):
    """Without a server they may be right; where the server says why, they are not named."""
    query = "connect_timeout=5"
    name = database.async_url.rpartition("/")[2].partition("?")[0]
    url = with_query(database, query)
    missing = str(await failure_of_connecting(url.replace(f"/{name}?", f"/{name}_missing?")))
    assert "does not exist" in missing or "if the server is up, check" in missing
    assert "connect_timeout" not in missing or "does not exist" not in missing


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql+psycopg://h/d?row_factory=s3cret", "row_factory"),
        ("postgresql+psycopg://h/d?cursor_factory=s3cret", "cursor_factory"),
        ("mysql://h/d?conv=s3cret", "conv"),
        ("mysql://h/d?auth_plugin_map=s3cret", "auth_plugin_map"),
    ],
)
def test_a_parameter_that_takes_an_object_shows_when_the_engine_is_made(url: str, name: str):
    """A URL cannot contain an object; the error says where to pass it."""
    with pytest.raises(ValidationError, match=f"{name}' that takes an object.*connect_args"):
        create_pooled_engine(url)
