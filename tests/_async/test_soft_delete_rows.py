"""Soft-deleting rows, restoring them, and deleting them permanently."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import func, select, update

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    delete_row,
    delete_rows_within_id_list,
    get_row,
    get_rows,
    insert_data_rows,
    purge_rows,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    MultipleRecordsError,
    RecordNotFoundError,
    TransactionError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import given, stored_rows
from tests._runtime_async import AsyncEngine, AsyncSession, execute, first_of
from tests.models import Hero
from tests.models_mixins import Badge, Club, Letter, Membership, Parcel, Player, PlayerBadge
from tests.recording import recorded

Sessions = Callable[[], AsyncSession]
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


async def count(session: AsyncSession, model: Any) -> int:
    """Return how many rows the table has, deleted ones included."""
    found: int = first_of(await execute(session, select(func.count()).select_from(model)))
    return found


async def letter_of(session: AsyncSession, **values: Any) -> Letter:
    """Write a letter and return it."""
    _, letter = await write_row(Letter(text="a", **values), session, raise_on_error=True)
    return letter


# --- soft_delete_row and delete_row --------------------------------------------------------------


async def test_a_row_is_marked_and_stays_in_the_table(session: AsyncSession):
    """Both functions mark it; the row can be read at once, and its stamps are set."""
    for delete in (soft_delete_row, delete_row):
        letter = await letter_of(session)
        with acting_as("alice"):
            assert await delete(str(letter.id), session, Letter) is True
        assert (letter.is_deleted, letter.deleted_by, letter.updated_by) == (True, "alice", "alice")
        assert letter.deleted_at == letter.deleted_at.astimezone(dt.UTC) > NOW
        assert await get_row(letter.id, session, Letter) == (False, None)
    assert await count(session, Letter) == 2


async def test_an_explicit_name_wins(session: AsyncSession):
    """An explicit `deleted_by` overrides `acting_as`."""
    letter = await letter_of(session)
    with acting_as("alice"):
        await soft_delete_row(letter.id, session, Letter, deleted_by="bob")
    assert (letter.deleted_by, letter.updated_by) == ("bob", "alice")


async def test_a_deleted_row_is_not_found(session: AsyncSession):
    """Neither to delete it again nor to update it; its `deleted_by` stays."""
    letter = await letter_of(session)
    await soft_delete_row(letter.id, session, Letter, deleted_by="bob")
    assert await soft_delete_row(letter.id, session, Letter, deleted_by="eve") is False
    assert await delete_row(letter.id, session, Letter) is False
    assert await update_row(letter.id, {"text": "b"}, session, Letter) == (False, None)
    for call in (
        lambda: soft_delete_row(letter.id, session, Letter, raise_on_error=True),
        lambda: delete_row(letter.id, session, Letter, raise_on_error=True),
        lambda: update_row(letter.id, {"text": "b"}, session, Letter, raise_on_error=True),
    ):
        with pytest.raises(RecordNotFoundError):
            await call()
    _, found = await get_row(letter.id, session, Letter, include_deleted=True)
    assert (found.text, found.deleted_by) == ("a", "bob")


async def test_a_deleted_row_can_be_updated_on_request(session: AsyncSession):
    """It stays deleted."""
    letter = await letter_of(session)
    await soft_delete_row(letter.id, session, Letter)
    updated, row = await update_row(letter.id, {"text": "b"}, session, Letter, include_deleted=True)
    assert (updated, row.text, row.is_deleted) == (True, "b", True)


async def test_a_deleted_row_can_be_removed(session: AsyncSession):
    """`soft=False` finds rows that are marked, too."""
    letter = await letter_of(session)
    await soft_delete_row(letter.id, session, Letter)
    assert await delete_row(letter.id, session, Letter, soft=False) is True
    assert await count(session, Letter) == 0


async def test_models_without_the_mixin_are_refused(session: AsyncSession):
    """A mistake raises regardless of the flag."""
    for call in (
        lambda: soft_delete_row(1, session, Hero, raise_on_error=False),
        lambda: restore_row(1, session, Hero, raise_on_error=False),
        lambda: purge_rows(session, Hero, older_than=DAY),
        lambda: delete_row(1, session, Hero, soft=True, raise_on_error=False),
    ):
        with pytest.raises(ValidationError, match="rows of Hero cannot be soft-deleted; inherit"):
            await call()
    with pytest.raises(ValidationError, match="deleted_by is recorded by soft deletions only"):
        await delete_row(1, session, Letter, soft=False, deleted_by="bob")


async def test_composite_keys_and_other_key_fields(session: AsyncSession):
    """Keys are given as everywhere."""
    await insert_data_rows([Player(id=1, name="Ann"), Badge(id=1, label="gold")], session)
    await write_row(PlayerBadge(player_id=1, badge_id=1), session, raise_on_error=True)
    assert await soft_delete_row(("1", 1), session, PlayerBadge) is True
    assert await get_row((1, 1), session, PlayerBadge) == (False, None)
    assert (await restore_row((1, "1"), session, PlayerBadge))[0] is True
    assert (await get_row((1, 1), session, PlayerBadge))[0] is True
    assert await soft_delete_row("Ann", session, Player, "name") is True
    assert (await restore_row("Ann", session, Player, pk_field="name"))[0] is True


async def test_in_a_block(session: AsyncSession):
    """Not found raises, and a block that fails takes the mark back."""
    letter = await letter_of(session)
    key = letter.id
    with pytest.raises(TransactionError):
        async with transaction(session):
            assert await soft_delete_row(key, session, Letter) is True
            assert await get_row(key, session, Letter) == (False, None)
            with pytest.raises(RecordNotFoundError):
                await soft_delete_row(key, session, Letter)
            assert not await soft_delete_row(key, session, Letter, raise_on_error=False)
            raise ZeroDivisionError
    assert (await get_row(key, session, Letter))[0] is True
    async with transaction(session):
        await soft_delete_row(key, session, Letter)
        with pytest.raises(RecordNotFoundError):
            await restore_row(999, session, Letter)
        assert await restore_row(999, session, Letter, raise_on_error=False) == (False, None)
    assert (letter.is_deleted, await get_row(key, session, Letter)) == (True, (False, None))


async def test_a_row_that_the_session_remembers_otherwise(
    session: AsyncSession, session_factory: Sessions
):
    """The marks are written although the session's object seems to have them already."""
    letter = await letter_of(session)
    other = session_factory()
    await soft_delete_row(letter.id, other, Letter)
    assert letter.is_deleted is False
    assert (await restore_row(letter.id, session, Letter))[0] is True
    await other.rollback()
    found, theirs = await get_row(letter.id, other, Letter)
    assert (found, theirs.deleted_at) == (True, None)
    await other.rollback()
    await soft_delete_row(letter.id, session, Letter)
    await restore_row(letter.id, other, Letter)
    assert letter.is_deleted is True
    assert await soft_delete_row(letter.id, session, Letter) is True
    await other.rollback()
    assert await get_row(letter.id, other, Letter) == (False, None)


