"""Many rows deleted, by their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sqlmodel_crud_utils._async.hook_calls import run_hooks
from sqlmodel_crud_utils._async.listed_rows import ListedWrite, listed_write
from sqlmodel_crud_utils._async.settling import load_expired
from sqlmodel_crud_utils._async.writes import soft_for
from sqlmodel_crud_utils._core.bulk_updates import delete_of, link_deletes_of
from sqlmodel_crud_utils._core.chunks import check_chunk_size
from sqlmodel_crud_utils._core.key_lists import Key, KeyList, synchronization
from sqlmodel_crud_utils._core.models import mapper_of
from sqlmodel_crud_utils._core.rows import states_of
from sqlmodel_crud_utils._core.soft_delete import deleted_values
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    execute,
    require_session,
    sync_session,
)

__all__ = ["delete_rows_within_id_list"]


async def delete_rows_within_id_list(
    id_str_list: Iterable[Any],
    session_inst: AnySession,
    model: type[Any],
    pk_field: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    soft: bool | None = None,
    deleted_by: str | None = None,
) -> tuple[Literal[True], int]:
    """Delete all rows whose key is in a list, as one transaction.

    Rows of a model with `SoftDeleteMixin` are marked instead. The rows are deleted with set-based
    statements, a chunk of keys each, and leave the session if it holds them. The links that
    many-to-many relationships of the model keep for removed rows go with them. What else refers
    to a row decides itself, with its `ON DELETE`; without one, the database refuses and nothing
    is deleted. Where the model has hooks, or its rows are spread over several tables, each row is
    read and deleted by itself, as `delete_row` does it.

    Outside a `transaction()` block the session is committed, or rolled back after a failure, with
    everything else that was pending in it. Inside a block nothing is committed, and a failure
    dooms the block.

    Args:
        id_str_list: The keys, each coerced to the column's type; composite keys are tuples. Keys
            that no row has are ignored.
        session_inst: The session to write with. What is pending in it is flushed first.
        model: The table model.
        pk_field: The key's column, primary or unique; left out, it is "id" where the model has
            it, else the model's primary key.
        chunk_size: How many rows are deleted with one statement; left out, as many as the
            database takes parameters for.
        soft: Whether the rows are marked as deleted; left out, they are where the model has the
            mixin. False removes the rows, also those that are marked already.
        deleted_by: Who deletes them, for rows that are marked; left out, whoever `acting_as`
            names.

    Returns:
        True, and the number of rows that were there to be deleted.

    Raises:
        ConstraintViolationError: Other rows refer to a row. No row is deleted.
        ConflictError: A row was changed by somebody else while its hooks ran.
        QueryExecutionError: Any other refusal by the database. No row is deleted.
        UnknownFieldError: `pk_field` is none of the model's columns.
        ValidationError: A soft deletion of a model without the mixin, a key of a wrong type, a
            `pk_field` that is no unique key. Nothing is written.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> heroes = [Hero(name=name, secret_name="?") for name in ("Rusty", "Nova")]
        >>> _, heroes = await insert_data_rows(heroes, session)
        >>> await delete_rows_within_id_list([hero.id for hero in heroes], session, Hero)
        (True, 2)
    """
    session = require_session(session_inst)
    mapper_of(model)
    check_chunk_size(chunk_size)
    marks = soft_for(model, soft, deleted_by)
    rows = listed_write(
        session,
        model,
        "delete_rows_within_id_list",
        "delete",
        id_str_list,
        pk_field,
        include_deleted=not marks,
    )

    async def one_chunk(keys: list[Key]) -> int:
        if rows.by_row:
            return await _delete_each(rows, keys, marks, deleted_by)
        if marks:
            return await rows.update(keys, deleted_values(deleted_by))
        return await _remove(session, rows.listed, keys)

    return True, await rows.in_chunks(chunk_size, one_chunk)


async def _remove(session: AsyncSession, listed: KeyList, keys: list[Key]) -> int:
    criteria = listed.criteria(keys)
    for statement in link_deletes_of(listed.model, criteria):
        await execute(session, statement)
    options = synchronization(sync_session(session), listed.model)
    result = await execute(session, delete_of(listed.model, criteria), execution_options=options)
    count: int = result.rowcount
    return count


async def _delete_each(
    rows: ListedWrite, keys: list[Key], marks: bool, deleted_by: str | None
) -> int:
    session, hooks = rows.write.session, rows.write.hooks
    found = await rows.read(keys)
    for row in found:
        await run_hooks(hooks, "before_delete", row)
        if marks:
            row.soft_delete(deleted_by)
        else:
            await session.delete(row)
        await session.flush()
        await load_expired(session, states_of([row]))
        await run_hooks(hooks, "after_delete", row)
    return len(found)
