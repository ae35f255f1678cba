"""Soft deletion: mark, restore and permanently delete rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, overload

from sqlmodel_crud_utils._async._running.chunked_writes import all_or_none
from sqlmodel_crud_utils._async._running.fetching import find_for
from sqlmodel_crud_utils._async._running.hook_calls import hooks_of
from sqlmodel_crud_utils._async._running.operations import Write, run_or_raise, searching
from sqlmodel_crud_utils._async._running.reported_changes import announce, report
from sqlmodel_crud_utils._async._running.rereading import reload_marks
from sqlmodel_crud_utils._async._running.row_writes import delete, update
from sqlmodel_crud_utils._async._running.shortcuts import alone, written_at_once
from sqlmodel_crud_utils._core.chunks import check_chunk_size
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import here
from sqlmodel_crud_utils._core.visibility.soft_delete import (
    WITH_DELETED,
    deleted,
    require_soft_delete,
    restored_values,
)
from sqlmodel_crud_utils._core.writes.purges import Purge, deleted_before
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    dialect_of,
    execute_writing,
    require_session,
    run_on_connection,
)
from sqlmodel_crud_utils._session.changes import REPORTED, Change, Need, need_of
from sqlmodel_crud_utils._session.databases import begin_immediate
from sqlmodel_crud_utils._shortcuts.by_key import marking_at_once

__all__ = ["purge_rows", "restore_row", "soft_delete_row"]

T = TypeVar("T")


async def soft_delete_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[Any],
    pk_field: str | Sequence[str] | None = None,
    *,
    deleted_by: str | None = None,
    raise_on_error: bool | None = None,
) -> bool:
    """Mark one row as deleted by its key, as `delete_row` does for a model with `SoftDeleteMixin`.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        id_str: The key, coerced to the column's type. A composite key is a tuple.
        session_inst: The session to write with.
        model: The table model, with `SoftDeleteMixin`.
        pk_field: The key's column. The default is "id" if the model has it, otherwise the primary
            key.
        deleted_by: Who deletes the row. The default is whoever `acting_as` names.
        raise_on_error: Whether a missing or already marked row, or a refusal by the database,
            raises; by default, only inside a block. False inside a block undoes just this deletion.

    Returns:
        Whether the row was marked.

    Raises:
        RecordNotFoundError: There is no such row (see `raise_on_error`).
        ConflictError: The row has changed since it was read (see `raise_on_error`).
        QueryExecutionError: Any other refusal by the database (see `raise_on_error`).
        ValidationError: A model without the mixin, a key of a wrong type.
        MultipleRecordsError: Several rows have that key.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> _, letter = await write_row(Letter(text="Hello"), session)
        >>> await soft_delete_row(letter.id, session, Letter, deleted_by="alice")
        True
        >>> await get_row(letter.id, session, Letter)
        (False, None)
        >>> found, letter = await get_row(letter.id, session, Letter, include_deleted=True)
        >>> letter.deleted_by
        'alice'
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    require_soft_delete(facts)
    hooks = hooks_of(model, "delete")
    async with Write(session, facts, "soft_delete_row", raise_on_error, hooks) as write:
        if sought := alone(write, id_str, pk_field):
            marking = marking_at_once(sought, deleted_by)
            written = await written_at_once(write, marking, here())
            if written is not None:
                return written[0]
        row = await find_for(write, id_str, pk_field, visibility=here())
        return row is not None and await delete(write, row, True, deleted_by)


@overload
async def restore_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[T],
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: Literal[True],
) -> tuple[Literal[True], T]: ...


@overload
async def restore_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[T],
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: bool | None = None,
) -> tuple[bool, T | None]: ...


