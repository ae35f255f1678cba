"""The interface between reads and a cache: the question a read asks, and who may answer it.

A cache registers itself here. Without a cache, a read pays one truth test.
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
    """What a read asks the cache.

    Attributes:
        model: The model that is read.
        statement: The SELECT.
        parameters: The values of its parameters, if it has any.
        key: The primary key of the one row that it may return; None for any other read.
        loading: How related rows are loaded; equal if they are loaded in the same way.
        visibility: Which rows it brings in.
        ttl: For how many seconds the answer may be kept; None for the default.
        form: What the answer consists of.
        check: Raises a `ValidationError` if the rows of an answer are unusable.
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
    """The caching options of a query that may be answered from the cache.

    Attributes:
        ttl: For how many seconds its answer may be kept; None for the default.
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
    """Answer reads from a cache from now on; with None, from the database only."""
    global registered  # noqa: PLW0603 - replaced as a whole: who reads it needs no lock
    registered = reads


def check_ttl(ttl: Any, field: str = "ttl") -> float:
    """Return a number of seconds, or raise a `ValidationError`."""
    is_number = isinstance(ttl, int | float) and not isinstance(ttl, bool)
    if not is_number or not math.isfinite(ttl) or ttl <= 0:
        raise ValidationError("must be a number of seconds above 0", field=field, value=ttl)
    return float(ttl)


def ways_of(loading: Mapping[Any, Hashable]) -> tuple[Any, ...]:
    """Return how relationships are loaded, in the form that `Question.loading` takes."""
    return tuple(loading.items())
