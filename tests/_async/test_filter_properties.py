"""Filters find the rows that a Python model of the filter language finds."""

from __future__ import annotations

import datetime as dt
import operator
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hypothesis import given, settings, strategies as st
from sqlalchemy import Connection, delete, insert, select

from sqlmodel_crud_utils._core.filters import where_clauses
from sqlmodel_crud_utils._runtime_async import run_on_connection
from tests._runtime_async import AsyncSession
from tests.filter_models import Sample
from tests.models import Colour

# What LIKE, GLOB, regular expressions, SQL and JSON give a meaning, and letters of which some
# share a capital. Left out is what databases treat differently: the Turkish dotted capital I,
# and letters newer than MySQL's tables of capitals.
SPECIAL = "%_\\/'\"[]*?^-!.$ \t"
LETTERS = (
    "aAbkK\N{KELVIN SIGN}eEéÉnñÑs\N{LATIN SMALL LETTER LONG S}ßẞöÖ"
    "\N{GREEK SMALL LETTER SIGMA}ςΣжЖλΛ日😀"
)
TEXT = st.text(SPECIAL + LETTERS, max_size=6)

STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "word": TEXT,
    "exact": TEXT,
    "number": st.integers(-3, 3) | st.integers(-(2**31), 2**31 - 1),
    "amount": st.integers(-300, 300).map(lambda cents: Decimal(cents) / 100),
    "real": st.sampled_from((-1.5, 0.0, 0.1, 1 / 3, 1e100)),
    "flag": st.booleans(),
    "day": st.dates(dt.date(2024, 2, 27), dt.date(2024, 3, 2)),
    "moment": st.integers(0, 5).map(
        lambda hours: dt.datetime(2024, 2, 29, tzinfo=dt.UTC) + dt.timedelta(hours=hours)
    ),
    "token": st.integers(0, 3).map(lambda number: uuid.UUID(int=number)),
    "colour": st.sampled_from(Colour),
}
ROW = st.fixed_dictionaries({name: st.none() | value for name, value in STRATEGIES.items()})

SEARCHES = [
    *("contains", "startswith", "endswith", "regex"),
    *("icontains", "istartswith", "iendswith", "iexact", "ilike"),
]
COMPARISONS = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "between"]
LOOKUPS = {
    name: [*COMPARISONS, "is_null"]
    for name in STRATEGIES
    if name not in {"word", "exact", "colour"}
}
LOOKUPS["word"] = [*SEARCHES, "is_null"]
LOOKUPS["exact"] = [
    *COMPARISONS,
    "contains",
    "startswith",
    "endswith",
    "like",
    "not_like",
    "is_null",
]
# PostgreSQL sorts an enum by its declaration, the others by its names.
LOOKUPS["colour"] = ["eq", "ne", "in", "not_in", "is_null"]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows, and filters whose values have something to do with these rows."""
    rows = draw(st.lists(ROW, min_size=1, max_size=5))
    filters = {}
    for _ in range(draw(st.integers(1, 4))):
        field = draw(st.sampled_from(list(STRATEGIES)))
        lookup = draw(st.sampled_from(LOOKUPS[field]))
        present = [row[field] for row in rows if row[field] is not None]
        value = st.sampled_from(present) | STRATEGIES[field] if present else STRATEGIES[field]
        filters[f"{field}__{lookup}"] = draw(operands(lookup, value))
    return rows, filters


def operands(lookup: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return what a lookup takes, made of such values."""
    if lookup == "is_null":
        return st.booleans()
    if lookup in {"in", "not_in"}:
        return st.lists(st.none() | value, max_size=4)
    if lookup == "between":
        return st.tuples(value, value)
    if lookup in {"eq", "ne"}:
        return st.none() | value
    if lookup in COMPARISONS:
        return value
    return value.flatmap(pieces).map(re.escape if lookup == "regex" else str)


def pieces(text: str) -> st.SearchStrategy[str]:
    """Return parts of a text, now and then in another case."""
    return st.builds(
        lambda start, end, change: change(text[start:end]),
        st.integers(0, len(text)),
        st.none() | st.integers(0, len(text)),
        st.sampled_from((str, str.lower, str.upper)),
    )


