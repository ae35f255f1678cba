"""Streams hold one batch of rows at a time, and always return their connection."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import defer, joinedload, selectinload, subqueryload

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    QueryExecutionError,
    ValidationError,
)
from tests._async.rows import given
from tests._runtime_async import AsyncEngine, AsyncSession, PlainSession, execute
from tests.bulk_models import Truck, Van, Vehicle
from tests.crud_models import Cabinet, Drawer
from tests.models import AllTypes, Hero, Seat, Team
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
    """With any batch size, with one query, on any session."""
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


@pytest.mark.usefixtures("heroes")
async def test_the_session_can_be_used_inside_the_loop(session: AsyncSession, engine: AsyncEngine):
    """For related rows, queries and writes in a block; each row appears once, in order."""
    query = AsyncQueryBuilder(session, Hero).order_by("team_id", "-age")
    expected = await query.scalars("age")
    for limit, start in ((50, 0), (20, 3)):
        seen = []
        async with transaction(session):
            async for hero in query.limit(limit).offset(start).stream(7):
                seen.append(hero.age)
                one = AsyncQueryBuilder(session, Hero).where(id=hero.id)
                assert await one.update(secret_name=f"seen {limit}") == 1
        assert seen == expected[start : start + limit]
        assert await query.where(secret_name=f"seen {limit}").count() == limit
    await session.commit()
    assert checked_out(engine) == 0


@pytest.mark.usefixtures("heroes")
async def test_related_rows_come_with_each_batch(session: AsyncSession, engine: AsyncEngine):
    """With `selectin`, by options of SQLAlchemy, or with `joined`; in a limited query too."""
    query = AsyncQueryBuilder(session, Hero).order_by("-age")
    for loading, number in (
        (query.selectin("team__heroes"), 7 * 3),
        (query.options(selectinload(Hero.team)), 7 * 2),
        (query.joined("team"), 7),
    ):
        session.expunge_all()
        with recorded(engine) as words:
            stream = loading.limit(30).offset(5).stream(5)
            found = [(hero.age, hero.team and hero.team.name) async for hero in stream]
        assert found == [(age, f"Team {age // 10}") for age in range(44, 14, -1)]
        assert words.count("SELECT") <= number


@pytest.mark.usefixtures("heroes")
async def test_streams_run_side_by_side(session: AsyncSession):
    """Each continues at its place, even if the other is abandoned."""
    query = AsyncQueryBuilder(session, Hero).order_by("age")
    pairs = []
    async for hero in query.where(age__lt=12).stream(5):
        async for other in query.order_by("-id").stream(4):
            pairs.append((hero.age, other.age))
            if other.age == hero.age:
                break
    assert pairs == [(a, b) for a in range(12) for b in range(a + 1)]


@pytest.mark.usefixtures("heroes")
async def test_a_transaction_that_ends_in_the_loop_ends_it(
    session: AsyncSession, engine: AsyncEngine
):
    """It raises: the remaining rows have expired, and their cursor is closed."""
    query = AsyncQueryBuilder(session, Hero).order_by("age")
    for end in (session.commit, session.rollback, session.close):
        for batch_size in (5, 1000):
            seen = 0
            with pytest.raises(ValidationError, match=r"one transaction\(\) block"):
                async for _ in query.stream(batch_size):
                    seen += 1
                    await end()
            assert seen == 1
            assert checked_out(engine) == 0
    async for hero in query.where(age=3).stream():
        assert hero.age == 3
        await session.commit()  # nothing was still to come


@pytest.mark.usefixtures("heroes")
async def test_a_refused_statement_in_the_loop(session: AsyncSession, engine: AsyncEngine):
    """If only it is undone, the loop continues; otherwise a rollback frees the session."""
    query = AsyncQueryBuilder(session, Hero).order_by("age")
    async with transaction(session):
        seen = 0
        async for hero in query.stream(7):
            seen += 1
            taken = {"name": "0 0"} if hero.age else {"secret_name": "x"}
            done, _ = await update_row(hero.id, taken, session, Hero, raise_on_error=False)
            assert done is not bool(hero.age)
    assert seen == 50
    with pytest.raises(ConstraintViolationError):
        async for hero in query.where(age__gt=1).stream(7):
            await AsyncQueryBuilder(session, Hero).where(id=hero.id).update(name="0 0")
    assert checked_out(engine) == 0
    assert await query.count() == 50


async def test_rows_that_stayed_loaded_are_brought_up_to_date(
    session: AsyncSession, session_factory: Callable[[], AsyncSession]
):
    """A stream returns what the database has, as every read does; with composite keys too."""
    seats = [Seat(row="a", number=n, guest="x") for n in range(3)]
    team = Team(name="Owls")
    await insert_data_rows([*seats[:2]], session)
    _, hero = await write_row(Hero(name="Ann", secret_name="?", age=1, team=team), session)
    key = hero.id
    _, kept = await insert_data_rows(seats[2:], session)
    other = session_factory()
    await AsyncQueryBuilder(other, Seat).update(everything=True, guest="y")
    assert [seat.guest for seat in kept] == ["x"]
    query = AsyncQueryBuilder(session, Seat).order_by("number")
    assert [seat.guest async for seat in query.stream(2)] == ["y", "y", "y"]
    assert kept[0].guest == "y"
    await update_row(key, {"secret_name": "!"}, session, Hero)
    await AsyncQueryBuilder(other, Hero).update(everything=True, age=2)
    await AsyncQueryBuilder(other, Team).update(everything=True, city="Oslo")
    found = [row async for row in AsyncQueryBuilder(session, Hero).selectin("team").stream()]
    assert found == [hero]
    assert (hero.age, hero.team.city if hero.team else None) == (2, "Oslo")


@pytest.mark.usefixtures("heroes")
async def test_changes_inside_the_loop_stay(session: AsyncSession):
    """Changes that the program or the session made meanwhile are newer than the cursor."""
    query = AsyncQueryBuilder(session, Hero).order_by("age")
    async with transaction(session):
        rows = await query.all()
        async for hero in query.stream(7):
            if hero.age == 0:
                rows[20].secret_name = "written"
                await session.flush()
                rows[30].secret_name = "pending"
        assert [rows[n].secret_name for n in (20, 30, 40)] == ["written", "pending", "?"]
    assert await query.exclude(secret_name="?").scalars("secret_name") == ["written", "pending"]


@pytest.mark.parametrize("uses_session", [False, True])
async def test_memory_is_that_of_a_batch(session: AsyncSession, uses_session: bool):
    """Rows are not held: neither those that were read nor those to come, on any way of reading."""
    rows = [{"name": str(n), "secret_name": "x" * 250} for n in range(8_000)]
    await execute(session, insert(Hero), rows)
    await session.commit()
    rows.clear()
    query = AsyncQueryBuilder(session, Hero)
    assert await query.limit(1).scalars("name") == ["0"]
    gc.collect()
    first: Any = None
    seen = alive = 0
    tracemalloc.start()
    try:
        async for hero in query.stream(100):
            first = weakref.ref(hero) if first is None else first
            seen += 1
            if seen == 150 and uses_session:
                assert await query.exists()
            if seen % 100 == 50:
                alive = max(alive, len(session.identity_map))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == 8_000
    assert alive <= 200
    assert peak < 5_000_000  # all of them are more than 10 million bytes; drivers read ahead
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
    with pytest.raises(ValidationError, match=r"with selectin\(\) instead"):
        AsyncQueryBuilder(session, Team).joined("heroes").stream()
    wrong = AsyncQueryBuilder(session, Hero).where(Hero.id.in_(select(Hero.id, Hero.name)))
    with pytest.raises(QueryExecutionError):
        async for _ in wrong.stream():
            pass


@pytest.mark.databases("mysql")
async def test_an_order_that_no_query_continues_after(session: AsyncSession):
    """On MySQL, other queries in between require a sortable order; the call or loop says so."""
    await execute(session, insert(AllTypes), [{"payload": {"a": n}} for n in range(5)])
    await session.commit()
    query = AsyncQueryBuilder(session, AllTypes).order_by("payload")
    with pytest.raises(ValidationError, match=r"stream\(\) can't continue after a JSON value"):
        query.options(defer(AllTypes.text)).stream()
    assert len([row async for row in query.stream(2)]) == 5
    with pytest.raises(ValidationError, match="sort by a field other than payload"):
        async for _ in query.stream(2):
            await query.count()


async def test_rows_of_subclasses(session: AsyncSession) -> None:
    """They are completed by queries of their own, which MySQL's cursor does not survive."""
    await given(
        session,
        *(Van(id=n, name=f"van {n}", seats=n) for n in (1, 2, 4, 5)),
        Truck(id=3, name="truck", load=9),
    )
    stream = AsyncQueryBuilder(session, Vehicle).order_by("id").stream(batch_size=2)
    rows = [row async for row in stream]
    assert [row.seats for row in rows if isinstance(row, Van)] == [1, 2, 4, 5]
    assert [row.name for row in rows if isinstance(row, Truck)] == ["truck"]


