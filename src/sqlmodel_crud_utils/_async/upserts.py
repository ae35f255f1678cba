"""Upserts: insert rows, or update those that exist."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar, overload

from sqlmodel_crud_utils._async._running.chunked_writes import check_report
from sqlmodel_crud_utils._async._running.operations import Write
from sqlmodel_crud_utils._async._running.upserting import Upsertion
from sqlmodel_crud_utils._core.chunks import check_chunk_size, rows_per_chunk
from sqlmodel_crud_utils._core.progress import Report
from sqlmodel_crud_utils._core.writes.insert_statements import total_of
from sqlmodel_crud_utils._core.writes.targets import (
    ColumnNames,
    check_dialect,
    check_key,
    target_of,
)
from sqlmodel_crud_utils._core.writes.upsert_rows import Tally, check_payload, payload_of
from sqlmodel_crud_utils._runtime_async import AnySession, dialect_of, require_session
from sqlmodel_crud_utils.results import UpsertCounts

__all__ = ["UpsertCounts", "bulk_upsert_mappings"]

T = TypeVar("T")


@overload
async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: Literal[True] = True,
) -> tuple[Literal[True], list[T]]: ...


@overload
async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[Any],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: Literal[False],
) -> tuple[Literal[True], UpsertCounts]: ...


@overload
async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: bool,
) -> tuple[Literal[True], list[T] | UpsertCounts]: ...


async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: bool = True,
) -> tuple[Literal[True], list[T] | UpsertCounts]:
    """Insert rows, and update those that already exist, in one transaction.

    The result is the same as that of writing the rows one by one, but it takes only a few
    statements. A row may set any of the model's fields:

    - A field that a row leaves out keeps its value in an existing row, and gets its default in a
      new one. A row with too few values for a new row can only update.
    - `updated_at` and other columns with an `onupdate` are set, and the version of a `VersionMixin`
      is incremented, when an existing row is written to.
    - None counts as left out for a field that cannot be NULL and has a default.
    - The primary key of an existing row is never changed.
    - A row without a value for an autoincrement key is inserted.
    - If the payload has a key twice, the later row wins, field by field; the result has the same
      object in both places.

    Hooks do not run. A soft-deleted row with the same key is updated and returned; it stays deleted
    unless the payload says otherwise. A key declared with `unique_when_not_deleted` finds only rows
    that are not deleted.

    On MySQL and MariaDB a row that matches an existing one in any unique key of the table, not just
    in `pk_fields`, updates it; the other databases refuse such a row.

    Outside a `transaction()` block, the call commits everything, and a failure rolls the session
    back. Inside, a failure dooms the block; with `raise_on_error=False` it undoes just this call.
    The error names a refused row by its place in the payload, counted from 0.

    Args:
        payload: Any iterable of mappings or Pydantic objects. Of an object, only the fields that
            were set are written. Values are coerced to the columns' types. If the rows are
            returned, all of them are checked before any is written.
        session_inst: The session to write with. Its pending changes are flushed first.
        model: The table model.
        pk_fields: The fields of the unique key by which existing rows are found. The default is
            "id" if that is a key, otherwise the primary key.
        update_columns: The fields that may change in an existing row. The default is all fields
            that its row of the payload sets. With an empty list, existing rows are left alone.
        chunk_size: How many rows go into one statement. The default is as many as the database
            allows.
        raise_on_error: Whether a refusal by the database raises an error of this library. By
            default it does inside a block; outside, SQLAlchemy's own error is raised.
        progress: True for a progress bar (needs the extra `progress`), or a function that is called
            while rows are written, with the number of rows done and the total, which is None if
            unknown.
        return_rows: Whether the rows are returned. If not, a generator of any length takes no more
            memory than one chunk.

    Returns:
        True, and one row for each row of the payload, in the same order, with the values that the
        database has now. With `return_rows=False`, True, and how many rows were created and
        updated; a key that occurs twice counts once.

    Raises:
        ValidationError: A value of a wrong type, a row without its key, `pk_fields` that are not a
            unique key. Nothing is written.
        UnknownFieldError: A name that is not a field of the model. Nothing is written.
        ConstraintViolationError: A row breaks a constraint (see `raise_on_error`).
        QueryExecutionError: A row is missing after it was written (a trigger, a row policy).

    Example:
        >>> rows = [{"name": "Rusty", "secret_name": "Tommy"}, {"name": "Nova", "secret_name": "?"}]
        >>> _, heroes = await bulk_upsert_mappings(rows, session, Hero, ["name"])
        >>> _, again = await bulk_upsert_mappings(
        ...     [{"name": "Nova", "age": 31}], session, Hero, ["name"]
        ... )
        >>> again[0] is heroes[1], again[0].secret_name, again[0].age
        (True, '?', 31)
    """
    session = require_session(session_inst)
    check_chunk_size(chunk_size)
    check_report(progress)
    check_payload(payload)
    target = target_of(model, pk_fields, update_columns)
    dialect = dialect_of(session, target.facts)
    check_dialect(dialect)
    check_key(target, dialect)
    columns = len(target.table.columns)
    size = rows_per_chunk(dialect, columns, chunk_size, extra_binds=columns)
    async with Write(session, target.facts, "bulk_upsert_mappings", raise_on_error) as write:
        write.batch = total_of(payload)
        if not return_rows:
            tally = Tally()
            counting = Upsertion(write, target, dialect, size, tally)
            return True, await counting.counted(payload, progress, tally)
        wanted = payload_of(target, payload)
        if not wanted.places:
            return True, []
        found = await Upsertion(write, target, dialect, size, None).returned(wanted, progress)
        return True, [found[entry] for entry in wanted.places]
