"""A caller's value becomes one of the column's type, or a `ValidationError` says what would be."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Text,
    Uuid,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlalchemy.types import TypeDecorator, UserDefinedType

from sqlmodel_crud_utils._core.values.coercion import (
    coerce,
    describe,
    is_coerced,
    is_storable,
    storable,
)
from sqlmodel_crud_utils._core.values.columns import stored_as_is
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.models import AllTypes, Colour

PLUS_TWO = dt.timezone(dt.timedelta(hours=2))
NAIVE = dt.datetime(2024, 3, 1, 10, 30)  # noqa: DTZ001 - that is the point
MOMENT = NAIVE.replace(tzinfo=dt.UTC)
TOKEN = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    GOOD = "good"


Many = enum.Enum("Many", [f"M{number}" for number in range(1, 23)])


class Cents(TypeDecorator[Decimal]):
    """Amounts, stored as whole numbers."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Any) -> Any:
        return int(value * 100)


class Slug(TypeDecorator[Any]):
    """Anything that has a text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Any) -> Any:
        return str(value)


class Shouted(TypeDecorator[str]):
    """A text type that declares its Python type, and does not change values."""

    impl = String
    cache_ok = True


class Opaque(UserDefinedType[Any]):
    """A type without a Python type, which was an error before SQLAlchemy 2.1."""

    cache_ok = True

    @property
    def python_type(self) -> type[Any]:
        raise NotImplementedError


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    level = Column(Enum(Level))
    mood = Column(Enum(Mood))
    many = Column(Enum(Many))
    size = Column(Enum("S", "M", "L", name="size"))
    key = Column(Uuid(as_uuid=False))
    price = Column(Float(asdecimal=True))
    weight = Column(Numeric(asdecimal=False))
    local = Column(DateTime(timezone=True))
    cents = Column(Cents)
    slug = Column(Slug)
    shouted = Column(Shouted)
    pickled = Column(PickleType)
    address = Column(INET)
    opaque = Column(Opaque)
    renamed: Mapped[int] = mapped_column("other_name")


ACCEPTED = [
    ("integer", 5, 5),
    ("integer", "5", 5),
    ("integer", " -5 ", -5),
    ("integer", "+5.00", 5),
    ("integer", 5.0, 5),
    ("integer", Decimal("5.0"), 5),
    ("integer", True, 1),
    ("integer", Level.HIGH, 2),
    ("big", -(2**63), -(2**63)),
    ("text", "x", "x"),
    ("text", 5, "5"),
    ("text", Decimal("1.50"), "1.50"),
    ("text", TOKEN, str(TOKEN)),
    ("text", Mood.GOOD, "good"),
    ("text", PurePosixPath("/a"), "/a"),
    ("text", IPv4Address("10.0.0.1"), "10.0.0.1"),
    ("long_text", "", ""),
    ("real", 1.5, 1.5),
    ("real", 1, 1.0),
    ("real", Decimal("1.5"), 1.5),
    ("real", " 1e3 ", 1000.0),
    ("amount", Decimal("1.1"), Decimal("1.1")),
    ("amount", 1.1, Decimal("1.1")),
    ("amount", 1, Decimal(1)),
    ("amount", "1.10", Decimal("1.10")),
    ("flag", False, False),
    ("flag", 1, True),
    ("flag", " TRUE ", True),
    ("flag", "off", False),
    ("flag", "0", False),
    ("day", dt.date(2024, 3, 1), dt.date(2024, 3, 1)),
    ("day", "2024-03-01", dt.date(2024, 3, 1)),
    ("day", "20240301", dt.date(2024, 3, 1)),
    ("day", "1 March 2024", dt.date(2024, 3, 1)),
    ("day", "Mar 1, 2024", dt.date(2024, 3, 1)),
    ("day", "29 February 2024", dt.date(2024, 2, 29)),
    ("day", "2024-03-01T00:00:00", dt.date(2024, 3, 1)),
    ("day", dt.datetime(2024, 3, 1, tzinfo=PLUS_TWO), dt.date(2024, 3, 1)),
    ("moment", MOMENT, MOMENT),
    ("moment", MOMENT.astimezone(PLUS_TWO), MOMENT),
    ("moment", "2024-03-01T10:30:00Z", MOMENT),
    ("moment", "2024-03-01 12:30+02:00", MOMENT),
    ("moment", "2024-03-01 10:30", MOMENT),
    ("moment", "1 March 2024 10:30", MOMENT),
    ("moment", "1 March 2024 10:30 UTC", MOMENT),
    ("moment", "1 March 2024 12:30 +0200", MOMENT),
    ("moment", dt.date(2024, 3, 1), dt.datetime(2024, 3, 1, tzinfo=dt.UTC)),
    ("naive_moment", NAIVE, NAIVE),
    ("naive_moment", MOMENT.astimezone(PLUS_TWO), NAIVE),
    ("naive_moment", "2024-03-01 12:30+02:00", NAIVE),
    ("naive_moment", "2024-03-01 10:30", NAIVE),
    ("naive_moment", dt.date(2024, 3, 1), NAIVE.replace(hour=0, minute=0)),
    ("clock", dt.time(10, 30), dt.time(10, 30)),
    ("clock", "10:30:15", dt.time(10, 30, 15)),
    ("duration", dt.timedelta(hours=2), dt.timedelta(hours=2)),
    ("duration", "2:00:00", dt.timedelta(hours=2)),
    ("duration", "1 day, 2:00:00.000005", dt.timedelta(days=1, hours=2, microseconds=5)),
    ("duration", "P1DT2H", dt.timedelta(days=1, hours=2)),
    ("token", TOKEN, TOKEN),
    ("token", str(TOKEN), TOKEN),
    ("token", TOKEN.hex.upper(), TOKEN),
    ("token", TOKEN.bytes, TOKEN),
    ("colour", Colour.RED, Colour.RED),
    ("colour", "red", Colour.RED),
    ("colour", "RED", Colour.RED),
    ("blob", b"x", b"x"),
    ("blob", bytearray(b"x"), b"x"),
    ("blob", memoryview(b"x"), b"x"),
    ("payload", {"a": [1]}, {"a": [1]}),
    ("payload", "x", "x"),
]


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED)
def test_a_value_becomes_one_of_the_type(name: str, value: Any, expected: Any) -> None:
    """Representations of a value become that value, of exactly the column's type."""
    result = coerce(getattr(AllTypes, name), value)
    assert result == expected
    assert type(result) is type(expected)
    if isinstance(expected, dt.datetime):
        assert result.tzinfo is expected.tzinfo


