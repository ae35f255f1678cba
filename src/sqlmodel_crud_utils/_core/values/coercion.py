"""A caller's value, made a value of the column's Python type: "5" for an integer column is 5."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from itertools import repeat
from math import isfinite
from operator import contains, index
from pathlib import PurePath
from types import NoneType
from typing import Any
from uuid import UUID

from pydantic import SecretStr, TypeAdapter
from sqlalchemy import (
    JSON,
    BigInteger,
    ClauseElement,
    DateTime,
    Enum as EnumType,
    Float,
    Integer,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Text,
    Uuid,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils.exceptions import ValidationError

_LONGEST_DATE = 100  # Enough for any date in words; a longer text isn't worth parsing.
_MOST_CHOICES = 20
# Written out, "1e999999999" is a gigabyte; no database declares a number of more digits than that.
_MOST_DIGITS = 1000
# Python's own JSON fails a little further down.
_DEEPEST = 500

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,20}(\.0*)?\s*")
_DURATION = re.compile(
    r"(?:(?P<days>-?\d{1,9}) days?, )?(?P<hours>\d{1,2}):(?P<minutes>\d\d):(?P<seconds>\d\d)"
    r"(?:\.(?P<microseconds>\d{6}))?",
    re.ASCII,
)
_TRUE = frozenset(("true", "t", "yes", "y", "on", "1"))
_FALSE = frozenset(("false", "f", "no", "n", "off", "0"))
_WRITTEN_AS_TEXT = (
    int,
    Decimal,
    UUID,
    PurePath,
    IPv4Address,
    IPv6Address,
    IPv4Interface,
    IPv6Interface,
    IPv4Network,
    IPv6Network,
)
_ISO_8601_DURATION = TypeAdapter(timedelta)


class _MisfitError(ValueError):
    """Says why a value doesn't fit, without the value."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a column type takes, in words and as a function that raises for everything else."""

    expected: str
    convert: Callable[[Any], Any]


