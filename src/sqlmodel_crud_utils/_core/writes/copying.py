"""COPY: its statements, and the errors for values that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Table
from sqlalchemy.exc import StatementError

from sqlmodel_crud_utils._core.errors.refused_values import MISFITS

# The names and types of a table's columns. A binary COPY sends enums and CHAR(n) as text, and a
# domain's values as its base type.
COLUMN_TYPES = """
    SELECT attname, CASE WHEN typtype = 'e' OR atttypid = 'bpchar'::regtype THEN 'text'::regtype
        WHEN typtype = 'd' THEN typbasetype ELSE atttypid END::oid
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
"""

# PostgreSQL's OIDs of the integer types and their arrays, and the ranges of these types.
_LIMITS = {21: 2**15, 23: 2**31, 20: 2**63, 1005: 2**15, 1007: 2**31, 1016: 2**63}
_FLOAT4 = (700, 1021)


@contextmanager
def refused_values() -> Iterator[None]:
    """Raise SQLAlchemy's error for a value that the driver cannot convert for its column."""
    try:
        yield
    except MISFITS as error:
        message = f"a value cannot be copied ({type(error).__name__})"
        raise StatementError(message, None, None, error) from error


def quoted_name_of(table: Table) -> str:
    """Return the quoted name of a table, with its schema."""
    return ".".join(_quoted(name) for name in (table.schema, table.name) if name)


def copy_statement(table: str, names: Sequence[str]) -> str:
    """Return the COPY of some columns into a table, given by its quoted name."""
    return f"COPY {table} ({', '.join(map(_quoted, names))}) FROM STDIN (FORMAT BINARY)"


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def check_ranges(types: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> None:
    """Raise for numbers that psycopg's COPY would silently change: overflows, 4-byte floats."""
    for place, type_ in enumerate(types):
        if type_ not in _LIMITS and type_ not in _FLOAT4:
            continue
        numbers = list(_flat(row[place] for row in rows))
        if numbers and type_ in _FLOAT4:
            raise LookupError("four-byte floats are rounded in a COPY, and refused in an INSERT")
        limit = _LIMITS.get(type_, 0)
        if numbers and not -limit <= min(numbers) <= max(numbers) < limit:
            raise OverflowError("a number is out of the range of its column")


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        elif value is not None:
            yield value
