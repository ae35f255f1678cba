"""Unusual relationships and columns stay loaded after the commit, and break no write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, inspect, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import raiseload

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConstraintViolationError
from tests._runtime_async import AsyncSession, execute, first_of, run_sync, sync_session
from tests.kept_models import Page, PageEdit, PageNote, PageView, Preferences, Size
from tests.models import Hero, Team


async def count(session: AsyncSession, model: Any) -> Any:
    """How many rows there are."""
    return first_of(await execute(session, select(func.count()).select_from(model)))


class TestRelationships:
    """Of every kind: keyed, as a set, write-only and dynamic."""

    def page(self) -> Page:
        """A page with something in all of them."""
        return Page(
            title="a",
            size=Size(1, 2),
            notes={"x": PageNote(kind="x"), "y": PageNote(kind="y")},
            views=[PageView(), PageView()],
            edits=[PageEdit()],
        )

    @pytest.mark.parametrize("inside", [True, False])
    async def test_a_new_row(self, session: AsyncSession, inside: bool) -> None:
        """It is written, and its columns and its keyed collection are loaded."""
        if inside:
            async with transaction(session):
                written, row = await write_row(self.page(), session)
        else:
            written, row = await write_row(self.page(), session)
        assert written
        assert (row.title, row.size) == ("a", Size(1, 2))
        assert sorted(vars(row)["notes"]) == ["x", "y"]
        assert await count(session, PageView) == 2
        assert await count(session, PageEdit) == 1

    @pytest.mark.parametrize("inside", [True, False])
    async def test_an_update_of_a_row_whose_collections_are_loaded(
        self, session: AsyncSession, inside: bool
    ) -> None:
        """Loaded collections stay loaded."""
        await write_row(self.page(), session)
        names = ["notes", "labels"]
        found, row = await get_row("a", session, Page, True, names, pk_field="title")
        assert found
        if inside:
            async with transaction(session):
                updated, same = await update_row("a", {"width": 5}, session, Page, "title")
        else:
            updated, same = await update_row("a", {"width": 5}, session, Page, "title")
        assert updated
        assert same is row
        assert row.size == Size(5, 2)
        assert sorted(vars(row)["notes"]) == ["x", "y"]
        assert len(vars(row)["labels"]) == 2

    async def test_a_row_that_is_appended_later(self, session: AsyncSession) -> None:
        """The collection still adds appended rows to the session."""
        team = Team(name="t", heroes=[Hero(name="a", secret_name="?")])
        _, team = await write_row(team, session, raise_on_error=True)
        team.heroes.append(Hero(name="b", secret_name="?"))
        await session.commit()
        assert await count(session, Hero) == 2

    async def test_rows_before_one_that_is_refused(self, session: AsyncSession) -> None:
        """They were committed, and are returned as written."""
        some, outcome = await insert_data_rows(
            [self.page(), Page(title="a", size=Size(1, 1))], session
        )
        assert some
        [row] = outcome["success"]  # type: ignore[call-overload]
        assert sorted(vars(row)["notes"]) == ["x", "y"]
        assert await count(session, PageView) == 2

    async def test_a_failed_update(self, session: AsyncSession) -> None:
        """The row can be read afterwards."""
        await write_row(self.page(), session)
        await write_row(Page(title="b", size=Size(1, 1)), session)
        updated, row = await update_row("a", {"title": "b"}, session, Page, "title")
        assert not updated
        assert row.title == "a"


class TestChangesInPlace:
    """In-place changes of a `Mutable` column are detected, as after an explicit commit."""

    async def changed(self, session: AsyncSession, row: Preferences) -> Any:
        """Change the value in place, and return what is stored."""
        row_id = row.id
        row.data["b"] = 2
        await session.commit()
        stored = select(Preferences.data).where(Preferences.id == row_id)
        return first_of(await execute(session, stored))

    async def test_after_write_row(self, session: AsyncSession) -> None:
        """A new row."""
        _, row = await write_row(Preferences(data={"a": 1}), session)
        assert await self.changed(session, row) == {"a": 1, "b": 2}

    @pytest.mark.parametrize("size", [1, 150])
    async def test_after_insert_data_rows(self, session: AsyncSession, size: int) -> None:
        """Rows that go past the unit of work, too."""
        rows = [Preferences(name=str(number), data={"a": 1}) for number in range(size)]
        _, [row, *_] = await insert_data_rows(rows, session)
        assert await self.changed(session, row) == {"a": 1, "b": 2}

    async def test_after_get_one_or_create(self, session: AsyncSession) -> None:
        """A row that was created."""
        row, _ = await get_one_or_create(session, Preferences, {"data": {"a": 1}}, name="x")
        assert await self.changed(session, row) == {"a": 1, "b": 2}

    async def test_after_update_row(self, session: AsyncSession) -> None:
        """The new value is tracked like the old one."""
        _, row = await write_row(Preferences(data={"z": 1}), session)
        _, row = await update_row(row.id, {"data": {"a": 1}}, session, Preferences)
        assert await self.changed(session, row) == {"a": 1, "b": 2}

    @pytest.mark.parametrize("inside", [True, False])
    async def test_of_a_block(self, session: AsyncSession, inside: bool) -> None:
        """In the block that wrote the row, and after it."""
        async with transaction(session):
            _, row = await write_row(Preferences(data={"a": 1}), session)
            if inside:
                row.data["c"] = 3
        expected = {"a": 1, "c": 3, "b": 2} if inside else {"a": 1, "b": 2}
        assert await self.changed(session, row) == expected


class TestAfterTheCommit:
    """A failure there is not a failed write."""

    @contextmanager
    def failing(
        self, session: AsyncSession, error: Exception, name: str = "after_commit"
    ) -> Iterator[None]:
        """Let a listener of the user's fail when the session has committed."""

        def fail(_session: Any, ended: Any = None) -> None:
            if ended is None or ended.parent is None:
                raise error

        event.listen(sync_session(session), name, fail)
        yield
        event.remove(sync_session(session), name, fail)

    @pytest.mark.parametrize("inside", [True, False])
    @pytest.mark.parametrize("name", ["after_commit", "after_transaction_end"])
    @pytest.mark.parametrize(
        "error", [RuntimeError("late"), OperationalError("SELECT 1", {}, Exception())]
    )
    async def test_a_listener(
        self, session: AsyncSession, error: Exception, name: str, inside: bool
    ) -> None:
        """Its error is raised as that of a callback, for the row is written."""
        with self.failing(session, error, name), pytest.raises(ExceptionGroup) as caught:
            if inside:
                async with transaction(session):
                    await write_row(Hero(name="Rusty", secret_name="?"), session)
            else:
                await write_row(Hero(name="Rusty", secret_name="?"), session)
        assert caught.value.exceptions == (error,)
        assert await count(session, Hero) == 1
        assert (await write_row(Hero(name="Nova", secret_name="?"), session))[0]

    async def test_listeners_that_fail_at_the_end_too(self, session: AsyncSession) -> None:
        """The first error is raised."""
        first, second = RuntimeError("first"), RuntimeError("second")
        with (
            self.failing(session, first),
            self.failing(session, second, "after_transaction_end"),
            pytest.raises(ExceptionGroup) as caught,
        ):
            await write_row(Hero(name="Rusty", secret_name="?"), session)
        assert caught.value.exceptions == (first,)
        assert await count(session, Hero) == 1

    async def test_a_savepoint_that_is_released(
        self, session: AsyncSession, session_factory: Callable[[], AsyncSession]
    ) -> None:
        """SQLAlchemy reports it like a commit; nothing is committed, and the block fails.

        Nor does it keep a lock, even where somebody holds the error of an earlier statement.
        """
        await write_row(Hero(name="Rusty", secret_name="?"), session)
        with pytest.raises(ConstraintViolationError) as held:
            twin = Hero(name="Rusty", secret_name="?")
            await write_row(twin, session, raise_on_error=True)
        rows = [Hero(name=f"hero {number}", secret_name="?") for number in range(2)]
        with self.failing(session, RuntimeError("early")), pytest.raises(RuntimeError):
            await bulk_insert_rows(rows, session, Hero)
        assert await count(session, Hero) == 1
        await session.close()
        await write_row(Hero(name="free", secret_name="?"), session_factory(), raise_on_error=True)
        assert held.value is not None


