"""Keys that the database gave to new rows, and that an undone insert takes back.

SQLAlchemy leaves them in the instances; a second attempt would then insert explicit keys past the
sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlmodel_crud_utils._core.models import primary_key_names

Places = list[tuple[Any, str]]


def missing_keys(rows: Iterable[Any]) -> Places:
    """Return the instances that have no key yet, each with the name of what is missing."""
    return [
        (row, name)
        for row in rows
        for name in primary_key_names(type(row))
        if getattr(row, name, None) is None
    ]


def forget(places: Places) -> None:
    """Take the keys away again."""
    for row, name in places:
        setattr(row, name, None)
