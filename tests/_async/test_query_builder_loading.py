"""Related rows come with a fixed number of queries, and locks keep others out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, transaction
from sqlmodel_crud_utils.exceptions import QueryExecutionError, ValidationError
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.models import Hero, Tag, Team
from tests.recording import recorded

Sessions = Callable[[], AsyncSession]


@pytest.fixture
async def heroes(session_factory: Sessions) -> None:
    """Five teams of two heroes with two tags each."""
    session = session_factory()
    tags = [Tag(label="a"), Tag(label="b")]
    session.add_all(
        Hero(name=f"{n} {m}", secret_name="?", team=team, tags=tags)
        for n in range(5)
        for team in [Team(name=f"Team {n}")]
        for m in range(2)
    )
    await session.commit()


LOADINGS: dict[str, tuple[Callable[[AsyncQueryBuilder[Team]], AsyncQueryBuilder[Team]], int]] = {
    "nothing": (lambda q: q, 1),
    "selectin": (lambda q: q.selectin("heroes"), 2),
    "nested selectin": (lambda q: q.selectin("heroes__tags"), 3),
    "joined": (lambda q: q.joined("heroes"), 1),
    "nested joined": (lambda q: q.joined("heroes.tags"), 1),
    "both": (lambda q: q.joined("heroes").selectin("heroes__tags"), 2),
    "the last way": (lambda q: q.joined("heroes.tags").selectin("heroes"), 2),
    "load_only": (lambda q: q.load_only("name"), 1),
    "limited": (lambda q: q.joined("heroes__tags").limit(3), 1),
}


@pytest.mark.usefixtures("heroes")
@pytest.mark.parametrize("loading", LOADINGS)
async def test_the_number_of_queries_is_that_of_relationships(
    session: AsyncSession, engine: AsyncEngine, loading: str
):
    """Not that of rows: reading the related rows queries nothing more."""
    load, number = LOADINGS[loading]
    query = load(AsyncQueryBuilder(session, Team).order_by("name"))
    with recorded(engine) as words:
        teams = await query.all()
        for team in teams:
            for hero in team.__dict__.get("heroes", []):
                assert len(hero.__dict__.get("tags", [1, 2])) == 2
        page = await query.keyset(2) if loading != "limited" else None
    assert page is None or len(page.items) == 2
    assert [team.name for team in teams] == [f"Team {n}" for n in range(len(teams))]
    assert words.count("SELECT") == number * (1 if page is None else 2)


# --- locks ---------------------------------------------------------------------------------------


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.usefixtures("heroes")
async def test_locked_rows_are_skipped_or_an_error(
    session: AsyncSession, session_factory: Sessions
):
    """Another session meets a lock until the transaction ends."""
    # By the key: otherwise MySQL sorts, and locks all rows that it sorts.
    query = AsyncQueryBuilder(session, Hero).order_by("id")
    first, second, *_ = await query.scalars("id")
    assert len(await query.where(id=first).for_update().all()) == 1
    other = session_factory()
    theirs = AsyncQueryBuilder(other, Hero).order_by("id")
    skipping = theirs.for_update(skip_locked=True).limit(1)
    assert [hero.id for hero in await skipping.all()] == [second]
    await other.rollback()
    with pytest.raises(QueryExecutionError):
        await theirs.where(id=first).for_update(nowait=True).all()
    await other.rollback()
    await session.commit()
    assert len(await theirs.where(id=first).for_update(nowait=True).all()) == 1


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.usefixtures("heroes")
async def test_locked_rows_are_as_they_are_now(session: AsyncSession, session_factory: Sessions):
    """Not as the session remembers them; changes that are not written yet are written first."""
    query = AsyncQueryBuilder(session, Hero).where(name="0 0")
    hero = await query.one()
    await session.commit()
    await session.refresh(hero)
    await session.commit()
    other = session_factory()
    await AsyncQueryBuilder(other, Hero).where(name="0 0").update(age=50)
    with session.no_autoflush:
        hero.secret_name = "new"
        locked: Any = await query.for_update().joined("team").selectin("tags").one()
    assert (locked is hero, hero.age, hero.secret_name) == (True, 50, "new")


@pytest.mark.usefixtures("heroes")
async def test_one_program_locks_on_every_database(session: AsyncSession):
    """On SQLite, where a block has the whole database to itself, the lock does nothing."""
    query = AsyncQueryBuilder(session, Hero).where(name="0 0")
    for locking in (query.for_update(), query.for_update(nowait=True)):
        async with transaction(session):
            hero = await locking.one()
            hero.age = 70
    assert await query.for_update(skip_locked=True).scalars("age") == [70]


async def test_a_lock_waits_or_not(session: AsyncSession):
    """The two ways not to wait exclude each other."""
    with pytest.raises(ValidationError, match="not both"):
        AsyncQueryBuilder(session, Hero).for_update(nowait=True, skip_locked=True)
