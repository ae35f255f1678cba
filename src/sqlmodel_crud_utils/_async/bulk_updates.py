"""The same changes for many rows, by their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sqlalchemy import func, select

from sqlmodel_crud_utils._async.listed_rows import ListedWrite, listed_write
from sqlmodel_crud_utils._async.writes import change
from sqlmodel_crud_utils._core.bulk_updates import bulk_changes_for
from sqlmodel_crud_utils._core.chunks import check_chunk_size
from sqlmodel_crud_utils._core.key_lists import Key, KeyList
from sqlmodel_crud_utils._runtime_async import AnySession, AsyncSession, execute, require_session

__all__ = ["bulk_update_rows"]


async def bulk_update_rows(
    id_str_list: Iterable[Any],
    data: Any,
    session_inst: AnySession,
    model: type[Any],
    pk_field: str | Sequence[str] | None = None,
    *,
    chunk_size: int | None = None,
) -> tuple[Literal[True], int]:
    """Write the same values into all rows whose key is in a list, as one transaction.

    The rows are updated with set-based statements, a chunk of keys each. `updated_at` and other
    columns with an `onupdate` are set and versions are counted up, as by every update; objects
    that the session holds get the new values. Soft-deleted rows are left alone. Where the model
    has hooks, or its rows are spread over several tables, each row is read and updated by itself.

    Outside a `transaction()` block the session is committed, or rolled back after a failure, with
    everything else that was pending in it. Inside a block nothing is committed, and a failure
    dooms the block.

    Args:
        id_str_list: The keys, each coerced to the column's type; composite keys are tuples. Keys
            that no row has are ignored, and one that is listed twice counts once.
        data: A mapping, or a Pydantic or SQLModel object of which only the fields that were set
            are written. The values are validated against the types of the model's fields.
        session_inst: The session to write with. What is pending in it is flushed first.
        model: The table model.
        pk_field: The key's column, primary or unique; left out, it is "id" where the model has
            it, else the model's primary key.
        chunk_size: How many rows are updated with one statement; left out, as many as the
            database takes parameters for.

    Returns:
        True, and the number of rows that were there to be updated.

    Raises:
        UnknownFieldError: A name that is no column of the model. Nothing is written.
        ValidationError: A value that its field does not take, a primary key among the values, a
            `pk_field` that is no unique key. Nothing is written.
        ConstraintViolationError: A constraint is broken. No row is updated.
        ConflictError: A row was changed by somebody else while its hooks ran.
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
    changes = bulk_changes_for(model, data)
    rows = listed_write(
        session, model, "bulk_update_rows", "update", id_str_list, pk_field, include_deleted=False
    )

    async def one_chunk(keys: list[Key]) -> int:
        if rows.by_row:
            return await _update_each(rows, keys, changes)
        if changes:
            return await rows.update(keys, changes)
        return await _count(session, rows.listed, keys)

    return True, await rows.in_chunks(chunk_size, one_chunk)


async def _count(session: AsyncSession, listed: KeyList, keys: list[Key]) -> int:
    statement = select(func.count()).select_from(listed.model).where(*listed.criteria(keys))
    count: int = (await execute(session, statement)).one()[0]
    return count


async def _update_each(rows: ListedWrite, keys: list[Key], changes: dict[str, Any]) -> int:
    found = await rows.read(keys)
    for row in found:
        await change(rows.write.session, row, changes, rows.write.hooks)
    return len(found)
