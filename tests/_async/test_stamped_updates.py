"""`update_row` of a model with columns that every UPDATE sets: one statement, and true stamps."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given as drawn, strategies as st
from sqlalchemy import delete

from sqlmodel_crud_utils.aio import get_row, update_row
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import given
from tests._runtime_async import AsyncEngine, AsyncSession, execute
from tests.properties import examples
from tests.recording import recorded
from tests.stamped_models import Mood, StampedGauge, StampedLabel, StampedPosting

pytestmark = pytest.mark.shortcuts

Opened = Callable[[], AsyncSession]

NOON = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
CHOICES: dict[str, list[Any]] = {
    "title": ["a", "A", "b", ""],
    "views": [None, 0, 1],
    "level": [None, 0.0, 0.1],
    "price": [None, Decimal(1), Decimal("1.00"), Decimal("1.01")],
    "is_open": [None, False, True],
    "day": [None, dt.date(2024, 2, 29)],
    "moment": [None, NOON, NOON.astimezone(dt.timezone(dt.timedelta(hours=5)))],
    "mood": [None, *Mood],
    "token": [None, uuid.UUID(int=1), uuid.UUID(int=2)],
    "extra": [None, {"a": 1}, [1]],
    "updated_by": ["bob"],
}
VALUES = {name: st.sampled_from(choices) for name, choices in CHOICES.items()}
OLD = {name: values for name, values in VALUES.items() if name != "updated_by"}


@pytest.fixture
def is_quick(engine: AsyncEngine) -> bool:
    """Whether an UPDATE can return the row."""
    return engine.dialect.name in {"sqlite", "postgresql"}


async def words_of(
    engine: AsyncEngine, session: AsyncSession, model: type[Any], **changes: Any
) -> list[str]:
    """Return what an update of the row 1 executes; its stamps are read as well."""
    with recorded(engine) as words:
        _, row = await update_row(1, changes, session, model)
        assert row is not None
        row.model_dump()
    return words


async def test_a_row_that_changes_is_stamped_by_the_update(
    session_factory: Opened, engine: AsyncEngine, is_quick: bool
) -> None:
    """One statement, which returns the stamps; another value and NULL are changes."""
    await given(session_factory(), StampedPosting(id=1))
    for changes in ({"title": "b"}, {"views": 7}, {"views": None}):
        session = session_factory()
        with acting_as("ann"):
            words = await words_of(engine, session, StampedPosting, **changes)
        assert words == ["UPDATE", "COMMIT"] if is_quick else ["SELECT", "UPDATE", "COMMIT"]
        _, row = await get_row(1, session, StampedPosting)
        assert row is not None
        assert row.updated_by == "ann"
        assert row.updated_at is not None
        assert row.updated_at > row.created_at


async def test_a_row_that_stays_as_it_is_is_not(
    session_factory: Opened, engine: AsyncEngine, is_quick: bool
) -> None:
    """It was not changed, so its stamps must not say so."""
    await given(session_factory(), StampedPosting(id=1, title="a", level=0.1))
    with acting_as("ann"):
        words = await words_of(
            engine, session_factory(), StampedPosting, title="a", level=0.1, views=None
        )
    assert words == (["UPDATE", "COMMIT"] if is_quick else ["SELECT", "COMMIT"])
    _, row = await get_row(1, session_factory(), StampedPosting)
    assert row is not None
    assert (row.updated_at, row.updated_by) == (None, None)


@examples(60)
@drawn(st.fixed_dictionaries({}, optional=OLD), st.fixed_dictionaries({}, optional=VALUES))
async def test_stamps_follow_the_values(
    session: AsyncSession, old: dict[str, Any], changes: dict[str, Any]
) -> None:
    """There are stamps where a value is another one in Python, and those that are given win."""
    await execute(session, delete(StampedPosting))
    await given(session, StampedPosting(id=1, **old))
    session.expunge_all()
    with acting_as("ann"):
        _, row = await update_row(1, changes, session, StampedPosting)
    assert row is not None
    before = StampedPosting(**old).model_dump()
    is_changed = any(before[name] != value for name, value in changes.items())
    assert (row.updated_at is not None) == is_changed
    assert row.updated_by == (changes.get("updated_by", "ann") if is_changed else None)
    assert {name: getattr(row, name) for name in changes} == changes


async def test_onupdate_of_every_kind(
    session_factory: Opened, engine: AsyncEngine, is_quick: bool
) -> None:
    """A value, and an expression that the database works out."""
    await given(session_factory(), StampedLabel(id=1))
    await words_of(engine, session_factory(), StampedLabel, text="a")
    _, row = await get_row(1, session_factory(), StampedLabel)
    assert row is not None
    assert (row.editor, row.seven) == (None, None)
    session = session_factory()
    words = await words_of(engine, session, StampedLabel, text="b")
    assert ("SELECT" in words) is not is_quick
    _, row = await get_row(1, session, StampedLabel)
    assert row is not None
    assert (row.text, row.editor, row.seven) == ("b", "somebody", 7)


async def test_a_stamp_that_looks_at_the_statement(
    session_factory: Opened, engine: AsyncEngine
) -> None:
    """It is worked out when SQLAlchemy makes the statement."""
    await given(session_factory(), StampedGauge(id=1))
    words = await words_of(engine, session_factory(), StampedGauge, level=2)
    assert words == ["SELECT", "UPDATE", "COMMIT"]
    _, row = await get_row(1, session_factory(), StampedGauge)
    assert row is not None
    assert (row.title, row.note) == ("", "level: 2")


@pytest.mark.databases("sqlite")
async def test_texts_that_the_database_takes_for_equal(session: AsyncSession) -> None:
    """Other capitals are another text, also in a column that is compared without regard to them."""
    await given(session, StampedLabel(id=1))
    session.expunge_all()
    _, row = await update_row(1, {"name": "A"}, session, StampedLabel)
    assert row is not None
    assert (row.name, row.editor) == ("A", "somebody")


@pytest.mark.databases("postgresql")
async def test_what_is_no_number(session: AsyncSession) -> None:
    """In Python it equals nothing, so to write it is a change."""
    await given(session, StampedPosting(id=1, level=math.nan))
    session.expunge_all()
    _, row = await update_row(1, {"level": math.nan}, session, StampedPosting)
    assert row is not None
    assert row.updated_at is not None
