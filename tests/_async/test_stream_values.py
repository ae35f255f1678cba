"""`stream_values`: what `values` returns, row by row, without objects."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import insert, select

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, transaction
from sqlmodel_crud_utils.exceptions import (
    QueryExecutionError,
    UnknownFieldError,
    ValidationError,
)
from tests._async.rows import given
from tests._runtime_async import AsyncEngine, AsyncSession, execute
from tests.models import AllTypes, Colour, Hero, Team
from tests.models_mixins import Player
from tests.recording import recorded

COUNT = 25


@pytest.fixture
async def heroes(session: AsyncSession) -> None:
    """Some heroes in five teams, and nothing in the session."""
    await execute(session, insert(Team), [{"name": f"team {n}"} for n in range(5)])
    keys = await AsyncQueryBuilder(session, Team).order_by("name").scalars("id")
    await execute(
        session,
        insert(Hero),
        [
            {"name": f"hero {n:02}", "secret_name": "?", "age": n // 2, "team_id": keys[n % 5]}
            for n in range(COUNT)
        ],
    )
    await session.commit()


@pytest.mark.usefixtures("heroes")
@pytest.mark.parametrize("size", [1, 7, COUNT, 1000])
async def test_all_rows_come_in_their_order(
    session: AsyncSession, engine: AsyncEngine, size: int
) -> None:
    """As dicts of the fields that are named, with one query; nothing is held by the session."""
    query = AsyncQueryBuilder(session, Hero).where(age__gte=2).order_by("team__name", "-age")
    expected = await query.values("age", "name")
    with recorded(engine) as words:
        seen = [row async for row in query.stream_values("age", "name", batch_size=size)]
    assert seen == expected
    assert words == ["SELECT"]
    assert [list(row) for row in seen[:1]] == [["age", "name"]]
    assert len(session.identity_map) == 0


@pytest.mark.usefixtures("heroes")
async def test_limits_related_rows_and_names(session: AsyncSession) -> None:
    """Without a name all fields come; a name counts once, and related rows are left out."""
    query = AsyncQueryBuilder(session, Hero).joined("team").order_by("name").limit(3).offset(2)
    assert [row async for row in query.stream_values()] == await query.values()
    found = [row async for row in query.stream_values("name", "name")]
    assert found == [{"name": f"hero {n:02}"} for n in (2, 3, 4)]
    assert [row async for row in query.where(name="x").stream_values()] == []


async def test_values_are_those_of_the_columns(session: AsyncSession) -> None:
    """Not what the driver has for them."""
    values: dict[str, Any] = {
        "big": 2**40,
        "amount": Decimal("1.2500"),
        "flag": True,
        "day": dt.date(2024, 2, 29),
        "token": uuid.UUID(int=7),
        "colour": Colour.RED,
        "payload": {"a": [1, None]},
    }
    await given(session, AllTypes(**values))
    query = AsyncQueryBuilder(session, AllTypes)
    assert [row async for row in query.stream_values(*values)] == [values]
    assert await query.values(*values) == [values]
    for name, value in values.items():
        assert await query.scalars(name) == [value]


@pytest.mark.usefixtures("heroes")
async def test_the_session_can_be_used_inside_the_loop(session: AsyncSession) -> None:
    """Each row appears once, in order, even if the database cannot keep the cursor open."""
    query = AsyncQueryBuilder(session, Hero).order_by("team__name", "-age").limit(20).offset(1)
    expected = await query.values("id", "name")
    seen = []
    async with transaction(session):
        async for row in query.stream_values("id", "name", batch_size=7):
            seen.append(row)
            one = AsyncQueryBuilder(session, Hero).where(id=row["id"])
            assert await one.update(secret_name="seen") == 1
    assert seen == expected
    assert await AsyncQueryBuilder(session, Hero).where(secret_name="seen").count() == 20


@pytest.mark.usefixtures("heroes")
async def test_a_loop_may_be_left(session: AsyncSession, engine: AsyncEngine) -> None:
    """The session is free at once."""
    query = AsyncQueryBuilder(session, Hero)
    async for row in query.stream_values("name", batch_size=5):
        assert row["name"] == "hero 00"
        break
    assert await query.count() == COUNT
    await session.commit()
    pool: Any = engine.pool
    assert pool.checkedout() == 0


async def test_deleted_rows_are_left_out(session: AsyncSession) -> None:
    """As in every read."""
    await given(session, Player(name="a"), Player(name="b", is_deleted=True))
    query = AsyncQueryBuilder(session, Player).order_by("name")
    assert [row["name"] async for row in query.stream_values()] == ["a"]
    assert [row["name"] async for row in query.only_deleted().stream_values()] == ["b"]


async def test_mistakes_are_reported_by_the_call(session: AsyncSession) -> None:
    """Not by the loop; what the database refuses is an error of the library."""
    query = AsyncQueryBuilder(session, Hero)
    with pytest.raises(UnknownFieldError):
        query.stream_values("nmae")
    with pytest.raises(ValidationError, match="batch_size must be a whole number of 1 or more"):
        query.stream_values(batch_size=0)
    with pytest.raises(ValidationError, match=r"read them with values\(\)"):
        query.distinct().stream_values("name")
    wrong = query.where(Hero.id.in_(select(Hero.id, Hero.name)))
    with pytest.raises(QueryExecutionError):
        async for _ in wrong.stream_values():
            pass
