"""What a column accepts and stores, derived from its type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
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
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.sqlalchemy_internals import variants_of
from sqlmodel_crud_utils._core.values.readers import (
    RULES,
    Rule,
    are_texts,
    enum_rule,
    is_bounded,
    is_text,
    to_aware,
    to_json,
    to_uuid,
)


@cached
def python_type(type_: TypeEngine[Any]) -> type[Any]:
    """Return the Python type of a column type, or `object` if it has none."""
    try:
        found = type_.python_type
    except NotImplementedError:
        found = object
    if found is object and isinstance(type_, TypeDecorator):
        return python_type(type_.impl_instance)
    return found


@cached
def rule_of(type_: TypeEngine[Any]) -> Rule | None:
    """Return the rule to read values for a column type, or None if it accepts anything."""
    rule = _rule_of_type(type_)
    if rule is None or not _decides_itself(type_):
        return rule
    if python_type(type_) in {str, dict}:
        return None
    return Rule(rule.expected, _strings_only(rule.convert))


def _rule_of_type(type_: TypeEngine[Any]) -> Rule | None:
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    if isinstance(type_, PickleType):
        return None
    if isinstance(impl, EnumType):
        return enum_rule(impl)
    if is_json(type_):
        return Rule("a JSON value", to_json)
    if isinstance(impl, Uuid) and not impl.as_uuid:
        return Rule("a UUID", lambda value: str(to_uuid(value)))
    if isinstance(impl, DateTime) and python_type(type_) is datetime and impl.timezone:
        return Rule("a datetime such as 2024-03-01T10:30:00+00:00", to_aware)
    return RULES.get(python_type(type_))


def _decides_itself(type_: TypeEngine[Any]) -> bool:
    """Return whether a custom type converts values before they are stored.

    A type that stores aware datetimes accepts aware datetimes, whatever else it does with them.
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
    """Return whether a column stores JSON that no custom type produces."""
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    return (
        isinstance(impl, JSON)
        and type(impl).__module__.startswith("sqlalchemy.")
        and not _decides_itself(type_)
    )


# --- what stays as it is -------------------------------------------------------------------------


class Check(NamedTuple):
    """A check of values of one type, None excluded.

    Attributes:
        one: It is asked of a value.
        many: It is asked of several, which is a lot quicker than one after the other.
    """

    one: Callable[[Any], bool]
    many: Callable[[Sequence[Any]], bool]

    def __and__(self, other: Check) -> Check:
        """Return the check that combines both."""
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


class Kept(NamedTuple):
    """The type whose values stay unchanged if they pass a check.

    Attributes:
        kind: The type; `object` for all.
        check: What is asked about values of that type.
    """

    kind: type[Any]
    check: Check | None = None


_ALL = Kept(object)


@cached
def kept_by(type_: TypeEngine[Any]) -> Kept | None:
    """Return which values `coerce` leaves unchanged, or None if only the rule can decide."""
    if rule_of(type_) is None:
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
    return Kept(found, _CHECKS.get(found)) if found in RULES and found is not datetime else None


@cached
def stored_as_is(type_: TypeEngine[Any]) -> Kept | None:
    """Return which values `storable` leaves unchanged, or None if only the rule can decide."""
    kept, size = kept_by(type_), size_of(type_)
    if kept is None or size is None:
        return kept
    return Kept(kept.kind, size.check if kept.check is None else kept.check & size.check)


_CHECKS: dict[type[Any], Check] = {
    int: _between(-(2**63), 2**63 - 1),
    Decimal: _each(is_bounded),
    str: Check(is_text, are_texts),
}


# --- how much a column holds ---------------------------------------------------------------------


class Size(NamedTuple):
    """The limit of a column, in words and as a check of values of its type.

    Attributes:
        words: The error text for a value that is too large.
        check: Whether values are within the limit.
        expected: What the column accepts, if its type alone would promise too much.
    """

    words: str
    check: Check
    expected: str | None = None


@cached
def size_of(type_: TypeEngine[Any]) -> Size | None:
    """Return the limit of a column type that holds on every database, or None."""
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    is_told = type(impl).__module__.startswith("sqlalchemy.sql.") and not variants_of(type_)
    if not is_told or rule_of(type_) is None or _decides_itself(type_):
        return None
    if isinstance(impl, String) and not isinstance(impl, Text | EnumType):
        return None if impl.length is None else _length(impl.length)
    if isinstance(impl, Integer) and not isinstance(impl, BigInteger):
        return _range(16 if isinstance(impl, SmallInteger) else 32)
    if isinstance(impl, Numeric) and not isinstance(impl, Float):
        return None if impl.precision is None else _digits(impl.precision, impl.scale or 0)
    return None


def _length(most: int) -> Size:
    return Size(
        f"must have at most {most} characters; got a longer text",
        Check(lambda value: len(value) <= most, lambda values: max(map(len, values)) <= most),
    )


def _range(bits: int) -> Size:
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return Size(
        f"must be between {lowest} and {highest}; got an integer that is not",
        _between(lowest, highest),
        f"a {bits}-bit integer",
    )


def _digits(precision: int, scale: int) -> Size:
    # From this value on, a number would be rounded up to one with too many digits.
    end = Decimal((0, (9,) * precision + (5,), -scale - 1))
    whole = max(precision - scale, 0)
    return Size(
        f"must have at most {whole} digits before the decimal point; got a number with more",
        _each(lambda value: -end < value < end),
    )
