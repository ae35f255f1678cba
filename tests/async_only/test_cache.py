"""The cache and tasks: cancelled writes and leaders, entries that sync code has made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils import sync
from sqlmodel_crud_utils.aio import get_row, update_row, write_row
from sqlmodel_crud_utils.ext.cache import (
    InMemoryCache,
    MemcachedCache,
    RedisCache,
    configure_cache,
    store_outages,
)
from tests import cache_servers
from tests.cache_models import Bundle
from tests.databases import Database
from tests.recording import logged, statements_of
from tests.suspensions import run


class SlowStore(InMemoryCache):
    """A store that takes a moment for each call of the async API, unless it is down."""

    is_down = False

    @property
    def aio(self) -> Any:
        return _Slow(self)


class _Slow:
    timeout = None

    def __init__(self, memory: SlowStore) -> None:
        self._memory = memory

    async def get_many(self, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return self._memory.get_many(*arguments)

    async def set_many(self, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self._memory.is_down:
            raise ConnectionRefusedError
        return self._memory.set_many(*arguments)

    async def add(self, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return self._memory.add(*arguments)


pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A plain engine; cut-off statements cost it connections."""
    engine = create_async_engine(database.async_url)
    yield engine
    await engine.dispose()
    database.clear()


@pytest.fixture(autouse=True)
def _cache() -> Iterator[None]:
    """A store that yields to other tasks."""
    configure_cache(SlowStore(), ttl=60)
    yield
    configure_cache(None)


async def name_of(engine: AsyncEngine, key: Any, *, use_cache: bool = True) -> str | None:
    """Return the name of a row."""
    async with AsyncSession(engine) as session:
        _, row = await get_row(key, session, Bundle, use_cache=use_cache)
        return None if row is None else row.name


async def written(engine: AsyncEngine, name: str) -> Any:
    """Write a row and return its key."""
    async with AsyncSession(engine) as session:
        _, row = await write_row(Bundle(name=name), session, raise_on_error=True)
        return row.id


@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_write_that_is_cancelled_ends_entries(engine: AsyncEngine, by_hand: bool) -> None:
    """At any moment: if it is committed, no one reads the old entries."""
    key = await written(engine, "start")
    number = 0
    while True:
        number += 1
        assert await name_of(engine, key) == await name_of(engine, key, use_cache=False)

        async def work(name: str = f"n{number}") -> None:
            async with AsyncSession(engine) as session:
                if not by_hand:
                    await update_row(key, {"name": name}, session, Bundle)
                    return
                row = await session.get(Bundle, key)
                assert row is not None
                row.name = name
                await session.commit()

        is_cancelled, _ = await run(work(), number)
        assert await name_of(engine, key) == await name_of(engine, key, use_cache=False)
        if not is_cancelled:
            break
    assert number > 3


async def test_a_reader_that_is_cancelled_notifies_the_store_of_missed_writes(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reader after an outage does that for all processes."""
    monkeypatch.setattr(store_outages, "_REST", 0.0)
    store = SlowStore()
    configure_cache(store, ttl=60)
    key = await written(engine, "old")
    assert await name_of(engine, key) == "old"
    store.is_down = True
    async with AsyncSession(engine) as session:
        await update_row(key, {"name": "new"}, session, Bundle)
    store.is_down = False
    reader = asyncio.ensure_future(name_of(engine, key))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    configure_cache(store, ttl=60)  # as another process, which knows of no outage
    assert await name_of(engine, key) == "new"


async def test_a_leader_that_is_cancelled_hands_over(engine: AsyncEngine) -> None:
    """One of the waiting callers queries, once for all of them."""
    key = await written(engine, "a")
    leader = asyncio.ensure_future(name_of(engine, key))
    for _ in range(3):
        await asyncio.sleep(0)
    others = [asyncio.ensure_future(name_of(engine, key)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leader.cancel()
    assert await asyncio.gather(*others) == ["a"] * 20


async def test_both_apis_share_entries(engine: AsyncEngine, database: Database) -> None:
    """Entries of one are hits for the other, and a write of one invalidates them for both."""
    key = await written(engine, "a")
    plain = create_engine(database.sync_url)

    def from_sync(change: str | None = None) -> tuple[str, int]:
        with statements_of(plain) as statements, Session(plain) as session:
            if change is not None:
                sync.update_row(key, {"name": change}, session, Bundle)
            _, row = sync.get_row(key, session, Bundle, raise_on_error=True, use_cache=True)
            return row.name, len(statements)

    try:
        assert await name_of(engine, key) == "a"
        assert await asyncio.to_thread(from_sync) == ("a", 0)
        await asyncio.to_thread(from_sync, "b")
        assert await name_of(engine, key) == "b"
    finally:
        plain.dispose()


@pytest.mark.parametrize("kind", ["memcached", "redis"])
async def test_an_answer_that_nobody_waited_for_is_no_answer_to_the_next_read(
    engine: AsyncEngine, database: Database, kind: str
) -> None:
    """A read that the store answers too late leaves no connection with that answer behind."""
    key = await written(engine, "a")
    plain = create_engine(database.sync_url)

    def rename() -> None:
        with Session(plain) as session:
            sync.update_row(key, {"name": "b"}, session, Bundle)

    with getattr(cache_servers, kind)() as server:
        cache: Any = (
            MemcachedCache(f"memcached://127.0.0.1:{server.port}")
            if kind == "memcached"
            else RedisCache(f"redis://127.0.0.1:{server.port}")
        )
        configure_cache(cache, ttl=60)
        try:
            assert await name_of(engine, key) == "a"
            with server.paused():
                assert await name_of(engine, key) == "a"
            await asyncio.sleep(0.2)  # the answer of before the write comes
            configure_cache(cache, ttl=60)  # as after the rest of an outage
            await asyncio.to_thread(rename)
            assert await name_of(engine, key) == "b"
        finally:
            cache.close()
            await cache.aclose()
            plain.dispose()


async def test_a_burst_is_no_outage(engine: AsyncEngine) -> None:
    """Many tasks at once wait for a connection to Redis, and do not each make one."""
    with cache_servers.redis() as server:
        cache = RedisCache(f"redis://127.0.0.1:{server.port}", timeout=5)
        configure_cache(cache, ttl=60)
        try:
            with logged("WARNING") as lines:
                await asyncio.gather(*[name_of(engine, key) for key in range(150)])
            assert lines == []
        finally:
            await cache.aclose()
