"""Keyset pagination: where the next page begins, as a criterion and as an opaque cursor.

A cursor holds the values that the last row of a page is sorted by, as the database's driver gives
them: no type of the column stands between, so they mean the same row when they come back. The
database itself compares them, with the collation it sorts by.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BindParameter,
    ColumnElement,
    Dialect,
    Select,
    and_,
    bindparam,
    false,
    or_,
    tuple_,
    type_coerce,
)
from sqlalchemy.types import NullType

from sqlmodel_crud_utils._core.caching import Store
from sqlmodel_crud_utils._core.queries.ordering import Term, comparable
from sqlmodel_crud_utils._core.queries.query import Prepared, Query
from sqlmodel_crud_utils.exceptions import ValidationError

_VERSION = 1
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_CHECKSUM = 8  # bytes


# --- the criterion -------------------------------------------------------------------------------


def key_columns(terms: Sequence[Term], dialect: Dialect) -> list[ColumnElement[Any]]:
    """Return what a page selects beside the rows: the values that they are sorted by."""
    return [_bare(term, dialect).label(f"sort_key_{i}") for i, term in enumerate(terms)]


def rows_from(query: Query, values: Sequence[Any] | None) -> Select[Any]:
    """Return the SELECT of the rows that follow after the one with these values.

    Beside each row it has the values that rows are sorted by. Without values it begins where the
    query does.
    """
    terms, dialect = query.terms, query.dialect
    if values is None:
        return query.rows(*key_columns(terms, dialect))
    rest = replace(query, start=None).rows(*key_columns(terms, dialect))
    return rest.where(rows_after(terms, values, dialect))


def prepared_from(query: Query, values: Sequence[Any] | None) -> Prepared:
    """Return `rows_from` with the parameters to run it with."""
    if values is None:
        return query.prepared("first page", lambda each: rows_from(each, None))
    given = {f"after_{i}": value for i, value in enumerate(values) if value is not None}
    bound = [
        None if value is None else bindparam(f"after_{i}", type_=NullType())
        for i, value in enumerate(values)
    ]
    kind = ("page", tuple(given))
    statement, parameters = query.prepared(kind, lambda each: rows_from(each, bound))
    return statement, {**(parameters or {}), **given}


def rows_after(
    terms: Sequence[Term], values: Sequence[Any], dialect: Dialect
) -> ColumnElement[bool]:
    """Return the criterion for the rows that come after the one with these values.

    It is `a > 1 OR (a = 1 AND (b > 2 OR (b = 2 AND …)))`, with the directions and the place of
    the NULLs of each term; or `(a, b) > (1, 2)` where that says the same, as an index leads to
    the very row then, however many are equal in the first term.
    """
    if _compares_as_row(terms, dialect):
        row = tuple_(*(_bare(term, dialect) for term in terms))
        bounds = tuple_(*map(_bound, values))
        return row < bounds if terms[0].descending else row > bounds
    *earlier, (last, value) = zip(terms, values, strict=True)
    found = _after(last, value, dialect)
    for term, value in reversed(earlier):
        found = or_(_after(term, value, dialect), and_(_equal(term, value, dialect), found))
    first, value = terms[0], values[0]
    if earlier and not first.nullable:
        # It says nothing new, but it is what databases look up in an index.
        column, bound = _bare(first, dialect), _bound(value)
        found = and_(column <= bound if first.descending else column >= bound, found)
    return found


def _compares_as_row(terms: Sequence[Term], dialect: Dialect) -> bool:
    directions = {term.descending for term in terms}
    without_nulls = not any(term.nullable for term in terms)
    # MySQL looks up no rows in an index that way.
    return (
        len(terms) > 1
        and len(directions) == 1
        and without_nulls
        and dialect.name in {"postgresql", "sqlite"}
    )


def _after(term: Term, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    if value is None:
        return term.expression.is_not(None) if term.nulls_first else false()
    column, bound = _bare(term, dialect), _bound(value)
    after: ColumnElement[bool] = column < bound if term.descending else column > bound
    if term.nullable and not term.nulls_first:
        after = or_(after, term.expression.is_(None))
    return after


def _equal(term: Term, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    if value is None:
        return term.expression.is_(None)
    return _bare(term, dialect) == _bound(value)


def _bare(term: Term, dialect: Dialect) -> ColumnElement[Any]:
    return type_coerce(comparable(term.expression, dialect), NullType())


def _bound(value: Any) -> ColumnElement[Any]:
    if isinstance(value, BindParameter):
        return value
    return bindparam(None, value, type_=NullType(), unique=True)


def check_sortable(terms: Sequence[Term], method: str) -> None:
    """Refuse an order by values that databases have no comparison for."""
    for term in terms:
        if isinstance(term.expression.type, JSON):
            raise ValidationError(
                f"{method}() can't continue after a JSON value; sort by another field than "
                f"{term.name or 'this one'}",
                field="order_by",
            )


# --- the cursor ----------------------------------------------------------------------------------


def mark_of(query: Query) -> str:
    """Return what tells a cursor of the query's model and order from those of others."""
    order = query.order_key()
    if order is None:
        return fingerprint(query.model, query.terms, query.dialect)
    key = (query.model, query.dialect.name, order)
    return _marks.get(key, lambda: fingerprint(query.model, query.terms, query.dialect))


