"""A value that is longer or finer than its column equals no value of the column."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_row,
    get_rows,
    get_rows_within_id_list,
    update_row,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from tests._runtime_async import AsyncSession, execute, run_on_connection
from tests.limit_models import Limited, Rate, Step
from tests.properties import examples

EXAMPLES = examples(28)
OTHER = 1000  # the key of a row that is never meant
DAY = dt.datetime(2024, 5, 17, 10, 30)  # noqa: DTZ001 - a naive column's value
HALF = st.sampled_from([0, 400_000, 500_000, 600_000])
SECONDS = st.integers(0, 2)
TEXTS = st.text("a", min_size=4, max_size=6)  # each is a beginning of the longer ones
NUMBERS = st.sampled_from(["1", "1.25", "1.245", "1.2549", "1.26", "9999.99", "9999.995", "123456"])

# What lists are drawn from. What the table holds is what of it fits.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "word": TEXTS,
    "fixed": TEXTS,
    "marked": TEXTS,
    "chosen": TEXTS,
    "at": st.builds(lambda s, m: DAY.replace(second=s, microsecond=m), SECONDS, HALF),
    "clock": st.builds(lambda s, m: dt.time(10, 30, s, m), SECONDS, HALF),
    "span": st.builds(lambda s, m: dt.timedelta(seconds=s, microseconds=m), SECONDS, HALF),
    "price": NUMBERS.map(Decimal),
    "amount": NUMBERS.map(Decimal),
    "cents": NUMBERS.map(Decimal),
}
NAMES = pytest.mark.parametrize("name", sorted(VALUES))


def fits(name: str, value: Any) -> bool:
    """Return whether the column stores the value unchanged."""
    if isinstance(value, str):
        return len(value) <= (4 if name == "marked" else 5)
    if isinstance(value, Decimal):
        return value == round(value, 2) and value < 10_000
    seconds = value.microseconds if isinstance(value, dt.timedelta) else value.microsecond
    return bool(seconds == 0)


def _fill(connection: Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute(delete(Limited))
    connection.execute(insert(Limited), [{"id": OTHER, "word": "other"}])
    for row in rows:
        connection.execute(insert(Limited), [row])


async def _ids(session: AsyncSession, *criteria: Any) -> set[int]:
    found = await execute(session, select(Limited.id).where(*criteria))
    return {row[0] for row in found.all()} - {OTHER}


@st.composite
def cases(draw: st.DrawFn, name: str) -> tuple[dict[int, Any], list[Any]]:
    """Draw the values that the rows of a column have, and a list."""
    fitting = VALUES[name].filter(lambda value: fits(name, value))
    rows = draw(st.lists(fitting, min_size=1, max_size=3, unique=True))
    return dict(enumerate(rows, 1)), draw(st.lists(VALUES[name], max_size=4))


@NAMES
@EXAMPLES
@given(data=st.data())
async def test_lists_reach_the_rows_that_have_their_values(
    data: st.DataObject, name: str, session: AsyncSession
) -> None:
    """Filters, lists of keys, updates and deletions agree with Python on what is equal."""
    rows, listed = data.draw(cases(name))
    await run_on_connection(
        session, lambda c: _fill(c, [{"id": key, name: value} for key, value in rows.items()])
    )
    await session.commit()
    meant = {key for key, value in rows.items() if value in listed}

    found = QueryBuilder(session, Limited)
    assert {row.id for row in await found.where(**{f"{name}__in": listed}).all()} == meant
    others = await found.where(**{f"{name}__not_in": listed}).all()
    assert {row.id for row in others} - {OTHER} == rows.keys() - meant
    for value in listed:
        equal = {key for key, its in rows.items() if its == value}
        _, same = await get_rows(session, Limited, **{name: value})
        assert {row.id for row in same} == equal
        _, same = await get_rows(session, Limited, **{name: value, "id__in": list(rows)})
        assert {row.id for row in same} == equal
    _, same = await get_rows_within_id_list(listed, session, Limited, name)
    assert {row.id for row in same} == meant

    _, _ = await bulk_update_rows(listed, {"note": "reached"}, session, Limited, name)
    assert await _ids(session, Limited.note == "reached") == meant
    _, _ = await delete_rows_within_id_list(listed, session, Limited, name)
    assert await _ids(session) == rows.keys() - meant


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("name", ["word", "fixed", "marked"])
@pytest.mark.parametrize("count", [1, 99, 100, 250])
async def test_an_upsert_cuts_no_text(name: str, count: int, session: AsyncSession) -> None:
    """However many rows there are: the text is refused, and nothing is written."""
    rows = [{"id": number + 1, name: "fits"} for number in range(count)]
    rows[-1][name] = "too long"
    with pytest.raises((SQLAlchemyError, ValidationError)):
        await bulk_upsert_mappings(rows, session, Limited)
    await session.rollback()
    assert await _ids(session) == set()


@pytest.mark.parametrize("count", [1, 100])
async def test_an_upsert_stores_what_single_rows_store(count: int, session: AsyncSession) -> None:
    """Fitting values are stored unchanged, in one statement or in many."""
    row = {
        "word": "abcde",
        "fixed": "abcde",
        "marked": "abcd",
        "at": DAY,
        "clock": dt.time(10, 30),
        "span": dt.timedelta(seconds=2),
        "price": Decimal("1.25"),
        "amount": Decimal("9999.99"),
        "cents": Decimal("1.26"),
    }
    rows = [{"id": number + 1, **row} for number in range(count)]
    _, written = await bulk_upsert_mappings(rows, session, Limited)
    assert [{name: getattr(each, name) for name in row} for each in written] == [row] * count


NUMBER = Decimal("1.25")
NEAR = Decimal("1.2549")


async def test_a_key_is_not_rounded(session: AsyncSession) -> None:
    """Neither one that is looked up, nor one that is written to."""
    await run_on_connection(session, lambda c: c.execute(insert(Step), [{"height": NUMBER}]))
    await session.commit()
    for key in (NEAR, Decimal(123_456)):
        assert await get_row(key, session, Step) == (False, None)
        assert await update_row(key, {"note": "x"}, session, Step) == (False, None)
        assert not await delete_row(key, session, Step)
        assert await delete_rows_within_id_list([key], session, Step) == (True, 0)
    assert (await update_row(NUMBER, {"note": "x"}, session, Step))[0]
    _, existed = await get_one_or_create(session, Step, height=NUMBER)
    assert existed
    assert await delete_row(NUMBER, session, Step)


async def test_a_composite_key_is_not_rounded(session: AsyncSession) -> None:
    """Nor is one of its parts, in a list of them."""
    row = {"percent": NUMBER, "place": "abcde"}
    await run_on_connection(session, lambda c: c.execute(insert(Rate), [row]))
    await session.commit()
    others: list[Any] = [(NEAR, "abcde"), (NUMBER, "abcdefgh"), (Decimal(123_456), "abcde")]
    assert await get_rows_within_id_list(others, session, Rate) == (False, [])
    assert await delete_rows_within_id_list(others, session, Rate) == (True, 0)
    assert await delete_rows_within_id_list([(NUMBER, "abcde")], session, Rate) == (True, 1)
