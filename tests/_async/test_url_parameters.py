"""Parameters of a URL: one URL for both APIs, and mistakes that show when the engine is made."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from sqlmodel_crud_utils.aio import create_pooled_engine
from sqlmodel_crud_utils.exceptions import ValidationError
from tests._runtime_async import AsyncSession
from tests.databases import Database

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
    """What libpq reads and a driver does not is translated, or left out."""
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
    """Where one of the names is near; what is not a name at all is not repeated."""
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
