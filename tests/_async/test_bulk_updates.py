"""The same changes for many rows, on every database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import bulk_update_rows, transaction
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import given, stored_rows
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.bulk_models import Sealed, Truck
from tests.models import Account, Currency, Document, Hero, Seat
from tests.models_mixins import Counter, Membership, Parcel, Player, Revision
from tests.recording import recorded


async def heroes(session: AsyncSession, count: int = 3) -> list[int]:
    """Write heroes and return their keys."""
    await given(
        session, *(Hero(id=i, name=f"hero {i}", secret_name="?") for i in range(1, count + 1))
    )
    return list(range(1, count + 1))


class TestWhatIsWritten:
    """Rows, values and the count."""

    async def test_the_listed_rows_are_updated(self, session: AsyncSession) -> None:
        """And no others; the count is that of the existing rows."""
        await heroes(session)
        assert await bulk_update_rows([1, "2", 2, 99, None], {"age": "48"}, session, Hero) == (
            True,
            2,
        )
        assert [hero.age for hero in await stored_rows(session, Hero)] == [48, 48, None]

    async def test_rows_that_have_the_values_already_count(self, session: AsyncSession) -> None:
        """Matched rows count, on MySQL too."""
        ids = await heroes(session)
        await bulk_update_rows(ids, {"age": 5}, session, Hero)
        assert await bulk_update_rows(ids, {"age": 5}, session, Hero) == (True, 3)

    async def test_keys_may_come_from_a_generator(self, session: AsyncSession) -> None:
        """Any iterable will do, an empty one too."""
        ids = await heroes(session)
        assert await bulk_update_rows((i for i in ids), {"age": 1}, session, Hero) == (True, 3)
        assert await bulk_update_rows(iter(()), {"age": 2}, session, Hero) == (True, 0)

    async def test_only_the_set_fields_of_an_object_are_written(
        self, session: AsyncSession
    ) -> None:
        """A PATCH of many rows resets nothing."""
        ids = await heroes(session)

        class Patch(SQLModel):
            name: str | None = None
            age: int | None = None

        await bulk_update_rows(ids, Patch(age=3), session, Hero)
        assert [hero.name for hero in await stored_rows(session, Hero)] == [
            f"hero {i}" for i in ids
        ]

    async def test_without_changes_the_rows_are_only_counted(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """An empty PATCH stamps nothing."""
        ids = await heroes(session)
        with recorded(engine) as words:
            assert await bulk_update_rows([*ids, 99], {}, session, Hero) == (True, 3)
        assert "UPDATE" not in words

    async def test_large_lists_go_in_chunks(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A chunk per statement, all in one transaction."""
        ids = await heroes(session, 10)
        with recorded(engine) as words:
            result = await bulk_update_rows(ids, {"age": 1}, session, Hero, chunk_size=4)
        assert result == (True, 10)
        assert words.count("UPDATE") == 3
        assert words.count("COMMIT") == 1

    async def test_lists_beyond_every_bind_limit(self, session: AsyncSession) -> None:
        """70,000 keys, most of them without a row."""
        await heroes(session)
        assert await bulk_update_rows(range(70_000), {"age": 1}, session, Hero) == (True, 3)

    async def test_composite_and_other_keys(self, session: AsyncSession) -> None:
        """Composite keys are tuples; other unique keys are named; UUIDs may be strings."""
        document = Document(title="a")
        key = str(document.id)
        await given(session, Seat(row="A", number=1), Seat(row="A", number=2), document)
        await given(session, Currency(code="EUR", name="Euro"), Hero(name="Rusty", secret_name="?"))
        seats = [("A", "1"), ("B", 1)]
        assert await bulk_update_rows(seats, {"guest": "Ann"}, session, Seat) == (True, 1)
        assert await bulk_update_rows([key], {"title": "b"}, session, Document) == (True, 1)
        assert await bulk_update_rows(["EUR"], {"numeric": 978}, session, Currency) == (True, 1)
        assert await bulk_update_rows(["Rusty"], {"age": 1}, session, Hero, "name") == (True, 1)