def is_met(value: Any, lookup: str, operand: Any, kind: str) -> bool:
    """Tell whether a row's value meets a filter, as the language promises."""
    if lookup == "is_null" or (operand is None and lookup in {"eq", "ne"}):
        wants_null = {"eq": True, "ne": False}.get(lookup, operand)
        return (value is None) == wants_null
    if lookup == "not_in" and not [item for item in operand if item is not None]:
        return True
    return value is not None and PREDICATES[lookup](value, operand, kind)


def insensitive(
    predicate: Callable[[str, str], bool],
) -> Callable[[str, str, str], bool]:
    """Return a predicate that compares letters without their case."""
    return lambda value, text, _kind: predicate(small(value), small(text))


def small(text: str) -> str:
    """Return a text in small letters, one by one: no rule about the end of a word applies."""
    return "".join(letter.lower() for letter in text)


def like(value: str, pattern: str, kind: str) -> bool:
    """Judge a LIKE as the database does: SQLite ignores the case of ASCII, and has no escape."""
    if kind == "sqlite":
        value, pattern = ascii_small(value), ascii_small(pattern)
    return wildcards(f"%{pattern}%", escapes=kind != "sqlite").fullmatch(value) is not None


def ascii_small(text: str) -> str:
    """Return a text with the letters A to Z made small."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def wildcards(pattern: str, *, escapes: bool) -> re.Pattern[str]:
    """Return a LIKE pattern as a regular expression."""
    token = r"\\.|." if escapes else "."
    meanings = {"%": ".*", "_": "."}
    parts = re.findall(token, pattern, re.DOTALL)
    return re.compile("".join(meanings.get(p) or re.escape(p[-1]) for p in parts), re.DOTALL)


PREDICATES: dict[str, Callable[[Any, Any, str], bool]] = {
    "eq": lambda value, other, _kind: value == other,
    "ne": lambda value, other, _kind: value != other,
    "gt": lambda value, other, _kind: value > other,
    "gte": lambda value, other, _kind: value >= other,
    "lt": lambda value, other, _kind: value < other,
    "lte": lambda value, other, _kind: value <= other,
    "in": lambda value, others, _kind: value in others,
    "not_in": lambda value, others, _kind: value not in others,
    "between": lambda value, bounds, _kind: bounds[0] <= value <= bounds[1],
    "contains": lambda value, text, _kind: text in value,
    "startswith": lambda value, text, _kind: value.startswith(text),
    "endswith": lambda value, text, _kind: value.endswith(text),
    "iexact": insensitive(operator.eq),
    "icontains": insensitive(operator.contains),
    "istartswith": insensitive(str.startswith),
    "iendswith": insensitive(str.endswith),
    "like": like,
    "not_like": lambda value, text, kind: not like(value, text, kind),
    "ilike": lambda value, text, kind: (
        wildcards(f"%{small(text)}%", escapes=kind != "sqlite").fullmatch(small(value)) is not None
    ),
    "regex": lambda value, pattern, _kind: re.search(pattern, value) is not None,
}


async def test_filters_find_what_a_python_model_of_them_finds(session: AsyncSession) -> None:
    """Every lookup on every type, for any rows: the same rows as in Python."""

    def check(connection: Connection) -> None:
        @settings(max_examples=250, deadline=None)
        @given(cases())
        def holds(case: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
            drawn, filters = case
            rows = dict(enumerate(drawn, start=1))
            connection.execute(delete(Sample))
            connection.execute(insert(Sample), [{"id": id_, **row} for id_, row in rows.items()])
            expected = set(rows)
            for name, operand in filters.items():
                field, _, lookup = name.partition("__")
                met = {
                    id_
                    for id_, row in rows.items()
                    if is_met(row[field], lookup, operand, connection.dialect.name)
                }
                assert found(connection, {name: operand}) == met, name
                expected &= met
            assert found(connection, filters) == expected

        holds()

    await run_on_connection(session, check)


def found(connection: Connection, filters: dict[str, Any]) -> set[int]:
    """Return the ids of the rows that meet the filters."""
    clauses = where_clauses(Sample, filters, connection.dialect)
    return set(connection.scalars(select(Sample.id).where(*clauses)))
