"""Time and actors through the functions of the library, on every database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from sqlmodel_crud_utils.aio import (
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    insert_data_rows,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.mixins import acting_as
from tests._runtime_async import AsyncSession, execute
from tests.models_mixins import Letter, Visit

Sessions = Callable[[], AsyncSession]
# Shortly before the clocks of Europe go forward, with microseconds.
MOMENT = dt.datetime(2025, 3, 30, 0, 59, 59, 123456, tzinfo=dt.UTC)
EAST = MOMENT.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
NAIVE = MOMENT.replace(tzinfo=None)


def is_now(moment: Any) -> bool:
    """Return whether a moment is aware, in UTC and seconds old at most."""
    age = dt.datetime.now(dt.UTC) - moment
    return moment.tzinfo is dt.UTC and abs(age) < dt.timedelta(seconds=5)


async def write(session: AsyncSession, **values: Any) -> Letter:
    """Write a letter with `write_row`."""
    _, row = await write_row(Letter(text="a", **values), session, raise_on_error=True)
    return row


async def insert_rows(session: AsyncSession, **values: Any) -> Letter:
    """Write a letter with `insert_data_rows`."""
    _, rows = await insert_data_rows([Letter(text="a", **values)], session, raise_on_error=True)
    return rows[0]


async def get_or_create(session: AsyncSession, **values: Any) -> Letter:
    """Write a letter with `get_one_or_create`."""
    row, _ = await get_one_or_create(session, Letter, values, text="a")
    return row


async def upsert(session: AsyncSession, **values: Any) -> Letter:
    """Write a letter with `bulk_upsert_mappings`."""
    rows = [{"id": 77, "text": "a", **values}]
    _, written = await bulk_upsert_mappings(rows, session, Letter)
    return written[0]


async def add(session: AsyncSession, **values: Any) -> Letter:
    """Write a letter oneself, in a block."""
    async with transaction(session):
        row = Letter(text="a", **values)
        session.add(row)
    await session.refresh(row)
    return row


async def core(session: AsyncSession, **values: Any) -> Letter:
    """Write a letter with the caller's own Core statement."""
    await execute(session, insert(Letter).values(text="a", **values))
    await session.commit()
    row: Letter = await get_result_from_query(select(Letter), session)
    return row


CREATING = [write, insert_rows, get_or_create, upsert, add, core]


async def update_it(session: AsyncSession, key: Any, **values: Any) -> None:
    """Change the letter with `update_row`."""
    await update_row(key, {"text": "b", **values}, session, Letter, raise_on_error=True)


async def write_again(session: AsyncSession, key: Any, **values: Any) -> None:
    """Change the object oneself and write it with `write_row`."""
    _, row = await get_row(key, session, Letter, raise_on_error=True)
    for name, value in {"text": "b", **values}.items():
        setattr(row, name, value)
    await write_row(row, session, raise_on_error=True)


async def upsert_it(session: AsyncSession, key: Any, **values: Any) -> None:
    """Change the letter with `bulk_upsert_mappings`."""
    await bulk_upsert_mappings([{"id": key, "text": "b", **values}], session, Letter)


async def change_in_block(session: AsyncSession, key: Any, **values: Any) -> None:
    """Change the object oneself, in a block."""
    async with transaction(session):
        _, row = await get_row(key, session, Letter, raise_on_error=True)
        for name, value in {"text": "b", **values}.items():
            setattr(row, name, value)


async def core_update(session: AsyncSession, key: Any, **values: Any) -> None:
    """Change the letter with the caller's own Core statement."""
    await execute(session, update(Letter).where(Letter.id == key).values(text="b", **values))
    await session.commit()


UPDATING = [update_it, write_again, upsert_it, change_in_block, core_update]


async def stored_letter(session_factory: Sessions) -> Letter:
    """Return the only letter as another session reads it."""
    _, [row] = await get_rows(session_factory(), Letter, include_deleted=True)
    return row


@pytest.mark.parametrize("create", CREATING)
async def test_new_rows(session: AsyncSession, session_factory: Sessions, create: Any):
    """They get the moment and the actor, and an explicit value wins."""
    with acting_as("alice"):
        row = await create(session)
    assert (row.created_by, row.updated_by, row.updated_at) == ("alice", None, None)
    assert is_now(row.created_at)
    found = await stored_letter(session_factory)
    assert (found.created_at, found.created_by) == (row.created_at, "alice")


