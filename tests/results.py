"""Results of the tests' own statements as plain lists and values."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Result


def fetched(result: Result[Any]) -> list[Any]:
    """Return all rows of a result; with one column, its values or model rows."""
    return list(result.scalars() if len(result.keys()) == 1 else result)


def first_of(result: Result[Any]) -> Any:
    """Return the first row of a result (with one column, its value), or None."""
    row = result.first()
    return row[0] if row is not None and len(row) == 1 else row
