"""Strict loading: what a lazy load says, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import immediateload, joinedload, selectinload

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    delete_row,
    get_row,
    get_rows,
    on_commit,
    session_factory,
    strict_loading,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import RelationshipNotLoadedError, ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.rows import given
from tests._runtime_async import AsyncEngine, AsyncSession, execute, fetched, first_of, run_sync
from tests.models import Hero, Team
from tests.recording import statements_of


async def heroes(session: AsyncSession) -> None:
    """Write two teams with two heroes each."""
    for number, name in enumerate(("Owls", "Bats")):
        team = Team(id=number + 1, name=name)
        names = (f"{name} {place}" for place in range(2))
        await given(session, team, *(Hero(name=each, secret_name="?", team=team) for each in names))


async def test_a_lazy_load_says_what_loads_it(session: AsyncSession):
    """Nothing is sent, and the session is usable; after the block, lazy loads work again."""
    await heroes(session)
    with strict_loading(session):
        _, rows = await get_rows(session, Hero, sort_field="id")
        with statements_of(session.bind) as sent, pytest.raises(RelationshipNotLoadedError) as said:
            _ = rows[0].team
        assert sent == []
        text = str(said.value)
        assert text.startswith("Hero.team is not loaded")
        assert 'selectin("team")' in text
        assert isinstance(said.value, InvalidRequestError)
        assert not isinstance(said.value, AttributeError)
        assert (await update_row(rows[0].id, {"name": "Ann"}, session, Hero))[0]
    assert (await run_sync(session, lambda: rows[0].team)).name == "Owls"


@pytest.mark.parametrize("mode", [True, "n_plus_one"])
async def test_what_is_loaded_on_purpose(session: AsyncSession, mode: Any):
    """By an option, a refresh or a flush."""
    await heroes(session)
    with strict_loading(session, mode):
        for option in (selectinload, joinedload, immediateload):
            statement = select(Hero).options(option(Hero.team)).order_by(Hero.id)
            rows = fetched((await execute(session, statement)).unique())
            assert [row.team.name for row in rows] == ["Owls", "Owls", "Bats", "Bats"]
            session.expunge_all()
        for way in ("selectin", "joined"):
            rows = await getattr(QueryBuilder(session, Team), way)("heroes").order_by("id").all()
            assert [len(row.heroes) for row in rows] == [2, 2]
            session.expunge_all()
        _, rows = await get_rows(session, Hero)
        for row in rows:
            await session.refresh(row, ["team"])
        team = next(row.team for row in rows if row.team_id == 1)
        assert await delete_row(2, session, Team)
        _, row = await write_row(Hero(name="Cid", secret_name="?", team=team), session)
        assert row.team_id == 1


class Curious:
    """A hook that looks at a related row."""

    def after_update(self, instance: Hero) -> None:
        """Look at it."""
        _ = instance.team


async def test_in_hooks_and_callbacks(session: AsyncSession):
    """They run in the session of the operation, and are as strict."""
    await heroes(session)
    with strict_loading(session), registered_hook(Hero, Curious()):
        with pytest.raises(RelationshipNotLoadedError):
            await update_row("Owls 0", {"age": 5}, session, Hero, "name")
        _, row = await get_row("Owls 1", session, Hero, pk_field="name", raise_on_error=True)
        on_commit(session, lambda: row.team)
        with pytest.RaisesGroup(RelationshipNotLoadedError):
            await delete_row("Bats 0", session, Hero, "name")


async def test_a_row_that_the_session_holds(session: AsyncSession):
    """A many-to-one that needs no query is answered."""
    await heroes(session)
    with strict_loading(session):
        team = await session.get(Team, 1)
        _, rows = await get_rows(session, Hero, team_id=1)
        assert rows[0].team is team


async def test_the_second_row_of_a_query(session: AsyncSession):
    """`n_plus_one` allows the first one, and that of another query."""
    await heroes(session)
    with strict_loading(session, "n_plus_one"):
        for _ in range(2):
            session.expunge_all()
            _, rows = await get_rows(session, Team)
            assert len(await run_sync(session, getattr, rows[0], "heroes")) == 2
        with pytest.raises(RelationshipNotLoadedError, match="second row"):
            await run_sync(session, lambda: rows[1].heroes)


@pytest.mark.parametrize("between", ["nothing", "another query", "many queries"])
async def test_what_happens_before_the_second_row(session: AsyncSession, between: str):
    """Up to a hundred queries are distinguished, and a garbage-collected first row counts too."""
    await heroes(session)
    await given(session, *(Team(id=number, name=f"Team {number}") for number in range(3, 120)))
    others = {"nothing": 0, "another query": 1, "many queries": 110}[between]
    with strict_loading(session, "n_plus_one"):
        session.expunge_all()
        first, second = await QueryBuilder(session, Team).where(id__lte=2).order_by("id").all()
        await run_sync(session, getattr, first, "heroes")
        session.expunge(first)
        del first
        for number in range(3, 3 + others):
            _, other = await get_row(number, session, Team)
            await run_sync(session, getattr, other, "heroes")
        if between == "many queries":
            assert len(await run_sync(session, getattr, second, "heroes")) == 2
        else:
            with pytest.raises(RelationshipNotLoadedError, match="second row"):
                await run_sync(session, getattr, second, "heroes")


async def test_rows_of_no_query(session: AsyncSession):
    """New rows were not read together."""
    await heroes(session)
    with strict_loading(session, "n_plus_one"):
        rows = [Hero(name=name, secret_name="?", team_id=1) for name in ("Ann", "Bob")]
        session.expunge_all()
        session.add_all(rows)
        await session.flush()
        for row in rows:
            team = await run_sync(session, getattr, row, "team")
            assert team.name == "Owls"
            session.expunge(team)


async def test_blocks_nest(session: AsyncSession):
    """The innermost counts, and holds for its session only."""
    await heroes(session)
    _, rows = await get_rows(session, Hero, sort_field="id")
    with strict_loading(session), strict_loading(session, mode=False):
        assert (await run_sync(session, lambda: rows[0].team)).name == "Owls"
    async with AsyncSession(session.bind) as other:
        row = first_of(await execute(other, select(Hero).order_by(Hero.id)))
        with strict_loading(session):
            assert (await run_sync(other, lambda: row.team)).name == "Owls"


@pytest.mark.parametrize("mode", ["always", None, 1])
async def test_another_mode(session: AsyncSession, mode: Any):
    """It is refused at once."""
    with pytest.raises(ValidationError, match="n_plus_one"), strict_loading(session, mode):
        pass


async def test_sessions_of_a_factory(engine: AsyncEngine):
    """A factory makes them strict, and keeps the program's own `info`."""
    new_session = session_factory(engine, strict_loading="n_plus_one", info={"mine": 1})
    async with new_session() as session:
        assert session.info["mine"] == 1
        await heroes(session)
        _, rows = await get_rows(session, Team)
        await run_sync(session, lambda: rows[0].heroes)
        with pytest.raises(RelationshipNotLoadedError):
            await run_sync(session, lambda: rows[1].heroes)
    with pytest.raises(ValidationError):
        session_factory(engine, strict_loading="never")
