"""Pools on real databases: exhaustion, lost connections, passwords that are asked for."""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_row,
    get_rows,
    get_session,
    pool_status,
)
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.databases import Database
from tests.models import Hero

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mysql")

PASSWORD = "p€ss wörd"


@asynccontextmanager
async def pooled(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    """A pooled engine, disposed of at the end."""
    engine = create_pooled_engine(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


async def value(engine: AsyncEngine, statement: str) -> Any:
    """Return the value of a statement, on a separate connection."""
    async with engine.connect() as connection:
        return (await connection.execute(text(statement))).scalar()


def traceback_of(error: BaseException) -> str:
    """Return the full traceback of an error and its causes."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


class TestExhaustion:
    async def test_it_raises_after_the_timeout(self, database: Database) -> None:
        """A read that gets no connection must not report a missing row."""
        async with (
            pooled(database.async_url, pool_size=1, max_overflow=0, pool_timeout=0.2) as engine,
            AsyncSession(engine) as first,
            AsyncSession(engine) as second,
        ):
            await first.exec(select(1))
            started = time.monotonic()
            with pytest.raises(DatabaseConnectionError) as caught:
                await get_row(1, second, Hero)
            assert 0.15 < time.monotonic() - started < 5
            assert type(caught.value.__cause__).__name__ == "TimeoutError"
            with pytest.raises(DatabaseConnectionError):
                await get_rows(second, Hero)
            await first.rollback()
            assert await get_row(1, second, Hero) == (False, None)

    async def test_overflow_connections_are_closed_after_use(self, database: Database) -> None:
        """They are more than the pool keeps."""
        async with pooled(database.async_url, pool_size=1, max_overflow=1) as engine:
            request = asynccontextmanager(get_session(engine))
            async with request() as first, request() as second:
                await first.exec(select(1))
                await second.exec(select(1))
                assert pool_status(engine) == {
                    "size": 1,
                    "checked_in": 0,
                    "checked_out": 2,
                    "overflow": 1,
                }
            assert pool_status(engine) == {
                "size": 1,
                "checked_in": 1,
                "checked_out": 0,
                "overflow": 0,
            }


@pytest.mark.databases("postgresql", "mysql")
class TestPasswords:
    async def test_a_callable_is_asked_at_each_new_connection(self, database: Database) -> None:
        """A callable password is asked for each new connection, not for one from the pool."""
        address = make_url(database.async_url)
        asked: list[int] = []

        def token() -> str:
            asked.append(1)
            return str(address.password or "")

        async with pooled(database.async_url, password=token) as engine:
            assert asked == []
            async with engine.connect(), engine.connect():
                assert len(asked) == 2
            assert await value(engine, "SELECT 1") == 1
            assert len(asked) == 2
            await engine.dispose()
            assert await value(engine, "SELECT 1") == 1
            assert len(asked) == 3

    async def test_a_callable_may_do_what_the_api_does(self, database: Database) -> None:
        """Fetch a token over the network, for instance, without blocking."""
        address = make_url(database.async_url)

        async def token() -> SecretStr:
            async with pooled(database.async_url) as vault:
                assert await value(vault, "SELECT 1") == 1
            return SecretStr(str(address.password or ""))

        async with pooled(database.async_url, password=token) as engine:
            assert await value(engine, "SELECT 1") == 1
            assert pool_status(engine)["checked_in"] == 1

    async def test_it_reaches_the_driver(self, database: Database) -> None:
        """On a connection to a server that trusts everybody one can only watch."""
        seen: list[Any] = []
        async with pooled(database.async_url, password="a token") as engine:

            @event.listens_for(getattr(engine, "sync_engine", engine), "do_connect")
            def watch(_dialect: Any, _entry: Any, _args: Any, parameters: dict[str, Any]) -> None:
                seen.append(parameters.pop("password"))
                parameters["password"] = make_url(database.async_url).password or ""

            assert await value(engine, "SELECT 1") == 1
        assert seen == ["a token" if database.name == "postgresql" else b"a token"]


@pytest.fixture
async def account(database: Database, engine: AsyncEngine) -> AsyncIterator[str]:
    """The URL of a MySQL user with a password, without it."""
    name = ("ann_" + str(make_url(database.async_url).database))[:32]
    async with engine.connect() as connection:
        await connection.execute(text(f"DROP USER IF EXISTS '{name}'@'%'"))
        await connection.execute(
            text(f"CREATE USER '{name}'@'%' IDENTIFIED BY :password"), {"password": PASSWORD}
        )
        await connection.execute(text(f"GRANT ALL ON *.* TO '{name}'@'%'"))
        address = make_url(database.async_url).set(username=name, password="")
        yield address.render_as_string(hide_password=False).replace(":@", "@")
        await connection.execute(text(f"DROP USER '{name}'@'%'"))


@pytest.mark.databases("mysql")
class TestRealAccounts:
    async def test_a_password_with_any_letters_opens_the_door(self, account: str) -> None:
        """The drivers would encode it in Latin-1, and refuse what isn't in there."""
        async with pooled(account, password=PASSWORD) as engine:
            assert await value(engine, "SELECT 1") == 1
        url = make_url(account).set(password=PASSWORD)
        async with pooled(url.render_as_string(hide_password=False)) as engine:
            assert await value(engine, "SELECT 1") == 1

    @pytest.mark.parametrize("wrong", ["hunter2", "hünter€"])
    async def test_a_wrong_password_is_refused_and_never_shows(
        self, account: str, wrong: str
    ) -> None:
        """In the error, in its causes, and in what they carry."""
        async with pooled(account, password=wrong) as engine, AsyncSession(engine) as session:
            with pytest.raises(DatabaseConnectionError) as caught:
                await get_row(1, session, Hero)
            assert "Access denied" in traceback_of(caught.value)
            assert wrong not in traceback_of(caught.value)
            assert pool_status(engine)["checked_out"] == 0
