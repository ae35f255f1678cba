"""Many rows deleted by their keys, on every database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import inspect, select

from sqlmodel_crud_utils.aio import delete_rows_within_id_list, transaction
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import count_of, given, stored_rows
from tests._runtime_async import AsyncEngine, AsyncSession, execute, fetched, sync_session
from tests.bulk_models import Truck, Vehicle
from tests.crud_models import Dock, Warehouse
from tests.models import Document, Hero, HeroTag, Seat, Tag
from tests.models_mixins import Badge, Membership, Parcel, Player, PlayerBadge
from tests.recording import recorded


def heroes(count: int) -> list[Hero]:
    """Return new heroes with the keys 1, 2 and so on."""
    return [Hero(id=i, name=f"hero {i}", secret_name="?") for i in range(1, count + 1)]


class TestRemoved:
    """Rows of models without the mixin, or with `soft=False`."""

    async def test_the_listed_rows_are_removed(self, session: AsyncSession) -> None:
        """And no others; the count is the number of existing rows."""
        await given(session, *heroes(3))
        result = await delete_rows_within_id_list([1, "2", 2, 99, None], session, Hero)
        assert result == (True, 2)
        assert [hero.id for hero in await stored_rows(session, Hero)] == [3]

    async def test_nothing_listed(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """An empty iterable costs no statement."""
        with recorded(engine) as words:
            assert await delete_rows_within_id_list(iter(()), session, Hero) == (True, 0)
        assert words == []

    async def test_large_lists_go_in_chunks(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A chunk per statement, all in one transaction."""
        await given(session, *heroes(10))
        with recorded(engine) as words:
            result = await delete_rows_within_id_list(range(20), session, Hero, chunk_size=7)
        assert result == (True, 10)
        assert words.count("COMMIT") == 1
        assert await count_of(session, Hero) == 0

    async def test_lists_beyond_every_bind_limit(self, session: AsyncSession) -> None:
        """70,000 keys, most of them without a row."""
        await given(session, *heroes(3))
        assert await delete_rows_within_id_list(range(70_000), session, Hero) == (True, 3)

    async def test_composite_and_other_keys(self, session: AsyncSession) -> None:
        """Composite keys are tuples; unique keys are named; UUIDs may be strings."""
        document = Document(title="a")
        key = str(document.id)
        await given(session, Seat(row="A", number=1), Seat(row="A", number=2), document, *heroes(2))
        seats = [("A", "1"), ("B", 1)]
        assert await delete_rows_within_id_list(seats, session, Seat) == (True, 1)
        assert await delete_rows_within_id_list([key], session, Document) == (True, 1)
        assert await delete_rows_within_id_list(["hero 1"], session, Hero, "name") == (True, 1)
        assert [hero.id for hero in await stored_rows(session, Hero)] == [2]

    async def test_links_go_with_the_rows(self, session: AsyncSession) -> None:
        """The links of deleted rows go, as with `delete_row`; those of other rows stay."""
        first, second = heroes(2)
        tag = Tag(id=1, label="x")
        first.tags, second.tags = [tag], [tag]
        await given(session, first, second)
        assert await delete_rows_within_id_list(["hero 1"], session, Hero, "name") == (True, 1)
        assert [link.hero_id for link in await stored_rows(session, HeroTag)] == [2]

    async def test_soft_false_removes_marked_rows_too(self, session: AsyncSession) -> None:
        """`soft=False` removes marked rows with their links, by the primary key."""
        player = Player(id=1, name="a", is_deleted=True)
        player.badges = [Badge(id=1, label="x")]
        await given(session, player, Player(id=2, name="b"))
        result = await delete_rows_within_id_list([1, 2], session, Player, soft=False)
        assert result == (True, 2)
        assert await count_of(session, PlayerBadge) == 0


class TestMarked:
    """Rows of models with `SoftDeleteMixin`."""

    async def test_rows_are_marked(self, session: AsyncSession) -> None:
        """With actor and time, an update's stamps, and a new version."""
        parcels = [Parcel(code="a"), Parcel(code="b")]
        ids = [parcel.id for parcel in parcels]
        await given(session, *parcels)
        with acting_as("alice"):
            assert await delete_rows_within_id_list(ids, session, Parcel) == (True, 2)
        for parcel in await stored_rows(session, Parcel):
            assert parcel.is_deleted
            assert parcel.deleted_at is not None
            assert (parcel.deleted_by, parcel.updated_by, parcel.version) == ("alice", "alice", 2)

    async def test_marked_rows_stay_as_they_are(self, session: AsyncSession) -> None:
        """They don't count, and keep their `deleted_by`."""
        await given(
            session,
            Player(id=1, name="a", is_deleted=True, deleted_by="bob"),
            Player(id=2, name="b"),
        )
        result = await delete_rows_within_id_list([1, 2], session, Player, deleted_by="eve")
        assert result == (True, 1)
        assert [player.deleted_by for player in await stored_rows(session, Player)] == [
            "bob",
            "eve",
        ]

    async def test_a_key_that_is_unique_among_visible_rows(self, session: AsyncSession) -> None:
        """It names one row to mark, and maybe many to remove."""
        await given(
            session,
            Membership(id=1, email="a@b", nick="old", is_deleted=True),
            Membership(id=2, email="a@b", nick="new"),
        )
        mails = ["a@b"]
        assert await delete_rows_within_id_list(mails, session, Membership, "email") == (True, 1)
        assert await count_of(session, Membership) == 2
        removed = await delete_rows_within_id_list(mails, session, Membership, "email", soft=False)
        assert removed == (True, 2)


