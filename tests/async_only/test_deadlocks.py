"""Two blocks that wait for each other: one of them gets the deadlock's error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import (
    insert_data_rows,
    is_transient,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    QueryExecutionError,
    SQLModelCRUDError,
    TransactionError,
)
from tests.databases import Database
from tests.models import Hero

pytestmark = pytest.mark.databases("postgresql", "mysql")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A plain engine."""
    engine = create_async_engine(database.async_url)
    yield engine
    await engine.dispose()
    database.clear()


async def together(*works: Coroutine[None, None, None]) -> list[BaseException | None]:
    """Return their errors; end all if one of them failed before the others could meet it."""
    async with asyncio.timeout(30):
        return await asyncio.gather(*works, return_exceptions=True)


@pytest.mark.parametrize("flag", [None, False])
async def test_rows_that_are_updated_crosswise(
    engine: AsyncEngine, database: Database, flag: bool | None
) -> None:
    """The loser's error reports the deadlock, also if the failure was returned as a flag.

    PostgreSQL only ends the statement, so a returned failure is undone and the block continues.
    """
    async with AsyncSession(engine) as session:
        names = ("one", "two")
        heroes = [Hero(name=name, secret_name="?") for name in names]
        await insert_data_rows(heroes, session)
    both = asyncio.Barrier(2)

    async def work(first: str, second: str) -> None:
        async with AsyncSession(engine) as session, transaction(session):
            await update_row(first, {"age": 1}, session, Hero, "name")
            await both.wait()
            await update_row(second, {"age": 2}, session, Hero, "name", raise_on_error=flag)
            await write_row(Hero(name=f"after {first}", secret_name="?"), session)

    outcomes = await together(work(*names), work(*names[::-1]))
    if flag is False and database.name == "postgresql":
        assert outcomes == [None, None]
        return
    [lost] = [each for each in outcomes if each is not None]
    assert isinstance(lost, TransactionError)
    assert isinstance(lost.original_error, QueryExecutionError)
    assert "run the transaction again" in str(lost)
    assert "raise_on_error" not in str(lost)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.databases("mysql")
async def test_what_is_tried_after_a_deadlock_of_the_callers_own(engine: AsyncEngine) -> None:
    """Its error reports the deadlock as well, although the library did not see it."""
    names = ("one", "two")
    async with AsyncSession(engine) as session:
        await insert_data_rows([Hero(name=name, secret_name="?") for name in names], session)
    both = asyncio.Barrier(2)
    told: list[SQLModelCRUDError] = []

    async def change(session: AsyncSession, name: str) -> None:
        hero = (await session.exec(select(Hero).where(Hero.name == name))).one()
        hero.age = 1
        with suppress(OperationalError):
            await session.flush()

    async def work(first: str, second: str) -> None:
        async with AsyncSession(engine) as session, transaction(session):
            await change(session, first)
            await both.wait()
            await change(session, second)
            try:
                await write_row(Hero(name=f"after {first}", secret_name="?"), session)
            except SQLModelCRUDError as error:
                told.append(error)

    await together(work(*names), work(*names[::-1]))
    assert [is_transient(error) for error in told] == [True]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_rows_that_are_inserted_crosswise(engine: AsyncEngine) -> None:
    """A deadlock is not blamed on the rows.

    No other test uses these names: MySQL locks the gap around a deleted name until it is purged,
    so that the first two inserts could already wait for each other.
    """
    names = ("crosswise one", "crosswise two")
    both = asyncio.Barrier(2)

    async def work(first: str, second: str) -> None:
        async with AsyncSession(engine) as session, transaction(session, wrap_errors=False):
            await insert_data_rows([Hero(name=first, secret_name="?")], session)
            await both.wait()
            rows = [Hero(name=name, secret_name="?") for name in (f"{first} again", second)]
            await insert_data_rows(rows, session)

    outcomes = await together(work(*names), work(*names[::-1]))
    assert any(
        isinstance(each, QueryExecutionError) and "run the transaction again" in str(each)
        for each in outcomes
    )
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