def coerce(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    """Return a caller's value as one of the column's Python type, to compare the column with.

    None stays None. What a column without a plain Python type takes (arrays, types of one
    database) is left as it is. Of the types of the user's own, which decide themselves what they
    take, only strings are converted.

    Raises:
        ValidationError: If the value can't be one of the column's type.

    Example:
        >>> coerce(Hero.age, "5")
        5
    """
    if value is None:
        return None
    rule = _rule(attribute.property.columns[0].type)
    if rule is None:
        return value
    try:
        return rule.convert(value)
    except _MisfitError as misfit:
        reason = str(misfit)
    # Those that the standard library and dateutil raise for what they can't read.
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
        reason = _described(value)
    raise _refusal(attribute, f"must be {rule.expected}; got {reason}", value)


def storable(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    """Return a caller's value as one that the column can store.

    Raises:
        ValidationError: If the value can't be one of the column's type, or is too long or too
            large for the column.

    Example:
        >>> storable(Hero.age, "5")
        5
    """
    made = coerce(attribute, value)
    size = _size(attribute.property.columns[0].type)
    if size is not None and made is not None and not size.check.one(made):
        raise _refusal(attribute, size.words, value)
    return made


def is_coerced(
    attribute: InstrumentedAttribute[Any], values: Sequence[Any], kinds: AbstractSet[type[Any]]
) -> bool:
    """Return quickly whether `coerce` would return each of the values as it is.

    False also stands for "perhaps not".

    Args:
        attribute: The column.
        values: A caller's values.
        kinds: Their types.

    Example:
        >>> is_coerced(Hero.age, [5, None], {int, NoneType})
        True
    """
    return _are_kept(_kept(attribute.property.columns[0].type), values, kinds)


def is_storable(
    attribute: InstrumentedAttribute[Any], values: Sequence[Any], kinds: AbstractSet[type[Any]]
) -> bool:
    """Return quickly whether `storable` would return each of the values as it is.

    False also stands for "perhaps not".

    Args:
        attribute: The column.
        values: A caller's values.
        kinds: Their types.

    Example:
        >>> is_storable(Hero.age, [5, None], {int, NoneType})
        True
    """
    return _are_kept(stored_as_is(attribute.property.columns[0].type), values, kinds)


def _are_kept(kept: Kept | None, values: Sequence[Any], kinds: AbstractSet[type[Any]]) -> bool:
    if kept is None:
        return kinds <= {NoneType}
    if kept.kind is not object and not kinds <= {kept.kind, NoneType}:
        return False
    if kept.check is None:
        return True
    given = [value for value in values if value is not None] if NoneType in kinds else values
    return not given or kept.check.many(given)


def _refusal(attribute: InstrumentedAttribute[Any], words: str, value: Any) -> ValidationError:
    model, name = attribute.parent.mapper.class_.__name__, attribute.key
    return ValidationError(f"{model}.{name} {words}", name, value)


def _described(value: Any) -> str:
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    # Others are of a wrong type, whatever they hold.
    unfit = " that is not one" if isinstance(value, str | int | float | Decimal) else ""
    return f"{article} {kind}{unfit}"


def is_sql(value: Any) -> bool:
    """Return whether a value is an expression of SQL, which the database works out."""
    return hasattr(value, "__clause_element__") or isinstance(value, ClauseElement)


@cached
def python_type(type_: TypeEngine[Any]) -> type[Any]:
    """Return the Python type of a column type, `object` where it has none to tell."""
    try:
        found = type_.python_type
    except NotImplementedError:
        found = object
    if found is object and isinstance(type_, TypeDecorator):
        return python_type(type_.impl_instance)
    return found


def describe(attribute: InstrumentedAttribute[Any]) -> str:
    """Return in words what a column takes, for an error message."""
    rule = _rule(attribute.property.columns[0].type)
    return "values of its own type" if rule is None else rule.expected


@cached
def _rule(type_: TypeEngine[Any]) -> _Rule | None:
    rule = _rule_of_type(type_)
    if rule is None or not _decides_itself(type_):
        return rule
    if python_type(type_) in {str, dict}:
        return None
    return _Rule(rule.expected, _strings_only(rule.convert))


def _rule_of_type(type_: TypeEngine[Any]) -> _Rule | None:
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    if isinstance(type_, PickleType):
        return None
    if isinstance(impl, EnumType):
        return _enum_rule(impl)
    if is_json(type_):
        return _Rule("a JSON value", _to_json)
    if isinstance(impl, Uuid) and not impl.as_uuid:
        return _Rule("a UUID", lambda value: str(_to_uuid(value)))
    if isinstance(impl, DateTime) and python_type(type_) is datetime and impl.timezone:
        return _Rule("a datetime such as 2024-03-01T10:30:00+00:00", _to_aware)
    return _RULES.get(python_type(type_))


def _decides_itself(type_: TypeEngine[Any]) -> bool:
    """Return whether a type of the user's own converts what it is given before it is stored.

    One that stores aware datetimes takes aware datetimes, whatever else it does with them.
    """
    return (
        isinstance(type_, TypeDecorator)
        and type(type_).process_bind_param is not TypeDecorator.process_bind_param
        and not getattr(type_.impl_instance, "timezone", False)
    )


def _strings_only(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def converted(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return convert(value)
        except (ValueError, TypeError, ArithmeticError, LookupError):
            return value

    return converted


def is_json(type_: TypeEngine[Any]) -> bool:
    """Return whether a column stores JSON, and no type of the user's own makes it."""
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    return (
        isinstance(impl, JSON)
        and type(impl).__module__.startswith("sqlalchemy.")
        and not _decides_itself(type_)
    )


# --- what stays as it is -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """What is asked about values of one type, none of them None.

    Attributes:
        one: It is asked of a value.
        many: It is asked of several, which is a lot quicker than one after the other.
    """

    one: Callable[[Any], bool]
    many: Callable[[Sequence[Any]], bool]

    def __and__(self, other: Check) -> Check:
        """Return what asks both."""
        mine, others, mine_of, others_of = self.one, other.one, self.many, other.many
        return Check(
            lambda value: mine(value) and others(value),
            lambda values: mine_of(values) and others_of(values),
        )


def _each(one: Callable[[Any], bool]) -> Check:
    return Check(one, lambda values: all(map(one, values)))


def _between(lowest: int, highest: int) -> Check:
    return Check(
        lambda value: lowest <= value <= highest,
        lambda values: lowest <= min(values) and max(values) <= highest,
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """The type of which values stay as they are, if they pass a check.

    Attributes:
        kind: The type; `object` for all.
        check: What is asked about values of that type.
    """

    kind: type[Any]
    check: Check | None = None


_ALL = Kept(object)


@cached
def _kept(type_: TypeEngine[Any]) -> Kept | None:
    """Return which values `coerce` leaves as they are, None where only a rule can tell."""
    if _rule(type_) is None:
        return _ALL
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    found = python_type(type_)
    if isinstance(impl, EnumType):
        return None if impl.enum_class is None else Kept(impl.enum_class)
    if isinstance(impl, Uuid) and not impl.as_uuid:
        return None
    if isinstance(impl, DateTime) and found is datetime:
        zone = UTC if impl.timezone else None
        return Kept(datetime, _each(lambda value: value.tzinfo is zone))
    return Kept(found, _CHECKS.get(found)) if found in _RULES and found is not datetime else None


@cached
def stored_as_is(type_: TypeEngine[Any]) -> Kept | None:
    """Return which values `storable` leaves as they are, None where only a rule can tell."""
    kept, size = _kept(type_), _size(type_)
    if kept is None or size is None:
        return kept
    return Kept(kept.kind, size.check if kept.check is None else kept.check & size.check)


def _is_bounded(number: Decimal) -> bool:
    """Return whether a number must be finite, and not much longer written out than it is itself."""
    return number.is_finite() and -_MOST_DIGITS <= number.adjusted() <= _MOST_DIGITS


def _is_text(value: str) -> bool:
    return "\0" not in value and (value.isascii() or _is_encodable(value))


def _are_texts(values: Sequence[str]) -> bool:
    if any(map(contains, values, repeat("\0"))):
        return False
    return all(map(str.isascii, values)) or all(map(_is_encodable, values))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


_CHECKS: dict[type[Any], Check] = {
    int: _between(-(2**63), 2**63 - 1),
    Decimal: _each(_is_bounded),
    str: Check(_is_text, _are_texts),
}


# --- how much a column holds ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Size:
    """How much a column holds: in words, and as a question about values of its type."""

    words: str
    check: Check


@cached
def _size(type_: TypeEngine[Any]) -> _Size | None:
    """Return how much a column holds as every database has it, None if it does not say so."""
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    is_told = type(impl).__module__.startswith("sqlalchemy.sql.") and not type_._variant_mapping
    if not is_told or _rule(type_) is None or _decides_itself(type_):
        return None
    if isinstance(impl, String) and not isinstance(impl, Text | EnumType):
        return None if impl.length is None else _length(impl.length)
    if isinstance(impl, Integer) and not isinstance(impl, BigInteger):
        return _range(16 if isinstance(impl, SmallInteger) else 32)
    if isinstance(impl, Numeric) and not isinstance(impl, Float):
        return None if impl.precision is None else _digits(impl.precision, impl.scale or 0)
    return None


def _length(most: int) -> _Size:
    return _Size(
        f"must have at most {most} characters; got a longer text",
        Check(lambda value: len(value) <= most, lambda values: max(map(len, values)) <= most),
    )


def _range(bits: int) -> _Size:
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return _Size(
        f"must be between {lowest} and {highest}; got an integer that is not",
        _between(lowest, highest),
    )


def _digits(precision: int, scale: int) -> _Size:
    # From there on a number is rounded to one that has too many digits.
    end = Decimal((0, (9,) * precision + (5,), -scale - 1))
    whole = max(precision - scale, 0)
    return _Size(
        f"must have at most {whole} digits before the decimal point; got a number with more",
        _each(lambda value: -end < value < end),
    )


# --- numbers -------------------------------------------------------------------------------------


def _to_int(value: Any) -> int:
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            raise ValueError
        number = int(value.partition(".")[0])
    elif isinstance(value, float | Decimal):
        if isinstance(value, Decimal) and not _is_bounded(value):
            raise ValueError
        number = int(value)
        if number != value:
            raise ValueError
    else:
        # int() makes a plain number of a bool, which some drivers tell apart.
        number = int(index(value))
    if not -(2**63) <= number < 2**63:
        raise _MisfitError("a larger one")
    return number


def _to_float(value: Any) -> float:
    if isinstance(value, float):
        return value
    return float(_number(value))


def _to_decimal(value: Any) -> Decimal:
    number = Decimal(str(value) if isinstance(value, float) else _number(value))
    if number.is_finite() and not _is_bounded(number):
        raise _MisfitError("one with too many digits")
    if not number.is_finite():
        raise ValueError
    return number


def _number(value: Any) -> Any:
    if isinstance(value, str) and "_" not in value:
        return value.strip()
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return value
    raise ValueError


def as_bool(value: Any) -> bool:
    """Return a bool, a number or a word that means one as a bool; else raise `ValueError`."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
    elif isinstance(value, int) and value in {0, 1}:
        return bool(value)
    raise ValueError


# --- text ----------------------------------------------------------------------------------------


def _to_str(value: Any) -> str:
    text = _text_of(value)
    if "\0" in text:
        raise _MisfitError("one with a NUL character")
    if not (text.isascii() or _is_encodable(text)):
        raise _MisfitError("one with half a surrogate pair")
    return text


def _text_of(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        # The content itself: str() of an enum that is a string is its name.
        return str.__str__(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    is_plain = isinstance(value, _WRITTEN_AS_TEXT) and not isinstance(value, bool | Enum)
    # Pydantic's URLs have no class in common.
    if is_plain or hasattr(value, "unicode_string"):
        return str(value)
    raise ValueError


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise ValueError


def _to_uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, bytes):
        return UUID(bytes=value)
    if isinstance(value, str):
        return UUID(value.strip())
    raise ValueError


def _enum_rule(type_: EnumType) -> _Rule:
    members: type[Enum] | None = type_.enum_class
    if members is None:
        choices = [str(name) for name in type_.enums]
        return _Rule(_one_of(choices), lambda value: _listed(choices, _to_str(value)))
    expected = _one_of([str(member.value) for member in members])
    return _Rule(expected, lambda value: _to_member(members, value))


def _to_member(members: type[Enum], value: Any) -> Enum:
    if isinstance(value, members):
        return value
    try:
        return members(value)
    except ValueError:
        if not isinstance(value, str):
            raise
    if value in members.__members__:
        return members[value]
    for member in members:
        # A number that came as text, out of a query string for example.
        if str(member.value) == value:
            return member
    raise ValueError


def _listed(choices: list[str], value: str) -> str:
    if value not in choices:
        raise ValueError
    return value


def _one_of(choices: list[str]) -> str:
    named = ", ".join(choices[:_MOST_CHOICES])
    return f"one of {named}" + (", …" if len(choices) > _MOST_CHOICES else "")


# --- JSON ----------------------------------------------------------------------------------------

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def _to_json(value: Any) -> Any:
    """Return a value that JSON can hold, with Pydantic's values in it made plain.

    What else is in it, the engine's own serializer may know how to write.
    """
    if _holds_pydantic(value):
        value = _ANYTHING.dump_python(value, mode="json")
        _holds_pydantic(value)
    return value


def _holds_pydantic(value: Any) -> bool:
    """Return whether Pydantic's values are in a JSON value; refuse what no database can hold."""
    found, met = False, set[int]()
    level = [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict | list | tuple):
                if id(each) not in met:  # several of them may hold the same one
                    met.add(id(each))
                    below.extend(each)
                    below.extend(each.values() if isinstance(each, dict) else ())
            else:
                found = _is_pydantic(each) or found
        if not below:
            return found
        level = below
    raise _MisfitError("one that is nested too deeply")


def _is_pydantic(value: Any) -> bool:
    if isinstance(value, str):
        _to_str(value)
    elif isinstance(value, float) and not isfinite(value):
        raise _MisfitError("one with a number that is not finite")
    # A secret would be stored as asterisks.
    return hasattr(type(value), "__pydantic_serializer__") and not isinstance(value, SecretStr)


# --- dates and times -----------------------------------------------------------------------------


def _to_aware(value: Any) -> datetime:
    moment = _to_moment(value)
    if moment.utcoffset() is not None:
        return moment.astimezone(UTC)
    if isinstance(value, datetime):
        raise _MisfitError(
            "one without a time zone; use datetime.now(UTC) or value.replace(tzinfo=UTC)"
        )
    return moment.replace(tzinfo=UTC)


def _to_naive(value: Any) -> datetime:
    moment = _to_moment(value)
    if moment.utcoffset() is not None:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None)


def _to_moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if not isinstance(value, str):
        raise ValueError
    text = value.strip()
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return _date_in_words(text)


def _to_date(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    moment = _to_moment(value)
    if moment.time() != time():
        raise _MisfitError("one with a time of day")
    return moment.date()


def _to_time(value: Any) -> time:
    if isinstance(value, time):
        return value
    if isinstance(value, str) and ":" in value:
        return time.fromisoformat(value.strip())
    raise ValueError


def _to_timedelta(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError
    if as_python_writes_it := _DURATION.fullmatch(value.strip()):
        parts = as_python_writes_it.groupdict(default="0")
        return timedelta(**{unit: int(number) for unit, number in parts.items()})
    return _ISO_8601_DURATION.validate_python(value.strip())


def _date_in_words(text: str) -> datetime:
    """Read "1 March 2024" and the like; a date without its year, month or day is refused.

    dateutil takes what is missing from a default, so what is complete gives the same with two.
    """
    if len(text) > _LONGEST_DATE or _is_number(text):
        raise ValueError
    from dateutil import parser as dates  # slow to import

    first, second = (
        dates.parse(text, default=default, tzinfos=_known_zone)
        for default in (datetime(2000, 1, 1), datetime(2004, 2, 2))  # noqa: DTZ001 - no moments
    )
    if first != second:
        raise _MisfitError("one without the year, the month or the day")
    return first


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _known_zone(name: str | None, offset: int | None) -> timezone | None:
    if offset is not None:
        return timezone(timedelta(seconds=offset))
    if name is not None:
        raise _MisfitError("one with the name of a time zone that is not known; give the offset")
    return None


_RULES: dict[type[Any], _Rule] = {
    int: _Rule("a 64-bit integer", _to_int),
    float: _Rule("a number", _to_float),
    Decimal: _Rule("a decimal number", _to_decimal),
    bool: _Rule("a bool (true or false, 1 or 0, yes or no)", as_bool),
    str: _Rule("a string", _to_str),
    bytes: _Rule("bytes", _to_bytes),
    UUID: _Rule("a UUID", _to_uuid),
    datetime: _Rule("a datetime such as 2024-03-01T10:30:00", _to_naive),
    date: _Rule("a date such as 2024-03-01", _to_date),
    time: _Rule("a time such as 10:30:00", _to_time),
    timedelta: _Rule("a duration such as 1 day, 2:30:00 or P1DT2H30M", _to_timedelta),
}
