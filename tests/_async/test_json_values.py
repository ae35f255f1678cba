"""JSON compared as a whole: equality, lists, and equal results once."""

from __future__ import annotations

from typing import Any

import pytest

from sqlmodel_crud_utils.aio import QueryBuilder, get_one_or_create, get_rows
from tests._runtime_async import AsyncSession
from tests.json_models import Report

A: Any = {"a": 1, "b": [1, 2]}
B: Any = ["x", None, {}]
COLUMNS = pytest.mark.parametrize("name", ["data", "tagged", "binary"])


@pytest.fixture
async def filled(session: AsyncSession) -> AsyncSession:
    """A session with four rows."""
    session.add_all(
        Report(id=number, data=value, tagged=value, binary=value)
        for number, value in enumerate([A, B, A, None], 1)
    )
    await session.commit()
    return session


async def found(session: AsyncSession, **filters: Any) -> list[int | None]:
    """Return the keys of the rows, found by both ways of filtering."""
    _, rows = await get_rows(session, Report, **filters)
    built = await QueryBuilder(session, Report).where(**filters).all()
    assert {row.id for row in rows} == {row.id for row in built}
    return sorted(row.id for row in rows)


@COLUMNS
async def test_values_are_compared(filled: AsyncSession, name: str) -> None:
    """With eq, ne and lists; NULL is equal to nothing."""
    assert await found(filled, **{name: A}) == [1, 3]
    assert await found(filled, **{name: {"a": 1}}) == []
    assert await found(filled, **{f"{name}__ne": A}) == [2]
    assert await found(filled, **{f"{name}__in": [A, {"a": 1}]}) == [1, 3]
    assert await found(filled, **{f"{name}__in": []}) == []
    assert await found(filled, **{f"{name}__not_in": [A]}) == [2]
    assert await found(filled, **{name: None}) == [4]
    assert await found(filled, **{name: B, "id__gt": 1}) == [2]
    assert await found(filled, **{name: getattr(Report, name)}) == [1, 2, 3]


@COLUMNS
async def test_rows_are_got_or_created(filled: AsyncSession, name: str) -> None:
    """By a value of JSON."""
    row, existed = await get_one_or_create(filled, Report, **{name: B})
    assert (row.id, existed) == (2, True)
    row, existed = await get_one_or_create(filled, Report, {"id": 9}, **{name: {"new": True}})
    assert (row.id, existed, getattr(row, name)) == (9, False, {"new": True})


@COLUMNS
async def test_equal_values_are_given_once(filled: AsyncSession, name: str) -> None:
    """As Python has them."""
    query = QueryBuilder(filled, Report).where(id__lte=3).distinct()
    values = await query.scalars(name)
    assert sorted(values, key=str) == sorted([A, B], key=str)
    assert len(await query.values("id", name)) == 3
