"""Streams hold a batch of rows at a time, and give their connection back however they end."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import pytest
from sqlalchemy import insert, select

from sqlmodel_crud_utils._async.query_builder import AsyncQueryBuilder
from sqlmodel_crud_utils._async.transactions import transaction
from sqlmodel_crud_utils._runtime_async import execute
from sqlmodel_crud_utils.exceptions import QueryExecutionError, ValidationError
from tests._runtime_async import AsyncEngine, AsyncSession, PlainSession
from tests.models import Hero, Team
from tests.models_mixins import Player
from tests.recording import recorded


@pytest.fixture
async def heroes(session: AsyncSession) -> None:
    """Fifty heroes in five teams, and nothing in the session."""
    session.add_all(
        Hero(name=f"{n} {m}", secret_name="?", age=10 * n + m, team=team)
        for n in range(5)
        for team in [Team(name=f"Team {n}")]
        for m in range(10)
    )
    await session.commit()
    session.expunge_all()


def checked_out(engine: AsyncEngine) -> int:
    """Return how many connections of an engine are in use."""
    pool: Any = engine.pool
    return int(pool.checkedout())


@pytest.mark.usefixtures("heroes")
async def test_a_stream_returns_all_rows_in_their_order(session: AsyncSession, engine: AsyncEngine):
    """Whatever the size of a batch, with one query, on any session."""
    query = AsyncQueryBuilder(session, Hero).where(age__gte=5).order_by("-age")
    for size in (1, 7, 45, 1000):
        with recorded(engine) as words:
            assert [hero.age async for hero in query.stream(size)] == list(range(49, 4, -1))
        assert words.count("SELECT") <= 1
    async with PlainSession(engine) as plain:
        stream = AsyncQueryBuilder(plain, Hero).limit(3).joined("team").stream(2)
        assert [hero.team is not None async for hero in stream] == [True] * 3
        assert [hero async for hero in stream] == []
    assert [hero async for hero in query.where(name="x").stream()] == []


@pytest.mark.usefixtures("heroes")
async def test_the_session_is_free_after_a_loop_that_was_left(
    session: AsyncSession, engine: AsyncEngine
):
    """It can query, commit or be closed at once, and its connection is back in the pool."""
    query = AsyncQueryBuilder(session, Hero)
    for end in (query.count, session.commit, session.rollback, session.close):
        async for hero in query.stream(5):
            assert hero.age == 0
            break
        await end()
        assert await query.count() == 50
        await session.commit()
        assert checked_out(engine) == 0


@pytest.mark.usefixtures("heroes")
async def test_an_exception_in_the_loop_gives_the_connection_back(
    session: AsyncSession, engine: AsyncEngine
):
    """In a block and without one."""
    query = AsyncQueryBuilder(session, Hero)
    with pytest.raises(KeyError):
        async with transaction(session, wrap_errors=False):
            async for _ in query.stream(5):
                raise KeyError
    assert checked_out(engine) == 0
    async with AsyncSession(engine) as other:
        with pytest.raises(KeyError):
            async for _ in AsyncQueryBuilder(other, Hero).stream(5):
                raise KeyError
    assert checked_out(engine) == 0
    assert await query.count() == 50


@pytest.mark.usefixtures("heroes")
async def test_two_streams_can_be_left(session: AsyncSession, engine: AsyncEngine):
    """One that was never begun costs nothing."""
    query = AsyncQueryBuilder(session, Hero)
    with recorded(engine) as words:
        query.stream(5)
    assert words == []
    for _ in range(2):
        async for _hero in query.stream(5):
            break
    assert await query.count() == 50
    await session.commit()
    assert checked_out(engine) == 0


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.usefixtures("heroes")
async def test_the_session_can_be_used_inside_the_loop(session: AsyncSession):
    """For related rows, queries and writes in a block."""
    seen = []
    async with transaction(session):
        async for hero in (
            AsyncQueryBuilder(session, Hero).order_by("id").selectin("team").stream(7)
        ):
            assert hero.team is not None
            seen.append(hero.team.name)
            one = AsyncQueryBuilder(session, Hero).where(id=hero.id)
            assert await one.update(secret_name="seen") == 1
    assert sorted(set(seen)) == [f"Team {n}" for n in range(5)]
    assert await AsyncQueryBuilder(session, Hero).where(secret_name="seen").count() == 50


@pytest.mark.databases("mysql")
@pytest.mark.usefixtures("heroes")
async def test_mysql_says_what_it_cannot_do(session: AsyncSession):
    """A second statement would lose the rows that are still to come."""
    query = AsyncQueryBuilder(session, Hero)
    seen = 0
    with pytest.raises(ValidationError, match="use another session inside the loop"):
        async for _ in query.stream(5):
            seen += 1
            await query.count()
    assert seen == 1
    with pytest.raises(ValidationError, match="selectin"):
        query.selectin("team").stream()
    await session.rollback()
    assert await query.count() == 50


@pytest.mark.databases("postgresql", "mysql")
async def test_the_database_keeps_the_rows(session: AsyncSession):
    """Rows are not held in memory: neither those that were read nor those to come."""
    rows = [{"name": str(n), "secret_name": "x" * 250} for n in range(20_000)]
    await execute(session, insert(Hero), rows)
    await session.commit()
    rows.clear()
    gc.collect()
    first: Any = None
    tracemalloc.start()
    try:
        async for hero in AsyncQueryBuilder(session, Hero).stream(100):
            first = weakref.ref(hero) if first is None else first
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000  # all of them are more than 10 million bytes
    del hero
    gc.collect()
    assert first() is None


async def test_deleted_rows_are_left_out(session: AsyncSession):
    """As in every read, and related ones too."""
    session.add_all([Player(name="a"), Player(name="b", is_deleted=True)])
    await session.commit()
    query = AsyncQueryBuilder(session, Player).order_by("name")
    assert [player.name async for player in query.stream()] == ["a"]
    assert [player.name async for player in query.with_deleted().stream()] == ["a", "b"]


async def test_mistakes_are_reported_by_the_call(session: AsyncSession):
    """Not by the loop; what the database refuses is an error of the library."""
    with pytest.raises(ValidationError, match="batch_size must be a whole number of 1 or more"):
        AsyncQueryBuilder(session, Hero).stream(0)
    with pytest.raises(ValidationError, match=r"selectin\(\) instead of joined\(\)"):
        AsyncQueryBuilder(session, Team).joined("heroes").stream()
    wrong = AsyncQueryBuilder(session, Hero).where(Hero.id.in_(select(Hero.id, Hero.name)))
    with pytest.raises(QueryExecutionError):
        async for _ in wrong.stream():
            pass
