"""The statements of a bulk insert: plain ones, and ones that skip duplicates."""

from __future__ import annotations

from collections.abc import Container, Sized
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Insert, insert, literal_column

from sqlmodel_crud_utils._core.chunks import check_chunk_size, rows_per_chunk
from sqlmodel_crud_utils._core.dialects import features_of, own_insert
from sqlmodel_crud_utils._core.writes.targets import Target, check_dialect
from sqlmodel_crud_utils.exceptions import ValidationError

_ROWS_PER_CHUNK = 10_000
_METHODS = ("auto", "insert", "copy")
_ON_CONFLICT = ("raise", "ignore")

# With fewer rows a COPY, which first queries the columns' types, is no faster than an INSERT.
COPY_FROM = 100

# On MySQL the driver counts skipped rows like new ones.
SKIPPED = "@sqlmodel_crud_utils_skipped"


def check_options(chunk_size: Any, method: Any, on_conflict: Any) -> None:
    """Refuse options that have no meaning."""
    check_chunk_size(chunk_size)
    for name, value, known in (
        ("method", method, _METHODS),
        ("on_conflict", on_conflict, _ON_CONFLICT),
    ):
        if value not in known:
            raise ValidationError(f"{name} must be one of {', '.join(known)}", name, value)


def chunk_rows(target: Target, dialect: Dialect, chunk_size: int | None) -> int:
    """Return how many rows go into one chunk."""
    wish = _ROWS_PER_CHUNK if chunk_size is None else chunk_size
    return rows_per_chunk(dialect, len(target.table.columns), wish)


def total_of(rows: Any) -> int | None:
    """Return how many rows there are, or None if that is unknown before they are read."""
    return len(rows) if isinstance(rows, Sized) else None


def insert_into(entity: Any) -> Insert:
    """Return the INSERT into a model or a table that fails for a duplicate."""
    return insert(entity).inline()


def insert_or_skip(target: Target, entity: Any, dialect: Dialect, *, keyed: bool = False) -> Insert:
    """Return the INSERT into a model or its table that skips duplicates, but no other error.

    On PostgreSQL it returns a row for each that was inserted, as the drivers count differently.

    Args:
        target: Where the rows go.
        entity: The model or its table.
        dialect: The dialect of the database.
        keyed: Whether the statement is left open for whatever else has to come back.
    """
    check_dialect(dialect)
    features, statement = features_of(dialect), own_insert(dialect, entity)
    result: Insert
    if features.conflict == "ON DUPLICATE KEY":
        _check_names(target)
        # INSERT IGNORE would hide other errors too.
        counting = counts_duplicates(target, dialect)
        result = (statement if keyed else statement.inline()).on_duplicate_key_update(counting)
    elif features.counts_inserted:
        result = statement.inline().on_conflict_do_nothing()
    else:
        result = statement.on_conflict_do_nothing()
        result = result if keyed else result.returning(*target.table.primary_key.columns)
    return result


def _check_names(target: Target) -> None:
    """Refuse a table in which MySQL has no column to count duplicates with."""
    if all("%" in column.name for column in target.table.columns):
        raise ValidationError(
            "MySQL skips duplicates only in a table with a column that has no % in its name; "
            f"give a column of {target.model.__name__} another name, the field may keep its own",
            field="on_conflict",
        )


def counts_duplicates(
    target: Target, dialect: Dialect, taken: Container[str] = ()
) -> dict[str, ColumnElement[Any]]:
    """Return an assignment of a column to itself, with which MySQL counts duplicates.

    Args:
        target: What is written to.
        dialect: The dialect of the database.
        taken: The keys of columns that get other values.
    """
    writable = [column for column in target.columns.values() if column.computed is None]
    columns = [*target.table.primary_key.columns, *writable]
    free = [column for column in columns if column.key not in taken]
    # The drivers escape a percent sign there in different ways.
    column = next((column for column in free if "%" not in column.name), free[0])
    name = dialect.identifier_preparer.quote(column.name)
    kept = f"IF(({SKIPPED} := {SKIPPED} + 1) IS NULL, {name}, {name})"
    return {column.key: literal_column(kept)}


def may_copy(dialect: Dialect, driver: str, method: str) -> bool:
    """Return whether rows can go through PostgreSQL's COPY.

    Raises:
        ValidationError: COPY is asked for by name, and not available here.
    """
    there_is = features_of(dialect).has_copy and dialect.driver == driver
    if method == "copy" and not there_is:
        raise ValidationError(
            f'method="copy" needs PostgreSQL and {driver}, not {dialect.name} and '
            f'{dialect.driver}; method="auto" picks the fastest method available',
            field="method",
        )
    return there_is and method != "insert"
