"""The mixins' columns in flushes and statements, on every database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Table, delete, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, transaction, write_row
from sqlmodel_crud_utils.exceptions import ConstraintViolationError, ValidationError
from sqlmodel_crud_utils.mixins import acting_as
from tests._runtime_async import AsyncSession, execute, fetched, run_sync
from tests.databases import Database
from tests.models_mixins import Counter, Membership, Memo, Parcel, Revision, Visit

Sessions = Callable[[], AsyncSession]

VISITS: Table = Visit.__table__  # type: ignore[attr-defined]
MEMOS: Table = Memo.__table__  # type: ignore[attr-defined]
SECOND = dt.timedelta(seconds=1)
MOMENT = dt.datetime(2025, 3, 30, 1, 59, 59, 123456, tzinfo=dt.UTC)
FAR_ZONES = {
    "postgresql": "SET TIME ZONE 'Asia/Tokyo'",
    "mysql": "SET time_zone = '+05:30'",
    "sqlite": "SELECT 1",
}


async def only(session: AsyncSession, statement: Any) -> Any:
    """Return the one row, or value, of a statement."""
    [row] = fetched(await execute(session, statement))
    return row


def is_now(moment: dt.datetime | None) -> bool:
    """Return whether a moment is aware, in UTC and a second old at most."""
    now = dt.datetime.now(dt.UTC)
    return moment is not None and moment.tzinfo is dt.UTC and abs(now - moment) < SECOND


# --- time ----------------------------------------------------------------------------------------


async def test_moments_come_back_as_they_went_in(session: AsyncSession):
    """With microseconds, in UTC, from any time zone."""
    east = MOMENT.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    visit = Visit(created_at=east, until=east)
    session.add(visit)
    await session.commit()
    await session.refresh(visit)
    assert visit.created_at == visit.until == MOMENT
    assert visit.created_at.tzinfo is dt.UTC
    assert await only(session, select(Visit.until).where(Visit.until == east)) == MOMENT
    later = select(Visit.id).where(Visit.until > MOMENT - dt.timedelta(microseconds=1))
    assert await only(session, later) == visit.id
    # Some drivers send parameters as text, others as they are; sorting must not care.
    session.add(Visit(until=MOMENT + SECOND))
    await session.commit()
    moments = fetched(await execute(session, select(Visit.until).order_by(VISITS.c.until.desc())))
    assert moments == [MOMENT + SECOND, MOMENT]


async def test_the_zone_of_the_database_session_does_not_matter(
    session: AsyncSession, database: Database
):
    """The server's clock is in UTC too, and its times sort together with Python's."""
    await execute(session, text(FAR_ZONES[database.name]))
    await execute(session, text("INSERT INTO visit (place) VALUES ('raw')"))
    session.add(Visit(place="orm", until=MOMENT))
    await session.flush()
    session.expire_all()
    raw = await only(session, select(Visit).where(Visit.place == "raw"))
    orm = await only(session, select(Visit).where(Visit.place == "orm"))
    assert is_now(raw.created_at)
    assert orm.until == MOMENT
    assert abs(orm.created_at - raw.created_at) < SECOND


async def test_created_at_is_set_on_construction(session: AsyncSession):
    """It is the same before and after the row is stored; an explicit one is kept."""
    visit, old = Visit(), Visit(created_at=MOMENT)
    made = visit.created_at
    assert is_now(made)
    session.add_all([visit, old])
    await session.commit()
    await session.refresh(visit)
    await session.refresh(old)
    assert (visit.created_at, old.created_at) == (made, MOMENT)
    assert (visit.updated_at, old.updated_at) == (None, None)


async def test_core_inserts_fill_created_at(session: AsyncSession):
    """One row or many, with the model or with its table."""
    await execute(session, insert(Visit).values(place="model"))
    await execute(session, insert(VISITS), [{"place": "table"}, {"place": "many"}])
    rows = fetched(await execute(session, select(Visit)))
    assert len(rows) == 3
    assert all(is_now(row.created_at) and row.updated_at is None for row in rows)


async def test_every_update_fills_updated_at(session: AsyncSession):
    """ORM flushes and Core statements; after a flush it needs no query to be read."""
    visit, other = Visit(place="a"), Visit(place="other")
    session.add_all([visit, other])
    await session.flush()
    visit.place = "b"
    await session.flush()
    assert not inspect(visit).expired_attributes
    assert is_now(visit.updated_at)
    first = visit.updated_at
    await execute(session, update(Visit).where(Visit.place == "b").values(place="c"))
    await session.refresh(visit)
    assert visit.updated_at > first
    second = visit.updated_at
    await execute(session, update(VISITS).where(VISITS.c.place == "c").values(place="d"))
    await session.refresh(visit)
    assert visit.updated_at > second
    await session.refresh(other)
    assert other.updated_at is None


async def test_an_explicit_updated_at_wins(session: AsyncSession):
    """In a flush as in a statement."""
    visit = Visit(place="a")
    session.add(visit)
    await session.flush()
    visit.updated_at = MOMENT
    await session.flush()
    await session.refresh(visit)
    assert visit.updated_at == MOMENT
    await execute(session, update(Visit).values(place="b", updated_at=MOMENT + SECOND))
    await session.refresh(visit)
    assert visit.updated_at == MOMENT + SECOND


async def test_a_naive_datetime_in_a_statement_is_refused(session: AsyncSession):
    """As a value and as a criterion; the session stays usable."""
    naive = MOMENT.replace(tzinfo=None)
    for statement in (
        insert(Visit).values(until=naive),
        update(Visit).values(until=naive),
        select(Visit).where(Visit.until > naive),
    ):
        with pytest.raises(ValidationError, match="time zone"):
            await execute(session, statement)
    session.add(Visit())
    await session.commit()


@pytest.mark.databases("postgresql")
async def test_moments_can_be_shifted_in_sql(session: AsyncSession):
    """The difference is an interval, the result a moment."""
    await execute(session, insert(Visit).values(until=MOMENT))
    assert await only(session, select(Visit.until + dt.timedelta(days=1))) == MOMENT + (
        dt.timedelta(days=1)
    )


# --- actors --------------------------------------------------------------------------------------


async def test_flushes_carry_the_actor(session: AsyncSession):
    """The creator stays, the last updater changes; both can be read after the flush."""
    memo = Memo(text="a")
    session.add(memo)
    with acting_as("alice"):
        await session.flush()
    assert (memo.created_by, memo.updated_by) == ("alice", None)
    memo.text = "b"
    with acting_as("bob"):
        await session.commit()
    await session.refresh(memo)
    assert (memo.created_by, memo.updated_by) == ("alice", "bob")
    memo.text = "c"
    await session.commit()
    await session.refresh(memo)
    assert (memo.created_by, memo.updated_by) == ("alice", None)


async def test_core_statements_carry_the_actor(session: AsyncSession):
    """Inserts of many rows and set-based updates too."""
    with acting_as("alice"):
        await execute(session, insert(Memo).values(text="one"))
        await execute(session, insert(MEMOS), [{"text": "two"}, {"text": "three"}])
    with acting_as("bob"):
        await execute(session, update(Memo).where(Memo.text == "one").values(text="1"))
        await execute(session, update(MEMOS).where(MEMOS.c.text == "two").values(text="2"))
    rows = fetched(await execute(session, select(Memo.text, Memo.created_by, Memo.updated_by)))
    assert {tuple(row) for row in rows} == {
        ("1", "alice", "bob"),
        ("2", "alice", "bob"),
        ("three", "alice", None),
    }


async def test_an_explicit_name_wins(session: AsyncSession):
    """Also one that is the same as before, which SQLAlchemy takes for no change."""
    memo = Memo(text="a", created_by="importer")
    with acting_as("alice"):
        session.add(memo)
        await session.commit()
        for text_ in ("b", "c"):
            await session.refresh(memo)
            memo.text, memo.updated_by = text_, "carol"
            await session.commit()
            await session.refresh(memo)
            assert (memo.created_by, memo.updated_by) == ("importer", "carol")
        memo.text = "d"
        await session.commit()
        await session.refresh(memo)
        assert memo.updated_by == "alice"


async def test_a_name_that_is_set_again_is_no_change_by_itself(session: AsyncSession):
    """An object whose values are all as before is not written."""
    memo = Memo(text="a", updated_by="carol")
    session.add(memo)
    await session.commit()
    await session.refresh(memo)
    memo.updated_by = "carol"
    memo.text = "a"
    await session.commit()
    await session.refresh(memo)
    assert memo.updated_at is None


async def test_soft_delete_and_restore_are_updates(session: AsyncSession):
    """They carry the actor and the moment."""
    parcel = Parcel(code="a")
    session.add(parcel)
    await session.commit()
    with acting_as("alice"):
        parcel.soft_delete()
        await session.commit()
    await session.refresh(parcel)
    assert (parcel.is_deleted, parcel.deleted_by, parcel.updated_by) == (True, "alice", "alice")
    assert is_now(parcel.deleted_at)
    assert parcel.version == 2
    with acting_as("bob"):
        parcel.restore()
        await session.commit()
    await session.refresh(parcel)
    assert (parcel.is_deleted, parcel.deleted_at, parcel.deleted_by) == (False, None, None)
    assert parcel.updated_by == "bob"


# --- set-based updates ---------------------------------------------------------------------------


async def test_objects_of_the_session_follow_a_set_based_update(session: AsyncSession):
    """With the stamps among its values, they can be changed again at once."""
    parcel = Parcel(code="a")
    async with transaction(session):
        session.add(parcel)
        with acting_as("alice"):
            await AsyncQueryBuilder(session, Parcel).where(size=1).update(size=2)
        assert (parcel.size, parcel.version, parcel.updated_by) == (2, 2, "alice")
        assert is_now(parcel.updated_at)
        parcel.size = 3
    await session.refresh(parcel)
    assert (parcel.size, parcel.version) == (3, 3)


# --- defaults of the database --------------------------------------------------------------------


async def test_rows_that_other_programs_insert(session: AsyncSession):
    """They need to know of no mixin."""
    await execute(session, text("INSERT INTO counter (value) VALUES (5)"))
    await execute(session, text("INSERT INTO membership (email, realm, nick) VALUES ('a','b','c')"))
    assert (await only(session, select(Counter))).version == 1
    membership = await only(session, select(Membership))
    assert (membership.is_deleted, membership.deleted_at) == (False, None)


# --- versions ------------------------------------------------------------------------------------


async def stored_counter(session: AsyncSession) -> Counter:
    """Return a counter that is in the database and loaded."""
    counter = Counter(value=1)
    session.add(counter)
    await session.commit()
    await session.refresh(counter)
    return counter


async def test_every_update_counts_the_version_up(session: AsyncSession):
    """Flushes and statements; after a flush it needs no query to be read."""
    counter = await stored_counter(session)
    assert counter.version == 1
    counter.value = 2
    await session.flush()
    assert not inspect(counter).expired_attributes
    assert counter.version == 2
    await execute(session, update(Counter).values(value=3))
    await session.refresh(counter)
    assert counter.version == 3
    await execute(session, update(Counter.__table__).values(value=4))  # type: ignore[attr-defined]
    await session.refresh(counter)
    assert counter.version == 4


@pytest.mark.parametrize("removes", [False, True], ids=["an update", "a delete"])
async def test_a_lost_update_is_refused(
    session: AsyncSession, session_factory: Sessions, removes: bool
):
    """Of two sessions that change the same row, the second fails and can go on."""
    counter = await stored_counter(session)
    other = session_factory()
    theirs = await other.get(Counter, counter.id)
    theirs.value = 10
    await other.commit()
    if removes:
        await session.delete(counter)
    else:
        counter.value = 20
    with pytest.raises(StaleDataError):
        await session.flush()
    await session.rollback()
    await session.refresh(counter)
    assert (counter.value, counter.version) == (10, 2)
    counter.value = 30
    await session.commit()


async def test_a_row_that_was_removed_meanwhile(session: AsyncSession, session_factory: Sessions):
    """An update of it is refused, not silently dropped."""
    counter = await stored_counter(session)
    other = session_factory()
    await execute(other, delete(Counter))
    await other.commit()
    counter.value = 20
    with pytest.raises(StaleDataError):
        await session.flush()


async def test_a_model_with_a_version_column_of_its_own(session: AsyncSession):
    """The mixin's column is an ordinary one there."""
    row = Revision()
    session.add(row)
    await session.commit()
    await session.refresh(row)
    row.version = 7
    await session.commit()
    await session.refresh(row)
    assert (row.version, row.revision) == (7, 2)


