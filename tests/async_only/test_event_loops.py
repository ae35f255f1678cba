"""Async engines that outlive an event loop, or serve several of them."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sqlmodel_crud_utils.aio import create_pooled_engine, pool_status
from tests.databases import Database

pytestmark = pytest.mark.filterwarnings("error")

Work = Callable[[], Awaitable[Any]]

RESTED = {"size": 2, "checked_in": 2, "checked_out": 0, "overflow": 0}


@pytest.fixture(params=["its own driver", "psycopg"])
def url(request: pytest.FixtureRequest, database: Database) -> str:
    """The address of a database, for each async driver that there is for it."""
    if request.param == "psycopg":
        if database.name != "postgresql":
            pytest.skip("psycopg is for PostgreSQL")
        return database.async_url.replace("+asyncpg", "+psycopg")
    return database.async_url


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No warning or error is logged, or raised unseen."""
    gc.collect()  # what earlier tests left
    caplog.clear()
    yield
    gc.collect()
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    # In debug mode asyncio says how long a callback took.
    assert [each for each in told if not each.startswith("Executing")] == []


def run(*works: Work) -> None:
    """Run each piece of work in its own event loop, in order, outside that of the tests."""

    def run_all() -> None:
        for work in works:
            asyncio.run(work())  # type: ignore[arg-type]

    with ThreadPoolExecutor(1) as executor:
        executor.submit(run_all).result()


def run_rudely(work: Work) -> None:
    """Run work in a loop that is closed without letting anything come to its end."""

    def run_and_close() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.close()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(run_and_close).result()


def connections(connection: Connection) -> set[int]:
    """The numbers of all connections to the server, as it knows them."""
    is_postgresql = connection.dialect.name == "postgresql"
    listed = (
        "pid FROM pg_stat_activity" if is_postgresql else "id FROM information_schema.processlist"
    )
    whose = "datname = current_database()" if is_postgresql else "db = database()"
    return set(connection.exec_driver_sql(f"SELECT {listed} WHERE {whose}").scalars())


def wait_until(is_so: Callable[[], bool]) -> None:
    """Give a server a moment; it fails with the timeout of the tests."""
    while not is_so():
        time.sleep(0.01)


def use(engine: AsyncEngine, callers: int = 1) -> Work:
    """Return work that has several callers at once, more perhaps than there are connections."""

    async def once() -> None:
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
            await asyncio.sleep(0.001)

    async def all_at_once() -> None:
        await asyncio.gather(*(once() for _ in range(callers)))

    return all_at_once


@pytest.mark.parametrize("end", [run, run_rudely])
def test_an_ended_loop_leaves_nothing_behind(url: str, end: Callable[[Work], None]) -> None:
    """The next loop gets connections of its own, in the places of the old ones."""
    engine = create_pooled_engine(url, pool_size=2, max_overflow=1)
    for _ in range(3):
        end(use(engine, 5))
        assert pool_status(engine) == RESTED
    run(engine.dispose)
    assert pool_status(engine)["checked_in"] == 0


