"""Concurrent callers: those that miss wait for one query, and no one reads invalidated entries."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    get_row,
    get_rows_within_id_list,
    invalidate_cache,
    run_transaction,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConflictError
from sqlmodel_crud_utils.ext.cache import InMemoryCache, RedisCache, configure_cache
from tests import cache_servers
from tests._runtime_async import AsyncEngine, AsyncSession, execute, pause, together
from tests.cache_models import Bundle
from tests.databases import Database, wait_for_locks
from tests.observing import Call, Observer, observing
from tests.recording import statements_of

KEYS = range(1, 9)
READERS, WRITERS = 8, 2
FEW, MANY = 400, 100_000
NEVER = 10**6  # what is written and undone


@pytest.fixture
async def store(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """A cache in memory or in a Redis, which is waited for: what is tested is not an outage."""
    if request.param == "memory":
        configure_cache(InMemoryCache(), ttl=60)
        yield
    else:
        with cache_servers.redis() as server:
            cache = RedisCache(f"redis://127.0.0.1:{server.port}/0", timeout=30)
            configure_cache(cache, ttl=60)
            yield
            await cache.aclose()
    configure_cache(None)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
@pytest.mark.usefixtures("store")
async def test_who_misses_together_queries_once(engine: AsyncEngine, session: AsyncSession) -> None:
    """Of 100 callers that miss an entry, one queries, and the others get its result."""
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


# --- readers and writers --------------------------------------------------------------------------

WAYS: list[Callable[[AsyncEngine, int, int], Any]] = []


def way(function: Callable[[AsyncEngine, int, int], Any]) -> Callable[..., Any]:
    """Register a function as one of the writes, which alternate."""
    WAYS.append(function)
    return function


def one(session: AsyncSession, key: int) -> AsyncQueryBuilder[Bundle]:
    """Return a query for the row with a key."""
    return AsyncQueryBuilder(session, Bundle).where(id=key)


@way
async def by_key(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        await update_row(key, {"stock": stock}, session, Bundle)


@way
async def by_query(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        await one(session, key).update(stock=stock)


@way
async def by_flush(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        row = await session.get(Bundle, key)
        assert row is not None
        row.stock = stock
        await session.commit()


@way
async def in_bulk(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        await bulk_update_rows([key], {"stock": stock}, session, Bundle)


@way
async def by_upsert(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        rows = [{"id": key, "name": f"n{key}", "stock": stock}]
        await bulk_upsert_mappings(rows, session, Bundle)


@way
async def by_statement(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        of_row = Bundle.__table__.c.id == key  # type: ignore[attr-defined]
        await execute(session, update(Bundle).where(of_row).values(stock=stock))
        await session.commit()


@way
async def by_statement_of_the_table(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        table = Bundle.__table__  # type: ignore[attr-defined]
        await execute(session, update(table).where(table.c.id == key).values(stock=stock))
        await session.commit()


@way
async def by_text(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        await execute(session, text(f"UPDATE bundle SET stock = {stock} WHERE id = {key}"))
        await session.commit()
    await invalidate_cache(Bundle, key)


@way
async def as_a_new_row(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session, transaction(session):
        await delete_row(key, session, Bundle)
        await bulk_insert_rows([{"id": key, "name": f"n{key}", "stock": stock}], session, Bundle)


@way
async def by_insert(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session, transaction(session):
        await one(session, key).delete()
        await execute(session, insert(Bundle).values(id=key, name=f"n{key}", stock=stock))


@way
async def after_a_savepoint(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session, transaction(session):
        async with session.begin_nested() as savepoint:
            await one(session, key).update(stock=NEVER)
            await savepoint.rollback()
        await one(session, key).update(stock=stock)


@way
async def in_a_savepoint(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session, transaction(session), transaction(session):
        await update_row(key, {"stock": stock}, session, Bundle)


@way
async def after_a_rollback(engine: AsyncEngine, key: int, stock: int) -> None:
    async with AsyncSession(engine) as session:
        with suppress(KeyError):
            async with transaction(session, wrap_errors=False):
                await update_row(key, {"stock": NEVER}, session, Bundle)
                await get_row(key, session, Bundle, use_cache=True)
                raise KeyError
        await update_row(key, {"stock": stock}, session, Bundle)


@way
async def at_the_second_attempt(engine: AsyncEngine, key: int, stock: int) -> None:
    attempts: list[int] = []

    async def work(session: AsyncSession) -> None:
        attempts.append(NEVER if not attempts else stock)
        await one(session, key).update(stock=attempts[-1])
        if len(attempts) == 1:
            raise ConflictError(Bundle)

    await run_transaction(lambda: AsyncSession(engine), work)


class Counting(Observer):
    """Counts what the cache did for reads."""

    def __init__(self) -> None:
        self.counts: Counter[str | None] = Counter()

    def end(self, call: Call) -> None:
        """Count a call."""
        self.counts[call.cache] += 1


@dataclass
class Race:
    """Readers that know what was committed before they began.

    Attributes:
        left: How many reads are still to be made.
        committed: The last stock of each row whose writer is done.
        stale: Reads that returned less, or what was never committed.
    """

    engine: AsyncEngine
    left: int
    committed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    stale: list[Any] = field(default_factory=list)

    async def read(self) -> None:
        """Read until enough was read."""
        chance = random.Random(7)
        while self.left > 0:
            self.left -= 1
            key = chance.choice(KEYS)
            floor = dict(self.committed)
            how = chance.randrange(20)
            async with AsyncSession(self.engine) as session:
                found = await self._found(session, key, how)
            for each, stock in found.items():
                if stock is None or not floor[each] <= stock < NEVER:
                    self.stale.append((how, each, stock, floor[each]))

    async def _found(self, session: AsyncSession, key: int, how: int) -> dict[int, int | None]:
        if how > 9:
            _, row = await get_row(key, session, Bundle, use_cache=True)
            return {key: row and row.stock}
        query = AsyncQueryBuilder(session, Bundle).order_by("id").cached()
        if how < 4:
            return {key: (await query.where(id=key).scalars("stock") or [None])[0]}
        if how < 6:
            return {key: await query.where(id=key).max("stock")}
        if how < 8:
            _, rows = await get_rows_within_id_list([1, key], session, Bundle, use_cache=True)
        elif how == 8:
            rows = (await query.paginate(1, len(KEYS))).items
        else:
            rows = await query.all()
        missing = dict.fromkeys([key] if how < 8 else KEYS)
        return {**missing, **{row.id: row.stock for row in rows if row.id is not None}}

    async def write(self, own: Sequence[int]) -> None:
        """Write to some of the rows as long as others read."""
        number = 0
        while self.left > 0:
            number += 1
            key = own[number % len(own)]
            await WAYS[number % len(WAYS)](self.engine, key, number)
            self.committed[key] = number
            await pause(0.005)  # there are more reads than writes


@pytest.mark.parametrize("store", ["memory", "redis"], indirect=True)
@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("store")
async def test_no_read_is_older_than_the_last_commit(
    engine: AsyncEngine, database: Database
) -> None:
    """Readers by key, of lists, pages and values; writers in every way; rollbacks and savepoints.

    What a writer has committed when a read begins, the read returns, or something later.
    """
    wait_for_locks(engine)
    async with AsyncSession(engine) as session:
        rows = [{"id": key, "name": f"n{key}", "stock": 0} for key in KEYS]
        await bulk_insert_rows(rows, session, Bundle)
    is_thorough = "TEST_THOROUGHLY" in os.environ and database.name == "postgresql"
    reads = MANY if is_thorough else FEW
    race = Race(engine, reads)
    writers = [(lambda own=KEYS[n::WRITERS]: race.write(own)) for n in range(WRITERS)]
    counting = Counting()
    with observing(counting):
        await together(*[race.read] * READERS, *writers)
    assert race.stale == []
    assert counting.counts["hit"] + counting.counts["miss"] >= reads
    assert counting.counts["hit"] > reads / 20
