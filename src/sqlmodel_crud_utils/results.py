"""What functions say of rows that they do not return."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["UpsertCounts"]


class UpsertCounts(NamedTuple):
    """How many rows an upsert has written.

    Attributes:
        created: The rows that were not there.
        updated: The rows that were there and were written to.

    Example:
        >>> counts = UpsertCounts(created=2, updated=1)
        >>> counts.created, counts.updated
        (2, 1)
    """

    created: int
    updated: int
