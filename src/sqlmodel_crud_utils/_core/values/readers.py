"""How a caller's value is read: "5" as a number, "yes" as a bool, a text as a date.

Each reader raises for what it cannot read; the rules say in words what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import SecretStr, TypeAdapter
from sqlalchemy import (
    Enum as EnumType,
)

_LONGEST_DATE = 100  # Long enough for any date in words; longer texts are not parsed.
_MOST_CHOICES = 20
# "1e999999999" would have a gigabyte of digits; no database declares a number with more digits than
# this.
_MOST_DIGITS = 1000
# Python's own JSON module fails at a slightly greater depth.
_DEEPEST = 500

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,20}(\.0*)?\s*")
_DURATION = (
    r"(?a)(?:(?P<days>-?\d{1,9}) days?, )?(?P<hours>\d{1,2}):(?P<minutes>\d\d):(?P<seconds>\d\d)"
    r"(?:\.(?P<microseconds>\d{6}))?"
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


class MisfitError(ValueError):
    """Says why a value doesn't fit, without the value."""


class Rule(NamedTuple):
    """What a column type accepts: in words, and as a function that raises for anything else."""

    expected: str
    convert: Callable[[Any], Any]


def is_bounded(number: Decimal) -> bool:
    """Return whether a number is finite, and short when it is written without an exponent."""
    return number.is_finite() and -_MOST_DIGITS <= number.adjusted() <= _MOST_DIGITS


def is_text(value: str) -> bool:
    return "\0" not in value and (value.isascii() or _is_encodable(value))


def are_texts(values: Sequence[str]) -> bool:
    if any(map(contains, values, repeat("\0"))):
        return False
    return all(map(str.isascii, values)) or all(map(_is_encodable, values))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


# --- numbers -------------------------------------------------------------------------------------


def _to_int(value: Any) -> int:
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            raise ValueError
        number = int(value.partition(".")[0])
    elif isinstance(value, float | Decimal):
        if isinstance(value, Decimal) and not is_bounded(value):
            raise ValueError
        number = int(value)
        if number != value:
            raise ValueError
    else:
        # int() turns a bool into a plain number; some drivers treat the two differently.
        number = int(index(value))
    if not -(2**63) <= number < 2**63:
        raise MisfitError("a larger one")
    return number


def _to_float(value: Any) -> float:
    if isinstance(value, float):
        return value
    return float(_number(value))


def _to_decimal(value: Any) -> Decimal:
    number = Decimal(str(value) if isinstance(value, float) else _number(value))
    if number.is_finite() and not is_bounded(number):
        raise MisfitError("one with too many digits")
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
    """Return a bool, or a number or word that means one, as a bool; else raise `ValueError`."""
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
        raise MisfitError("one with a NUL character")
    if not (text.isascii() or _is_encodable(text)):
        raise MisfitError("one with half a surrogate pair")
    return text


def _text_of(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        # The string's content: str() of an enum member would give its name.
        return str.__str__(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    is_plain = isinstance(value, _WRITTEN_AS_TEXT) and not isinstance(value, bool | Enum)
    # Pydantic's URLs have no common base class.
    if is_plain or hasattr(value, "unicode_string"):
        return str(value)
    raise ValueError


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise ValueError


def to_uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, bytes):
        return UUID(bytes=value)
    if isinstance(value, str):
        return UUID(value.strip())
    raise ValueError


def enum_rule(type_: EnumType) -> Rule:
    members: type[Enum] | None = type_.enum_class
    if members is None:
        choices = [str(name) for name in type_.enums]
        return Rule(_one_of(choices), lambda value: _listed(choices, _to_str(value)))
    expected = _one_of([str(member.value) for member in members])
    return Rule(expected, lambda value: _to_member(members, value))


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
        # A number given as text, for example from a query string.
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


def to_json(value: Any) -> Any:
    """Return a value that JSON can hold, with Pydantic's values converted to plain ones.

    What else is in it, the engine's own serializer may know how to write.
    """
    if _holds_pydantic(value):
        value = _ANYTHING.dump_python(value, mode="json")
        _holds_pydantic(value)
    return value


def _holds_pydantic(value: Any) -> bool:
    """Return whether a JSON value contains Pydantic's; refuse what no database can store."""
    found, met = False, set[int]()
    level = [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict | list | tuple):
                if id(each) not in met:  # several containers may hold the same one
                    met.add(id(each))
                    below.extend(each)
                    below.extend(each.values() if isinstance(each, dict) else ())
            else:
                found = _is_pydantic(each) or found
        if not below:
            return found
        level = below
    raise MisfitError("one that is nested too deeply")


def _is_pydantic(value: Any) -> bool:
    if isinstance(value, str):
        _to_str(value)
    elif isinstance(value, float) and not isfinite(value):
        raise MisfitError("one with a number that is not finite")
    # A secret would be stored as asterisks.
    return hasattr(type(value), "__pydantic_serializer__") and not isinstance(value, SecretStr)


# --- dates and times -----------------------------------------------------------------------------


def to_aware(value: Any) -> datetime:
    moment = _to_moment(value)
    if moment.utcoffset() is not None:
        return moment.astimezone(UTC)
    if isinstance(value, datetime):
        raise MisfitError(
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
        raise MisfitError("one with a time of day")
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
    if as_python_writes_it := re.fullmatch(_DURATION, value.strip()):
        parts = as_python_writes_it.groupdict(default="0")
        return timedelta(**{unit: int(number) for unit, number in parts.items()})
    return _ISO_8601_DURATION.validate_python(value.strip())


def _date_in_words(text: str) -> datetime:
    """Read "1 March 2024" and the like; a date without its year, month or day is refused.

    dateutil fills in missing parts from a default, so only a complete date gives the same result
    with two different defaults.
    """
    if len(text) > _LONGEST_DATE or _is_number(text):
        raise ValueError
    from dateutil import parser as dates  # slow to import

    first, second = (
        dates.parse(text, default=default, tzinfos=_known_zone)
        for default in (datetime(2000, 1, 1), datetime(2004, 2, 2))  # noqa: DTZ001 - no moments
    )
    if first != second:
        raise MisfitError("one without the year, the month or the day")
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
        raise MisfitError("one with the name of a time zone that is not known; give the offset")
    return None


RULES: dict[type[Any], Rule] = {
    int: Rule("a 64-bit integer", _to_int),
    float: Rule("a number", _to_float),
    Decimal: Rule("a decimal number", _to_decimal),
    bool: Rule("a bool (true or false, 1 or 0, yes or no)", as_bool),
    str: Rule("a string", _to_str),
    bytes: Rule("bytes", _to_bytes),
    UUID: Rule("a UUID", to_uuid),
    datetime: Rule("a datetime such as 2024-03-01T10:30:00", _to_naive),
    date: Rule("a date such as 2024-03-01", _to_date),
    time: Rule("a time such as 10:30:00", _to_time),
    timedelta: Rule("a duration such as 1 day, 2:30:00 or P1DT2H30M", _to_timedelta),
}
