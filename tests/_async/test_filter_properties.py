"""Filters find the rows that a Python model of the filter language finds."""

from __future__ import annotations

import datetime as dt
import operator
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hypothesis import given, strategies as st
from sqlalchemy import delete, insert

from sqlmodel_crud_utils.aio import AsyncQueryBuilder
from tests._runtime_async import AsyncSession, execute
from tests.databases import Database
from tests.filter_models import Sample
from tests.models import Colour
from tests.properties import examples

# What LIKE, GLOB, regular expressions, SQL and JSON give a meaning, and letters that belong
# together. Left out is what databases treat differently: the Turkish dotted capital I, and
# letters newer than MySQL's tables of capitals.
SPECIAL = "%_\\/'\"[]*?^-!.$ \t"
LETTERS = [
    *("aA", "eEéÉ", "nNñÑ", "oOöÖ", "ßẞ", "жЖ", "λΛ", "日", "😀"),
    "kK\N{KELVIN SIGN}",
    "sS\N{LATIN SMALL LETTER LONG S}",
    "\N{GREEK SMALL LETTER SIGMA}ςΣ",
]
VALUES: dict[str, st.SearchStrategy[Any]] = {
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
COMPARISONS = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "between", "is_null"]
SEARCHES = ["contains", "startswith", "endswith"]
LOOKUPS = dict.fromkeys(VALUES, COMPARISONS) | {
    # PostgreSQL sorts an enum by its declaration, the others by its names.
    "colour": ["eq", "ne", "in", "not_in", "is_null"],
    "exact": [*COMPARISONS, *SEARCHES, "like", "not_like"],
    "word": [*SEARCHES, "icontains", "istartswith", "iendswith", "iexact", "ilike", "regex"],
}

Case = tuple[list[dict[str, Any]], dict[str, Any]]


@st.composite
def cases_of_values(draw: st.DrawFn) -> Case:
    """Rows with values of all types but text, and filters."""
    return draw(cases(VALUES))


@st.composite
def cases_of_text(draw: st.DrawFn) -> Case:
    """Rows with texts of few different characters, so that they are often nearly the same."""
    characters = draw(st.sampled_from(LETTERS)) + draw(st.sampled_from(LETTERS))
    characters += draw(st.sampled_from(SPECIAL)) + draw(st.sampled_from(SPECIAL))
    text = st.lists(st.sampled_from(characters), max_size=4).map("".join)
    return draw(cases({"word": text, "exact": text}))


@st.composite
def cases(draw: st.DrawFn, values: dict[str, st.SearchStrategy[Any]]) -> Case:
    """Rows, and filters whose values have something to do with these rows."""
    row = st.fixed_dictionaries({name: st.none() | value for name, value in values.items()})
    rows = draw(st.lists(row, min_size=1, max_size=6))
    filters = {}
    for _ in range(draw(st.integers(1, 6))):
        field = draw(st.sampled_from(list(values)))
        lookup = draw(st.sampled_from(LOOKUPS[field]))
        present = [row[field] for row in rows if row[field] is not None]
        value = st.sampled_from(present) | values[field] if present else values[field]
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
    length = len(text)
    parts = [text[start:end] for start in range(length) for end in range(start + 1, length + 1)]
    changes = st.sampled_from((str, str.lower, str.upper))
    return st.builds(lambda part, change: change(part), st.sampled_from([*parts, ""]), changes)


def is_met(value: Any, lookup: str, operand: Any, kind: str) -> bool:
    """Return whether a row's value meets a filter, as the language promises."""
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


@examples(60)
@given(case=cases_of_values())
async def test_filters_of_values_find_what_a_python_model_of_them_finds(
    case: Case, session: AsyncSession, database: Database
) -> None:
    """Every lookup on every type but text, for any rows: the same rows as in Python."""
    await finds_what_python_finds(session, database.name, *case)


@examples(60)
@given(case=cases_of_text())
async def test_filters_of_text_find_what_a_python_model_of_them_finds(
    case: Case, session: AsyncSession, database: Database
) -> None:
    """Every lookup on text, for any rows: the same rows as in Python."""
    await finds_what_python_finds(session, database.name, *case)


async def finds_what_python_finds(
    session: AsyncSession, kind: str, drawn: list[dict[str, Any]], filters: dict[str, Any]
) -> None:
    """Write rows in place of those there are, and compare what each filter and all of them find."""
    rows = dict(enumerate(drawn, start=1))
    await execute(session, delete(Sample))
    await execute(session, insert(Sample), [{"id": id_, **row} for id_, row in rows.items()])
    expected = set(rows)
    for name, operand in filters.items():
        field, _, lookup = name.partition("__")
        met = {id_ for id_, row in rows.items() if is_met(row[field], lookup, operand, kind)}
        assert await found(session, {name: operand}) == met, name
        expected &= met
    assert await found(session, filters) == expected


async def found(session: AsyncSession, filters: dict[str, Any]) -> set[int]:
    """Return the ids of the rows that meet the filters."""
    return set(await AsyncQueryBuilder(session, Sample).where(**filters).scalars("id"))
