"""Callers side by side: who misses waits for one query, and nobody reads what is over."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_row, transaction, update_row, write_row
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from tests._runtime_async import AsyncEngine, AsyncSession, together
from tests.cache_models import Bundle
from tests.databases import wait_for_locks
from tests.recording import statements_of

ROWS = 4
READERS, WRITERS = 8, 2
READS = 100_000 if "TEST_THOROUGHLY" in os.environ else 800


@pytest.fixture(autouse=True)
def _cache() -> Iterator[None]:
    """A cache in memory."""
    configure_cache(InMemoryCache(), ttl=60)
    yield
    configure_cache(None)


async def test_who_misses_together_queries_once(engine: AsyncEngine, session: AsyncSession) -> None:
    """Of 100 callers who miss an entry one queries, and the others get what it has stored."""
    _, row = await write_row(Bundle(name="a"), session, raise_on_error=True)
    key = row.id
    await session.close()
    names: list[str] = []

    async def read() -> None:
        async with AsyncSession(engine) as other:
            _, found = await get_row(key, other, Bundle, raise_on_error=True, use_cache=True)
            names.append(found.name)

    with statements_of(engine) as statements:
        await together(*[read] * 100)
    assert names == ["a"] * 100
    assert len(statements) == 1


@pytest.mark.databases("sqlite")
async def test_no_read_is_older_than_the_last_commit(engine: AsyncEngine) -> None:
    """Readers by key and of lists, writers in several ways, rollbacks and savepoints.

    What a writer has committed when a read begins, the read returns, or something later.
    """
    wait_for_locks(engine)
    async with AsyncSession(engine) as session:
        for number in range(ROWS):
            await write_row(Bundle(id=number + 1, name=f"n{number}", stock=0), session)
    committed = dict.fromkeys(range(1, ROWS + 1), 0)
    stale: list[Any] = []
    left = [READS]

    async def reader() -> None:
        chance = random.Random(7)
        while left[0] > 0:
            left[0] -= 10
            for _ in range(10):
                key = chance.randrange(ROWS) + 1
                floor = committed[key]
                async with AsyncSession(engine) as session:
                    if chance.random() < 0.8:
                        _, row = await get_row(key, session, Bundle, use_cache=True)
                        found = row and row.stock
                    else:
                        query = AsyncQueryBuilder(session, Bundle).where(id=key).cached()
                        found = (await query.scalars("stock"))[0]
                if found is None or found < floor:
                    stale.append((key, found, floor))

    async def writer(own: Sequence[int]) -> None:
        chance = random.Random(own[0])
        stock = 0
        while left[0] > 0:
            stock += 1
            key = own[stock % len(own)]
            async with AsyncSession(engine) as session:
                await write(session, key, stock, chance.randrange(4))
            committed[key] = stock

    keys = list(committed)
    writers = [(lambda own=keys[n::WRITERS]: writer(own)) for n in range(WRITERS)]
    await together(*[reader] * READERS, *writers)
    assert stale == []


async def write(session: AsyncSession, key: int, stock: int, way: int) -> None:
    """Write in one of several ways, one after a write that is undone."""
    values: Mapping[str, Any] = {"stock": stock}
    if way == 0:
        await update_row(key, values, session, Bundle)
    elif way == 1:
        await AsyncQueryBuilder(session, Bundle).where(id=key).update(stock=stock)
    elif way == 2:
        row = await session.get(Bundle, key)
        assert row is not None
        row.stock = stock
        await session.commit()
    else:
        async with transaction(session):
            async with session.begin_nested() as savepoint:
                await AsyncQueryBuilder(session, Bundle).where(id=key).update(stock=10**6)
                await savepoint.rollback()
            await AsyncQueryBuilder(session, Bundle).where(id=key).update(stock=stock)
