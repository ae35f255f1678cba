"""Updating a row that the session holds already, perhaps as it no longer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    bulk_update_rows,
    get_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConflictError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.rows import given, stored_rows
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.crud_models import Cabinet, Drawer, Prefs, TrackedPrefs
from tests.models import Hero, Team
from tests.models_mixins import Counter, Visit
from tests.recording import recorded

Opened = Callable[[], AsyncSession]
KINDS = ["data", "binary", "names", "pickled"]


@pytest.fixture
async def remembering(engine: AsyncEngine) -> Any:
    """A session whose rows stay loaded beyond its commits."""
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


def value_of(name: str) -> Any:
    """Return a value of a column of `Prefs` that can be changed in place."""
    return ["a"] if name == "names" else {"ui": {"theme": "light"}}


def change_in_place(value: Any) -> Any:
    """Change a value, and return it."""
    if isinstance(value, list):
        value.append("b")
    else:
        value["ui"]["theme"] = "dark"
    return value


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("copied", [False, True])
class TestValuesThatAreChangedInPlace:
    """The passed value is stored, although the session's row already has it."""

    async def test_outside_a_block(
        self, session: AsyncSession, remembering: AsyncSession, name: str, copied: bool
    ) -> None:
        """Whether the value itself is passed, or a shallow copy."""
        await given(session, Prefs(id=1, **{name: value_of(name)}))
        for number, each in enumerate((session, remembering), 1):
            await given(session, Prefs(id=number + 1, **{name: value_of(name)}))
            _, row = await get_row(number, each, Prefs)
            value = change_in_place(getattr(row, name))
            changes = {name: type(value)(value) if copied else value}
            assert await update_row(number, changes, each, Prefs) == (True, row)
            stored = (await stored_rows(session, Prefs))[number - 1]
            assert getattr(stored, name) == getattr(row, name) == change_in_place(value_of(name))

    async def test_in_a_block(self, session: AsyncSession, name: str, copied: bool) -> None:
        """The same in a transaction that has read the row."""
        await given(session, Prefs(id=1, **{name: value_of(name)}))
        async with transaction(session):
            _, row = await get_row(1, session, Prefs)
            value = change_in_place(getattr(row, name))
            await update_row(1, {name: type(value)(value) if copied else value}, session, Prefs)
        [stored] = await stored_rows(session, Prefs)
        assert getattr(stored, name) == change_in_place(value_of(name))


async def test_a_value_that_a_hook_changes_in_place(
    session: AsyncSession, remembering: AsyncSession
) -> None:
    """Is stored as well, by an update of one row and of many."""

    class Darken:
        def before_update(self, instance: Prefs, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "data": change_in_place(instance.data)}

    await given(session, Prefs(id=1, data=value_of("data")), Prefs(id=2, data=value_of("data")))
    with registered_hook(Prefs, Darken()):
        await update_row(1, {"name": "x"}, remembering, Prefs)
        await bulk_update_rows([2], {"name": "x"}, remembering, Prefs)
    assert [row.data for row in await stored_rows(session, Prefs)] == [
        {"ui": {"theme": "dark"}},
        {"ui": {"theme": "dark"}},
    ]


async def test_a_value_that_is_changed_in_place_of_a_row_with_versions(
    session: AsyncSession, remembering: AsyncSession
) -> None:
    """It is stored, and counts as a change."""
    await given(session, TrackedPrefs(id=1, data={"a": 1}))
    for each in (session, remembering):
        _, row = await get_row(1, each, TrackedPrefs)
        row.data["a"] += 1
        await update_row(1, {"data": row.data}, each, TrackedPrefs)
    [stored] = await stored_rows(session, TrackedPrefs)
    assert (stored.data, stored.version) == ({"a": 3}, 3)


