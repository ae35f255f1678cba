"""Keyset pages are those of a sorted Python list, for any rows, order and changes meanwhile."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from hypothesis import given, strategies as st
from sqlalchemy import Connection, delete, insert, tuple_

from sqlmodel_crud_utils.aio import AsyncQueryBuilder
from tests._runtime_async import AsyncSession, run_on_connection
from tests.models import AllTypes, Colour
from tests.properties import examples
from tests.query_models import Score

Row = dict[str, Any]
Key = tuple[str, int]

SCORES: dict[str, st.SearchStrategy[Any]] = {
    "points": st.none() | st.integers(-2, 2),
    "label": st.none() | st.text("aAbß 日%'", max_size=3),
    "prize": st.none() | st.integers(-3, 3).map(lambda cents: Decimal(cents) / 100),
    "ratio": st.none() | st.sampled_from((-1.5, 0.1, 1 / 3, 1e100)),
    "rank": st.integers(0, 1),
}
MOMENT = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-2, 2),
    "big": st.sampled_from((2**53, 2**53 + 1, -(2**63))),
    "text": st.text("aAäÄß b", max_size=2),
    "long_text": st.text("xX ", max_size=2),
    "real": st.sampled_from((0.1, 0.2, 1 / 3, -1.5, 16777216.0)),
    "amount": st.sampled_from((Decimal("0.1"), Decimal("0.1001"), Decimal(-1))),
    "flag": st.booleans(),
    "day": st.dates(dt.date(2024, 2, 27), dt.date(2024, 3, 2)),
    "moment": st.integers(0, 3).map(lambda n: MOMENT + dt.timedelta(microseconds=n)),
    "naive_moment": st.integers(0, 3).map(
        lambda n: MOMENT.replace(tzinfo=None) + dt.timedelta(seconds=n)
    ),
    "clock": st.integers(0, 3).map(lambda n: dt.time(10, 30, n)),
    "duration": st.integers(0, 3).map(lambda n: dt.timedelta(days=n, seconds=n)),
    "token": st.integers(0, 3).map(lambda n: uuid.UUID(int=n << 100 | n)),
    "colour": st.sampled_from(Colour),
    "blob": st.binary(max_size=2),
}
EXAMPLES = examples(40)


@dataclass
class Case:
    """Rows by their keys, an order, a page size, and what happens after each page."""

    rows: dict[Key, Row]
    order: list[str]
    size: int
    changes: list[tuple[list[Key], dict[Key, Row]]]


@st.composite
def cases(draw: st.DrawFn, *, changing: bool) -> Case:
    """Draw a case whose rows are often equal in what they are sorted by."""
    keys = st.tuples(st.sampled_from(("a", "B", "ä")), st.integers(0, 5))
    row = st.fixed_dictionaries(SCORES)
    rows = draw(st.dictionaries(keys, row, max_size=10))
    names = draw(st.lists(st.sampled_from([*SCORES, "league", "place"]), unique=True, max_size=3))
    order = [draw(st.sampled_from(("", "-"))) + name for name in names]
    change = st.tuples(
        st.lists(st.sampled_from(list(rows)), max_size=3) if rows else st.just([]),
        st.dictionaries(keys, row, max_size=3),
    )
    changes = draw(st.lists(change, min_size=1, max_size=4)) if changing else []
    return Case(rows, order, draw(st.integers(1, 4)), changes)


def in_order(rows: dict[Key, Row], order: list[str]) -> list[Key]:
    """Sort in Python: NULLs last in both directions, the key as the last criterion."""
    keys = sorted(rows)
    for term in reversed(order):
        name, down = term.removeprefix("-"), term.startswith("-")
        values = {key: ({"league": key[0], "place": key[1]} | rows[key])[name] for key in keys}
        filled = [key for key in keys if values[key] is not None]
        empty = [key for key in keys if values[key] is None]
        keys = sorted(filled, key=values.__getitem__, reverse=down) + empty
    return keys


def change(connection: Connection, gone: list[Key], new: dict[Key, Row]) -> None:
    """Remove rows and write others."""
    connection.execute(delete(Score).where(tuple_(Score.league, Score.place).in_(gone)))
    for (league, place), row in new.items():
        connection.execute(insert(Score), {"league": league, "place": place, **row})


async def start(session: AsyncSession, case: Case) -> AsyncQueryBuilder[Score]:
    """Put the rows of a case into the empty table, and return its query."""
    session.expunge_all()
    await run_on_connection(session, lambda connection: connection.execute(delete(Score)))
    await run_on_connection(session, partial(change, gone=[], new=case.rows))
    return AsyncQueryBuilder(session, Score).order_by(*case.order)


def keys_of(rows: list[Score]) -> list[Key]:
    """Return the keys of rows."""
    return [(row.league, row.place) for row in rows]


@EXAMPLES
@given(case=cases(changing=False))
async def test_pages_laid_end_to_end_are_the_sorted_list(case: Case, session: AsyncSession):
    """Any directions, empty values, equal ones and a composite key: as Python sorts."""
    query = await start(session, case)
    expected = in_order(case.rows, case.order)
    assert keys_of(await query.all()) == expected
    found: list[Key] = []
    cursor: str | None = None
    for start_ in range(0, max(len(expected), 1), case.size):
        page = await query.keyset(case.size, after=cursor)
        found += keys_of(page.items)
        cursor = page.next_cursor
        assert (cursor is None) == (start_ + case.size >= len(expected))
    assert found == expected
    assert found == [
        key
        for number in range(1, len(expected) // case.size + 2)
        for key in keys_of((await query.paginate(number, case.size)).items)
    ]


@EXAMPLES
@given(case=cases(changing=True))
async def test_changes_between_pages_touch_no_other_row(case: Case, session: AsyncSession):
    """No row appears twice, and no row that exists throughout is missing."""
    query = await start(session, case)
    rows, removed = dict(case.rows), dict[Key, Row]()
    found: list[Key] = []
    page = await query.keyset(case.size)
    for gone, drawn in [*case.changes, *[([], {})] * 20]:
        found += keys_of(page.items)
        if page.next_cursor is None:
            break
        # The last row of the page may go too; a key that was there once doesn't come back.
        new = {key: row for key, row in drawn.items() if key not in {**rows, **removed}}
        await run_on_connection(session, partial(change, gone=gone, new=new))
        session.expunge_all()
        removed |= {key: rows.pop(key) for key in gone if key in rows}
        rows |= new
        page = await query.keyset(case.size, after=page.next_cursor)
        known = in_order(rows | removed, case.order)
        expected = [key for key in known[known.index(found[-1]) + 1 :] if key in rows]
        assert keys_of(page.items) == expected[: case.size]
    assert page.next_cursor is None
    assert len(found) == len(set(found))
    assert set(case.rows) - set(removed) <= set(found)


@EXAMPLES
@given(data=st.data())
async def test_pages_follow_the_order_of_every_type(data: st.DataObject, session: AsyncSession):
    """Regardless of collation, rounding and storage, they match the order of `all`."""
    values = data.draw(
        st.lists(
            st.fixed_dictionaries({name: st.none() | each for name, each in TYPES.items()}),
            max_size=7,
        )
    )
    names = data.draw(st.lists(st.sampled_from([*TYPES]), unique=True, min_size=1, max_size=2))
    order = [data.draw(st.sampled_from(("", "-"))) + name for name in names]
    size = data.draw(st.integers(1, 3))

    def fill(connection: Connection) -> None:
        connection.execute(delete(AllTypes))
        for row in values:
            connection.execute(insert(AllTypes), row)

    session.expunge_all()
    await run_on_connection(session, fill)
    query = AsyncQueryBuilder(session, AllTypes).order_by(*order)
    expected = [row.id for row in await query.all()]
    page = await query.keyset(size)
    found = [row.id for row in page.items]
    while page.next_cursor is not None:
        page = await query.keyset(size, after=page.next_cursor)
        found += [row.id for row in page.items]
    assert found == expected
