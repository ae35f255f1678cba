"""Cursors hold the values that their order can have, and nothing else gets through."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import math
import time
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Dialect, Numeric, Time, func, literal_column
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql import SET
from sqlalchemy.types import NullType, TypeEngine

from sqlmodel_crud_utils._core.queries.cursors import CursorFormat, fingerprint, format_of
from sqlmodel_crud_utils._core.queries.ordering import Term, key_terms, term_of
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.models import AllTypes, Hero, Seat

DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(),
    "postgresql": postgresql.dialect(),
    "mysql": mysql.dialect(),
}
MOMENT = dt.datetime(2024, 2, 29, 12, 30, 1, 5)  # noqa: DTZ001 - as drivers have it

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.binary(),
    st.floats(allow_nan=False),
    st.decimals(-(10**30), 10**30, allow_nan=False),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
)

# What the drivers give for the columns of AllTypes, beside None.
RAW: dict[str, dict[str, Any]] = {
    "postgresql": {
        "integer": -5,
        "big": 2**53,
        "text": "ä",
        "long_text": "x" * 1000,
        "real": 1.5,
        "amount": Decimal("1.2345"),
        "flag": True,
        "day": MOMENT.date(),
        "moment": MOMENT.replace(tzinfo=dt.UTC),
        "naive_moment": MOMENT,
        "clock": MOMENT.time(),
        "duration": dt.timedelta(days=3, microseconds=1),
        "token": UUID(int=3),
        "colour": "RED",
        "blob": b"\0\xff",
    }
}
RAW["mysql"] = RAW["postgresql"] | {
    "flag": 1,
    "moment": MOMENT,
    "clock": dt.timedelta(hours=12),
    "duration": dt.datetime(1970, 1, 4),  # noqa: DTZ001 - as the driver has it
    "token": UUID(int=3).hex,
}
RAW["sqlite"] = RAW["mysql"] | {
    "amount": 1.2345,
    "day": "2024-02-29",
    "moment": "2024-02-29 12:30:01.000005",
    "naive_moment": "2024-02-29 12:30:01",
    "clock": "12:30:01.000005",
    "duration": "1970-01-04 00:00:00.000000",
}
FOREIGN = [
    5,
    -1,
    "x",
    1.5,
    Decimal(3),
    b"x",
    UUID(int=1),
    MOMENT,
    MOMENT.replace(tzinfo=dt.UTC),
    MOMENT.date(),
    MOMENT.time(),
    MOMENT.replace(tzinfo=dt.UTC).timetz(),
    dt.timedelta(1),
]


def cursors(dialect: str, *terms: Any, model: type[Any] = AllTypes) -> CursorFormat:
    """Return the format for an order, without the key."""
    order = [term_of(model, term, desc=False) for term in terms]
    return format_of(model, order, DIALECTS[dialect])


def unknown(count: int, dialect: str = "postgresql") -> CursorFormat:
    """Return the format for expressions of no known type."""
    return cursors(dialect, *(literal_column(f"x{n}") for n in range(count)))


def forged(mark: str, values: Any, version: Any = 1) -> str:
    """Return a cursor with these values and the right checksum."""
    return signed(json.dumps([version, mark, values]).encode())


def signed(body: bytes) -> str:
    """Return a cursor with this content and the right checksum."""
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:8] + body).decode().rstrip("=")


# --- there and back ------------------------------------------------------------------------------


@given(st.lists(VALUES, max_size=4))
def test_values_come_back_as_they_were(values: list[Any]) -> None:
    """With value and type; the cursor can be used in a URL unchanged."""
    format_ = unknown(len(values))
    cursor = format_.write(values)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    found = format_.read(cursor)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_a_nan_comes_back() -> None:
    """PostgreSQL sorts by it."""
    format_ = unknown(2)
    number, decimal = format_.read(format_.write([math.nan, Decimal("NaN")]))
    assert math.isnan(number)
    assert decimal.is_nan()


def test_uuids_of_drivers_come_back_as_uuids() -> None:
    """Asyncpg has a class of its own for them."""

    class DriversUUID(UUID):
        """One of these."""

    format_ = cursors("postgresql", "token")
    [found] = format_.read(format_.write([DriversUUID(int=3)]))
    assert found == UUID(int=3)
    assert type(found) is UUID


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_column_takes_what_its_driver_gives(dialect: str) -> None:
    """And NULL, if the column is nullable."""
    for name, value in RAW[dialect].items():
        format_ = cursors(dialect, name)
        for each in (value, None):
            assert format_.read(format_.write([each])) == [each], name


# --- what is made up -----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_value_of_another_type_is_refused(dialect: str) -> None:
    """A column rejects values that its driver never returns."""
    for name, value in RAW[dialect].items():
        format_ = cursors(dialect, name)
        numbers = (int, float) if dialect == "sqlite" and name in {"real", "amount"} else ()
        alike = (*numbers, type(value))
        others = [each for each in FOREIGN if type(each) not in alike]
        for other in others:
            with pytest.raises(ValidationError, match="cursor is damaged"):
                format_.read(forged(format_.mark, unknown_packed(other)))


def unknown_packed(value: Any) -> list[Any]:
    """Return the JSON form of a value."""
    [place] = unknown(1).places
    return [place.pack(value)]


@pytest.mark.parametrize(
    ("dialect", "term", "packed"),
    [
        ("postgresql", "integer", 2**31),
        ("postgresql", "big", 2**63),
        ("sqlite", "integer", 2**63),
        ("mysql", "integer", 2**64),
        ("sqlite", "flag", 2),
        ("sqlite", "colour", "MAUVE"),
        ("postgresql", "colour", "MAUVE"),
        ("sqlite", "token", "x"),
        ("sqlite", "moment", "yesterday"),
        ("sqlite", "day", "2024-13-01"),
        ("postgresql", "text", "a\0"),
        ("sqlite", "text", "\ud800"),
        ("mysql", "text", "\udfff"),
        ("postgresql", "moment", {"datetime": "2024-02-29T12:00:00"}),
        ("postgresql", "naive_moment", {"datetime": "2024-02-29T12:00:00+00:00"}),
        ("postgresql", "moment", {"datetime": "0001-01-01T00:00:00+14:00"}),
        ("postgresql", "moment", {"datetime": "9999-12-31T23:59:59-14:00"}),
        ("postgresql", "amount", {"decimal": "1e5"}),
        ("postgresql", "amount", {"decimal": "1" * 9}),
        ("mysql", "amount", {"decimal": "NaN"}),
        ("mysql", "real", {"float": "inf"}),
        ("sqlite", "real", {"float": "nan"}),
        ("postgresql", "id", None),
    ],
)
def test_a_value_that_its_column_cannot_have_is_refused(
    dialect: str, term: str, packed: Any
) -> None:
    """Whether the database would raise an error, round it, or accept it."""
    format_ = cursors(dialect, term)
    with pytest.raises(ValidationError, match="cursor is damaged"):
        format_.read(forged(format_.mark, [packed]))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "packed",
    [
        {"decimal": "1e999999"},
        {"decimal": "1e99999999999999999999"},
        {"decimal": "-1E-999999"},
        {"decimal": "sNaN"},
        {"decimal": "1_0"},
        {"decimal": "٣"},
        {"decimal": "." + "1" * 10},
        {"decimal": "0." + "1" * 16_384},
        {"decimal": []},
        {"float": "x"},
        {"float": []},
        {"uuid": "x"},
        {"datetime": 3},
        {"interval": [1]},
        {"interval": [10**12, 0, 0]},
        {"interval": [10**4000, 0, 0]},
        {"interval": [1.5, 0, 0]},
        {"interval": ["1", 0, 0]},
        {"bytes": "*"},
        {"code": "print()"},
        {"str": "x"},
        {"null": None},
        {"other": None},
        {"date": "2024-01-01", "time": "10:00"},
        {},
        [1],
        1.5,
        2**70,
        -(2**63) - 1,
    ],
    ids=lambda packed: repr(packed)[:40],
)
def test_what_no_page_has_written_is_refused_for_an_expression_too(
    dialect: str, packed: Any
) -> None:
    """Its type may be unknown; the bounds of every value hold."""
    format_ = unknown(1, dialect)
    with pytest.raises(ValidationError, match="cursor is damaged"):
        format_.read(forged(format_.mark, [packed]))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 40_000,
        b'{"a":' * 8_000,
        b"\xff",
        b"{}",
        b'[1,"mark"]',
        b'[1,"mark","x"]',
        b"[1,NaN,[]]",
        b"[" + b"1" * 40_000 + b"]",
    ],
    ids=lambda body: repr(body)[:20],
)
def test_a_forged_frame_is_refused(body: bytes) -> None:
    """One with the right checksum."""
    with pytest.raises(ValidationError, match=r"cursor is damaged|another"):
        unknown(0).read(signed(body))


def test_a_cursor_has_the_length_of_its_order() -> None:
    """Neither more nor fewer values."""
    format_ = cursors("sqlite", "integer", "text")
    for values in ([], [1], [1, "a", 2]):
        with pytest.raises(ValidationError, match="cursor is damaged"):
            format_.read(forged(format_.mark, values))


@given(st.data())
def test_a_cursor_with_a_wrong_character_is_refused(data: st.DataObject) -> None:
    """Wherever it is."""
    format_ = unknown(3)
    cursor = format_.write([Decimal("1.5"), "x", None])
    place = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters().filter(lambda c: c != cursor[place]))
    with pytest.raises(ValidationError, match="cursor is damaged"):
        format_.read(cursor[:place] + other + cursor[place + 1 :])


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    """Any text raises the same error."""
    with pytest.raises(ValidationError, match="cursor is damaged"):
        unknown(1).read(text)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**4000, -(10**4299), 2**64])
    | st.floats()
    | st.text()
    | st.sampled_from(["1e999999999", "-1E+99999", "9" * 40_000, "0." + "0" * 40_000]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["decimal", "float", "interval", "uuid", "bytes", "datetime", "time", "x"]
            ),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)


@given(data=st.data())
def test_a_forged_cursor_costs_no_more_than_it_weighs(data: st.DataObject) -> None:
    """Of any column and database: it is refused, or has values of the column, quickly and small."""
    dialect = data.draw(st.sampled_from(list(DIALECTS)))
    name = data.draw(st.sampled_from(list(RAW[dialect])))
    format_ = data.draw(st.sampled_from([cursors(dialect, name), unknown(1, dialect)]))
    cursor = forged(format_.mark, [data.draw(JSON_VALUES)])

    def read() -> None:
        try:
            [value] = format_.read(cursor)
        except ValidationError:
            return
        # What is let through is as long when it is written out.
        assert len(format(value, "f") if isinstance(value, Decimal) else str(value)) <= 80_000

    seconds, size = spent(read)
    assert seconds < 0.5
    assert size < 4_000_000


def spent(work: Callable[[], None]) -> tuple[float, int]:
    """Return how long a function takes, and how much memory at most."""
    tracemalloc.start()
    try:
        start = time.process_time()
        work()
        return time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [b"[" * 5_000_000, b"9" * 5_000_000, b"[" + b"[]," * 2_000_000])
def test_a_cursor_that_is_too_long_is_refused_unread(body: bytes) -> None:
    """No page makes one of that size."""
    format_, cursor = unknown(1), signed(body)

    def read() -> None:
        with pytest.raises(ValidationError, match="cursor is damaged"):
            format_.read(cursor)

    seconds, size = spent(read)
    assert seconds < 0.1
    assert size < 1_000_000


# --- what pages can't continue after -------------------------------------------------------------


def test_values_without_a_place_in_a_cursor_are_refused() -> None:
    """The page that would end with such a value raises, naming the field."""
    with pytest.raises(ValidationError, match=r"can't continue after this complex of an exp"):
        unknown(1).write([1j])
    with pytest.raises(ValidationError, match=r"can't continue after this str of integer"):
        cursors("sqlite", "integer").write(["x"])
    for number in (Decimal("1e131072"), Decimal("1e-16384")):
        with pytest.raises(ValidationError, match=r"can't continue after this Decimal"):
            unknown(1).write([number])


def test_values_that_are_too_long_are_refused_by_their_page() -> None:
    """Not by the next page, which would be unreachable."""
    format_ = cursors("sqlite", "long_text")
    assert format_.read(format_.write(["x" * 40_000])) == ["x" * 40_000]
    with pytest.raises(ValidationError, match=r"values as long as these \(long_text\)"):
        format_.write(["x" * 60_000])


def test_types_that_look_like_others() -> None:
    """A set of MySQL is longer than its longest member; a time with a zone has it."""

    def read(type_: TypeEngine[Any], dialect: str, packed: Any) -> Any:
        column = Hero.metadata.tables["hero"].c.name._copy()
        column.type = type_
        [value] = format_of(Hero, [Term(column)], DIALECTS[dialect]).places[0:1]
        return value.unpack(packed)

    assert read(SET("a", "b"), "mysql", "a,b") == "a,b"
    zoned = read(Time(timezone=True), "postgresql", {"time": "10:00:00+02:00"})
    assert zoned.utcoffset() == dt.timedelta(hours=2)
    assert read(Numeric(), "postgresql", {"decimal": "1" * 1000}) == Decimal("1" * 1000)
    assert read(NullType(), "mysql", {"bytes": "AA=="}) == b"\0"


def test_expressions_take_values_of_their_kind() -> None:
    """SQLAlchemy only knows their approximate types; PostgreSQL accepts no text for a number."""
    for dialect in DIALECTS:
        format_ = cursors(dialect, Hero.age * 1.5, model=Hero)
        for number in (3, 1.5, Decimal("1.5")):
            assert format_.read(format_.write([number])) == [number]
    with pytest.raises(ValidationError, match="cursor is damaged"):
        cursors("postgresql", Hero.age + 1, model=Hero).read(
            forged(cursors("postgresql", Hero.age + 1, model=Hero).mark, ["x"])
        )
    lower = cursors("postgresql", func.lower(Hero.name), model=Hero)
    assert lower.read(lower.write(["x"])) == ["x"]


# --- which order it is of ------------------------------------------------------------------------


def test_other_versions_and_orders_are_told_apart() -> None:
    """The message says what to do."""
    format_ = cursors("sqlite", "integer")
    with pytest.raises(ValidationError, match="another version of the library"):
        format_.read(forged(format_.mark, [1], version=2))
    with pytest.raises(ValidationError, match="another model or order_by"):
        format_.read(cursors("sqlite", "big").write([1]))
    with pytest.raises(ValidationError, match="cursor that a page gave, not int"):
        format_.read(5)


def test_a_fingerprint_is_that_of_model_order_and_database() -> None:
    """It is the same for the same order, however that was said."""

    def mark(*terms: Any, model: type[Any] = Hero, dialect: str = "sqlite") -> str:
        order = key_terms(model, [term_of(model, term, desc=False) for term in terms])
        return fingerprint(model, order, DIALECTS[dialect])

    assert mark("-age") == mark(Hero.age.desc()) == mark(Hero.age.desc().nulls_last())
    assert mark("age") == mark("age", "id") == mark(Hero.age.asc())
    assert mark("team__name") == mark("team.name")
    others = [mark("age"), mark("-age"), mark(), mark(model=Seat), mark("age", dialect="mysql")]
    others += [mark(Hero.age + 1), mark(Hero.age + 2), mark(Hero.age.nulls_first())]
    others += [mark("team__name"), mark("-team__name"), mark("team__city")]
    assert len(set(others)) == len(others)
