"""A bank while connections are killed: no acknowledged transfer is lost, none is half made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError

from sqlmodel_crud_utils import aio, sync
from tests import _runtime_sync
from tests.chaos import bank
from tests.chaos_models import Balance, Transfer
from tests.databases import Database
from tests.servers import OwnPostgreSQL, own_postgresql

pytestmark = pytest.mark.chaos

SERVERS = pytest.mark.databases("postgresql", "mysql")

SECONDS, CALLERS = 5.0, 8

_OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'bank'",
    "mysql": "SELECT id FROM information_schema.processlist"
    " WHERE db = database() AND id <> connection_id() AND command <> 'Sleep'",
}
_KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}


@pytest.fixture
def administrator(database: Database) -> Iterator[Engine]:
    """An engine separate from the tested one, and accounts to work with."""
    engine = create_engine(database.sync_url, isolation_level="AUTOCOMMIT")
    bank.opened(engine)
    yield engine
    engine.dispose()
    database.clear()


def kill_one(engine: Engine, kind: str) -> None:
    """Kill another connection, whatever it is doing."""
    with engine.connect() as connection:
        others = connection.exec_driver_sql(_OTHERS[kind]).scalars().all()
        if others:
            with suppress(DBAPIError):  # it may be gone by now
                connection.exec_driver_sql(_KILL[kind].format(random.choice(others)))


def options(kind: str, url: str) -> dict[str, object]:
    """Return options that mark the bank's connections on PostgreSQL."""
    if kind != "postgresql":
        return {}
    if "asyncpg" in url:
        return {"connect_args": {"server_settings": {"application_name": "bank"}}}
    return {"connect_args": {"application_name": "bank"}}


@SERVERS
async def test_async_while_connections_are_killed(
    database: Database, administrator: Engine
) -> None:
    """Callers are told what became of their transfer, and connections go back to the pool."""
    kind, url = database.name, database.async_url
    engine = aio.create_pooled_engine(url, CALLERS, 2, **options(kind, url))
    with bank.repeatedly(0.1, lambda: kill_one(administrator, kind)):
        books = await bank.run_async(engine, SECONDS, CALLERS)
    await engine.dispose()
    books.check(administrator)


@SERVERS
def test_sync_while_connections_are_killed(database: Database, administrator: Engine) -> None:
    """Callers are told what became of their transfer, and connections go back to the pool."""
    kind, url = database.name, database.sync_url
    engine = sync.create_pooled_engine(url, CALLERS, 2, **options(kind, url))
    with bank.repeatedly(0.1, lambda: kill_one(administrator, kind)):
        books = bank.run_sync(engine, SECONDS, CALLERS)
    engine.dispose()
    books.check(administrator)


@pytest.mark.databases("sqlite", "postgresql", "mysql")
async def test_repeated_async_while_connections_are_killed(
    database: Database, administrator: Engine
) -> None:
    """Each transfer is made once, or its caller is told; deadlocks and collisions are not told."""
    kind, url = database.name, database.async_url
    engine = aio.create_pooled_engine(url, CALLERS, 2, **options(kind, url))
    with killing(administrator, kind):
        books = await bank.run_async(engine, SECONDS, CALLERS, bank.transfer_again_async)
    await engine.dispose()
    books.check(administrator)


@pytest.mark.databases("sqlite", "postgresql", "mysql")
def test_repeated_sync_while_connections_are_killed(
    database: Database, administrator: Engine
) -> None:
    """Each transfer is made once, or its caller is told; deadlocks and collisions are not told."""
    kind, url = database.name, database.sync_url
    engine = sync.create_pooled_engine(url, CALLERS, 2, **options(kind, url))
    with killing(administrator, kind):
        books = bank.run_sync(engine, SECONDS, CALLERS, bank.transfer_again_sync)
    engine.dispose()
    books.check(administrator)


def killing(administrator: Engine, kind: str) -> AbstractContextManager[None]:
    """Kill connections meanwhile; SQLite has no connections to kill."""
    if kind == "sqlite":
        return nullcontext()
    return bank.repeatedly(0.1, lambda: kill_one(administrator, kind))


@pytest.fixture
def server() -> Iterator[OwnPostgreSQL]:
    """A PostgreSQL with accounts."""
    with own_postgresql() as started:
        engine = create_engine(started.url.replace("postgresql:", "postgresql+psycopg:"))
        _runtime_sync.make_tables(engine, Balance, Transfer)
        bank.opened(engine)
        engine.dispose()
        yield started


@pytest.mark.parametrize("api", ["async", "sync"])
async def test_while_the_server_is_stopped_and_started(server: OwnPostgreSQL, api: str) -> None:
    """The program continues when the server is back, and no acknowledged transfer is lost."""

    def restart() -> None:
        server.crash()
        server.recover()

    engine: Any
    with bank.repeatedly(1.5, restart):
        if api == "async":
            engine = aio.create_pooled_engine(server.url, CALLERS, 2)
            books = await bank.run_async(engine, 2 * SECONDS, CALLERS)
            await engine.dispose()
        else:
            engine = sync.create_pooled_engine(server.url, CALLERS, 2)
            books = await asyncio.to_thread(bank.run_sync, engine, 2 * SECONDS, CALLERS)
            engine.dispose()
    plain = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    books.check(plain)
    plain.dispose()
