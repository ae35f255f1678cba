"""JSON compared as a whole: equality, lists, and equal results once."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_rows_within_id_list,
    get_one_or_create,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import BulkOperationError, ValidationError
from tests._runtime_async import AsyncSession, make_engine
from tests.databases import Database
from tests.json_models import Report, Settings

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


_CALLS: dict[str, Callable[[AsyncSession, str, Any], Any]] = {
    "write_row": lambda s, name, value: write_row(Report(**{name: value}), s, raise_on_error=True),
    "insert_data_rows": lambda s, name, value: insert_data_rows(
        [Report(id=8), Report(id=9, **{name: value})], s, raise_on_error=True
    ),
    "get_one_or_create": lambda s, name, value: get_one_or_create(s, Report, {name: value}, id=9),
    "update_row": lambda s, name, value: update_row(
        1, {"data": 1, "tagged": 1, name: value}, s, Report, raise_on_error=True
    ),
    "bulk_insert_rows": lambda s, name, value: bulk_insert_rows([{name: value}] * 150, s, Report),
    "bulk_upsert_mappings": lambda s, name, value: bulk_upsert_mappings(
        [{"id": number, name: value} for number in range(1, 150)], s, Report
    ),
    "bulk_update_rows": lambda s, name, value: bulk_update_rows([1, 2], {name: value}, s, Report),
    "update": lambda s, name, value: QueryBuilder(s, Report).where(id=1).update(**{name: value}),
    "get_rows": lambda s, name, value: get_rows(s, Report, **{name: value}),
    "where": lambda s, name, value: QueryBuilder(s, Report).where(**{f"{name}__ne": value}).all(),
    "in": lambda s, name, value: get_rows(s, Report, **{f"{name}__in": [A, value]}),
}


@COLUMNS
@pytest.mark.parametrize("call", _CALLS)
async def test_a_value_that_no_json_can_hold(filled: AsyncSession, call: str, name: str) -> None:
    """The error names the field, whichever function was called; nothing is written."""
    with pytest.raises((ValidationError, BulkOperationError)) as raised:
        await _CALLS[call](filled, name, {"prices": [Decimal(1)]})
    error: Any = raised.value
    if isinstance(error, BulkOperationError):
        error = error.errors[0][1]
    assert isinstance(error, ValidationError)
    assert error.field == name
    assert f"Report.{name} cannot be converted" in str(error)
    await filled.rollback()
    assert await found(filled, **{name: A}) == [1, 3]
    assert await found(filled) == [1, 2, 3, 4]


_FILTERS: dict[str, Callable[[AsyncSession, str, Any], Any]] = {
    "get_rows": lambda s, name, value: get_rows(s, Settings, **{name: value}),
    "get_one_or_create": lambda s, name, value: get_one_or_create(s, Settings, **{name: value}),
    "ne": lambda s, name, value: QueryBuilder(s, Settings).where(**{f"{name}__ne": value}).all(),
    "in": lambda s, name, value: get_rows(s, Settings, **{f"{name}__in": [A, value]}),
    "not": lambda s, name, value: (
        QueryBuilder(s, Settings).exclude(**{f"{name}__not_in": [value]}).count()
    ),
    "others": lambda s, name, value: get_rows(s, Settings, **{"data": A, "da": B, name: value}),
    "expression": lambda s, name, value: (
        QueryBuilder(s, Settings).where(getattr(Settings, name) == value).all()
    ),
    "of an update": lambda s, name, value: (
        QueryBuilder(s, Settings).where(**{name: value}).update(data=A)
    ),
    "update": lambda s, name, value: (
        QueryBuilder(s, Settings).where(data=A).update(**{"da": B, name: value})
    ),
}


@pytest.mark.parametrize("name", ["data", "data_b", "da"])
@pytest.mark.parametrize("call", _FILTERS)
async def test_columns_that_share_a_type_are_told_apart(
    session: AsyncSession, call: str, name: str
) -> None:
    """By what a filter compares the value with, or an update writes it to."""
    with pytest.raises(ValidationError, match=rf"Settings\.{name} cannot be") as raised:
        await _FILTERS[call](session, name, {"prices": [Decimal(1)]})
    assert raised.value.field == name


async def test_the_column_of_a_related_row_is_told(session: AsyncSession) -> None:
    """Neither of the model's own columns, which has the same name."""
    for filters in ({"report__data": Decimal(1)}, {"report__data__in": [A, Decimal(1)]}):
        with pytest.raises(ValidationError, match=r"Report\.data cannot be") as raised:
            await get_rows(session, Settings, **filters)
        assert raised.value.field == "data"


async def test_lists_of_keys_hold_no_json(session: AsyncSession) -> None:
    """Its values cannot be compared like keys; the error says what to do."""
    calls: list[Callable[[], Any]] = [
        lambda: get_rows_within_id_list([A], session, Report, "data"),
        lambda: bulk_update_rows([A], {"tagged": 1}, session, Report, "data"),
        lambda: delete_rows_within_id_list([A], session, Report, "data"),
    ]
    for call in calls:
        with pytest.raises(ValidationError, match="filter with data__in") as raised:
            await call()
        assert raised.value.field == "data"


async def test_the_serializer_of_an_engine_decides(
    database: Database, session: AsyncSession
) -> None:
    """Values that it supports are written, and an error names the others."""
    engine = make_engine(database.async_url, json_serializer=_with_sets)
    async with AsyncSession(engine) as known:
        await write_row(Report(id=1, data={1, 2}), known, raise_on_error=True)
        with pytest.raises(ValidationError) as raised:
            await write_row(Report(id=2, data={1}, tagged=Decimal(1)), known)
    await engine.dispose()
    assert raised.value.field == "tagged"
    row = await QueryBuilder(session, Report).one()
    assert row.data == [1, 2]


def _with_sets(value: Any) -> str:
    return json.dumps(value, default=_listed)


def _listed(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    raise TypeError
