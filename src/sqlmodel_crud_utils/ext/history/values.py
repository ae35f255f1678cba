"""How values of fields stand in the history: as JSON, with texts for what JSON does not have."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum as PythonEnum
from functools import singledispatch
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Dialect, Enum, Integer, Interval, String, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import AutoString

from sqlmodel_crud_utils.mixins import UTCDateTime


def stored_type(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Return the type that reads a column as it is stored: what is encrypted stays encrypted."""
    while isinstance(type_, TypeDecorator) and not isinstance(type_, UTCDateTime | Interval):
        type_ = type_.load_dialect_impl(dialect)
    return type_


def is_stored_as_is(type_: TypeEngine[Any], value: Any) -> bool:
    """Return whether a column holds a value as it is, so that nobody has to look what it holds."""
    if value is None:
        return True
    if isinstance(type_, UTCDateTime | Enum | Uuid):
        return isinstance(value, datetime | PythonEnum | UUID)
    plain = {Boolean: bool, Integer: int, AutoString: str, String: str}
    return plain.get(type(type_)) is type(value)


@singledispatch
def text_of(value: Any) -> Any:
    """Return a value as it stands in the history: a text, a number, a boolean, None, or JSON."""
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


def key_text(key: Sequence[Any]) -> str:
    """Return the text of a primary key; one of several columns is a JSON list."""
    values = list(map(text_of, key))
    return str(values[0]) if len(values) == 1 else json.dumps(values, separators=(",", ":"))
