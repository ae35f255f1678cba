"""Rows stay loaded after a commit, but the next read returns the database's current values."""

from __future__ import annotations

from collections.abc import Callable

from sqlmodel_crud_utils.aio import get_row, get_rows, transaction, update_row, write_row
from tests._runtime_async import AsyncSession
from tests.models import Hero


async def test_the_next_read_sees_what_others_committed(
    session: AsyncSession, session_factory: Callable[[], AsyncSession]
) -> None:
    """A row that was returned before the commit is brought up to date by the read after it."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy", age=1), session)
    key = hero.id
    await update_row(key, {"age": 2}, session_factory(), Hero)
    assert hero.age == 1
    _, found = await get_row(key, session, Hero)
    assert found is hero
    assert hero.age == 2
    await session.commit()
    await update_row(key, {"age": 3}, session_factory(), Hero)
    assert [row.age for row in (await get_rows(session, Hero))[1]] == [3]


async def test_read_modify_write_over_several_blocks_loses_nothing(
    session: AsyncSession, session_factory: Callable[[], AsyncSession]
) -> None:
    """Two sessions that count up in turns, block by block, reach the sum of both."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy", age=0), session)
    key = hero.id
    for _ in range(3):
        for each in (session, session_factory()):
            async with transaction(each):
                _, row = await get_row(key, each, Hero, raise_on_error=True)
                await update_row(key, {"age": row.age + 1}, each, Hero)
    assert hero.age == 5
    _, row = await get_row(key, session, Hero)
    assert row is not None
    assert row.age == 6


async def test_changes_that_are_not_flushed_are_kept(session: AsyncSession) -> None:
    """A read after a commit overwrites no change of the caller's, with autoflush or without."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy", age=1), session)
    key = hero.id
    hero.age = 2
    with session.no_autoflush:
        await get_row(key, session, Hero)
    assert hero.age == 2
    await get_row(key, session, Hero)
    assert hero.age == 2
    await session.commit()
    _, row = await get_row(key, session, Hero)
    assert row is not None
    assert row.age == 2


async def test_what_a_read_has_brought_up_to_date_stays_as_it_is(session: AsyncSession) -> None:
    """Later reads are ordinary: they do not unload other relationships."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
    await get_row(hero.id, session, Hero, True, ["tags"])
    await get_rows(session, Hero)
    assert vars(hero)["tags"] == []


async def test_a_row_that_was_read_anew_is_as_it_was_read(
    session: AsyncSession, session_factory: Callable[[], AsyncSession]
) -> None:
    """From then on it is like any other: a transaction keeps what it has loaded."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="?", age=1), session)
    await get_row(hero.id, session, Hero)  # it may be older than the commit
    await update_row(hero.id, {"age": 2}, session_factory(), Hero)
    _, again = await get_row(hero.id, session, Hero)
    assert again is hero
    assert again.age == 1