_marks: Store[Hashable, str] = Store()


def fingerprint(model: type[Any], terms: Sequence[Term], dialect: Dialect) -> str:
    """Return it for a model and the terms of an order."""
    parts = [dialect.name, f"{model.__module__}.{model.__qualname__}"]
    for term in terms:
        compiled = term.expression.compile(dialect=dialect)
        parts += [str(compiled), repr(sorted(compiled.params.items(), key=str))]
        parts += [str(term.descending), str(term.nulls_first)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def encode_cursor(mark: str, values: Sequence[Any]) -> str:
    """Return the cursor for the values that the last row of a page is sorted by.

    Args:
        mark: The fingerprint of the order.
        values: The values as the driver gave them.

    Raises:
        ValidationError: A value of a type that has no place in a cursor.
    """
    packed = [_packed(value) for value in values]
    body = _to_json([_VERSION, mark, packed]).encode()
    return base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")


def decode_cursor(mark: str, cursor: Any, length: int) -> list[Any]:
    """Return the values of a cursor.

    Args:
        mark: The fingerprint of the order that the cursor has to be of.
        cursor: What the caller gave.
        length: How many values the order has.

    Raises:
        ValidationError: A damaged cursor, or one of another order, model or version.
    """
    if not isinstance(cursor, str):
        raise ValidationError(
            f"after takes the next_cursor of a page, not {type(cursor).__name__}", field="after"
        )
    version, found, packed = _content(cursor)
    if version != _VERSION:
        raise ValidationError(
            "the cursor was made by another version of the library; begin without one",
            field="after",
        )
    if found != mark:
        raise ValidationError(
            "the cursor belongs to another model or order_by; pass it to the query it came from",
            field="after",
        )
    try:
        values = [_unpacked(value) for value in packed]
    except _UNREADABLE as error:
        raise _damaged() from error
    if len(values) != length:
        raise _damaged()
    return values


def _content(cursor: str) -> tuple[Any, Any, list[Any]]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        body = raw[_CHECKSUM:]
        if base64.urlsafe_b64encode(raw).decode().rstrip("=") != cursor:
            raise ValueError
        if _checksum(body) != raw[:_CHECKSUM]:
            raise ValueError
        version, mark, packed = json.loads(body.decode())
        if not isinstance(packed, list):
            raise TypeError
    except _UNREADABLE as error:
        raise _damaged() from error
    return version, mark, packed


_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, binascii.Error)


def _damaged() -> ValidationError:
    return ValidationError(
        "the cursor is damaged; pass the next_cursor of a page as it is", field="after"
    )


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECKSUM]


def _packed(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        # A plain one: drivers give subclasses too.
        return str.__str__(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    for tag, (type_, pack, _) in _TYPES.items():
        if isinstance(value, type_):
            return {tag: pack(value)}
    raise ValidationError(
        f"keyset() can't continue after a {type(value).__name__}; sort by another field",
        field="order_by",
    )


def _unpacked(packed: Any) -> Any:
    if not isinstance(packed, dict):
        if packed is None or isinstance(packed, bool | str | int):
            return packed
        raise TypeError
    [(tag, content)] = packed.items()
    return _TYPES[tag][2](content)


def _to_timedelta(parts: Sequence[int]) -> timedelta:
    days, seconds, microseconds = parts
    return timedelta(days, seconds, microseconds)


# A datetime is a date too, so it stands first.
_TYPES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "float": (float, repr, float),
    "decimal": (Decimal, str, Decimal),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "interval": (
        timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        _to_timedelta,
    ),
    "uuid": (UUID, lambda value: value.hex, UUID),
    "bytes": (
        bytes | bytearray | memoryview,
        lambda value: base64.b64encode(bytes(value)).decode(),
        lambda text: base64.b64decode(text, validate=True),
    ),
}