async def restore_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[T],
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: bool | None = None,
) -> tuple[bool, T | None]:
    """Restore one soft-deleted row by its key.

    This is an update: the update hooks run, and `updated_at` and `updated_by` are set.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        id_str: The key, coerced to the column's type. A composite key is a tuple.
        session_inst: The session to write with.
        model: The table model, with `SoftDeleteMixin`.
        pk_field: The key's column. The default is "id" if the model has it, otherwise the primary
            key.
        raise_on_error: Whether a missing row, a row that is not deleted, or a refusal by the
            database raises; by default, only inside a block. False inside a block undoes just this
            update.

    Returns:
        `(True, row)`; `(False, None)` when there is no such deleted row; `(False, row)` when the
        database refused the update, for example because another row has taken the unique value.

    Raises:
        RecordNotFoundError: There is no such deleted row (see `raise_on_error`).
        ConstraintViolationError: A constraint is broken (see `raise_on_error`).
        ConflictError: The row has changed since it was read (see `raise_on_error`).
        QueryExecutionError: Any other refusal by the database (see `raise_on_error`).
        ValidationError: A model without the mixin, a key of a wrong type.
        MultipleRecordsError: Several deleted rows have that key.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> _, letter = await write_row(Letter(text="Hello"), session)
        >>> await restore_row(letter.id, session, Letter)
        (False, None)
        >>> await delete_row(letter.id, session, Letter)
        True
        >>> restored, letter = await restore_row(letter.id, session, Letter)
        >>> restored, letter.is_deleted, letter.deleted_at
        (True, False, None)
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    require_soft_delete(facts)
    hooks = hooks_of(model, "update")
    criteria, visible = [deleted(model)], here(WITH_DELETED)
    async with Write(session, facts, "restore_row", raise_on_error, hooks) as write:
        row = await find_for(write, id_str, pk_field, visibility=visible, criteria=criteria)
        if row is None:
            return False, None
        async with searching(write):
            await reload_marks(session, write.facts, row, is_deleted=True)
        return await update(write, row, restored_values())


async def purge_rows(
    session_inst: AnySession,
    model: type[Any],
    *,
    older_than: timedelta | datetime,
    chunk_size: int | None = None,
) -> int:
    """Permanently remove the rows that were soft-deleted long enough ago.

    They are removed in chunks with set-based statements, in one transaction: all of them or none.
    Hooks do not run. Their links in the model's many-to-many relationships are removed too. For
    other rows that refer to a removed one, the `ON DELETE` of their foreign key decides; without
    one, the database refuses and nothing is removed. A row whose `deleted_at` is empty stays.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        session_inst: The session to write with. Its pending changes are flushed first.
        model: The table model, with `SoftDeleteMixin`.
        older_than: The least time since the rows were deleted; or a datetime with a time zone,
            before which they were deleted.
        chunk_size: How many rows are removed with one statement; 1,000 by default.

    Returns:
        The number of rows removed.

    Raises:
        ConstraintViolationError: Other rows refer to a row. Nothing is removed.
        QueryExecutionError: Any other refusal by the database. Nothing is removed.
        ValidationError: A model without the mixin, a datetime without a time zone, a negative time,
            a chunk size below 1.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> from datetime import timedelta
        >>> _, letter = await write_row(Letter(text="Hello"), session)
        >>> await delete_row(letter.id, session, Letter)
        True
        >>> await purge_rows(session, Letter, older_than=timedelta(days=30))
        0
        >>> await purge_rows(session, Letter, older_than=timedelta(0))
        1
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    require_soft_delete(facts)
    check_chunk_size(chunk_size)
    purge = Purge(model, deleted_before(older_than), dialect_of(session, facts), chunk_size)
    async with Write(session, facts, "purge_rows", raise_on_error=True) as write:

        async def work() -> Sequence[Any]:
            await session.flush()
            await run_on_connection(session, begin_immediate, model)
            with all_or_none(session):
                while count := await _purge_chunk(session, purge):
                    await write.written(count)
            return []

        await run_or_raise(write, work)
        return write.rows or 0


async def _purge_chunk(session: AsyncSession, purge: Purge) -> int:
    keys = [tuple(row) for row in (await execute_writing(session, purge.keys())).all()]
    if not keys:
        return 0
    for statement in purge.without_links(keys):
        await execute_writing(session, statement)
    if need_of(purge.model) >= Need.BEFORE:
        await announce(session, purge.model, keys)
    result = await execute_writing(session, purge.without_rows(keys), execution_options=REPORTED)
    await report(session, Change(purge.model, "delete", keys))
    count: int = result.rowcount
    return count
