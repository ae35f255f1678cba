"""The cache in Redis and in memcached: real ones, which are killed, paused and filled."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_row, update_row, write_row
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.cache import MemcachedCache, RedisCache, configure_cache
from tests import cache_servers
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.cache_models import Bundle, Loud
from tests.cache_servers import Server
from tests.recording import logged, statements_of

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[Server]:
    """A Redis for this module."""
    with cache_servers.redis("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru") as server:
        yield server


@pytest.fixture
async def redis(shared_redis: Server) -> AsyncIterator[Server]:
    """A Redis that runs and is empty."""
    shared_redis.start()
    shared_redis.tell("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    shared_redis.tell("FLUSHALL")
    cache = RedisCache(f"redis://127.0.0.1:{shared_redis.port}/0")
    configure_cache(cache, ttl=60)
    yield shared_redis
    configure_cache(None)
    await cache.aclose()


@pytest.fixture(scope="module")
def shared_memcached() -> Iterator[Server]:
    """A memcached for this module."""
    with cache_servers.memcached("-m", "2") as server:
        yield server


@pytest.fixture
async def memcached(shared_memcached: Server) -> AsyncIterator[Server]:
    """A memcached that runs."""
    shared_memcached.start()
    cache = MemcachedCache(f"memcached://127.0.0.1:{shared_memcached.port}")
    configure_cache(cache, ttl=60)
    yield shared_memcached
    configure_cache(None)
    await cache.aclose()


@pytest.fixture(params=["redis", "memcached"])
def server(request: pytest.FixtureRequest) -> Server:
    """Either of them."""
    found: Server = request.getfixturevalue(request.param)
    return found


async def read(engine: AsyncEngine, key: Any) -> tuple[str | None, int]:
    """Return the name of a row, and how many statements it took."""
    with statements_of(engine) as statements:
        async with AsyncSession(engine) as session:
            _, row = await get_row(key, session, Bundle, use_cache=True)
    return None if row is None else row.name, len(statements)


async def write(engine: AsyncEngine, name: str) -> Any:
    """Write a row and return its key."""
    async with AsyncSession(engine) as session:
        _, row = await write_row(Bundle(name=name), session, raise_on_error=True)
        return row.id


async def rename(engine: AsyncEngine, key: Any, name: str) -> None:
    """Give a row another name."""
    async with AsyncSession(engine) as session:
        await update_row(key, {"name": name}, session, Bundle)


async def test_reads_hit_and_writes_end_them(engine: AsyncEngine, server: Server) -> None:
    """As in memory."""
    assert server.port
    key = await write(engine, "a")
    assert await read(engine, key) == ("a", 1)
    assert await read(engine, key) == ("a", 0)
    await rename(engine, key, "b")
    assert await read(engine, key) == ("b", 1)
    assert await read(engine, key) == ("b", 0)
    for expected in (1, 0):
        with statements_of(engine) as statements:
            async with AsyncSession(engine) as session:
                rows = await AsyncQueryBuilder(session, Bundle).cached().all()
        assert ([row.name for row in rows], len(statements)) == (["b"], expected)


async def test_without_the_store_the_database_answers(engine: AsyncEngine, server: Server) -> None:
    """Killed: reads are right and quick, one line is logged, and no error reaches the caller."""
    key = await write(engine, "a")
    await read(engine, key)
    server.kill()
    with logged("WARNING") as lines:
        before = time.monotonic()
        assert await read(engine, key) == ("a", 1)
        assert time.monotonic() - before < 1
        await rename(engine, key, "b")
        for _ in range(3):
            assert await read(engine, key) == ("b", 1)
    assert len(lines) == 1
    server.start()
    assert await read(engine, key) == ("b", 1)


async def test_a_store_that_hangs_is_not_waited_for(engine: AsyncEngine, redis: Server) -> None:
    """Paused: reads wait no longer than the timeout; after missed writes it is not read."""
    key = await write(engine, "a")
    await read(engine, key)
    redis.tell("CLIENT", "PAUSE", "700", "ALL")
    with logged("WARNING") as lines:
        before = time.monotonic()
        await rename(engine, key, "b")
        took = time.monotonic() - before
        assert await read(engine, key) == ("b", 1)
    assert took < 0.6
    assert len(lines) == 1
    for _ in range(2):
        assert await read(engine, key) == ("b", 1)


async def test_a_full_store_is_no_error(engine: AsyncEngine, redis: Server) -> None:
    """It takes nothing more: the rows are right, and one line is logged."""
    redis.tell("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.tell("CONFIG", "SET", "maxmemory", "1")
    try:
        with logged("WARNING") as lines:
            key = await write(engine, "a")
            for _ in range(3):
                assert await read(engine, key) == ("a", 1)
    finally:
        redis.tell("CONFIG", "SET", "maxmemory", "4mb")
    assert len(lines) == 1


async def test_an_answer_that_is_too_large_is_no_error(
    engine: AsyncEngine, memcached: Server
) -> None:
    """Memcached takes 1 MB; larger answers come from the database, and nothing is logged."""
    assert memcached.port
    await write(engine, "a")
    long = "x" * 1_100_000

    async def found() -> tuple[int, int]:
        with statements_of(engine) as statements:
            async with AsyncSession(engine) as session:
                query = AsyncQueryBuilder(session, Loud).cached()
                [text] = await query.scalars("text")
        return len(text), len(statements)

    async with AsyncSession(engine) as session:
        await write_row(Loud(text=long), session, raise_on_error=True)
    with logged("WARNING") as lines:
        assert [await found() for _ in range(2)] == [(len(long), 1)] * 2
    assert lines == []


async def test_what_is_evicted_never_comes_back(engine: AsyncEngine, server: Server) -> None:
    """A store that forgets entries and tokens as it likes: no read is older than the last write."""
    assert server.port
    keys = [await write(engine, f"n{number}") for number in range(3)]
    long = "x" * 30_000
    async with AsyncSession(engine) as session:
        for number in range(120):
            key = keys[number % 3]
            await read(engine, key)
            # Each of these is an entry of its own.
            query = AsyncQueryBuilder(session, Bundle).where(name__ne=f"{long}{number}")
            await query.cached().values()
            if number % 10 == 0:
                await rename(engine, key, f"later {number}")
                assert await read(engine, key) == (f"later {number}", 1)


@pytest.mark.parametrize(
    ("make", "url"),
    [
        (RedisCache, "http://x"),
        (RedisCache, 1),
        (MemcachedCache, "redis://x"),
        (MemcachedCache, ""),
    ],
)
def test_addresses_are_checked(make: Any, url: Any) -> None:
    """A URL of another kind is refused at once."""
    with pytest.raises(ValidationError, match="url"):
        make(url)
    with pytest.raises(ValidationError, match="timeout"):
        RedisCache("redis://localhost", timeout=0)