@pytest.mark.parametrize("create", CREATING)
async def test_explicit_values_of_new_rows(
    session: AsyncSession, session_factory: Sessions, create: Any
):
    """They win, to the microsecond and in any time zone."""
    with acting_as("alice"):
        row = await create(session, created_at=EAST, created_by="importer")
    for each in (row, await stored_letter(session_factory)):
        assert (each.created_at, each.created_by) == (MOMENT, "importer")
        await session.refresh(row)
        assert row.created_at.tzinfo is dt.UTC


@pytest.mark.parametrize("change", UPDATING)
async def test_changed_rows(session: AsyncSession, session_factory: Sessions, change: Any):
    """They get the moment and the actor; when and by whom they were made stays."""
    with acting_as("alice"):
        row = await write(session)
    key, made = row.id, row.created_at
    with acting_as("bob"):
        await change(session, key)
    for found in ((await get_row(key, session, Letter))[1], await stored_letter(session_factory)):
        assert (found.text, found.created_at, found.created_by) == ("b", made, "alice")
        assert found.updated_by == "bob"
        assert is_now(found.updated_at)
        assert found.updated_at > made


@pytest.mark.parametrize("change", UPDATING)
async def test_explicit_values_of_changed_rows(
    session: AsyncSession, session_factory: Sessions, change: Any
):
    """They win, here too."""
    key = (await write(session)).id
    with acting_as("alice"):
        await change(session, key, updated_at=EAST, updated_by="importer")
    found = await stored_letter(session_factory)
    assert (found.text, found.updated_at, found.updated_by) == ("b", MOMENT, "importer")
    assert found.updated_at.tzinfo is dt.UTC


@pytest.mark.parametrize("delete", [delete_row, soft_delete_row])
async def test_deleted_and_restored_rows(
    session: AsyncSession, session_factory: Sessions, delete: Any
):
    """They carry the moment and the actor of both."""
    key = (await write(session)).id
    with acting_as("alice"):
        await delete(key, session, Letter)
    found = await stored_letter(session_factory)
    assert (found.deleted_by, found.updated_by, found.is_deleted) == ("alice", "alice", True)
    assert is_now(found.deleted_at)
    with acting_as("bob"):
        await restore_row(key, session, Letter)
    found = await stored_letter(session_factory)
    assert (found.deleted_at, found.deleted_by, found.updated_by) == (None, None, "bob")


async def test_nobody_is_named_outside_of_acting_as(session: AsyncSession):
    """The columns stay empty."""
    row = await write(session)
    await soft_delete_row(row.id, session, Letter)
    assert (row.created_by, row.updated_by, row.deleted_by) == (None, None, None)


async def test_filters_by_moments(session: AsyncSession):
    """In any zone, also as text; without an offset a text means UTC."""
    await write_row(Visit(until=EAST), session, raise_on_error=True)
    for until in (EAST, MOMENT, EAST.isoformat(), NAIVE.isoformat()):
        assert (await get_rows(session, Visit, until=until))[0] is True
        assert (await get_rows(session, Visit, until__gt=until))[0] is False
    before = MOMENT - dt.timedelta(microseconds=1)
    assert (await get_rows(session, Visit, until__between=(before, MOMENT)))[0] is True


async def test_naive_datetimes_are_refused(session: AsyncSession):
    """By every function, before anything is written."""
    key = (await write(session)).id
    for call in (
        lambda: write(session, created_at=NAIVE),
        lambda: update_row(key, {"updated_at": NAIVE}, session, Letter),
        lambda: bulk_upsert_mappings([{"id": key, "created_at": NAIVE}], session, Letter),
        lambda: get_one_or_create(session, Letter, {"created_at": NAIVE}, text="c"),
        lambda: get_rows(session, Letter, created_at__gt=NAIVE),
        lambda: get_one_or_create(session, Letter, created_at=NAIVE),
    ):
        with pytest.raises(ValidationError, match="time zone"):
            await call()
    _, [row] = await get_rows(session, Letter)
    assert (row.id, row.text, row.updated_at) == (key, "a", None)
