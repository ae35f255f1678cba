"""Parameters: names that no column has, and types without the limits that a cast enforces.

In an UPDATE or an INSERT SQLAlchemy takes a parameter that is called like a column for the value of
that column. And PostgreSQL's drivers cast each parameter to a type: a cast to VARCHAR(5) cuts a
text, and one to NUMERIC(6, 2) or TIMESTAMP(0) rounds, so a comparison would find values that nobody
asked for, and an INSERT would store another value where it should be refused. SQLAlchemy leaves the
length of a text out for this reason, but not in an array.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    CHAR,
    Dialect,
    Enum,
    Float,
    FromClause,
    Interval,
    Numeric,
    String,
)
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine, UserDefinedType

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.sqlalchemy_internals import kind_of, variants_of

# The attributes that limit numeric and datetime types.
_ROUNDING = ("precision", "scale", "second_precision")


class Unlimited(TypeDecorator[Any]):
    """A column's type without its length or precision; it still processes values."""

    impl = NullType
    cache_ok = True

    def __init__(self, column_type: TypeEngine[Any]) -> None:
        super().__init__()
        self.column_type = column_type

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that the parameter is cast to."""
        return _without_limits(_undecorated(self.column_type, dialect))

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return what the column's own type does to a value before the driver sees it."""
        return self.column_type.dialect_impl(dialect).bind_processor(dialect)


class _BlankPadded(UserDefinedType[str]):
    """CHAR of any length: CHAR without one is CHAR(1), and VARCHAR takes no index of a CHAR."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "BPCHAR"


def array_of(type_: TypeEngine[Any]) -> ARRAY[Any]:
    """Return the type of an array whose elements are bound as single values of a column are."""
    return ARRAY(_unlimited(type_) if _may_have_limits(type_) else type_)


def exact(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type to compare a single value with a column without rounding it."""
    return _unlimited(type_) if _rounds(type_) else type_


def is_rounded(type_: TypeEngine[Any], value: Any) -> bool:
    """Return whether a parameter of the type itself would change the value."""
    return _rounds(type_) and not (isinstance(value, Decimal) and _fits(plain_type(type_), value))


def plain_type(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type inside a `TypeDecorator`."""
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def _fits(type_: Any, value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    scale = type_.scale or 0
    return (
        isinstance(exponent, int)
        and exponent >= -scale
        and value.adjusted() < type_.precision - scale
    )


# Cached: SQLAlchemy's statement cache compares types, and new ones would not be equal.
@cached
def _unlimited(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    return Unlimited(type_)


@cached
def _may_have_limits(type_: TypeEngine[Any]) -> bool:
    # The implementation of a custom type may depend on the dialect.
    return (
        isinstance(type_, TypeDecorator)
        or bool(variants_of(type_))
        or any(getattr(type_, name, None) is not None for name in ("length", *_ROUNDING))
    )


@cached
def _rounds(type_: TypeEngine[Any]) -> bool:
    """Return whether even a single parameter is cast to a type that rounds it."""
    plain = plain_type(type_)
    has_limits = any(getattr(plain, name, None) is not None for name in _ROUNDING)
    return has_limits and kind_of(plain) in (Numeric, Interval)


def _undecorated(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    type_ = variants_of(type_).get(dialect.name, type_)
    while isinstance(type_, TypeDecorator):
        type_ = type_.type_engine(dialect)
        type_ = variants_of(type_).get(dialect.name, type_)
    return type_


def _without_limits(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    # The names of an Enum are no longer than its column, and a float is rounded as its column is.
    if isinstance(type_, Enum | Float):
        return type_
    if isinstance(type_, CHAR):
        return _BlankPadded()
    if isinstance(type_, String):
        return String() if type_.length else type_
    limits = {name: None for name in _ROUNDING if getattr(type_, name, None) is not None}
    return type_.adapt(type(type_), **limits) if limits else type_


@cached
def prefix_for(table: FromClause) -> str:
    """Return a prefix for parameter names that no column of the table begins with."""
    return _unused_prefix([column.key for column in table.columns])


def _unused_prefix(names: Iterable[str]) -> str:
    prefix = "_"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix
