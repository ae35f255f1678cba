"""Values of fields in the history: JSON, with texts for types that JSON lacks."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum as PythonEnum
from functools import singledispatch
from struct import pack
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CHAR,
    Boolean,
    ColumnElement,
    Dialect,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    Numeric,
    String,
    Uuid,
    literal_column,
    type_coerce,
)
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import AutoString

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.values.coercion import coerce
from sqlmodel_crud_utils.mixins import UTCDateTime


def stored_type(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Return a type that reads a column as stored, so that encrypted values stay encrypted."""
    while isinstance(type_, TypeDecorator) and not isinstance(type_, UTCDateTime | Interval):
        type_ = type_.load_dialect_impl(dialect)
    return type_


def as_stored(column: ColumnElement[Any], dialect: Dialect) -> ColumnElement[Any]:
    """Return the expression with which a SELECT reads a column exactly as stored."""
    if is_rounded(column.type, dialect):
        return type_coerce(column + literal_column("0E0"), Double())
    return type_coerce(column, stored_type(column.type, dialect))


def is_rounded(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    """Return whether a column holds 4-byte floats, which a SELECT rounds to six digits."""
    if not isinstance(type_, Float) or isinstance(type_, Double):
        return False
    is_short = (type_.precision or 0) <= _LONGEST_OF_FOUR_BYTES
    return is_short and features_of(dialect).widens_floats == "addition"


_LONGEST_OF_FOUR_BYTES = 24


def shortest(value: float | None) -> float | None:
    """Return a 4-byte float with the fewest digits that identify it."""
    if value is None:
        return None
    texts = (float(f"{value:.{digits}g}") for digits in range(6, 9))
    return next((each for each in texts if pack("f", each) == pack("f", value)), value)


def is_stored_as_is(type_: TypeEngine[Any], value: Any) -> bool:
    """Return whether a column stores a value unchanged, so that it need not be read back."""
    if value is None:
        return True
    if isinstance(type_, UTCDateTime | Enum | Uuid):
        return isinstance(value, datetime | PythonEnum | UUID)
    plain = {Boolean: bool, Integer: int, AutoString: str, String: str}
    return plain.get(type(type_)) is type(value)


@singledispatch
def text_of(value: Any) -> Any:
    """Return a value in the form of the history: text, number, boolean, None, or JSON."""
    return value if value is None or isinstance(value, bool | int | str) else str(value)


@text_of.register
def _(value: PythonEnum) -> str:
    return value.name


@text_of.register
def _(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


@text_of.register
def _(value: Decimal) -> str:
    return format(value, "f")


@text_of.register
def _(value: bytes) -> str:
    return base64.b64encode(value).decode()


@text_of.register
def _(value: datetime) -> str:
    value = value if value.tzinfo is None else value.astimezone(UTC)
    return value.isoformat(timespec="microseconds")


@text_of.register
def _(value: timedelta) -> str:
    return str(value.total_seconds())


@text_of.register
def _(value: dict) -> dict[str, Any]:  # type: ignore[type-arg]
    return {str(name): text_of(each) for name, each in value.items()}


@text_of.register(list)
@text_of.register(tuple)
def _(value: Sequence[Any]) -> list[Any]:
    return [text_of(each) for each in value]


def key_text(facts: Facts, key: Sequence[Any]) -> str:
    """Return the text of a primary key; a composite one becomes a JSON list."""
    values = [_part_of_key(facts, name, value) for name, value in zip(facts.key, key, strict=True)]
    return str(values[0]) if len(values) == 1 else json.dumps(values, separators=(",", ":"))


def _part_of_key(facts: Facts, name: str, value: Any) -> Any:
    """Return a key's value in the form of the history, the same before and after it was stored."""
    type_, value = facts.columns[name].type, coerce(facts.attributes[name], value)
    if isinstance(value, Decimal) and isinstance(type_, Numeric) and type_.scale is not None:
        value = round(value, type_.scale)
    if isinstance(value, str) and isinstance(type_, CHAR):
        value = value.rstrip(" ")  # PostgreSQL adds spaces
    return text_of(value)