@pytest.mark.databases("postgresql", "mysql")
def test_a_loop_that_shuts_down_closes_its_connections(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection stays open on the server, although the engine was not disposed of."""
    server = create_engine(database.sync_url, isolation_level="AUTOCOMMIT")
    engine = create_pooled_engine(url, pool_size=2, max_overflow=1)
    with server.connect() as connection:
        before = connections(connection)
        run(use(engine, 5))
        wait_until(lambda: connections(connection) <= before)
        assert pool_status(engine) == RESTED

        def fail(connection: Any) -> None:
            terminate(connection)
            raise OSError("it was closed already")

        terminate = engine.dialect.do_terminate
        monkeypatch.setattr(engine.dialect, "do_terminate", fail)
        run(use(engine))
        wait_until(lambda: connections(connection) <= before)
    server.dispose()


@pytest.mark.databases("postgresql")
def test_a_pool_of_ones_own_is_left_alone(database: Database) -> None:
    """One that keeps no connections has nothing that a loop could leave behind."""
    engine = create_pooled_engine(database.async_url, poolclass=NullPool)
    run(use(engine), use(engine))
    assert isinstance(engine.pool, NullPool)


def test_a_connection_is_used_again_in_its_own_loop(url: str) -> None:
    """Only another loop makes a new one."""
    engine = create_pooled_engine(url, pool_size=2, max_overflow=1)
    made: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: made.append(connection))

    async def twice() -> None:
        await use(engine)()
        await use(engine)()

    run(twice)
    assert len(made) == 1
    run(twice, engine.dispose)
    # A connection to SQLite belongs to no loop.
    assert len(made) == (1 if engine.dialect.name == "sqlite" else 2)


@pytest.mark.parametrize("end", [run, run_rudely])
def test_a_connection_of_an_ended_loop_can_be_disposed_of(
    url: str, end: Callable[[Work], None]
) -> None:
    """In another loop, or in none where SQLAlchemy needs none."""
    engine = create_pooled_engine(url)
    end(use(engine))
    if engine.dialect.name == "sqlite":
        run(engine.dispose)
    else:
        engine.sync_engine.dispose()
    assert pool_status(engine)["checked_in"] == 0


def test_loops_in_several_threads_share_a_pool(url: str) -> None:
    """From their first connection on, which sets up SQLAlchemy's dialect, and when one waits."""
    engine = create_pooled_engine(url, pool_size=2, max_overflow=1, pool_timeout=60)
    with ThreadPoolExecutor(3) as executor:
        works = [executor.submit(asyncio.run, use(engine, 6)()) for _ in range(3)]  # type: ignore[arg-type]
        for work in works:
            work.result()
    assert pool_status(engine) == RESTED
    run(engine.dispose)


def test_a_loop_that_still_runs_closes_what_another_takes_over(url: str) -> None:
    """In its own thread, because other threads may not use the connection."""
    engine = create_pooled_engine(url, pool_size=1)
    may_end = threading.Event()

    async def use_and_wait() -> None:
        await use(engine)()
        await asyncio.to_thread(may_end.wait)

    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(asyncio.run, use_and_wait())
        while not pool_status(engine)["checked_in"]:
            pass
        run(use(engine))
        may_end.set()
        first.result()
    assert pool_status(engine)["checked_in"] == 1
    run(engine.dispose)


def test_who_waits_can_be_cancelled(url: str) -> None:
    """The connection that it was about to get is passed to the next waiter."""
    engine = create_pooled_engine(url, pool_size=1, max_overflow=0)

    async def crowd() -> None:
        async with engine.connect():
            waiting = [asyncio.ensure_future(use(engine)()) for _ in range(4)]
            await asyncio.sleep(0.01)
            waiting[0].cancel()
        # It has been woken, and has not come to it.
        waiting[1].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each).__name__ for each in results[:2]] == ["CancelledError"] * 2
        assert results[2:] == [None, None]

    run(crowd, engine.dispose)


def test_what_was_used_last_is_used_first(url: str) -> None:
    """With `pool_use_lifo`, as SQLAlchemy has it."""
    engine = create_pooled_engine(url, pool_size=2, pool_use_lifo=True)

    async def look() -> None:
        async with engine.connect() as first, engine.connect() as second:
            last = (await first.get_raw_connection()).dbapi_connection
            await second.close()
        async with engine.connect() as again:
            assert (await again.get_raw_connection()).dbapi_connection is last

    run(look, engine.dispose)


def test_a_database_in_memory_stays_the_same() -> None:
    """Also when two tasks of each loop use its one connection at once."""
    engine = create_pooled_engine("sqlite://")

    async def make() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE numbers (number INTEGER)"))

    async def add() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO numbers VALUES (1)"))
            await connection.commit()

    async def add_two() -> None:
        await asyncio.gather(add(), add())

    async def count() -> None:
        async with engine.connect() as connection:
            found = await connection.execute(text("SELECT count(*) FROM numbers"))
            assert found.scalar() == 4

    run(make, add_two, add_two, count, engine.dispose)