class TestARowThatIsOutOfDate:
    """Somebody else has changed it since the session has read it."""

    @pytest.mark.parametrize("hooked", [False, True])
    async def test_a_value_that_the_session_shows_already(
        self, session: AsyncSession, remembering: AsyncSession, hooked: bool
    ) -> None:
        """The passed value is written, and the returned row has it."""
        await given(session, Hero(id=1, name="a", secret_name="?", age=5))
        _, row = await get_row(1, remembering, Hero)
        await update_row(1, {"age": 7}, session, Hero)

        class Quiet:
            def after_update(self, instance: Hero) -> None: ...

        if hooked:
            with registered_hook(Hero, Quiet()):
                assert await update_row(1, {"age": 5}, remembering, Hero) == (True, row)
                await update_row(1, {"age": 8}, session, Hero)
                assert await bulk_update_rows([1], {"age": 5}, remembering, Hero) == (True, 1)
        else:
            assert await update_row(1, {"age": 5}, remembering, Hero) == (True, row)
        assert row.age == 5
        [stored] = await stored_rows(session, Hero)
        assert stored.age == 5

    async def test_in_a_block(self, session: AsyncSession, remembering: AsyncSession) -> None:
        """The same in a transaction."""
        await given(session, Hero(id=1, name="a", secret_name="?", age=5))
        _, row = await get_row(1, remembering, Hero)
        await update_row(1, {"age": 7}, session, Hero)
        async with transaction(remembering):
            await update_row(1, {"age": 5}, remembering, Hero)
        [stored] = await stored_rows(session, Hero)
        assert stored.age == row.age == 5

    async def test_a_row_of_a_snapshot(
        self, session: AsyncSession, remembering: AsyncSession
    ) -> None:
        """A transaction with a snapshot of its first query writes the passed values."""
        await given(session, Hero(id=1, name="a", secret_name="?", age=5), Team(id=1, name="x"))
        await get_row(1, remembering, Team)
        await update_row(1, {"age": 7}, session, Hero)
        await update_row(1, {"age": 5}, remembering, Hero)
        [stored] = await stored_rows(session, Hero)
        assert stored.age == 5

    async def test_a_related_row(self, session: AsyncSession, remembering: AsyncSession) -> None:
        """A loaded relationship may be outdated like any value."""
        await given(session, Team(id=1, name="x"), Team(id=2, name="y"))
        await given(session, Hero(id=1, name="a", secret_name="?", team_id=1))
        _, row = await get_row(1, remembering, Hero, selectin=True, select_in_keys=["team"])
        await update_row(1, {"team_id": 2}, session, Hero)
        assert await update_row(1, {"team": row.team}, remembering, Hero) == (True, row)
        [stored] = await stored_rows(session, Hero)
        assert stored.team_id == row.team_id == 1

    async def test_related_rows(self, session: AsyncSession, remembering: AsyncSession) -> None:
        """A collection that is passed is all that there is afterwards."""
        await given(session, Cabinet(id=1, label="a", drawers=[Drawer(id=1, name="x")]))
        _, row = await get_row(1, remembering, Cabinet)
        await remembering.commit()
        await given(session, Drawer(id=2, name="y", cabinet_id=1))
        await update_row(1, {"drawers": list(row.drawers)}, remembering, Cabinet)
        assert [drawer.id for drawer in await stored_rows(session, Drawer)] == [1]

    async def test_what_was_not_passed(
        self, session: AsyncSession, remembering: AsyncSession
    ) -> None:
        """It stays as the database has it, and what is pending is written along."""
        await given(session, Hero(id=1, name="a", secret_name="?", age=5))
        _, row = await get_row(1, remembering, Hero)
        await update_row(1, {"age": 7}, session, Hero)
        row.secret_name = "pending"
        await update_row(1, {"name": "a"}, remembering, Hero)
        [stored] = await stored_rows(session, Hero)
        assert (stored.age, stored.secret_name) == (7, "pending")

    async def test_with_versions(self, session: AsyncSession, remembering: AsyncSession) -> None:
        """It is a conflict, whether the session shows the value already or not."""
        await given(session, Counter(id=1, value=5), Counter(id=2, value=5))
        for key, value in ((1, 5), (2, 6)):
            held = await get_row(key, remembering, Counter)
            await update_row(key, {"value": 7}, session, Counter)
            with pytest.raises(ConflictError) as conflict:
                await update_row(key, {"value": value}, remembering, Counter, raise_on_error=True)
            assert (conflict.value.expected, conflict.value.found) == (1, 2)
            assert held[0]
        assert [row.value for row in await stored_rows(session, Counter)] == [7, 7]


class TestAnUpdateThatChangesNothing:
    """It leaves stamps and versions alone, in every session."""

    async def test_stamps(
        self, session: AsyncSession, remembering: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Nothing says that the row was updated."""
        await given(session, Visit(id=1, place="a"))
        for each in (session, remembering):
            _, row = await get_row(1, each, Visit)
            with recorded(engine) as words:
                assert await update_row(1, {"place": "a"}, each, Visit) == (True, row)
            assert "UPDATE" not in words
            assert row.updated_at is None

    async def test_versions(self, session: AsyncSession, remembering: AsyncSession) -> None:
        """The version stays, JSON values that are equal included."""
        await given(session, TrackedPrefs(id=1, size=2, data={"a": [1]}))
        for each in (session, remembering):
            _, row = await get_row(1, each, TrackedPrefs)
            _, row = await update_row(1, {"size": 2, "data": {"a": [1]}}, each, TrackedPrefs)
            assert row is not None
            assert row.version == 1

    async def test_a_row_that_was_just_written(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It is read once, as the session need not be asked what it remembers."""
        _, row = await write_row(Visit(place="a"), session, raise_on_error=True)
        with recorded(engine) as words:
            await update_row(row.id, {"place": "a"}, session, Visit)
        assert words == ["SELECT", "COMMIT"]
