"""Cursors: the sort values of a page's last row, as an opaque text.

Clients can read a cursor and forge one: its checksum has no key, and only detects damage. So a
cursor's values are checked against the columns that rows are sorted by, and numbers are written
without an exponent: a short cursor cannot hold a huge number.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Enum,
    Float,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Text,
    Uuid,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.memoizing import Store
from sqlmodel_crud_utils._core.queries.ordering import Term
from sqlmodel_crud_utils._core.queries.query import Query
from sqlmodel_crud_utils._core.values.columns import python_type
from sqlmodel_crud_utils.exceptions import ValidationError

T = TypeVar("T")

_VERSION = 1
_LONGEST = 65_536
_CHECKSUM = 8  # bytes
_to_json = json.JSONEncoder(separators=(",", ":")).encode


_Check = Callable[[Any], bool]
"""Whether a value can be one of its kind, in a column or at all."""


class _MisfitError(ValueError):
    """A value that does not fit into a cursor."""


class Place(NamedTuple):
    """One value of a cursor: the kinds of values that a sort term can have.

    Attributes:
        kinds: The kinds of values that the driver gives for it, each with a check.
    """

    kinds: Mapping[str, _Check]

    def pack(self, value: Any) -> Any:
        """Return a value of a row in the form that JSON holds."""
        kind = _kind_of(value)
        self._require(kind, value)
        packed = _CODINGS[kind].pack(value)
        return packed if kind in _UNTAGGED else {kind: packed}

    def unpack(self, packed: Any) -> Any:
        """Return the value in JSON; raise one of the `_UNREADABLE` errors without one."""
        is_tagged = isinstance(packed, dict)
        [(kind, content)] = packed.items() if is_tagged else [(_kind_of(packed), packed)]
        wanted = list if kind == "interval" else str
        if is_tagged == (kind in _UNTAGGED) or (is_tagged and type(content) is not wanted):
            raise _MisfitError
        value = _CODINGS[kind].unpack(content)
        self._require(kind, value)
        return value

    def _require(self, kind: str, value: Any) -> None:
        if kind not in self.kinds or not self.kinds[kind](value):
            raise _MisfitError


class CursorFormat(NamedTuple):
    """How the cursors of an order are written and read.

    Attributes:
        mark: What tells them from the cursors of other models and orders.
        places: What they hold, term by term.
        names: The names of the terms, for errors.
    """

    mark: str
    places: tuple[Place, ...]
    names: tuple[str, ...]

    def write(self, values: Sequence[Any]) -> str:
        """Return the cursor for the values that the last row of a page is sorted by.

        Args:
            values: The values as the driver gave them.

        Raises:
            ValidationError: A value that no page can continue after.
        """
        packed = list(map(self._packed, self.places, values, self.names))
        body = _to_json([_VERSION, self.mark, packed]).encode()
        cursor = base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")
        if len(cursor) > _LONGEST:
            raise ValidationError(
                f"keyset() can't continue after values as long as these ({', '.join(self.names)}); "
                "sort by shorter ones",
                field="order_by",
            )
        return cursor

    def _packed(self, place: Place, value: Any, name: str) -> Any:
        try:
            return place.pack(value)
        except _UNREADABLE:
            pass
        raise ValidationError(
            f"keyset() can't continue after this {type(value).__name__} of {name}; "
            "sort by another field",
            field="order_by",
        )

    def read(self, cursor: Any) -> list[Any]:
        """Return the values of a cursor.

        Args:
            cursor: What the caller gave.

        Raises:
            ValidationError: A damaged cursor, one of another order, model or version, or one with
                values that the order can't have.
        """
        if not isinstance(cursor, str):
            raise _refusal(f"after takes the cursor that a page gave, not {type(cursor).__name__}")
        version, mark, packed = _content(cursor)
        if version != _VERSION:
            raise _refusal(
                "the cursor was made by another version of the library; start without a cursor"
            )
        if mark != self.mark:
            raise _refusal(
                "the cursor belongs to another model or order_by; pass it to the query it came from"
            )
        try:
            return [place.unpack(each) for place, each in zip(self.places, packed, strict=True)]
        except _UNREADABLE as error:
            raise _damaged() from error


class PageAfter(NamedTuple, Generic[T]):
    """The rows that follow after a cursor, as far as they were asked for.

    Attributes:
        cursors: How their cursors are written.
        found: Each row with the values that it is sorted by.
        has_more: Whether more rows follow.
    """

    cursors: CursorFormat
    found: Sequence[Any]
    has_more: bool

    @property
    def rows(self) -> list[T]:
        """The rows themselves."""
        return [row[0] for row in self.found]

    @property
    def next_cursor(self) -> str | None:
        """The cursor that leads to the next page, None after the last one."""
        return self.cursor_of(-1) if self.has_more else None

    def all_cursors(self) -> list[str]:
        """Return the cursor of each row."""
        return list(map(self.cursor_of, range(len(self.found))))

    def cursor_of(self, place: int) -> str:
        """Return the cursor that leads to the rows after one of these."""
        return self.cursors.write(tuple(self.found[place])[1:])


# --- the format of an order ----------------------------------------------------------------------


def cursor_format(query: Query) -> CursorFormat:
    """Return how the cursors of a query are written and read."""
    order = query.order_key()
    if order is None:
        return format_of(query.model, query.terms, query.dialect)
    key = (query.model, query.dialect.name, query.visibility, order)
    return _formats.get(key, lambda: format_of(query.model, query.terms, query.dialect))


_formats: Store[Hashable, CursorFormat] = Store()


def format_of(model: type[Any], terms: Sequence[Term], dialect: Dialect) -> CursorFormat:
    """Return how the cursors of a model and the terms of an order are written and read."""
    return CursorFormat(
        fingerprint(model, terms, dialect),
        tuple(_place(term, dialect) for term in terms),
        tuple(term.name or "an expression" for term in terms),
    )


def fingerprint(model: type[Any], terms: Sequence[Term], dialect: Dialect) -> str:
    """Return a text that identifies a model and the terms of an order."""
    parts = [dialect.name, f"{model.__module__}.{model.__qualname__}"]
    for term in terms:
        compiled = term.expression.compile(dialect=dialect)
        parts += [str(compiled), repr(sorted(compiled.params.items(), key=str))]
        parts += [str(term.name), str(term.descending), str(term.nulls_first)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _place(term: Term, dialect: Dialect) -> Place:
    """Return the values that a cursor can hold for a sort term."""
    type_ = term.expression.type.dialect_impl(dialect)
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance.dialect_impl(dialect)
    kinds = _kinds_of(type_, dialect)
    checks = _any_kind(dialect)
    if kinds and isinstance(term.expression, Column):
        checks = {kind: _check(kind, type_, dialect) for kind in kinds}
    elif kinds and features_of(dialect).typed_expressions:
        # SQLAlchemy only guesses the type of an expression.
        likely = kinds | _NUMBERS if kinds & _NUMBERS else kinds
        checks = {kind: checks[kind] for kind in likely}
    return Place(checks | ({"null": _always} if term.nullable else {}))


def _kinds_of(type_: TypeEngine[Any], dialect: Dialect) -> frozenset[str]:
    """Return the kinds of values that a driver gives for a column type; none if unknown."""
    kind = _kind_of_type(type_, dialect)
    if kind is None:
        return frozenset()
    return frozenset(features_of(dialect).stored_as.get(kind, (kind,)))


def _kind_of_type(type_: TypeEngine[Any], dialect: Dialect) -> str | None:
    match type_:
        case Enum():
            return "str"
        case Uuid():
            native = features_of(dialect).has_uuids and type_.native_uuid
            return "uuid" if native else "str"
        case Float():
            return "float"
        case Numeric():
            return "decimal"
    return _NAMES.get(python_type(type_))


_NUMBERS = frozenset(("int", "float", "decimal"))


# --- the bounds of values ------------------------------------------------------------------------


def _any_kind(dialect: Dialect) -> dict[str, _Check]:
    """Return every kind, with a check that the database accepts the value at all."""
    most = 2**64 if features_of(dialect).unsigned else 2**63
    return dict.fromkeys(_NAMES.values(), _always) | {
        "int": _within(-(2**63), most),
        "float": _number_for(dialect),
        "decimal": _number_for(dialect),
        "str": _text_for(dialect),
        "datetime": _is_moment,
    }


def _check(kind: str, type_: TypeEngine[Any], dialect: Dialect) -> _Check:
    """Return the check for values of a column."""
    fits, own = _any_kind(dialect)[kind], _own_check(kind, type_, dialect)
    return lambda value: fits(value) and own(value)


def _own_check(kind: str, type_: TypeEngine[Any], dialect: Dialect) -> _Check:
    features = features_of(dialect)
    is_refused = features.refuses_large_numbers
    check: _Check = _always
    match kind, type_:
        case "int", Boolean():
            check = _within(0, 2)
        case "int", Integer() if is_refused and not isinstance(type_, BigInteger):
            half = 2**15 if isinstance(type_, SmallInteger) else 2**31
            check = _within(-half, half)
        case "decimal", Numeric() if type_.precision is not None:
            check = _below(type_.precision - (type_.scale or 0))
        case "str", String() if not isinstance(type_, Enum):
            check = _at_most(_length(type_, dialect))
        case "str", _:
            check = _read_by(type_.result_processor(dialect, None))
        case "datetime" | "time", _:
            check = _zoned(features.time_zones and bool(getattr(type_, "timezone", False)))
    return check


def _length(type_: String, dialect: Dialect) -> int:
    """Return the maximum length of a column's texts; `_LONGEST` if none is enforced."""
    # The length of a SET of MySQL is that of its longest member.
    is_limited = not isinstance(type_, Text) and type_.__visit_name__ != "SET"
    if type_.length is None or not is_limited or not features_of(dialect).limits_texts:
        return _LONGEST
    return type_.length


