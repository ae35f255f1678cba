"""How large inputs are cut: into chunks that stay under the bind limit of the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Dialect

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils.exceptions import ValidationError

T = TypeVar("T")

_OLD_SQLITE_LIMIT = 999

# PostgreSQL nests comparisons of composite keys and runs out of stack after a few thousand, far
# below its bind limit.
COMPOSITE_KEYS_PER_QUERY = 1_000


def bind_limit(dialect: Dialect) -> int:
    """Return how many parameters one statement may have on this database."""
    # SQLAlchemy lowers its own, rounder limit for SQLite versions before 3.32.
    old_sqlite = getattr(dialect, "insertmanyvalues_max_parameters", None) == _OLD_SQLITE_LIMIT
    return _OLD_SQLITE_LIMIT if old_sqlite else features_of(dialect).bind_limit


def rows_per_chunk(
    dialect: Dialect, binds_per_row: int, chunk_size: int | None = None, *, extra_binds: int = 0
) -> int:
    """Return how many rows fit into one statement.

    Args:
        dialect: The dialect of the database.
        binds_per_row: The parameters that each row takes.
        chunk_size: The caller's wish, which counts as far as the bind limit allows.
        extra_binds: The parameters that the statement has besides those of the rows.
    """
    fitting = max(1, (bind_limit(dialect) - extra_binds) // max(1, binds_per_row))
    return fitting if chunk_size is None else min(fitting, chunk_size)


def check_chunk_size(chunk_size: Any) -> None:
    """Refuse a chunk size that is neither None nor a whole number of 1 or more."""
    if chunk_size is None:
        return
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValidationError(
            "chunk_size must be a whole number of 1 or more",
            field="chunk_size",
            value=chunk_size,
        )


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut any iterable into lists of at most `size` items, holding one of them at a time."""
    iterator = iter(items)
    while chunk := list(islice(iterator, max(1, size))):
        yield chunk


def fitting(
    items: Iterable[T], size: int, dialect: Dialect, values_of: Callable[[T], Iterable[Any]]
) -> Iterator[list[T]]:
    """Cut items into lists of at most `size`, each of which one statement of the database takes.

    MySQL limits the bytes of a statement, not just its parameters.

    Args:
        items: The items.
        size: How many of them a statement may have.
        dialect: The dialect of the database.
        values_of: Returns what a statement holds of an item.
    """
    most = features_of(dialect).statement_bytes
    if most is None:
        return chunked(items, size)
    return chunked_by_weight(items, size, lambda item: bytes_of(values_of(item)), most)


def bytes_of(values: Iterable[Any]) -> int:
    """Return about how long values are as SQL."""
    return sum(len(each if isinstance(each, str | bytes) else str(each)) + 4 for each in values)


def chunked_by_weight(
    items: Iterable[T], size: int, weight_of: Callable[[T], int], most: int
) -> Iterator[list[T]]:
    """Cut items into lists of at most `size` that together weigh no more than `most`.

    An item that is too heavy has a list of its own.
    """
    chunk: list[T] = []
    total = 0
    for item in items:
        weight = weight_of(item)
        if chunk and (len(chunk) >= size or total + weight > most):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += weight
    if chunk:
        yield chunk
