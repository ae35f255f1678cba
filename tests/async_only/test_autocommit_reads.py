"""Reads without a transaction that are cancelled, with both drivers for PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import QueryBuilder, create_pooled_engine, pool_status, write_row
from tests._runtime_async import execute
from tests.databases import Database
from tests.models import Hero

pytestmark = pytest.mark.databases("postgresql")

WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(database: Database, request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection; the rows that a test leaves are removed after it."""
    url = database.async_url if request.param == "asyncpg" else database.sync_url
    engine = create_pooled_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    assert engine.dialect.driver == request.param
    yield engine
    await engine.dispose()
    database.clear()


async def test_a_cancelled_read_leaves_nothing_behind(
    engine: AsyncEngine, database: Database
) -> None:
    """The session can be used at once, and what it writes then is in a transaction."""
    administrator = create_engine(database.sync_url)
    async with AsyncSession(engine) as session:
        assert (await write_row(Hero(id=1, name="Ann", secret_name="x"), session))[0]
        heroes = QueryBuilder(session, Hero)
        with administrator.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE hero IN ACCESS EXCLUSIVE MODE")
            read = asyncio.create_task(heroes.count())
            while not connection.exec_driver_sql(WAITING).scalar():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await read
        administrator.dispose()
        await session.rollback()
        assert await heroes.count() == 1
        await execute(session, text("UPDATE hero SET age = 7"))
        await session.rollback()
        assert await heroes.where(age=7).count() == 0
    assert pool_status(engine)["checked_out"] == 0


async def test_reads_and_writes_of_many_tasks(engine: AsyncEngine) -> None:
    """They take turns on one connection; a read never takes the transaction from a write."""

    async def work(number: int) -> None:
        async with AsyncSession(engine) as session:
            heroes = QueryBuilder(session, Hero)
            assert await heroes.where(age=7).count() == 0
            session.add(Hero(name=f"{number}", secret_name="x", age=7))
            await session.flush()
            assert await heroes.where(age=7).count() == 1
            await session.rollback()
            assert await heroes.where(age=7).count() == 0

    await asyncio.gather(*(work(number) for number in range(20)))