# --- unique when visible -------------------------------------------------------------------------


async def test_values_of_deleted_rows_can_be_used_again(session: AsyncSession):
    """Two visible rows cannot share them, any number of deleted ones can."""
    for _ in range(3):
        member = Membership(email="a@b", nick="al")
        session.add(member)
        await session.flush()
        member.soft_delete()
        await session.flush()
    session.add(Membership(email="a@b", nick="al"))
    await session.commit()
    for clash, columns in (
        (Membership(email="a@b", nick="other"), ("email",)),
        (Membership(email="other", nick="al"), ("realm", "nick")),
    ):
        with pytest.raises(ConstraintViolationError) as caught:
            await write_row(clash, session, raise_on_error=True)
        assert (caught.value.kind, caught.value.columns) == ("unique", columns)
    session.add(Membership(email="c@d", nick="al", realm="second"))
    await session.commit()


async def test_a_deleted_row_cannot_be_restored_next_to_its_successor(session: AsyncSession):
    """Restoring it would make two visible rows."""
    old = Membership(email="a@b", nick="old", is_deleted=True)
    session.add_all([old, Membership(email="a@b", nick="new")])
    await session.commit()
    await run_sync(session, old.restore)
    with pytest.raises(IntegrityError):
        await session.flush()


async def test_the_marker_is_no_part_of_the_model(session: AsyncSession):
    """Rows are as loaded after a flush as those of any model."""
    member = Membership(email="a@b", nick="al")
    session.add(member)
    await session.flush()
    member.nick = "bo"
    await session.flush()
    assert not inspect(member).expired_attributes
    assert "not_deleted_marker" not in member.model_dump()