# --- restore_row ---------------------------------------------------------------------------------


async def test_a_restored_row_is_there_again(session: AsyncSession):
    """It is an update, with stamps and the actor."""
    letter = await letter_of(session)
    await soft_delete_row(letter.id, session, Letter, deleted_by="bob")
    deleted_at = letter.deleted_at
    with acting_as("carol"):
        restored, row = await restore_row(str(letter.id), session, Letter)
    assert (restored, row) == (True, letter)
    assert (row.is_deleted, row.deleted_at, row.deleted_by) == (False, None, None)
    assert row.updated_by == "carol"
    assert row.updated_at > deleted_at
    assert (await get_row(letter.id, session, Letter))[1] is letter


async def test_only_deleted_rows_are_found_to_restore(session: AsyncSession):
    """Neither an existing one, nor one that never was."""
    letter = await letter_of(session)
    assert await restore_row(letter.id, session, Letter) == (False, None)
    assert await restore_row(999, session, Letter) == (False, None)
    for key in (letter.id, 999):
        with pytest.raises(RecordNotFoundError):
            await restore_row(key, session, Letter, raise_on_error=True)


async def test_a_row_whose_value_is_taken_cannot_be_restored(session: AsyncSession):
    """The row is returned unchanged, or the error names the constraint."""
    _, old = await write_row(Membership(email="a@b", nick="old"), session, raise_on_error=True)
    key = old.id
    await soft_delete_row(key, session, Membership)
    await write_row(Membership(email="a@b", nick="new"), session, raise_on_error=True)
    restored, row = await restore_row(key, session, Membership)
    assert (restored, row.nick, row.is_deleted) == (False, "old", True)
    with pytest.raises(ConstraintViolationError) as caught:
        await restore_row(key, session, Membership, raise_on_error=True)
    assert (caught.value.kind, caught.value.columns) == ("unique", ("email",))
    await soft_delete_row("a@b", session, Membership, "email")
    with pytest.raises(MultipleRecordsError):
        await restore_row("a@b", session, Membership, "email")