REFUSED = {
    "integer": [
        "x",
        "",
        "1.5",
        "1_000",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        1.5,
        Decimal("1.5"),
        2**63,
        "9" * 30,
        b"5",
    ],
    "big": [float("nan"), float("inf"), Decimal("nan"), Decimal("sNaN"), None.__class__],
    "text": [True, 1.5, b"x", [], dt.date(2024, 3, 1), Level.LOW],
    "real": [True, "x", "", "1_0", [], 10**400],
    "amount": [True, "x", "inf", float("nan"), Decimal("Infinity"), []],
    "flag": ["maybe", "", 2, 1.0, []],
    "day": [
        5,
        "5",
        "2024",
        "March 2024",
        "monday",
        "10:30",
        "1.3",
        20240301.0,
        "x" * 200,
        "31 June 2024",
    ],
    "moment": [NAIVE, 5, "5", "1709287200", "1e9", "now", "", "1 March 2024 10:30 XYZ", dt.time(1)],
    "naive_moment": [5, "99999999999999999999", "13/13/2024", "24:00", dt.time(1)],
    "clock": ["10", "x:y", 5, "25:00", MOMENT],
    "duration": ["x", "5", 5, "2:00", "1:99:99:99"],
    "token": ["x", 5, b"x", ""],
    "colour": ["pink", 5, [], True],
    "blob": ["x", 5, [1]],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_what_is_no_value_of_the_type_is_refused(name: str, value: Any) -> None:
    """The error names model and field, keeps the value out of its text, and chains nothing."""
    with pytest.raises(ValidationError, match=rf"AllTypes\.{name} must be ") as caught:
        coerce(getattr(AllTypes, name), value)
    assert caught.value.field == name
    assert caught.value.value is value
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("moment", NAIVE, "got one without a time zone; use datetime.now(UTC)"),
        ("day", "2024-03-01 10:30", "got one with a time of day"),
        ("day", NAIVE, "got one with a time of day"),
        ("day", "March 2024", "got one without the year, the month or the day"),
        ("moment", "1 March 2024 10:30 XYZ", "give the offset"),
        ("integer", 2**63, "a 64-bit integer; got a larger one"),
        ("integer", "x", "must be a 64-bit integer; got a str that is not one"),
        ("colour", "pink", "must be one of red, green; got a str that is not one"),
    ],
)
def test_the_error_says_what_would_be_right(name: str, value: Any, words: str) -> None:
    """A reader of the message knows what to do."""
    with pytest.raises(ValidationError) as caught:
        coerce(getattr(AllTypes, name), value)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", [*REFUSED, "payload"])