def _always(_value: Any) -> bool:
    return True


def _within(least: int, beyond: int) -> _Check:
    return lambda value: least <= value < beyond


def _below(digits: int) -> _Check:
    """Return the check that a decimal has at most this many digits before its point."""
    return lambda value: not value.is_finite() or not value or value.adjusted() < digits


def _at_most(length: int) -> _Check:
    return lambda value: len(value) <= length


def _zoned(aware: bool) -> _Check:
    return lambda value: (value.utcoffset() is not None) is aware


def _read_by(read: Callable[[Any], Any] | None) -> _Check:
    """Return the check that a column's type can read a text that the driver gave."""

    def is_read(value: Any) -> bool:
        if read is not None:
            read(value)  # raises if it can't
        return True

    return is_read


def _number_for(dialect: Dialect) -> _Check:
    numbers = features_of(dialect).numbers
    if numbers == "all":
        return _always
    if numbers == "no NaN":
        return lambda value: value == value  # noqa: PLR0124 - there is no NaN, it is NULL
    return isfinite


def _text_for(dialect: Dialect) -> _Check:
    null = "\0" if features_of(dialect).refuses_null_characters else ""
    forbidden = re.compile(f"[{null}\ud800-\udfff]")
    return lambda value: not forbidden.search(value)


def _is_moment(value: datetime) -> bool:
    if value.tzinfo is not None:
        value.astimezone(UTC)  # as drivers do; raises outside the years that Python supports
    return True


