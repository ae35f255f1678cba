"""What the cache saves and costs: `python -m benchmarks.caching [URL ...]`.

Each case alternates with the same work by hand, each in its own sessions, in one process. It prints
the medians, their ratio and its target. A write is compared with the same write without a cache.
`REDIS_URL` names a Redis; without it, only the cache in memory is measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from typing import Any

from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_row, update_row
from sqlmodel_crud_utils.ext.cache import InMemoryCache, RedisCache, configure_cache

ROUNDS = 300
Case = Callable[[AsyncSession], Awaitable[Any]]


class Base(SQLModel, registry=registry()):
    """Models with a separate registry."""


class Ware(Base, table=True):
    """The table that is read."""

    id: int | None = Field(default=None, primary_key=True)
    name: str
    maker: str
    stock: int


async def _get(session: AsyncSession) -> Any:
    return await session.get(Ware, 1)


async def _get_cached(session: AsyncSession) -> Any:
    return (await get_row(1, session, Ware, use_cache=True))[1]


async def _list(session: AsyncSession) -> Any:
    return (await session.exec(select(Ware).order_by(col(Ware.id)).limit(100))).all()


async def _list_cached(session: AsyncSession) -> Any:
    return await AsyncQueryBuilder(session, Ware).limit(100).cached().all()


async def _page(session: AsyncSession) -> Any:
    total = (await session.exec(select(func.count()).select_from(Ware))).one()
    rows = await session.exec(select(Ware).order_by(col(Ware.id)).limit(20).offset(20))
    return rows.all(), total


async def _page_cached(session: AsyncSession) -> Any:
    return await AsyncQueryBuilder(session, Ware).cached().paginate(2, 20)


_numbers = iter(range(10**9))


async def _miss(session: AsyncSession) -> Any:
    return await session.get(Ware, next(_numbers) % 150 + 1)


async def _missed(session: AsyncSession) -> Any:
    # A new entry each time, which the store does not have.
    _, row = await get_row(next(_numbers) + 1_000, session, Ware, use_cache=True)
    return row


async def _write(session: AsyncSession) -> Any:
    await update_row(1, {"stock": next(_numbers)}, session, Ware)


CASES: Mapping[str, tuple[Case, Case]] = {
    "by key": (_get, _get_cached),
    "list of 100": (_list, _list_cached),
    "page with total": (_page, _page_cached),
    "a miss": (_miss, _missed),
}
# The largest ratio of a case, by store, or by store and driver.
TARGETS: Mapping[str, Mapping[str, float]] = {
    "by key": {"memory": 0.15, "redis asyncpg": 0.40, "redis aiosqlite": 0.55},
    "list of 100": {"redis": 0.70},
    "page with total": {"memory": 0.50, "redis": 0.50},
    "a miss": {"memory": 1.30, "redis": 1.30},
    "a write": {"memory": 1.30, "redis": 1.30},
}


async def _timed(engine: AsyncEngine, case: Case) -> float:
    start = time.perf_counter()
    async with AsyncSession(engine) as session:
        await case(session)
    return time.perf_counter() - start


async def _compare(engine: AsyncEngine, by_hand: Case, cached: Case) -> tuple[float, float]:
    await _timed(engine, by_hand)
    await _timed(engine, cached)
    pairs = [(await _timed(engine, by_hand), await _timed(engine, cached)) for _ in range(ROUNDS)]
    return median(hand for hand, _ in pairs), median(ours for _, ours in pairs)


async def _written(engine: AsyncEngine) -> float:
    await _timed(engine, _write)
    return median([await _timed(engine, _write) for _ in range(ROUNDS)])


def _show(engine: AsyncEngine, store: str, name: str, hand: float, ours: float) -> None:
    targets = TARGETS[name]
    target = targets.get(store) or targets.get(f"{store} {engine.dialect.driver}")
    figures = f"{hand * 1e6:8.0f} us {ours * 1e6:8.0f} us {ours / hand:6.2f}"
    wanted = f" (<= {target:.2f})" if target else ""
    print(f"{engine.dialect.name:11} {store:7} {name:16} {figures}{wanted}")


async def measure(url: str, store: str, cache: Any) -> None:
    """Print a line for each case."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        await session.exec(delete(Ware))
        session.add_all(Ware(id=n, name=f"ware {n}", maker="m", stock=n) for n in range(1, 151))
        await session.commit()
        await session.exec(update(Ware).values(stock=1))
        await session.commit()
    uncached = await _written(engine)
    configure_cache(cache, ttl=60)
    try:
        for name, (by_hand, cached) in CASES.items():
            _show(engine, store, name, *await _compare(engine, by_hand, cached))
        _show(engine, store, "a write", uncached, await _written(engine))
    finally:
        configure_cache(None)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await engine.dispose()


def main() -> None:
    """Measure the given databases, or SQLite in a file."""
    urls = sys.argv[1:] or ["sqlite+aiosqlite:///benchmark-caching.db"]
    for url in urls:
        asyncio.run(measure(url, "memory", InMemoryCache()))
        if "REDIS_URL" in os.environ:
            asyncio.run(measure(url, "redis", RedisCache(os.environ["REDIS_URL"])))


if __name__ == "__main__":
    main()
