"""Tasks with a session each: blocks, callbacks and locks never get in each other's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import get_one_or_create, get_row, on_commit, transaction, write_row
from sqlmodel_crud_utils.exceptions import TransactionError
from tests.databases import Database, prepare
from tests.models import Account, Hero

TASKS = 20


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine whose connections the tasks have to wait for."""
    engine = create_async_engine(database.async_url, pool_size=3, max_overflow=0)
    prepare(engine)
    yield engine
    await engine.dispose()
    database.clear()


async def names(engine: AsyncEngine) -> set[str]:
    """Return the committed names."""
    async with AsyncSession(engine) as reader:
        return set((await reader.exec(select(Hero.name))).all())


async def test_every_second_block_fails(engine: AsyncEngine) -> None:
    """The others don't notice, neither in their rows nor in their callbacks."""
    told: set[str] = set()

    async def work(number: int) -> None:
        name = f"hero {number}"
        async with AsyncSession(engine) as session, transaction(session):
            await write_row(hero(name), session)
            on_commit(session, lambda: told.add(name))
            await asyncio.sleep(0)
            async with transaction(session):
                await write_row(hero(f"{name} again"), session)
                await asyncio.sleep(0)
            if number % 2:
                raise RuntimeError

    results = await asyncio.gather(*(work(n) for n in range(TASKS)), return_exceptions=True)
    assert [isinstance(result, TransactionError) for result in results] == [
        bool(number % 2) for number in range(TASKS)
    ]
    kept = {f"hero {number}" for number in range(0, TASKS, 2)}
    assert told == kept
    assert await names(engine) == kept | {f"{name} again" for name in kept}
    assert engine.pool.checkedout() == 0


async def test_two_blocks_that_overlap(engine: AsyncEngine, database: Database) -> None:
    """Neither sees uncommitted rows of the other, nor is it affected by the other's failure."""
    inside, left = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with AsyncSession(engine) as session:
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("first"), session)
                    inside.set()
                    if database.name != "sqlite":  # there the second block waits for the lock
                        await left.wait()
                    raise RuntimeError

    async def second() -> None:
        await inside.wait()
        async with AsyncSession(engine) as session, transaction(session):
            assert not (await session.exec(select(Hero))).all()
            await write_row(hero("second"), session)
        left.set()

    await asyncio.gather(first(), second())
    assert await names(engine) == {"second"}


async def test_a_hundred_read_then_write_blocks(engine: AsyncEngine, database: Database) -> None:
    """Each waits for the others: on SQLite automatically, elsewhere with a lock on the row."""
    async with AsyncSession(engine) as session:
        _, account = await write_row(Account(owner="Ann"), session)
    key = account.id

    async def pay_in() -> None:
        async with AsyncSession(engine) as session, transaction(session):
            if database.name != "sqlite":
                await session.exec(select(Account).with_for_update())
            _, found = await get_row(key, session, Account)
            found.balance += 1

    await asyncio.gather(*(pay_in() for _ in range(100)))
    async with AsyncSession(engine) as session:
        _, account = await get_row(key, session, Account)
        assert account.balance == 100


async def test_the_same_row_created_by_all(engine: AsyncEngine) -> None:
    """One creates it, the others find it, and all their blocks are committed."""

    async def work(number: int) -> bool:
        async with AsyncSession(engine) as session, transaction(session):
            _, existed = await get_one_or_create(
                session, Hero, {"secret_name": "?"}, name="the one"
            )
            await write_row(Account(owner=f"owner {number}"), session)
            return existed

    existed = await asyncio.gather(*(work(number) for number in range(TASKS)))
    assert sorted(existed) == [False] + [True] * (TASKS - 1)
    async with AsyncSession(engine) as session:
        assert len((await session.exec(select(Account))).all()) == TASKS
    assert await names(engine) == {"the one"}


async def test_callbacks_of_both_kinds(engine: AsyncEngine) -> None:
    """Plain and async ones run in the order of their registration."""
    ran: list[str] = []

    async def notify() -> None:
        await asyncio.sleep(0)
        ran.append("async")

    async with AsyncSession(engine) as session:
        async with transaction(session):
            on_commit(session, notify)
            on_commit(session, lambda: ran.append("plain"))
            on_commit(session, notify)
        assert ran == ["async", "plain", "async"]
        on_commit(session, notify)
        await write_row(hero("Rusty"), session)
    assert ran == ["async", "plain", "async", "async"]


async def test_async_callbacks_that_fail(engine: AsyncEngine) -> None:
    """They are raised together with the others."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async with AsyncSession(engine) as session:
        with pytest.raises(ExceptionGroup) as caught:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                on_commit(session, fail)
                on_commit(session, fail)
    assert [type(error) for error in caught.value.exceptions] == [LookupError, LookupError]
    assert await names(engine) == {"Rusty"}