async def test_hooks_run(session: AsyncSession):
    """A soft deletion runs the hooks of deletions, a restoration those of updates."""
    calls: list[Any] = []

    class Watch:
        def before_delete(self, instance: Any) -> None:
            calls.append(("before_delete", instance.is_deleted))

        def after_delete(self, instance: Any) -> None:
            calls.append(("after_delete", instance.is_deleted))

        def before_update(self, instance: Any, data: Any) -> dict[str, Any]:
            calls.append(("before_update", instance.is_deleted, data["is_deleted"]))
            return {**data, "text": "back"}

        def after_update(self, instance: Any) -> None:
            calls.append(("after_update", instance.is_deleted))

    letter = await letter_of(session)
    with registered_hook(Letter, Watch()):
        await soft_delete_row(letter.id, session, Letter)
        await restore_row(letter.id, session, Letter)
    assert calls == [
        ("before_delete", False),
        ("after_delete", True),
        ("before_update", True, False),
        ("after_update", False),
    ]
    assert letter.text == "back"


# --- purge_rows ----------------------------------------------------------------------------------


async def letters(session: AsyncSession, number: int, *, age: dt.timedelta) -> None:
    """Write letters that were deleted some time ago."""
    rows = [
        Letter(text=str(n), is_deleted=True, deleted_at=dt.datetime.now(dt.UTC) - age)
        for n in range(number)
    ]
    await insert_data_rows(rows, session, raise_on_error=True)


async def test_old_deleted_rows_are_removed_for_good(session: AsyncSession):
    """Visible rows, newer ones and those without a moment stay; the number is right."""
    await letters(session, 3, age=31 * DAY)
    await letters(session, 2, age=29 * DAY)
    await letter_of(session)
    await letter_of(session, is_deleted=True)
    assert await purge_rows(session, Letter, older_than=30 * DAY) == 3
    assert await count(session, Letter) == 4
    assert await purge_rows(session, Letter, older_than=30 * DAY) == 0
    before = dt.datetime.now(dt.timezone(dt.timedelta(hours=9))) - 28 * DAY
    assert await purge_rows(session, Letter, older_than=before) == 2
    assert await count(session, Letter) == 2
    await session.rollback()
    assert await count(session, Letter) == 2


@pytest.mark.parametrize("size", [1, 3, 7, 8, None])
async def test_rows_are_removed_in_chunks(engine: AsyncEngine, session: AsyncSession, size: Any):
    """Of any size, with one commit."""
    await letters(session, 7, age=DAY)
    with recorded(engine) as words:
        assert await purge_rows(session, Letter, older_than=dt.timedelta(0), chunk_size=size) == 7
    assert words.count("COMMIT") == 1
    assert await count(session, Letter) == 0


async def test_composite_keys_are_purged(session: AsyncSession):
    """Rows of a table that consists of its key."""
    await insert_data_rows([Player(id=n, name="x") for n in (1, 2, 3)], session)
    await write_row(Badge(id=1, label="gold"), session)
    gone = {"is_deleted": True, "deleted_at": NOW - DAY}
    links = [PlayerBadge(player_id=n, badge_id=1, **gone) for n in (1, 2)]
    links.append(PlayerBadge(player_id=3, badge_id=1))
    await insert_data_rows(links, session, raise_on_error=True)
    assert await purge_rows(session, PlayerBadge, older_than=dt.timedelta(0), chunk_size=1) == 2
    assert await count(session, PlayerBadge) == 1


async def test_links_go_with_the_rows(session: AsyncSession):
    """A row is removed with its rows in link tables; those of other rows stay."""
    await insert_data_rows([Player(id=n, name="x") for n in (1, 2)], session)
    await insert_data_rows([Badge(id=n, label="gold") for n in (1, 2)], session)
    links = [PlayerBadge(player_id=p, badge_id=b) for p in (1, 2) for b in (1, 2)]
    await insert_data_rows(links, session, raise_on_error=True)
    await soft_delete_row(1, session, Player)
    assert await purge_rows(session, Player, older_than=dt.timedelta(0)) == 1
    _, rows = await get_rows(session, PlayerBadge)
    assert sorted((row.player_id, row.badge_id) for row in rows) == [(2, 1), (2, 2)]


async def test_rows_that_others_refer_to_are_kept(session: AsyncSession):
    """The error says why, and nothing is removed; the session can go on."""
    await insert_data_rows([Club(id=1, name="Reds"), Club(id=2, name="Blues")], session)
    await write_row(Player(id=1, name="Ann", club_id=2), session, raise_on_error=True)
    await soft_delete_row(1, session, Club)
    await soft_delete_row(2, session, Club)
    with pytest.raises(ConstraintViolationError) as caught:
        await purge_rows(session, Club, older_than=dt.timedelta(0), chunk_size=1)
    assert caught.value.kind == "foreign_key"
    assert await count(session, Club) == 2
    await soft_delete_row(1, session, Player)
    assert await purge_rows(session, Player, older_than=dt.timedelta(0)) == 1
    assert await purge_rows(session, Club, older_than=dt.timedelta(0)) == 2