class TestStamps:
    """Stamps that an update writes automatically."""

    async def test_stamps_and_versions(self, session: AsyncSession) -> None:
        """`updated_at`, `updated_by` and `version` are those of an update."""
        parcels = [Parcel(code="a"), Parcel(code="b")]
        ids = [parcel.id for parcel in parcels]
        await given(session, *parcels)
        with acting_as("alice"):
            await bulk_update_rows(ids, {"size": 2}, session, Parcel, chunk_size=1)
        for parcel in await stored_rows(session, Parcel):
            assert parcel.updated_at is not None
            assert (parcel.updated_by, parcel.version, parcel.size) == ("alice", 2, 2)

    async def test_a_version_of_the_models_own(self, session: AsyncSession) -> None:
        """A version column that is not the mixin's is counted up too."""
        await given(session, Revision(id=1))
        await bulk_update_rows([1], {"version": 9}, session, Revision)
        assert [row.revision for row in await stored_rows(session, Revision)] == [2]

    async def test_a_version_that_the_database_makes(self, session: AsyncSession) -> None:
        """It is left to the database."""
        await given(session, Sealed(id=1))
        assert await bulk_update_rows([1], {"note": "x"}, session, Sealed) == (True, 1)
        assert [(row.seal, row.note) for row in await stored_rows(session, Sealed)] == [(1, "x")]

    async def test_hidden_rows_are_left_alone(self, session: AsyncSession) -> None:
        """A soft-deleted row is not there."""
        await given(session, Player(id=1, name="a"), Player(id=2, name="b", is_deleted=True))
        assert await bulk_update_rows([1, 2], {"name": "c"}, session, Player) == (True, 1)
        assert [player.name for player in await stored_rows(session, Player)] == ["c", "b"]

    async def test_a_key_that_is_unique_among_visible_rows(self, session: AsyncSession) -> None:
        """It names one row, as hidden ones don't count."""
        await given(
            session,
            Membership(id=1, email="a@b", nick="old", is_deleted=True),
            Membership(id=2, email="a@b", nick="new"),
        )
        result = await bulk_update_rows(["a@b"], {"realm": "x"}, session, Membership, "email")
        assert result == (True, 1)


class TestTheSession:
    """Its objects match the database."""

    async def test_held_objects_get_the_values(
        self, session_factory: Callable[[], AsyncSession]
    ) -> None:
        """Inside a block they can be read at once, versions included."""
        session = session_factory()
        counter = Counter(id=1)
        session.add(counter)
        await session.commit()
        await session.refresh(counter)
        async with transaction(session):
            await bulk_update_rows([1], {"value": 5}, session, Counter)
            assert (counter.value, counter.version) == (5, 2)
            counter.value = 6  # no conflict with its own row
        assert [row.version for row in await stored_rows(session, Counter)] == [3]

    async def test_pending_changes_are_written_first(self, session: AsyncSession) -> None:
        """New rows are among the existing ones."""
        session.add(Hero(id=1, name="Rusty", secret_name="?"))
        assert await bulk_update_rows([1], {"age": 5}, session, Hero) == (True, 1)

    async def test_takes_part_in_a_block(self, session: AsyncSession) -> None:
        """Its updates are rolled back with the block."""
        ids = await heroes(session)
        with pytest.raises(TransactionError):
            async with transaction(session):
                await bulk_update_rows(ids, {"age": 5}, session, Hero)
                raise RuntimeError
        assert {hero.age for hero in await stored_rows(session, Hero)} == {None}


