"""The same changes for many rows, by their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sqlalchemy import func, select

from sqlmodel_crud_utils._async.hook_calls import hooks_of
from sqlmodel_crud_utils._async.operations import Write, insist
from sqlmodel_crud_utils._async.queries import fetch
from sqlmodel_crud_utils._async.writes import change
from sqlmodel_crud_utils._core.bulk_updates import bulk_changes_for, update_of
from sqlmodel_crud_utils._core.chunks import check_chunk_size
from sqlmodel_crud_utils._core.key_lists import (
    Key,
    KeyList,
    is_one_table,
    key_list_of,
    synchronization,
)
from sqlmodel_crud_utils._core.models import mapper_of
from sqlmodel_crud_utils._core.statements import by_key_list
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    dialect_of,
    execute,
    require_session,
    sync_session,
)

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
    mapper_of(model)
    check_chunk_size(chunk_size)
    changes = bulk_changes_for(model, data)
    dialect = dialect_of(session, model)
    listed = key_list_of(model, pk_field, id_str_list, dialect, include_deleted=False)
    write = Write(
        session, model, "bulk_update_rows", raise_on_error=True, hooks=hooks_of(model, "update")
    )
    by_row = bool(write.hooks) or not is_one_table(model)
    count = 0

    async def work() -> Sequence[Any]:
        nonlocal count
        await session.flush()
        for keys in listed.chunks(chunk_size):
            if by_row:
                count += await _update_each(write, listed, keys, changes)
            elif changes:
                count += await _update(session, listed, keys, changes)
            else:
                count += await _count(session, listed, keys)
        return []

    if listed.keys:
        await insist(write, work)
    return True, count


async def _update(
    session: AsyncSession, listed: KeyList, keys: list[Key], changes: dict[str, Any]
) -> int:
    statement = update_of(listed.model, changes, listed.criteria(keys))
    options = synchronization(sync_session(session), listed.model)
    count: int = (await execute(session, statement, execution_options=options)).rowcount
    return count


async def _count(session: AsyncSession, listed: KeyList, keys: list[Key]) -> int:
    statement = select(func.count()).select_from(listed.model).where(*listed.criteria(keys))
    count: int = (await execute(session, statement)).one()[0]
    return count


async def _update_each(
    write: Write, listed: KeyList, keys: list[Key], changes: dict[str, Any]
) -> int:
    statement = by_key_list(listed.model, listed.names, keys, listed.dialect)
    rows = await fetch(write.session, listed.model, statement)
    for row in listed.in_order(keys, rows):
        await change(write.session, row, changes, write.hooks)
    return len(rows)