@pytest.mark.parametrize("inside", [True, False])
async def test_the_callers_own_commit_expires_the_row(session: AsyncSession, inside: bool) -> None:
    """The library commits without expiring it; the session remains configured as it was."""
    if inside:
        async with transaction(session):
            _, hero = await write_row(Hero(name="Rusty", secret_name="?"), session)
    else:
        _, hero = await write_row(Hero(name="Rusty", secret_name="?"), session)
    assert "name" in vars(hero)
    assert sync_session(session).expire_on_commit
    await session.commit()
    assert "name" not in vars(hero)


@pytest.mark.parametrize("others", [0, 1])
async def test_a_row_that_was_deleted_before_the_commit(session: AsyncSession, others: int) -> None:
    """It is detached, and rows of the session that were not written are expired."""
    teams = [Team(name=f"team {number}") for number in range(1 + others)]
    await insert_data_rows(teams, session)
    async with transaction(session):
        for team in teams:
            await session.refresh(team)
        await session.delete(teams[0])
        _, hero = await write_row(Hero(name="Rusty", secret_name="?"), session)
    assert inspect(teams[0]).detached
    assert ["name" in vars(team) for team in teams[1:]] == [False] * others
    assert hero.name == "Rusty"
    session.add(Team(name=teams[0].name))
    await session.commit()


