"""Reads that may be answered from a cache: what they ask for, and who answers them.

Whoever keeps a cache registers itself here; as long as nobody has, such a read costs a truth test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from sqlalchemy import Select

from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility
from sqlmodel_crud_utils.exceptions import ValidationError

Form = Literal["rows", "tuples", "value", "count"]
"""What an answer consists of: rows or plain values, tuples of values, one value, or a number."""


class Question(NamedTuple):
    """What a read asks for.

    Attributes:
        model: The model of the rows, or that the values belong to.
        statement: The SELECT.
        parameters: The values of its parameters, if it has any.
        key: The primary key of the one row that it may return; None for any other read.
        loading: How related rows are loaded with the rows; equal for equal ways.
        visibility: Which rows it brings in.
        ttl: For how many seconds the answer may be kept; None for as long as is usual.
        form: What the answer consists of.
        check: Raises a `ValidationError` where the rows of an answer cannot be worked with.
    """

    model: type[Any]
    statement: Select[Any]
    parameters: Mapping[str, Any] | None = None
    key: tuple[Any, ...] | None = None
    loading: tuple[Any, ...] = ()
    visibility: Visibility = USUAL
    ttl: float | None = None
    form: Form = "rows"
    check: Callable[[Sequence[Any]], object] | None = None


class Caching(NamedTuple):
    """That a query may be answered from the cache.

    Attributes:
        ttl: For how many seconds its answer may be kept; None for as long as is usual.
    """

    ttl: float | None = None


class CachedReads(Protocol):
    """Who answers reads from a cache, one for each API."""

    @property
    def aio(self) -> Any:
        """The reads of the async API."""
        ...

    @property
    def sync(self) -> Any:
        """The reads of the sync API."""
        ...


registered: CachedReads | None = None


def register(reads: CachedReads | None) -> None:
    """Let reads be answered from a cache from here on, or with None from the database alone."""
    global registered  # noqa: PLW0603 - replaced as a whole: who reads it needs no lock
    registered = reads


def check_ttl(ttl: Any, field: str = "ttl") -> float:
    """Return a number of seconds; anything else is refused."""
    is_number = isinstance(ttl, int | float) and not isinstance(ttl, bool)
    if not is_number or not math.isfinite(ttl) or ttl <= 0:
        raise ValidationError("must be a number of seconds above 0", field=field, value=ttl)
    return float(ttl)


def ways_of(loading: Mapping[Any, Hashable]) -> tuple[Any, ...]:
    """Return how relationships are loaded, as a `Question` has it."""
    return tuple(loading.items())