def test_none_stays_none(name: str) -> None:
    """NULL is a value of every type; whether a filter takes it is the lookup's affair."""
    assert coerce(getattr(AllTypes, name), None) is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("level", 2, Level.HIGH),
        ("level", "2", Level.HIGH),
        ("level", "HIGH", Level.HIGH),
        ("mood", "good", Mood.GOOD),
        ("mood", "GOOD", Mood.GOOD),
        ("size", "M", "M"),
        ("key", TOKEN.hex, str(TOKEN)),
        ("key", TOKEN, str(TOKEN)),
        ("price", 1.1, Decimal("1.1")),
        ("weight", Decimal("1.5"), 1.5),
        ("local", MOMENT.astimezone(PLUS_TWO), MOMENT),
        ("shouted", 5, "5"),
        ("address", IPv4Address("10.0.0.1"), IPv4Address("10.0.0.1")),
        ("renamed", "5", 5),
    ],
)
def test_types_are_known_by_what_python_reads_from_them(
    name: str, value: Any, expected: Any
) -> None:
    """Enums of every kind, UUIDs as strings, decimals as floats and the other way round."""
    result = coerce(getattr(Thing, name), value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(("name", "value"), [("size", "XL"), ("key", "x"), ("level", "3")])
def test_what_such_types_do_not_know_is_refused(name: str, value: Any) -> None:
    """An enum's values are a list; a UUID is one, also as a string."""
    with pytest.raises(ValidationError, match=rf"Thing\.{name} must be "):
        coerce(getattr(Thing, name), value)


def test_a_long_list_of_choices_is_cut() -> None:
    """An error stays readable for an enum with many members."""
    assert describe(Thing.many).endswith("19, 20, …")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cents", Decimal("1.50"), Decimal("1.50")),
        ("cents", "150", 150),
        ("cents", "1.50", "1.50"),
        ("slug", PurePosixPath("a"), PurePosixPath("a")),
        ("slug", 5, 5),
        ("pickled", {1}, {1}),
        ("opaque", {1}, {1}),
        ("pickled", "x", "x"),
    ],
)
def test_a_type_of_the_users_own_decides_what_it_takes(
    name: str, value: Any, expected: Any
) -> None:
    """Only strings are parsed, if possible; the type converts everything else itself."""
    assert coerce(getattr(Thing, name), value) == expected


def test_an_alias_has_the_rules_of_its_model() -> None:
    """Paths in filters lead to aliases; their errors name the model."""
    alias = aliased(AllTypes)
    assert coerce(alias.integer, "5") == 5
    with pytest.raises(ValidationError, match=r"AllTypes\.integer"):
        coerce(alias.integer, "x")


@given(st.timedeltas())
def test_a_duration_is_read_as_python_writes_it(duration: dt.timedelta) -> None:
    """Negative ones too: Python writes an hour before nothing as "-1 day, 23:00:00"."""
    assert coerce(AllTypes.duration, str(duration)) == duration


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_a_datetime_is_read_as_python_writes_it(moment: dt.datetime) -> None:
    """Both the `str` and the `isoformat` forms are parsed."""
    assert coerce(AllTypes.moment, str(moment)) == moment
    assert coerce(AllTypes.moment, moment.isoformat()) == moment


@given(
    st.text() | st.binary() | st.integers() | st.floats() | st.decimals() | st.booleans(),
    st.sampled_from(list(REFUSED)),
)
def test_nothing_but_a_validation_error_is_raised(value: Any, name: str) -> None:
    """This holds for any value from a query string or a JSON body."""
    try:
        result = coerce(getattr(AllTypes, name), value)
    except ValidationError:
        return
    # What was accepted is of the type now: it is accepted as it is.
    again = coerce(getattr(AllTypes, name), result)
    assert repr(again) == repr(result)