# --- as text -------------------------------------------------------------------------------------


def _content(cursor: str) -> tuple[Any, Any, list[Any]]:
    try:
        if len(cursor) > _LONGEST:
            raise _MisfitError
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        body = raw[_CHECKSUM:]
        if base64.urlsafe_b64encode(raw).decode().rstrip("=") != cursor:
            raise _MisfitError
        if _checksum(body) != raw[:_CHECKSUM]:
            raise _MisfitError
        version, mark, packed = json.loads(body.decode())
        if not isinstance(packed, list):
            raise _MisfitError
    except _UNREADABLE as error:
        raise _damaged() from error
    return version, mark, packed


_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, binascii.Error)


def _damaged() -> ValidationError:
    return _refusal("the cursor is damaged; pass it exactly as the page before gave it")


def _refusal(message: str) -> ValidationError:
    return ValidationError(message, field="after")


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECKSUM]


def _kind_of(value: Any) -> str:
    return next((name for name, kind in _CODINGS.items() if isinstance(value, kind.type)), "other")


_DIGITS = r"-?[0-9]+(\.[0-9]+)?|NaN|-?Infinity"
_MOST_DIGITS = 131_072, 16_383  # PostgreSQL's limits before and after the point


def _from_decimal(value: Decimal) -> str:
    """Write a number without an exponent, so that a short text cannot stand for a huge number."""
    before, after = _MOST_DIGITS
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int):
        if value.adjusted() >= before or exponent < -after:
            raise _MisfitError
        return format(value, "f")
    return str(value)


def _to_decimal(text: str) -> Decimal:
    if not re.fullmatch(_DIGITS, text) or len(text.partition(".")[2]) > _MOST_DIGITS[1]:
        raise _MisfitError
    return Decimal(text)


def _to_timedelta(parts: Sequence[int]) -> timedelta:
    days, seconds, microseconds = parts
    if not all(type(part) is int for part in parts):
        raise _MisfitError
    return timedelta(days, seconds, microseconds)


def _same(value: Any) -> Any:
    return value


class _Coding(NamedTuple):
    """A kind of value, and how it is written in JSON."""

    type: Any
    pack: Callable[[Any], Any] = _same
    unpack: Callable[[Any], Any] = _same


# A bool is an int and a datetime is a date, so they stand first. Drivers give subclasses too; what
# comes back are plain values.
_CODINGS = {
    "null": _Coding(NoneType),
    "bool": _Coding(bool),
    "int": _Coding(int, int),
    "str": _Coding(str, str.__str__),
    "float": _Coding(float, repr, float),
    "decimal": _Coding(Decimal, _from_decimal, _to_decimal),
    "datetime": _Coding(datetime, datetime.isoformat, datetime.fromisoformat),
    "date": _Coding(date, date.isoformat, date.fromisoformat),
    "time": _Coding(time, time.isoformat, time.fromisoformat),
    "interval": _Coding(
        timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        _to_timedelta,
    ),
    "uuid": _Coding(UUID, lambda value: value.hex, UUID),
    "bytes": _Coding(
        bytes | bytearray | memoryview,
        lambda value: base64.b64encode(bytes(value)).decode(),
        lambda text: base64.b64decode(text, validate=True),
    ),
}
_UNTAGGED = frozenset(("null", "bool", "int", "str"))
_NAMES = {
    bool: "bool",
    int: "int",
    str: "str",
    float: "float",
    Decimal: "decimal",
    datetime: "datetime",
    date: "date",
    time: "time",
    timedelta: "interval",
    UUID: "uuid",
    bytes: "bytes",
}
