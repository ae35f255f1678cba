"""A forged cursor is refused, at a cost in proportion to its size."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, insert_data_rows
from sqlmodel_crud_utils.exceptions import ValidationError
from tests._runtime_async import AsyncSession
from tests.models import AllTypes, Colour
from tests.properties import examples

Sessions = Callable[[], AsyncSession]

ROW = {
    "integer": 3,
    "big": 2**53 + 1,
    "text": "ä",
    "long_text": "long",
    "real": 1.5,
    "amount": Decimal("1.5"),
    "flag": True,
    "day": dt.date(2024, 2, 29),
    "moment": dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
    "naive_moment": dt.datetime(2024, 2, 29, 12),  # noqa: DTZ001 - a column without time zone
    "clock": dt.time(10, 30),
    "duration": dt.timedelta(days=1),
    "token": UUID(int=5),
    "colour": Colour.RED,
    "blob": b"\x00\xff",
}
HOSTILE: list[Any] = [
    "x",
    "",
    "9" * 30_000,
    "2024-02-29",
    0,
    -1,
    2**31,
    2**63,
    2**64,
    10**4000,
    True,
    1.5,
    [],
    [[[[1]]]],
    {},
    {"decimal": "1e999999"},
    {"decimal": "1e99999999"},
    {"decimal": "-1e999999999"},
    {"decimal": "9" * 40_000},
    {"decimal": "0." + "1" * 16_000},
    {"decimal": "NaN"},
    {"decimal": "Infinity"},
    {"float": "inf"},
    {"float": "nan"},
    {"float": "-1e308"},
    {"interval": [999_999_999, 0, 0]},
    {"interval": [-999_999_999, 0, 0]},
    {"datetime": "0001-01-01T00:00:00+14:00"},
    {"datetime": "9999-12-31T23:59:59"},
    {"date": "0001-01-01"},
    {"time": "10:00:00+02:00"},
    {"uuid": "0" * 32},
    {"bytes": ""},
    "a\0b",
    "\ud800",
]


@pytest.fixture
async def rows(session_factory: Sessions) -> None:
    """Two rows with values in every column, and an empty one."""
    session = session_factory()
    values = [AllTypes(**ROW), AllTypes(**ROW), AllTypes()]
    await insert_data_rows(values, session, raise_on_error=True)


def with_values(cursor: str, *values: Any) -> str:
    """Return a cursor with other values and the right checksum."""
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    version, mark, _ = json.loads(raw[8:])
    body = json.dumps([version, mark, values]).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:8] + body).decode().rstrip("=")


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("name", ROW)
async def test_no_made_up_value_reaches_the_database_as_an_error(session: AsyncSession, name: str):
    """It is a `ValidationError` at once, or one that the column may have and finds rows after."""
    query = AsyncQueryBuilder(session, AllTypes).order_by(name)
    cursor = (await query.keyset(1)).next_cursor
    assert cursor is not None
    assert len((await query.keyset(3, after=cursor)).items) == 2
    for value in HOSTILE:
        start = time.perf_counter()
        try:
            page = await query.keyset(3, after=with_values(cursor, value, 1))
        except ValidationError as error:
            assert error.field == "after"  # noqa: PT017 - both ends are right
        else:
            assert page.next_cursor is None
        assert time.perf_counter() - start < 2


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("integer", "x"),
        ("integer", {"decimal": "1e999999"}),
        ("integer", {"float": "1.5"}),
        ("integer", {"date": "2024-01-01"}),
        ("integer", 2**80),
        ("text", 5),
        ("text", {"bytes": "AA=="}),
        ("amount", {"decimal": "1e99999999"}),
        ("moment", 5),
        ("id", None),
    ],
)
async def test_values_of_another_type_are_refused_everywhere(
    session: AsyncSession, name: str, value: Any
):
    """They must not be answered like valid ones."""
    query = AsyncQueryBuilder(session, AllTypes).order_by(name)
    cursor = (await query.keyset(1)).next_cursor
    assert cursor is not None
    key = [] if name == "id" else [1]
    with pytest.raises(ValidationError, match="cursor is damaged") as caught:
        await query.keyset(3, after=with_values(cursor, value, *key))
    assert caught.value.field == "after"


@pytest.mark.usefixtures("rows")
async def test_a_cursor_beyond_all_measure_is_refused_unread(session: AsyncSession):
    """However it is nested."""
    query = AsyncQueryBuilder(session, AllTypes)
    cursor = (await query.keyset(1)).next_cursor
    assert cursor is not None
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    for value in ("x" * 5_000_000, deep, ["x"] * 100_000, {"a": deep}):
        start = time.perf_counter()
        with pytest.raises(ValidationError, match="cursor is damaged"):
            await query.keyset(3, after=with_values(cursor, value))
        assert time.perf_counter() - start < 1


@examples(60)
@given(
    name=st.sampled_from(list(ROW)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ("decimal", "float", "datetime", "date", "time", "interval", "uuid", "bytes")
                ),
                inner
                | st.sampled_from(("1", "-1.5", "2024-02-29", "2024-02-29T10:00:00", "10:00")),
                min_size=1,
                max_size=1,
            )
        ),
        max_leaves=5,
    ),
)
async def test_any_made_up_cursor_has_one_of_two_ends(name: str, value: Any, session: AsyncSession):
    """A page, or a `ValidationError` about the cursor; never an error of the database."""
    query = AsyncQueryBuilder(session, AllTypes).order_by(f"-{name}")
    await session.rollback()
    if not await query.exists():
        await insert_data_rows([AllTypes(**ROW), AllTypes()], session, raise_on_error=True)
    cursor = (await query.keyset(1)).next_cursor
    assert cursor is not None
    try:
        await query.keyset(3, after=with_values(cursor, value, 1))
    except ValidationError as error:
        assert error.field == "after"  # noqa: PT017 - both ends are right