class TestFailures:
    """All or nothing."""

    async def test_a_broken_constraint_leaves_no_row(self, session: AsyncSession) -> None:
        """The chunks before the failing one are undone too."""
        await given(session, *(Account(id=i, owner="x", balance=5) for i in range(1, 5)))
        with pytest.raises(ConstraintViolationError):
            await bulk_update_rows([1, 2], {"balance": -1}, session, Account)
        await heroes(session)
        with pytest.raises(ConstraintViolationError) as caught:
            await bulk_update_rows([1, 2], {"name": "same"}, session, Hero, chunk_size=1)
        assert caught.value.kind == "unique"
        assert next(hero.name for hero in await stored_rows(session, Hero)) == "hero 1"
        assert {account.balance for account in await stored_rows(session, Account)} == {5}

    async def test_a_failure_dooms_the_block(self, session: AsyncSession) -> None:
        """A refused update dooms its block, even if the error is caught inside."""
        await heroes(session)
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(ConstraintViolationError):
                    await bulk_update_rows([1, 2], {"name": "same"}, session, Hero, chunk_size=1)
        assert next(hero.name for hero in await stored_rows(session, Hero)) == "hero 1"

    @pytest.mark.parametrize(
        ("keys", "data", "options"),
        [
            ([1], {"age": "old"}, {}),
            ([1], {"id": 5}, {}),
            (["x"], {"age": 5}, {}),
            ("12", {"age": 5}, {}),
            (["x"], {"name": "x"}, {"pk_field": "age"}),
            ([1], {"age": 5}, {"progress": "yes"}),
            ([1], {"age": 5}, {"chunk_size": 0}),
            ([1], [5], {}),
        ],
    )
    async def test_mistakes_raise(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        keys: Any,
        data: Any,
        options: dict[str, Any],
    ) -> None:
        """A caller's mistake raises before anything is executed."""
        with recorded(engine) as words, pytest.raises(ValidationError):
            await bulk_update_rows(keys, data, session, Hero, **options)
        assert words == []

    async def test_more_mistakes(self, session: AsyncSession) -> None:
        """Unknown fields, relationships and versions are refused."""
        with pytest.raises(UnknownFieldError):
            await bulk_update_rows([1], {"agee": 5}, session, Hero)
        with pytest.raises(UnknownFieldError):
            await bulk_update_rows([1], {"team": None}, session, Hero)
        with pytest.raises(ValidationError):
            await bulk_update_rows([1], {"version": 5}, session, Counter)


class Note:
    """A hook that notes its calls, and may raise."""

    def __init__(self, fails_at: str = "") -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails_at = fails_at

    def before_update(self, instance: Any, data: dict[str, Any]) -> dict[str, Any]:
        """Note the call, and change what is written."""
        self.calls.append(("before", instance.name))
        return data | {"secret_name": f"was {instance.name}"}

    def after_update(self, instance: Any) -> None:
        """Note the call."""
        self.calls.append(("after", instance.name))
        if instance.name == self.fails_at:
            raise RuntimeError


class TestRowByRow:
    """Updates that must handle each row individually."""

    async def test_hooks_run_per_row(self, session: AsyncSession) -> None:
        """In the order of the keys, and what they return is written."""
        await heroes(session)
        note = Note()
        with registered_hook(Hero, note):
            assert await bulk_update_rows([3, 1, 9], {"age": 4}, session, Hero) == (True, 2)
        assert note.calls == [
            (when, name) for name in ("hero 3", "hero 1") for when in ("before", "after")
        ]
        assert [hero.secret_name for hero in await stored_rows(session, Hero)] == [
            "was hero 1",
            "?",
            "was hero 3",
        ]

    async def test_a_hook_that_raises_undoes_all(self, session: AsyncSession) -> None:
        """A hook's own exception propagates, and no row is updated."""
        ids = await heroes(session)
        with registered_hook(Hero, Note(fails_at="hero 3")), pytest.raises(RuntimeError):
            await bulk_update_rows(ids, {"age": 4}, session, Hero, chunk_size=1)
        assert {hero.age for hero in await stored_rows(session, Hero)} == {None}

    async def test_rows_in_several_tables(self, session: AsyncSession) -> None:
        """One statement could not reach both."""
        await given(session, Truck(id=1, name="a", load=1), Truck(id=2, name="b", load=1))
        result = await bulk_update_rows([1, 2], {"name": "c", "load": 5}, session, Truck)
        assert result == (True, 2)
        assert [(t.name, t.load) for t in await stored_rows(session, Truck)] == [("c", 5), ("c", 5)]
