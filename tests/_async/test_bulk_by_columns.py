"""Updates and deletions of the rows that have one of many values, in any column."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from sqlmodel_crud_utils.aio import (
    bulk_update_rows,
    delete_rows_within_id_list,
    transaction,
)
from sqlmodel_crud_utils.exceptions import TransactionError, UnknownFieldError, ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.rows import given, stored_rows
from tests._runtime_async import AsyncEngine, AsyncSession, execute
from tests.models import Hero, Team
from tests.models_mixins import Counter, Player


def a_hero(number: int, age: int | None) -> Hero:
    """Return a hero of some age."""
    return Hero(id=number, name=f"hero {number}", secret_name="?", age=age)


async def ages(session: AsyncSession) -> dict[int, int | None]:
    """Return what the database holds."""
    return {hero.id: hero.age for hero in await stored_rows(session, Hero)}


class Quiet:
    """A hook that notes the ages that rows get."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def after_update(self, instance: Any) -> None:
        """Note the age."""
        self.seen.append(instance.age)

    def after_delete(self, instance: Any) -> None:
        """Note the name."""
        self.seen.append(instance.name)


class TestAnyColumn:
    """All rows with one of the values are meant, however many these are."""

    async def test_rows_are_updated(self, session: AsyncSession) -> None:
        """Those with NULL are not among them."""
        await given(session, *(a_hero(n, age) for n, age in enumerate([7, 8, 7, None, 9], 1)))
        written = await bulk_update_rows([7, "9", None], {"age": 1}, session, Hero, "age")
        assert written == (True, 3)
        assert await ages(session) == {1: 1, 2: 8, 3: 1, 4: None, 5: 1}

    async def test_rows_are_deleted(self, session: AsyncSession) -> None:
        """One statement may remove more rows than there are values."""
        await given(session, *(a_hero(n, age) for n, age in enumerate([7, 8, 7, None], 1)))
        assert await delete_rows_within_id_list([7, 5], session, Hero, "age") == (True, 2)
        assert set(await ages(session)) == {2, 4}

    async def test_several_columns(self, session: AsyncSession) -> None:
        """Each value is a tuple then."""
        await given(session, *(a_hero(n, n % 2) for n in range(1, 5)))
        keys = [(1, "?"), (0, "!")]
        written = await bulk_update_rows(keys, {"age": 5}, session, Hero, ["age", "secret_name"])
        assert written == (True, 2)
        assert await ages(session) == {1: 5, 2: 0, 3: 5, 4: 0}

    @pytest.mark.parametrize("hooked", [False, True])
    async def test_a_row_is_reached_once(self, session: AsyncSession, hooked: bool) -> None:
        """Even if it gets a value that is listed later."""
        await given(session, *(a_hero(n, n) for n in range(1, 6)))
        hook = Quiet()
        with registered_hook(Hero if hooked else Team, hook):
            written = await bulk_update_rows(
                [1, 2, 3], {"age": 3}, session, Hero, "age", chunk_size=1
            )
        assert written == (True, 3)
        assert await ages(session) == {1: 3, 2: 3, 3: 3, 4: 4, 5: 5}
        assert hook.seen == ([3, 3, 3] if hooked else [])


class TestSQL:
    """Values may be SQL."""

    @pytest.mark.parametrize("chunk_size", [None, 1])
    async def test_the_database_does_the_sum(
        self, session: AsyncSession, chunk_size: int | None
    ) -> None:
        """Once for each row, also where the sum changes what the rows are found by."""
        await given(session, *(a_hero(n, n) for n in range(1, 6)))
        written = await bulk_update_rows(
            [4, 3, 2], {"age": Hero.age - 1}, session, Hero, "age", chunk_size=chunk_size
        )
        assert written == (True, 3)
        assert await ages(session) == {1: 1, 2: 1, 3: 2, 4: 3, 5: 5}

    async def test_objects_get_the_result(self, session: AsyncSession) -> None:
        """No attribute of them is left to be loaded."""
        heroes = [a_hero(1, 4), a_hero(2, 5)]
        session.add_all(heroes)
        async with transaction(session):
            await session.flush()
            await bulk_update_rows(
                [1], {"age": func.abs(Hero.age - 9), "secret_name": "!"}, session, Hero
            )
            assert [(hero.age, hero.secret_name) for hero in heroes] == [(5, "!"), (5, "?")]

    async def test_versions_are_counted(self, session: AsyncSession) -> None:
        """SQL in the values counts versions up as every update does."""
        await given(session, Counter(id=1, value=3))
        written = await bulk_update_rows([1], {"value": Counter.value * 2}, session, Counter)
        assert written == (True, 1)
        [row] = await stored_rows(session, Counter)
        assert (row.value, row.version) == (6, 2)

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            ({"id": Hero.id + 1}, ValidationError),
            ({"agee": Hero.age + 1}, UnknownFieldError),
            ({"age": Team.id}, ValidationError),
        ],
    )
    async def test_mistakes_raise(
        self, session: AsyncSession, data: Any, error: type[Exception]
    ) -> None:
        """The key, a name that is not a field, a column of another model."""
        with pytest.raises(error):
            await bulk_update_rows([1], data, session, Hero)


class TestProgress:
    """Somebody may want to know how far it is."""

    async def test_each_chunk_is_told(self, session: AsyncSession) -> None:
        """With the number of keys that are done, and that of all."""
        await given(session, *(a_hero(n, n) for n in range(1, 6)))
        told: list[tuple[int, int | None]] = []

        def tell(done: int, total: int | None) -> None:
            told.append((done, total))

        keys = [1, 2, 2, 3, 99]
        await bulk_update_rows(keys, {"age": 1}, session, Hero, chunk_size=3, progress=tell)
        assert told == [(3, 4), (4, 4)]
        told.clear()
        await delete_rows_within_id_list(keys, session, Hero, chunk_size=2, progress=tell)
        assert told == [(2, 4), (4, 4)]

    @pytest.mark.parametrize("inside", [False, True])
    async def test_a_report_that_fails_undoes_everything(
        self, session: AsyncSession, inside: bool
    ) -> None:
        """A block is doomed, as some chunks are written."""
        await given(session, *(a_hero(n, n) for n in range(1, 4)))

        def fail(_done: int, _total: int | None) -> None:
            raise KeyError

        async def write() -> None:
            with pytest.raises(KeyError):
                await delete_rows_within_id_list([1, 2], session, Hero, chunk_size=1, progress=fail)

        if inside:
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write()
        else:
            await write()
        assert len(await ages(session)) == 3

    async def test_a_bar_is_shown(
        self, session: AsyncSession, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The bar names the model."""
        await given(session, a_hero(1, 1))
        await bulk_update_rows([1], {"age": 2}, session, Hero, progress=True)
        assert "Hero" in capsys.readouterr().err


async def test_a_row_that_somebody_restored_is_marked_again(engine: AsyncEngine) -> None:
    """Though the session remembers it as deleted; with hooks as without."""
    async with AsyncSession(engine, expire_on_commit=False) as session:
        player = Player(id=1, name="Ann", is_deleted=True)
        session.add(player)
        await session.commit()
        async with AsyncSession(engine) as other:
            (await other.get_one(Player, 1)).restore()
            await other.commit()
        with registered_hook(Player, Quiet()):
            assert await delete_rows_within_id_list([1], session, Player) == (True, 1)
        found = await execute(session, select(Player.is_deleted))
        assert [row[0] for row in found.all()] == [True]
