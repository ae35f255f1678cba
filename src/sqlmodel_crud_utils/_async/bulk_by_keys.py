"""Many rows updated or deleted at once, by their keys or another column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sqlalchemy import func, select

from sqlmodel_crud_utils._async._running.chunked_writes import check_report
from sqlmodel_crud_utils._async._running.fetching import may_find_outdated
from sqlmodel_crud_utils._async._running.listed_rows import ListedWrite, listed_write
from sqlmodel_crud_utils._async._running.row_writes import change, remove, soft_for
from sqlmodel_crud_utils._async._running.set_based_writes import write_set
from sqlmodel_crud_utils._core.chunks import check_chunk_size
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import here
from sqlmodel_crud_utils._core.progress import Report
from sqlmodel_crud_utils._core.queries.keys import Key
from sqlmodel_crud_utils._core.visibility.soft_delete import deleted_values, visibility_with
from sqlmodel_crud_utils._core.writes.key_lists import KeyList
from sqlmodel_crud_utils._core.writes.updates import bulk_changes_for, delete_of, link_deletes_of
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    execute_writing,
    require_session,
    sync_session,
)
from sqlmodel_crud_utils._session.held_rows import synchronization

__all__ = ["bulk_update_rows", "delete_rows_within_id_list"]


async def bulk_update_rows(
    id_str_list: Iterable[Any],
    data: Any,
    session_inst: AnySession,
    model: type[Any],
    pk_field: str | Sequence[str] | None = None,
    *,
    chunk_size: int | None = None,
    progress: bool | Report | None = None,
) -> tuple[Literal[True], int]:
    """Write the same values into all rows whose key, or other value, is in a list.

    The update is one transaction of set-based statements, one for each chunk of keys. `updated_at`
    and other columns with an `onupdate` are set and versions are incremented, as in every update.
    Objects in the session get the new values. Soft-deleted rows are left alone. If the model has
    hooks, or is stored in several tables, each row is read and updated by itself.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed, and a failure
    dooms the block.

    Args:
        id_str_list: The keys, each coerced to the column's type; composite keys are tuples. Keys
            without a row are ignored, and a key that is listed twice counts once.
        data: A mapping, or a Pydantic or SQLModel object. Of an object, only the fields that were
            set are written. The values are validated against the types of the model's fields; in a
            mapping, they may be SQL, such as `Product.stock - 1`.
        session_inst: The session to write with. Its pending changes are flushed first.
        model: The table model.
        pk_field: The column whose values are listed. It may be any column: all rows with one of the
            values are affected. The default is "id" if the model has it, otherwise the primary key.
        chunk_size: How many keys go into one statement. The default is as many as the database
            allows.
        progress: True for a progress bar (needs the extra `progress`), or a function that is called
            after each chunk with the number of keys done and the total.

    Returns:
        True, and the number of rows found and updated.

    Raises:
        UnknownFieldError: A name that is not a column of the model. Nothing is written.
        ValidationError: A value that its field does not accept, a primary key among the values, a
            key of a wrong type. Nothing is written.
        ConstraintViolationError: A constraint is broken. No row is updated.
        ConflictError: Somebody else changed a row while its hooks ran.
        QueryExecutionError: Any other refusal by the database. No row is updated.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> heroes = [Hero(name=name, secret_name="?") for name in ("Rusty", "Nova")]
        >>> _, heroes = await insert_data_rows(heroes, session)
        >>> ids = [hero.id for hero in heroes]
        >>> await bulk_update_rows(ids, {"age": "48"}, session, Hero)
        (True, 2)
        >>> (await get_row(ids[1], session, Hero))[1].age
        48
    """
    session = require_session(session_inst)
    check_chunk_size(chunk_size)
    check_report(progress)
    changes = bulk_changes_for(model, data)
    rows = listed_write(session, model, "bulk_update_rows", "update", id_str_list, pk_field, here())

    async def one_chunk(rows: ListedWrite, keys: list[Key]) -> int:
        if rows.by_row:
            return await _update_each(rows, keys, changes)
        if changes:
            return await rows.update(keys, changes)
        return await _count(session, rows.listed, keys)

    return True, await rows.in_chunks(one_chunk, chunk_size, progress, changing=changes)


async def _count(session: AsyncSession, listed: KeyList, keys: list[Key]) -> int:
    statement = select(func.count()).select_from(listed.model).where(*listed.criteria(keys))
    count: int = (await execute_writing(session, statement)).one()[0]
    return count


async def _update_each(rows: ListedWrite, keys: list[Key], changes: dict[str, Any]) -> int:
    is_outdated = may_find_outdated(rows.write)
    found = await rows.read(keys)
    for row in found:
        await change(rows.write, row, changes, is_outdated=is_outdated)
    return len(found)


async def delete_rows_within_id_list(
    id_str_list: Iterable[Any],
    session_inst: AnySession,
    model: type[Any],
    pk_field: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    soft: bool | None = None,
    deleted_by: str | None = None,
    *,
    progress: bool | Report | None = None,
) -> tuple[Literal[True], int]:
    """Delete all rows whose key, or other value, is in a list.

    Rows of a model with `SoftDeleteMixin` are marked instead. The deletion is one transaction of
    set-based statements, one for each chunk of keys; objects of deleted rows leave the session. The
    links of removed rows in the model's many-to-many relationships are removed too. For other rows
    that refer to a removed one, the `ON DELETE` of their foreign key decides; without one, the
    database refuses and nothing is deleted. If the model has hooks, or is stored in several tables,
    each row is read and deleted by itself, as `delete_row` does.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed, and a failure
    dooms the block.

    Args:
        id_str_list: The keys, each coerced to the column's type; composite keys are tuples. Keys
            without a row are ignored.
        session_inst: The session to write with. Its pending changes are flushed first.
        model: The table model.
        pk_field: The column whose values are listed. It may be any column: all rows with one of the
            values are affected. The default is "id" if the model has it, otherwise the primary key.
        chunk_size: How many keys go into one statement. The default is as many as the database
            allows.
        soft: Whether to mark the rows as deleted instead of removing them; by default, if the model
            has the mixin. False removes the rows even if they are already marked.
        deleted_by: Who deletes the rows, recorded if they are marked. The default is whoever
            `acting_as` names.
        progress: True for a progress bar (needs the extra `progress`), or a function that is called
            after each chunk with the number of keys done and the total.

    Returns:
        True, and the number of rows found and deleted.

    Raises:
        ConstraintViolationError: Other rows refer to a row. No row is deleted.
        ConflictError: Somebody else changed a row while its hooks ran.
        QueryExecutionError: Any other refusal by the database. No row is deleted.
        UnknownFieldError: `pk_field` is not a column of the model.
        ValidationError: A soft deletion of a model without the mixin, a key of a wrong type.
            Nothing is written.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> heroes = [Hero(name=name, secret_name="?") for name in ("Rusty", "Nova")]
        >>> _, heroes = await insert_data_rows(heroes, session)
        >>> await delete_rows_within_id_list([hero.id for hero in heroes], session, Hero)
        (True, 2)
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    check_chunk_size(chunk_size)
    check_report(progress)
    marks = soft_for(facts, soft, deleted_by)
    rows = listed_write(
        session,
        model,
        "delete_rows_within_id_list",
        "delete",
        id_str_list,
        pk_field,
        visibility_with(include_deleted=not marks),
    )

    async def one_chunk(rows: ListedWrite, keys: list[Key]) -> int:
        if rows.by_row:
            return await _delete_each(rows, keys, marks, deleted_by)
        if marks:
            return await rows.update(keys, deleted_values(deleted_by))
        return await _remove(session, rows.listed, keys)

    return True, await rows.in_chunks(one_chunk, chunk_size, progress)


async def _remove(session: AsyncSession, listed: KeyList, keys: list[Key]) -> int:
    criteria = listed.criteria(keys)
    for links in link_deletes_of(listed.model, criteria):
        await execute_writing(session, links)
    options = synchronization(sync_session(session), listed.model)
    statement = delete_of(listed.model, criteria)
    return await write_set(session, listed.facts, statement, criteria, options)


async def _delete_each(
    rows: ListedWrite, keys: list[Key], marks: bool, deleted_by: str | None
) -> int:
    found = await rows.read(keys)
    for row in found:
        await remove(rows.write, row, marks, deleted_by)
    return len(found)