@pytest.mark.parametrize("ways", [(), ("drawers",)])
async def test_a_mapping_that_joins_many_rows(session: AsyncSession, ways: tuple[str, ...]) -> None:
    """No batch ends between the related rows of a row; to load them otherwise works as well."""
    drawers = [[Drawer(name=f"{m}") for m in range(3)] for _ in range(5)]
    await given(session, *(Cabinet(label=f"{n}", drawers=each) for n, each in enumerate(drawers)))
    stream = AsyncQueryBuilder(session, Cabinet).selectin(*ways).stream(batch_size=2)
    assert [(row.label, len(row.drawers)) async for row in stream] == [
        (f"{n}", 3) for n in range(5)
    ]


@pytest.mark.usefixtures("heroes")
@pytest.mark.parametrize("load", [joinedload, subqueryload])
async def test_options_that_take_all_rows(session: AsyncSession, load: Any) -> None:
    """They are the caller's own, and no reason to fail."""
    query = AsyncQueryBuilder(session, Team).options(load(Team.heroes))
    rows = [row async for row in query.stream(batch_size=2)]
    assert [len(row.heroes) for row in rows] == [10] * 5
    query = AsyncQueryBuilder(session, Hero).options(joinedload(Hero.team))
    assert len([row async for row in query.stream(batch_size=20)]) == 50
