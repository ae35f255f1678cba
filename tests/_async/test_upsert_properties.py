"""Upserts leave the rows that a Python model leaves, which writes them one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, strategies as st
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from sqlmodel_crud_utils.aio import bulk_upsert_mappings
from tests._runtime_async import AsyncEngine, AsyncSession, execute, fetched, run_on_connection
from tests.databases import Database
from tests.properties import examples
from tests.upsert_models import Item

Row = dict[str, Any]

# Keys that the database makes are beyond it, and those that a payload names below zero.
HIGH = 1_000_000_000
DEFAULTS: Row = {"code": None, "plain": None, "python": 7, "server": 5}

SMALL = st.integers(0, 3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "must": SMALL,
    "plain": st.none() | SMALL,
    "python": st.none() | SMALL,
    "server": st.none() | SMALL,
}
IDS = st.integers(-3, -1)
CODES = st.sampled_from("xyz")
# From this number on, rows of the same fields are written together.
MANY = 100
# What each of these rows has for itself.
OWN: dict[str, Callable[[int], Any]] = {"id": lambda n: -1_000 - n, "code": lambda n: f"c{n}"}


class BrokenError(Exception):
    """The model refuses a row, as the database does."""


@dataclass
class Case:
    """A call, and what the table holds before it."""

    present: list[Row]
    payload: list[Row]
    key: str
    update_columns: list[str] | None
    chunk_size: int | None

    def multiplied(self, place: int) -> Case:
        """Return the call with so many rows like the one at this place that they go together."""
        row = self.payload[place] if place < len(self.payload) else {}
        if "must" not in row:
            return self
        own = [(name, make) for name, make in OWN.items() if row.get(name) is not None]
        more = [row | {name: make(number) for name, make in own} for number in range(MANY)]
        size = self.chunk_size and MANY * self.chunk_size
        return replace(
            self, payload=[*self.payload[:place], *more, *self.payload[place:]], chunk_size=size
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a call with rows of any fields; only one key can be in the way."""
    row = st.fixed_dictionaries({}, optional={"id": IDS, **VALUES})
    return _case(draw, st.fixed_dictionaries({"id": IDS, **VALUES, "must": SMALL}), row, "id")


@st.composite
def tight_cases(draw: st.DrawFn) -> Case:
    """Draw a call with few ids and codes, so that rows are in each other's way."""
    ids = st.integers(-2, -1)
    present = st.fixed_dictionaries({"id": ids, "must": st.just(0), "code": CODES})
    key = draw(st.sampled_from(["id", "code"]))
    if key == "code":
        row = st.fixed_dictionaries(
            {"code": CODES, "must": SMALL}, optional={"id": ids, "plain": SMALL}
        )
    else:
        row = st.fixed_dictionaries(
            {"id": ids, "must": SMALL}, optional={"code": st.none() | CODES, "plain": SMALL}
        )
    return _case(draw, present, row, key)


def _case(
    draw: st.DrawFn, present: st.SearchStrategy[Row], row: st.SearchStrategy[Row], key: str
) -> Case:
    held = [
        DEFAULTS | {name: value for name, value in each.items() if value is not None}
        for each in draw(st.lists(present, max_size=3, unique_by=lambda each: each["id"]))
    ]
    codes = [each["code"] for each in held if each["code"] is not None]
    assume(len(codes) == len(set(codes)))
    columns = st.lists(st.sampled_from([*VALUES, "code"]), unique=True)
    case = Case(
        held,
        draw(st.lists(row, max_size=8)),
        key,
        draw(st.none() | columns),
        draw(st.none() | st.integers(1, 3)),
    )
    assume(not completed_later(case))
    return case