class TestTheSession:
    """Nothing stays behind in it."""

    @pytest.mark.parametrize("inside", [False, True])
    async def test_removed_objects_leave_the_session(
        self, session: AsyncSession, inside: bool
    ) -> None:
        """They are no longer persistent; inside a block, immediately."""
        await given(session, *heroes(2))
        held = fetched(await execute(session, select(Hero).order_by("id")))
        if inside:
            async with transaction(session):
                await delete_rows_within_id_list([1], session, Hero)
                assert not inspect(held[0]).persistent
        else:
            await delete_rows_within_id_list([1], session, Hero)
        assert not inspect(held[0]).persistent
        assert inspect(held[1]).persistent
        assert held[0] not in sync_session(session)

    async def test_marked_objects_know_it(self, session: AsyncSession) -> None:
        """Their marks can be read at once."""
        await given(session, Player(id=1, name="a"))
        player = fetched(await execute(session, select(Player)))[0]
        async with transaction(session):
            await delete_rows_within_id_list([1], session, Player, deleted_by="eve")
            assert (player.is_deleted, player.deleted_by) == (True, "eve")

    async def test_takes_part_in_a_block(self, session: AsyncSession) -> None:
        """If the block fails, deleted rows are restored, and pending ones undone."""
        await given(session, *heroes(2))
        with pytest.raises(TransactionError):
            async with transaction(session):
                session.add(Hero(id=3, name="new", secret_name="?"))
                assert await delete_rows_within_id_list([1, 2, 3], session, Hero) == (True, 3)
                raise RuntimeError
        assert await count_of(session, Hero) == 2


class TestFailures:
    """All or nothing."""

    async def test_a_row_that_others_refer_to(self, session: AsyncSession) -> None:
        """It keeps all rows, those of the chunks before too."""
        await given(session, Warehouse(code="A"), Warehouse(code="B"))
        await given(session, Dock(warehouse_code="B"))
        with pytest.raises(ConstraintViolationError) as caught:
            await delete_rows_within_id_list(["A", "B"], session, Warehouse, chunk_size=1)
        assert caught.value.kind == "foreign_key"
        assert await count_of(session, Warehouse) == 2

    async def test_a_failure_dooms_the_block(self, session: AsyncSession) -> None:
        """A refused delete dooms its block, even if the error is caught inside."""
        await given(session, Warehouse(code="A"), Warehouse(code="B"))
        await given(session, Dock(warehouse_code="B"))
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(ConstraintViolationError):
                    await delete_rows_within_id_list(["A", "B"], session, Warehouse, chunk_size=1)
        assert await count_of(session, Warehouse) == 2

    @pytest.mark.parametrize(
        ("keys", "options"),
        [
            (["x"], {}),
            ("12", {}),
            (["x"], {"pk_field": "age"}),
            ([1], {"pk_field": "nmae"}),
            ([1], {"soft": True}),
            ([1], {"deleted_by": "eve"}),
            ([1], {"chunk_size": -1}),
        ],
    )
    async def test_mistakes_raise(
        self, session: AsyncSession, engine: AsyncEngine, keys: Any, options: dict[str, Any]
    ) -> None:
        """A caller's mistake raises before anything is executed."""
        with recorded(engine) as words, pytest.raises(ValidationError):
            await delete_rows_within_id_list(keys, session, Hero, **options)
        assert words == []


class Note:
    """A hook that notes its calls, and may raise."""

    def __init__(self, fails_at: str = "") -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails_at = fails_at

    def before_delete(self, instance: Any) -> None:
        """Note the call."""
        self.calls.append(("before", instance.name))

    def after_delete(self, instance: Any) -> None:
        """Note the call."""
        self.calls.append(("after", instance.name))
        if instance.name == self.fails_at:
            raise RuntimeError


class TestRowByRow:
    """Deletions that must handle each row individually."""

    @pytest.mark.parametrize("soft", [False, True])
    async def test_hooks_run_per_row(self, session: AsyncSession, soft: bool) -> None:
        """In the order of the keys, for marked rows too."""
        await given(session, *(Player(id=i, name=f"player {i}") for i in (1, 2, 3)))
        note = Note()
        with registered_hook(Player, note):
            result = await delete_rows_within_id_list([3, 1, 9], session, Player, soft=soft)
        assert result == (True, 2)
        assert note.calls == [
            (when, name) for name in ("player 3", "player 1") for when in ("before", "after")
        ]
        marks = [(player.id, player.is_deleted) for player in await stored_rows(session, Player)]
        assert marks == ([(1, True), (2, False), (3, True)] if soft else [(2, False)])

    async def test_a_hook_that_raises_undoes_all(self, session: AsyncSession) -> None:
        """A hook's own exception propagates, and no row is deleted."""
        await given(session, *heroes(3))
        with registered_hook(Hero, Note(fails_at="hero 3")), pytest.raises(RuntimeError):
            await delete_rows_within_id_list([1, 2, 3], session, Hero, chunk_size=1)
        assert await count_of(session, Hero) == 3

    async def test_rows_in_several_tables(self, session: AsyncSession) -> None:
        """One statement could not reach both."""
        await given(session, Truck(id=1, name="a", load=1), Truck(id=2, name="b", load=1))
        assert await delete_rows_within_id_list([1], session, Truck) == (True, 1)
        assert [row.id for row in await stored_rows(session, Vehicle)] == [2]
