"""Column values as JSON and back, so that nothing from a store is executed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import Enum as EnumType, PickleType
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.sqlalchemy_internals import variants_of
from sqlmodel_crud_utils._core.values.columns import is_json, python_type

_PLAIN = frozenset((bool, int, float, str))
_MICROSECOND = timedelta(microseconds=1)


class UncacheableError(Exception):
    """A value that JSON cannot restore unchanged."""


class DamagedError(Exception):
    """Data from a store that no read has stored there."""


_TO_TEXT: Mapping[type[Any], tuple[str, Callable[[Any], Any]]] = {
    Decimal: ("decimal", str),
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda value: value // _MICROSECOND),
    UUID: ("uuid", str),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii")),
}
_FROM_TEXT: Mapping[str, Callable[[Any], Any]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda number: number * _MICROSECOND,
    "uuid": UUID,
    "bytes": lambda text: base64.b64decode(text, validate=True),
}


def encoded(value: Any) -> Any:
    """Return a value in a form that `json.dumps` writes without loss.

    Anything but a number, text or boolean becomes a list of a type name and a text.

    Raises:
        UncacheableError: The value could not be restored unchanged.
    """
    if value is None or type(value) in _PLAIN:
        return value
    # asyncpg has its own subclass of UUID.
    known = _TO_TEXT.get(UUID if isinstance(value, UUID) else type(value))
    if known is not None:
        word, to_text = known
        return [word, to_text(value)]
    if isinstance(value, Enum):
        return ["enum", value.name]
    if isinstance(value, dict | list):
        return ["json", _checked(value)]
    raise UncacheableError(type(value).__name__)


def decoded(raw: Any, type_: TypeEngine[Any] | None = None) -> Any:
    """Return the value that `encoded` has encoded; raise a `DamagedError` for anything else."""
    if raw is None or type(raw) in _PLAIN:
        return raw
    if not isinstance(raw, list) or len(raw) != 2:
        raise DamagedError
    word, text = raw
    if word == "json":
        return text
    if word == "enum":
        return _member(type_, text)
    return _FROM_TEXT[word](text)


def _member(type_: TypeEngine[Any] | None, name: str) -> Enum:
    found = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    if not isinstance(found, EnumType) or found.enum_class is None:
        raise DamagedError
    members: Mapping[str, Enum] = found.enum_class.__members__
    return members[name]


def _checked(value: Any) -> Any:
    """Return nested lists and dicts if JSON can represent their content."""
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            raise UncacheableError("a key that is not a text")
        return {key: _checked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_checked(each) for each in value]
    if value is None or type(value) in _PLAIN:
        return value
    raise UncacheableError(type(value).__name__)


_NUMBERS = (int, float, Decimal)


def are_of(type_: TypeEngine[Any], values: Sequence[Any]) -> bool:
    """Return whether values fit the type of an expression; NULL fits any type.

    For numbers, any type of number fits, because databases change it, for instance in sums.
    """
    kind = python_type(type_)
    if kind is object or is_json(type_):
        return True
    kinds = _NUMBERS if issubclass(kind, _NUMBERS) else kind
    return all(issubclass(each, kinds) for each in {*map(type, values)} - {type(None)})


# --- columns -------------------------------------------------------------------------------------


class Codec:
    """Encodes the values of a column as stored, before the type's own conversion.

    Args:
        type_: The type of the column.
        dialect: The dialect of its database.
    """

    def __init__(self, type_: TypeEngine[Any], dialect: Any) -> None:
        self._type = type_
        self._dialect = dialect
        self._kind = python_type(type_)
        self._decorator: Any = type_ if converts(type_) else None
        self._is_json = is_json(type_)
        self._as_is = self._unencoded_types()

    def _unencoded_types(self) -> frozenset[type[Any]]:
        """Return the types of values that JSON represents directly."""
        if self._decorator is not None or self._is_json or self._kind not in _PLAIN:
            return frozenset()
        return frozenset((self._kind, type(None)))

    def encode_all(self, values: Sequence[Any]) -> list[Any]:
        """Return values for JSON; refuse one that could not be restored unchanged."""
        if self._as_is.issuperset(map(type, values)):
            return list(values)
        return list(map(self.encode, values))

    def decode_all(self, raws: Any) -> list[Any]:
        """Return the values that `encode_all` has encoded; raise a `DamagedError` otherwise."""
        if type(raws) is not list:
            raise DamagedError
        if self._as_is.issuperset(map(type, raws)):
            return raws
        return list(map(self.decode, raws))

    def encode(self, value: Any) -> Any:
        """Return a value for JSON; refuse one that could not be restored unchanged."""
        if self._decorator is not None:
            return self._converted(value)
        if value is None or (self._kind in _PLAIN and type(value) is self._kind):
            return value
        if self._is_json:
            return ["json", _checked(value)]
        if isinstance(value, list):
            return ["list", [encoded(each) for each in value]]
        if isinstance(value, Enum) and not isinstance(_impl(self._type), EnumType):
            raise UncacheableError(type(value).__name__)
        return encoded(value)

    def decode(self, raw: Any) -> Any:
        """Return the value that `encode` has encoded; raise a `DamagedError` otherwise."""
        if self._decorator is not None:
            return self._converted_back(decoded(raw))
        if isinstance(raw, list) and raw and raw[0] == "list":
            return [decoded(each, _item(self._type)) for each in raw[1]]
        value = decoded(raw, self._type)
        if value is None or self._is_json or self._kind is object:
            return value
        fits = type(value) is self._kind if self._kind in _PLAIN else isinstance(value, self._kind)
        if fits or (self._kind is float and type(value) is int):
            return value
        raise DamagedError

    def _converted(self, value: Any) -> Any:
        try:
            raw = encoded(self._stored(value))
            # Some types do not return what they were given, for instance hashes.
            again = self._read(decoded(raw))
        except Exception as error:
            raise UncacheableError(type(value).__name__) from error
        if type(again) is not type(value) or again != value:
            raise UncacheableError(type(value).__name__)
        return raw

    def _converted_back(self, value: Any) -> Any:
        try:
            return self._read(value)
        except Exception as error:
            raise DamagedError from error

    def _stored(self, value: Any) -> Any:
        if not _has_own(self._type, "process_bind_param"):
            return value
        return self._decorator.process_bind_param(value, self._dialect)

    def _read(self, value: Any) -> Any:
        if not _has_own(self._type, "process_result_value"):
            return value
        return self._decorator.process_result_value(value, self._dialect)


def _impl(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def _item(type_: TypeEngine[Any]) -> TypeEngine[Any] | None:
    return getattr(_impl(type_), "item_type", None)


@cached
def converts(type_: TypeEngine[Any]) -> bool:
    """Return whether a type is a user's own that converts values."""
    methods = ("process_bind_param", "process_result_value")
    return any(_has_own(type_, name) for name in methods)


@cached
def _has_own(type_: TypeEngine[Any], method: str) -> bool:
    return isinstance(type_, TypeDecorator) and (
        getattr(type(type_), method) is not getattr(TypeDecorator, method)
    )


def _types_in(type_: TypeEngine[Any]) -> list[TypeEngine[Any]]:
    """Return a type's variants for some databases, and the type of its items."""
    item = _item(type_)
    return [*variants_of(type_).values(), *(() if item is None else (item,))]


@cached
def is_cacheable(type_: TypeEngine[Any]) -> bool:
    """Return whether values of a type can be stored without pickling."""
    if isinstance(type_, PickleType):
        return False
    # Only a column's own type converts stored values.
    if any(converts(each) or not is_cacheable(each) for each in _types_in(type_)):
        return False
    if not isinstance(type_, TypeDecorator) or type(type_).__module__.startswith("sqlalchemy."):
        return True
    methods = ("bind_processor", "result_processor")
    return not any(_has_own(type_, name) for name in methods) and is_cacheable(type_.impl_instance)