# Of each type: values that stay as they are, and neighbours that do not.
AS_THEY_ARE: dict[str, tuple[list[Any], list[Any]]] = {
    "integer": ([0, -(2**31), 2**31 - 1], [True, "1", 1.0, 2**31, -(2**31) - 1]),
    "big": ([-(2**63), 2**63 - 1], [2**63, -(2**63) - 1]),
    "text": (["", "é"], ["\0", "\ud800", "é\udfff", Mood.GOOD, 1]),
    "real": ([1.5, float("inf")], [1, Decimal(1)]),
    "amount": ([Decimal("-99999999.99994")], [Decimal("99999999.99995"), Decimal("nan"), 1]),
    "flag": ([True, False], [1, "yes"]),
    "day": ([dt.date(2024, 3, 1)], [NAIVE, "2024-03-01"]),
    "moment": ([MOMENT], [NAIVE, MOMENT.astimezone(PLUS_TWO)]),
    "naive_moment": ([NAIVE], [MOMENT]),
    "clock": ([dt.time(1)], ["01:00"]),
    "duration": ([dt.timedelta(1)], ["P1D"]),
    "token": ([TOKEN], [str(TOKEN)]),
    "colour": ([Colour.RED], ["red", "RED"]),
    "blob": ([b"\0"], [bytearray(b"x")]),
    "payload": ([], [{"a": 1}]),
}


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_values_that_stay_as_they_are_are_known_quickly(name: str) -> None:
    """Alone, with None and among others; one neighbour is enough for a closer look."""
    attribute = getattr(AllTypes, name)
    kept, others = AS_THEY_ARE[name]
    one = stored_as_is(attribute.type)
    for values in ([], [None], kept, [None, *kept]):
        assert is_storable(attribute, values, set(map(type, values)))
    for value in kept:
        assert repr(storable(attribute, value)) == repr(value)
        assert one is not None
        assert one.check is None or one.check.one(value)
    for value in others:
        values = [*kept, value]
        assert not is_storable(attribute, values, set(map(type, values)))
        assert one is None or type(value) is not one.kind or not one.check.one(value)


@pytest.mark.parametrize("name", ["cents", "pickled", "opaque", "address"])
def test_what_no_rule_is_for_stays_as_it_is(name: str) -> None:
    """Of a type that decides itself only strings are looked at."""
    attribute = getattr(Thing, name)
    expected = name != "cents"
    assert is_storable(attribute, [{1}, None], {set, type(None)}) is expected
    assert is_coerced(attribute, [{1}], {set}) is expected


class Sized(Base):
    __tablename__ = "sized"

    id: Mapped[int] = mapped_column(primary_key=True)
    code = Column(String(3))
    endless = Column(Text(3))
    small = Column(SmallInteger)
    wide = Column(BigInteger().with_variant(Integer, "sqlite"))
    here = Column(Integer().with_variant(BigInteger, "postgresql"))
    unsigned = Column(mysql.INTEGER(unsigned=True))
    amount = Column(Numeric(4, 2))
    tiny = Column(Numeric(2, 4))
    whole = Column(Numeric(3))
    free = Column(Numeric)
    real = Column(Float(3))


@pytest.mark.parametrize(
    ("name", "fitting", "beyond"),
    [
        ("code", ["abc", "äöü", None], ["abcd", "abc "]),
        ("endless", ["abcd"], []),
        ("small", [-(2**15), 2**15 - 1], [2**15, -(2**15) - 1]),
        ("wide", [2**63 - 1], [2**63]),
        ("here", [2**40], []),
        ("unsigned", [2**32 - 1], []),
        ("amount", ["99.994", Decimal("-99.994"), 0], ["99.995", "-99.995", 100]),
        ("tiny", ["0.0099", "0.00994"], ["0.00995", "0.01"]),
        ("whole", ["999.4"], ["999.5"]),
        ("free", ["1e900"], ["1e1001", "1e-1001", "0e-1001"]),
        ("real", [1e300], []),
    ],
)
def test_a_value_has_to_fit_its_column(name: str, fitting: list[Any], beyond: list[Any]) -> None:
    """As far as every database would have it; a comparison may be with anything of the type."""
    attribute = getattr(Sized, name)
    for value in fitting:
        storable(attribute, value)
    for value in beyond:
        with pytest.raises(ValidationError, match=rf"Sized\.{name} must ") as caught:
            storable(attribute, value)
        assert caught.value.value is value
    assert coerce(Sized.code, "abcd") == "abcd"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": float("nan")}, "must be a JSON value; got one with a number that is not finite"),
        (["\0"], "got one with a NUL character"),
        ({"\udfff": 1}, "got one with half a surrogate pair"),
    ],
)
def test_what_no_json_can_hold_is_refused(value: Any, words: str) -> None:
    """At any depth, and as a key too."""
    for depth in (0, 498):
        nested = value
        for _ in range(depth):
            nested = [nested]
        with pytest.raises(ValidationError, match=words):
            coerce(AllTypes.payload, nested)
    with pytest.raises(ValidationError, match="got one that is nested too deeply"):
        coerce(AllTypes.payload, [nested, [[[]]]])


class Moment(UserDefinedType[dt.datetime]):
    """A column type for datetimes that SQLAlchemy does not know."""

    cache_ok = True
    python_type = dt.datetime


def test_the_rule_decides_on_datetimes_of_an_unknown_type() -> None:
    """Whether such a column takes a time zone is unknown, so that none is stored as it is."""
    assert stored_as_is(Moment()) is None
