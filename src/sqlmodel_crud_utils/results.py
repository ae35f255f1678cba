"""The results of functions that return no rows."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["UpsertCounts"]


class UpsertCounts(NamedTuple):
    """How many rows an upsert wrote.

    Attributes:
        created: How many rows were new.
        updated: How many existing rows were written to.

    Example:
        >>> counts = UpsertCounts(created=2, updated=1)
        >>> counts.created, counts.updated
        (2, 1)
    """

    created: int
    updated: int
