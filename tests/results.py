"""What the statements of the tests' own give, as plain lists and values."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Result


def fetched(result: Result[Any]) -> list[Any]:
    """Return all rows of a result: plain values or model rows where it has one column."""
    return list(result.scalars() if len(result.keys()) == 1 else result)


def first_of(result: Result[Any]) -> Any:
    """Return the first row of a result, or its value where it has one column; None without one."""
    row = result.first()
    return row[0] if row is not None and len(row) == 1 else row