@pytest.mark.parametrize("name", ["before_commit", "after_flush_postexec"])
async def test_rows_that_the_commit_itself_writes(session: AsyncSession, name: str) -> None:
    """A listener adds them; they expire, as they do without the library."""
    team = Team(name="Preventers")

    def add(plain: Any, _context: Any = None) -> None:
        plain.add(team)

    event.listen(sync_session(session), name, add, once=True)
    _, hero = await write_row(Hero(name="Rusty", secret_name="?"), session)
    assert inspect(team).persistent
    assert ("name" in vars(hero), "name" in vars(team)) == (True, False)


async def test_a_row_that_is_expunged_before_the_commit(session: AsyncSession) -> None:
    """The other row of the session expires."""
    team = Team(name="Preventers")
    await write_row(team, session)

    def expunge(plain: Any, _context: Any) -> None:
        plain.expunge(hero)

    event.listen(sync_session(session), "after_flush_postexec", expunge, once=True)
    hero = Hero(name="Rusty", secret_name="?")
    await write_row(hero, session)
    assert hero not in session
    assert "name" not in vars(team)


async def test_a_row_that_was_read_with_raiseload(session: AsyncSession) -> None:
    """The option ends with the commit of a write, so the relationship can be loaded."""
    team = Team(name="Preventers")
    await write_row(Hero(name="Rusty", secret_name="?", team=team), session)
    session.expunge_all()
    statement = select(Hero).options(raiseload(Hero.team))  # type: ignore[arg-type]
    hero: Hero = first_of(await execute(session, statement))
    await update_row(hero.id, {"age": 5}, session, Hero)
    assert "name" in vars(hero)
    assert (await run_sync(session, getattr, hero, "team")).name == "Preventers"


async def test_rows_that_were_expunged_do_not_count(session: AsyncSession) -> None:
    """Whoever still holds them changes nothing of how the session reads."""
    team = Team(name="Preventers", city="Oslo")
    heroes = [Hero(name=name, secret_name="?", team=team) for name in ("Rusty", "Nova")]
    await insert_data_rows(heroes, session)
    key = heroes[0].id
    session.expunge_all()
    _, hero = await get_row(key, session, Hero, selectin=True, select_in_keys=["team.heroes"])
    assert hero is not heroes[0]
    assert {mate.name for mate in hero.team.heroes} == {"Rusty", "Nova"}


@pytest.mark.parametrize("way", ["get_row", "get_rows", "builder", "get_one_or_create"])
async def test_a_row_that_is_met_twice_keeps_its_relationships(
    session: AsyncSession, way: str
) -> None:
    """It has just been written, and is one of its own team's heroes."""
    async with transaction(session):
        rusty = Hero(name="Rusty", secret_name="?", team=Team(name="Preventers", city="Oslo"))
        await write_row(rusty, session)
        nova = Hero(name="Nova", secret_name="?", team_id=rusty.team_id)
        await write_row(nova, session)
    path = "team.heroes"
    if way == "get_row":
        _, hero = await get_row(rusty.id, session, Hero, selectin=True, select_in_keys=path)
    elif way == "get_rows":
        _, [hero] = await get_rows(session, Hero, name="Rusty", selectin=True, select_in_keys=path)
    elif way == "builder":
        hero = await AsyncQueryBuilder(session, Hero).where(name="Rusty").selectin(path).one()
    else:
        hero, _ = await get_one_or_create(
            session, Hero, selectin=True, select_in_key=path, name="Rusty"
        )
    held = hero.__dict__["team"]
    assert sorted(mate.name for mate in held.__dict__["heroes"]) == ["Nova", "Rusty"]


async def test_a_row_that_was_read_again_keeps_what_it_has_loaded_since(
    session: AsyncSession,
) -> None:
    """It is outdated no longer, so that the next read leaves its relationships alone."""
    _, team = await write_row(Team(name="Preventers"), session, raise_on_error=True)
    hero = Hero(name="Rusty", secret_name="Tommy", team_id=team.id)
    await write_row(hero, session, raise_on_error=True)
    _, hero = await get_row(hero.id, session, Hero, True, ["team"], raise_on_error=True)
    assert (await get_rows(session, Hero))[1] == [hero]
    assert "team" in vars(hero)
