"""Rate limits of tasks: cancelled ones, other event loops, and with the sync API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.exceptions import RateLimitExceededError
from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
from tests.databases import Database, prepare
from tests.hook_models import Event
from tests.redis_servers import OwnRedis, own_redis

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture(scope="module")
def server() -> Iterator[OwnRedis]:
    """A Redis."""
    with own_redis() as started:
        yield started


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session on empty tables."""
    engine = create_async_engine(database.async_url)
    prepare(engine)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()
    database.clear()


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_both_apis_share_a_count(
    database: Database, session: AsyncSession, server: OwnRedis, where: str
) -> None:
    """A call of either one counts for the other."""
    server.forget()
    limiter = RateLimiter("memory://" if where == "memory" else server.url, timeout=1)
    limiter.limit("2/hour", Event)
    engine = sync.create_pooled_engine(database.sync_url)
    with sync.session_factory(engine)() as plain:
        sync.get_rows(plain, Event)
        await aio.get_rows(session, Event)
        with pytest.raises(RateLimitExceededError):
            sync.get_rows(plain, Event)
    with pytest.raises(RateLimitExceededError):
        await aio.get_rows(session, Event)
    engine.dispose()
    await limiter.aclose()


async def test_cancelled(session: AsyncSession, server: OwnRedis) -> None:
    """A task that waits for Redis can be cancelled; its session and the limiter can be used."""
    server.forget()
    limiter = RateLimiter(server.url, timeout=5)
    limiter.limit("2/hour", Event)
    with server.paused():
        task = asyncio.create_task(aio.get_rows(session, Event))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await aio.get_rows(session, Event) == (False, [])
    await limiter.aclose()


async def test_side_by_side(session: AsyncSession, server: OwnRedis) -> None:
    """Of many tasks at once exactly as many are let through as the rate says; none is an outage."""
    server.forget()
    limiter = RateLimiter(server.url, on_failure="refuse", timeout=5)
    limiter.limit("7/hour", Event)

    async def read() -> bool:
        async with AsyncSession(session.bind) as own:
            try:
                await aio.get_rows(own, Event)
            except RateLimitExceededError:
                return False
            return True

    passed = await asyncio.gather(*(read() for _ in range(150)))
    assert sum(passed) == 7
    await limiter.aclose()


def test_another_event_loop(database: Database, server: OwnRedis) -> None:
    """A limiter outlives a loop: each one has connections of its own."""
    server.forget()
    limiter = RateLimiter(server.url, on_failure="refuse", timeout=1)
    limiter.limit("2/hour", Event)

    async def read() -> None:
        engine = aio.create_pooled_engine(database.async_url)
        try:
            async with aio.session_factory(engine)() as session:
                await aio.get_rows(session, Event)
        finally:
            await engine.dispose()
            await limiter.aclose()
            limiter.limit("2/hour", Event)

    asyncio.run(read())
    asyncio.run(read())
    with pytest.raises(RateLimitExceededError):
        asyncio.run(read())
    limiter.close()