async def test_purging_takes_part_in_a_block(session: AsyncSession):
    """Rows that a failing block removed are restored, in the session too."""
    letter = await letter_of(session)
    key = letter.id
    with pytest.raises(TransactionError):
        async with transaction(session):
            await soft_delete_row(key, session, Letter)
            assert await purge_rows(session, Letter, older_than=dt.timedelta(0)) == 1
            assert await get_row(key, session, Letter, include_deleted=True) == (False, None)
            raise ZeroDivisionError
    assert await get_row(key, session, Letter) == (True, letter)


async def test_objects_of_purged_rows_leave_the_session(session: AsyncSession):
    """Pending changes are flushed first, even without autoflush."""
    parcel = Parcel(code="a")
    session.add(parcel)
    await session.commit()
    await session.refresh(parcel)
    with session.no_autoflush:
        parcel.soft_delete()
        assert await purge_rows(session, Parcel, older_than=dt.timedelta(0)) == 1
    assert parcel not in session


@pytest.mark.parametrize(
    "older_than",
    [
        NOW.replace(tzinfo=None),
        -DAY,
        30,
        None,
        dt.date(2025, 1, 1),
        "30 days",
        dt.timedelta(days=999_999_999),
    ],
)
async def test_a_wrong_time_is_refused(session: AsyncSession, older_than: Any):
    """A naive datetime above all."""
    with pytest.raises(ValidationError, match="older_than"):
        await purge_rows(session, Letter, older_than=older_than)


async def test_a_wrong_chunk_size_is_refused(session: AsyncSession):
    """As everywhere."""
    with pytest.raises(ValidationError, match="chunk_size"):
        await purge_rows(session, Letter, older_than=DAY, chunk_size=0)


async def test_a_row_that_is_restored_meanwhile_stays(
    session: AsyncSession, session_factory: Sessions
):
    """The rows are chosen by what the database has, not by what the session remembers."""
    letter = await letter_of(session)
    await soft_delete_row(letter.id, session, Letter)
    other = session_factory()
    visible = {"is_deleted": False, "deleted_at": None}
    await execute(other, update(Letter).values(visible))
    await other.commit()
    assert await purge_rows(session, Letter, older_than=dt.timedelta(0)) == 0
    assert await count(session, Letter) == 1


@pytest.mark.parametrize("hooked", [False, True])
async def test_rows_that_the_session_remembers_as_deleted(
    engine: AsyncEngine, session: AsyncSession, hooked: bool
) -> None:
    """Somebody else has restored them: a deletion marks them again, alone or from a list."""

    class Quiet:
        def after_delete(self, instance: Letter) -> None:
            assert instance.is_deleted

    await given(session, Letter(id=1, text="a"), Letter(id=2, text="b"))
    async with AsyncSession(engine, expire_on_commit=False) as remembering:
        held = [(await get_row(key, remembering, Letter))[1] for key in (1, 2)]
        await delete_rows_within_id_list([1, 2], remembering, Letter)
        for row in held:
            await restore_row(row.id, session, Letter)
        with registered_hook(Letter, Quiet()) if hooked else nullcontext():
            assert await delete_row(1, remembering, Letter)
            assert await delete_rows_within_id_list([2], remembering, Letter) == (True, 1)
    assert await get_rows(session, Letter) == (False, [])


@pytest.mark.parametrize("held", [False, True])
async def test_links_to_deleted_rows_stay_or_are_kept(session: AsyncSession, held: bool):
    """A list of related rows may hold deleted ones; those that it leaves out stay linked, too."""
    await given(
        session,
        *(Badge(id=n, label=f"b{n}", is_deleted=n in {2, 3}) for n in (1, 2, 3, 4, 5)),
        Player(id=1, name="Ann"),
    )
    await given(session, *(PlayerBadge(player_id=1, badge_id=n) for n in (1, 2, 3)))
    if held:
        assert (await QueryBuilder(session, Player).selectin("badges").one()).badges
    _, badges = await get_rows(session, Badge, include_deleted=True, id__in=[2, 4, 5])
    async with transaction(session):
        _, player = await update_row(1, {"badges": badges}, session, Player)
        assert player is not None
        assert {badge.id for badge in player.badges} == {2, 4, 5}
    assert [link.badge_id for link in await stored_rows(session, PlayerBadge)] == [2, 3, 4, 5]