class Model:
    """A table of dicts."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rows: list[Row] = [dict(row) for row in case.present]

    def run(self) -> list[Row]:
        """Write the payload row by row, and return what each has become."""
        return [self._write(row) for row in self.case.payload]

    def _write(self, given: Row) -> Row:
        filled = ("id", "python", "server")
        given = {
            name: value for name, value in given.items() if not (value is None and name in filled)
        }
        found = self._holder(given, self.case.key)
        if found is not None:
            allowed = {*DEFAULTS, "must"} - {self.case.key}
            if self.case.update_columns is not None:
                allowed &= set(self.case.update_columns)
            changed = found | {name: given[name] for name in given if name in allowed}
        else:
            # An id that the database would make is a new object, equal to no other.
            changed = {"id": object()} | DEFAULTS | given
            found = {}
            self.rows.append(found)
        self._check(found, changed)
        found.update(changed)
        return found

    def _holder(self, row: Row, name: str) -> Row | None:
        value = row.get(name)
        same = [other for other in self.rows if value is not None and other.get(name) == value]
        return same[0] if same else None

    def _check(self, found: Row, changed: Row) -> None:
        if "must" not in changed:
            raise BrokenError
        for name in ("id", "code"):
            holder = self._holder(changed, name)
            if holder is not None and holder is not found:
                raise BrokenError


def plain(row: Any) -> Row:
    """Return a row's values, with one number for all generated ids."""
    values = row if isinstance(row, dict) else {name: getattr(row, name) for name in ROW_FIELDS}
    made = not isinstance(values["id"], int) or values["id"] > 0
    return dict(values) | ({"id": HIGH} if made else {})


ROW_FIELDS = ("id", "must", *DEFAULTS)


def completed_later(case: Case) -> bool:
    """Return whether a row without what a new one needs is followed by one that gives it.

    The library writes rows of one key at once, so it is more lenient than the model there.
    """
    complete = {row[case.key] for row in case.present}
    lacking: set[Any] = set()
    for row in case.payload:
        key = row.get(case.key)
        if "must" in row and key in lacking:
            return True
        (complete if "must" in row or key is None or key in complete else lacking).add(key)
    return False


def fill(connection: Connection, rows: list[Row]) -> None:
    """Put these rows into the table, and one that keeps made ids above all given ones."""
    connection.execute(delete(Item))
    for row in [{"id": HIGH, "must": 0}, *rows]:
        connection.execute(insert(Item), row)


async def check(case: Case, session: AsyncSession, engine: AsyncEngine) -> None:
    """Compare the result, the table and the failures with the model's."""
    await run_on_connection(session, lambda connection: fill(connection, case.present))
    await session.commit()
    session.expunge_all()
    model, expected = Model(case), None
    try:
        expected = model.run()
    except BrokenError:
        model = Model(case)
    options: dict[str, Any] = {
        "update_columns": case.update_columns,
        "chunk_size": case.chunk_size,
    }
    if expected is None:
        with pytest.raises((IntegrityError, OperationalError)):
            await bulk_upsert_mappings(case.payload, session, Item, case.key, **options)
    else:
        _, found = await bulk_upsert_mappings(case.payload, session, Item, case.key, **options)
        assert [plain(row) for row in found] == [plain(row) for row in expected]
        # Two places hold the same object where they stand for the same row.
        pairs = {(id(row), id(its)) for row, its in zip(found, expected, strict=True)}
        assert len({row for row, _ in pairs}) == len({its for _, its in pairs}) == len(pairs)
    async with AsyncSession(engine) as other:
        rows = fetched(await execute(other, select(Item).where(Item.id != HIGH)))
    assert sorted(map(as_text, rows)) == sorted(map(as_text, model.rows))


def as_text(row: Any) -> str:
    """Return a row's values as a text that can be sorted."""
    return repr(sorted(plain(row).items()))


EXAMPLES = examples(120, HealthCheck.filter_too_much)


PLACES = st.none() | st.integers(0, 7)


@EXAMPLES
@given(case=cases(), place=PLACES)
async def test_the_rows_are_those_of_the_model(
    case: Case, place: int | None, session: AsyncSession, engine: AsyncEngine
) -> None:
    """Any fields, any keys, any order, few or many: what one row after the other would leave."""
    await check(case if place is None else case.multiplied(place), session, engine)


@EXAMPLES
@given(case=tight_cases(), place=PLACES)
async def test_rows_that_are_in_each_others_way(
    case: Case, place: int | None, session: AsyncSession, engine: AsyncEngine, database: Database
) -> None:
    """A second unique key lets some rows in only after others have moved."""
    if database.name == "mysql":
        pytest.skip("it updates the row that is in the way")
    await check(case if place is None else case.multiplied(place), session, engine)
