"""The functions that write: one row, many rows, updates, deletes, get-or-create."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

from sqlalchemy.orm import object_session

from sqlmodel_crud_utils._async.at_once import alone, inserted_at_once, written_at_once
from sqlmodel_crud_utils._async.hook_calls import (
    Hooks,
    before_create,
    before_update,
    hooks_of,
    run_hooks,
)
from sqlmodel_crud_utils._async.operations import Write, attempt, searching
from sqlmodel_crud_utils._async.queries import find_for
from sqlmodel_crud_utils._async.settling import load_expired, reload
from sqlmodel_crud_utils._core.models import mapper_of
from sqlmodel_crud_utils._core.new_rows import changed_columns, is_persistent
from sqlmodel_crud_utils._core.payload import changes_for, without_key
from sqlmodel_crud_utils._core.rows import snapshot, states_of
from sqlmodel_crud_utils._core.soft_delete import (
    is_soft_delete,
    require_soft_delete,
    restored_values,
)
from sqlmodel_crud_utils._core.versions import (
    check_version,
    coerced_version,
    held_version,
)
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    require_session,
    run_sync,
    sync_session,
)
from sqlmodel_crud_utils._session.by_key import (
    delete_at_once,
    marking_at_once,
    update_at_once,
)
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = ["delete_row", "update_row", "write_row"]

T = TypeVar("T")


@overload
async def write_row(
    data_row: T, session_inst: AnySession, *, raise_on_error: Literal[True]
) -> tuple[Literal[True], T]: ...


@overload
async def write_row(
    data_row: T, session_inst: AnySession, *, raise_on_error: bool | None = None
) -> tuple[Literal[True], T] | tuple[Literal[False], None]: ...


async def write_row(
    data_row: T, session_inst: AnySession, *, raise_on_error: bool | None = None
) -> tuple[Literal[True], T] | tuple[Literal[False], None]:
    """Write one row.

    The create hooks of the model run with it, or the update hooks for a row that is there already.
    What a hook raises undoes the write and comes out as it is, whatever `raise_on_error` says.

    Outside a `transaction()` block the session is committed, or rolled back after a failure, with
    everything else that was pending in it. Inside a block nothing is committed.

    Args:
        data_row: An instance of a table model.
        session_inst: The session to write with.
        raise_on_error: Whether a refusal by the database raises; left out, it does inside a
            block. False inside a block undoes just this write.

    Returns:
        `(True, row)`, or `(False, None)` when the database refused the row.

    Raises:
        ConstraintViolationError: A constraint is broken (see `raise_on_error`).
        DatabaseConnectionError: The database cannot be reached (see `raise_on_error`).
        QueryExecutionError: Any other refusal by the database (see `raise_on_error`).
        ValidationError: Not a table model's instance, or a row of another session.

    Example:
        >>> written, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        >>> hero.id
        1
        >>> await write_row(Hero(name="Rusty", secret_name="again"), session)
        (False, None)
    """
    session = require_session(session_inst)
    model = model_of(data_row, session)
    is_there = is_persistent(data_row)
    hooks = hooks_of(model, "update" if is_there else "create")
    write = Write(session, model, "write_row", raise_on_error, hooks, [data_row])
    if is_there and hooks:
        return await _rewrite(write, data_row)

    async def work() -> Sequence[T]:
        return [await insert(session, data_row, hooks)]

    rows = await attempt(write, work)
    return (False, None) if rows is None else (True, rows[0])


async def _rewrite(write: Write, row: T) -> tuple[Literal[True], T] | tuple[Literal[False], None]:
    """Write what was set on a row that is there already, with the hooks of an update."""
    changes = changed_columns(row)
    if changes:
        # Not before the hooks have seen it, and not outside of the savepoint that may undo it.
        write.session.expire(row, list(changes))
        async with searching(write):
            await write.session.refresh(row, list(changes))
    written, row = await update(write, row, changes)
    return (True, row) if written else (False, None)


async def insert(session: AsyncSession, row: T, hooks: Hooks) -> T:
    """Insert a row, or the one that a hook puts in its place, and return it."""
    row = await before_create(hooks, row)
    if not await inserted_at_once(session, row):
        session.add(row)
        await session.flush()
    await _run_after(session, hooks, "after_create", row)
    return row


async def _run_after(session: AsyncSession, hooks: Hooks, name: str, row: Any) -> None:
    if hooks:
        # A hook may look at every column.
        await load_expired(session, states_of([row]))
        await run_hooks(hooks, name, row)


def model_of(row: Any, session: AsyncSession) -> type[Any]:
    """Return the table model of a row that is to be written with this session."""
    model = type(row)
    mapper_of(model)
    if object_session(row) not in (None, sync_session(session)):
        raise ValidationError(
            f"the {model.__name__} row belongs to another session; "
            "write it with that one, or expunge it there first",
            field="data_row",
        )
    return model


@overload
async def update_row(
    id_str: Any,
    data: Any,
    session_inst: AnySession,
    model: type[T],
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: Literal[True],
    include_deleted: bool = False,
    expected_version: int | None = None,
) -> tuple[Literal[True], T]: ...


@overload
async def update_row(
    id_str: Any,
    data: Any,
    session_inst: AnySession,
    model: type[T],
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: bool | None = None,
    include_deleted: bool = False,
    expected_version: int | None = None,
) -> tuple[bool, T | None]: ...


async def update_row(
    id_str: Any,
    data: Any,
    session_inst: AnySession,
    model: type[T],
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: bool | None = None,
    include_deleted: bool = False,
    expected_version: int | None = None,
) -> tuple[bool, T | None]:
    """Update one row by its key.

    The values are validated against the types of the model's fields, and all of them before the
    first is written. The primary key is never changed.

    The update hooks of the model run with it. What a hook raises undoes the update and comes out
    as it is, whatever `raise_on_error` says.

    Outside a `transaction()` block the session is committed, or rolled back after a failure, with
    everything else that was pending in it. Inside a block nothing is committed.

    Args:
        id_str: The key; it is coerced to the column's type. A composite key is a tuple.
        data: A mapping, or a Pydantic or SQLModel object of which only the fields that were set
            are written, so that a PATCH resets nothing.
        session_inst: The session to write with.
        model: The table model.
        pk_field: The key's column; left out, it is "id" where the model has it, else the model's
            primary key.
        raise_on_error: Whether a row that is not there and a refusal by the database raise; left
            out, they do inside a block. False inside a block undoes just this update.
        include_deleted: Whether a soft-deleted row may be updated.
        expected_version: The `version` that the caller has seen, for callers that keep no session
            between reading and writing, as in a web application. Needs `VersionMixin`.

    Returns:
        `(True, row)`; `(False, None)` when there is no such row; `(False, row)` when the database
        refused the update or the row has another version, with the row as the database has it.

    Raises:
        RecordNotFoundError: There is no such row (see `raise_on_error`).
        ConflictError: The row was changed since it was read (see `raise_on_error`).
        ConstraintViolationError: A constraint is broken (see `raise_on_error`).
        QueryExecutionError: Any other refusal by the database (see `raise_on_error`).
        ValidationError: An unknown field, a value that its field does not take, another primary
            key.
        MultipleRecordsError: Several rows have that key.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        >>> updated, hero = await update_row(hero.id, {"age": "48"}, session, Hero)
        >>> hero.age, hero.secret_name
        (48, 'Tommy')
        >>> await update_row(999, {"age": 48}, session, Hero)
        (False, None)
    """
    session = require_session(session_inst)
    mapper_of(model)
    changes = changes_for(model, data)
    expected = coerced_version(model, expected_version)
    write = Write(session, model, "update_row", raise_on_error, hooks_of(model, "update"))
    if expected is None and (sought := alone(write, id_str, pk_field)):
        change = update_at_once(sought, changes, include_deleted=include_deleted)
        written = await written_at_once(write, change, include_deleted=include_deleted)
        if written is not None:
            return written
    row = await find_for(write, id_str, pk_field, include_deleted=include_deleted)
    if row is None:
        return False, None
    return await update(write, row, without_key(row, changes), expected)


async def update(
    write: Write, row: T, changes: Mapping[str, Any], expected_version: Any = None
) -> tuple[bool, T]:
    """Write changes to a row that was found; tell whether that was done."""
    session = write.session
    before = snapshot(states_of([row]))

    async def work() -> Sequence[T]:
        await _expect_version(session, row, expected_version)
        await change(session, row, changes, write.hooks)
        return [row]

    if await attempt(write, work) is not None:
        return True, row
    await reload(session, row, before)
    return False, row


async def reload_marks(session: AsyncSession, row: Any, *, is_deleted: bool) -> None:
    """Read the marks again where the session remembers them otherwise than the query said.

    What the session believes to be so already is not written.
    """
    if row.is_deleted is not is_deleted:
        await session.refresh(row, list(restored_values()))


async def _expect_version(session: AsyncSession, row: Any, expected: Any) -> None:
    if expected is None:
        return
    if held_version(row) != expected:
        # The session may hold the row as it was earlier.
        await session.flush()
        await session.refresh(row)
    check_version(row, expected)


async def change(session: AsyncSession, row: Any, changes: Mapping[str, Any], hooks: Hooks) -> None:
    """Write changes to a row, or what hooks make of them."""
    if hooks:
        made = await before_update(hooks, row, changes)
        changes = without_key(row, changes_for(type(row), made))
    await run_sync(session, _assign, row, changes)
    await session.flush()
    await _run_after(session, hooks, "after_update", row)


def _assign(row: Any, changes: Mapping[str, Any]) -> None:
    # For a collection SQLAlchemy queries what it held before.
    for name, value in changes.items():
        setattr(row, name, value)


async def delete_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[Any],
    pk_field: str | Sequence[str] | None = None,
    *,
    soft: bool | None = None,
    deleted_by: str | None = None,
    raise_on_error: bool | None = None,
    expected_version: int | None = None,
) -> bool:
    """Delete one row by its key; a row of a model with `SoftDeleteMixin` is marked instead.

    The delete hooks of the model run with it. What a hook raises undoes the deletion and comes out
    as it is, whatever `raise_on_error` says.

    Outside a `transaction()` block the session is committed, or rolled back after a failure, with
    everything else that was pending in it. Inside a block nothing is committed.

    Args:
        id_str: The key; it is coerced to the column's type. A composite key is a tuple.
        session_inst: The session to write with.
        model: The table model.
        pk_field: The key's column; left out, it is "id" where the model has it, else the model's
            primary key.
        soft: Whether the row is marked as deleted; left out, it is where the model has the
            mixin. False removes the row, also one that is marked already.
        deleted_by: Who deletes it, for a row that is marked; left out, whoever `acting_as` names.
        raise_on_error: Whether a row that is not there and a refusal by the database raise; left
            out, they do inside a block. False inside a block undoes just this deletion.
        expected_version: The `version` that the caller has seen, for callers that keep no session
            between reading and deleting. Needs `VersionMixin`.

    Returns:
        Whether the row is deleted.

    Raises:
        RecordNotFoundError: There is no such row (see `raise_on_error`).
        ConflictError: The row was changed since it was read (see `raise_on_error`).
        ConstraintViolationError: Other rows refer to the row (see `raise_on_error`).
        QueryExecutionError: Any other refusal by the database (see `raise_on_error`).
        ValidationError: A soft deletion of a model without the mixin, a key of a wrong type.
        MultipleRecordsError: Several rows have that key.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        >>> await delete_row(hero.id, session, Hero)
        True
        >>> await delete_row(1, session, Hero)
        False
    """
    session = require_session(session_inst)
    mapper_of(model)
    marks = soft_for(model, soft, deleted_by)
    expected = coerced_version(model, expected_version)
    write = Write(session, model, "delete_row", raise_on_error, hooks_of(model, "delete"))
    if expected is None and (sought := alone(write, id_str, pk_field)):
        change = marking_at_once(sought, deleted_by) if marks else delete_at_once(sought)
        written = await written_at_once(write, change, include_deleted=not marks)
        if written is not None:
            return written[0]
    row = await find_for(write, id_str, pk_field, include_deleted=not marks)
    if row is None:
        return False
    return await delete(write, row, marks, deleted_by, expected)


async def delete(
    write: Write, row: Any, marks: bool, deleted_by: str | None, expected_version: Any = None
) -> bool:
    """Remove or mark a row that was found; tell whether that was done."""
    session = write.session

    async def work() -> Sequence[Any]:
        await _expect_version(session, row, expected_version)
        if marks:
            await reload_marks(session, row, is_deleted=False)
        await run_hooks(write.hooks, "before_delete", row)
        if marks:
            row.soft_delete(deleted_by)
        else:
            await session.delete(row)
        await session.flush()
        await _run_after(session, write.hooks, "after_delete", row)
        return [row]

    return await attempt(write, work) is not None


def soft_for(model: type[Any], soft: bool | None, deleted_by: str | None) -> bool:
    """Tell whether a deletion marks the rows; a `ValidationError` where it cannot."""
    if soft:
        require_soft_delete(model, "soft")
    marks = is_soft_delete(model) if soft is None else soft
    if deleted_by is not None and not marks:
        raise ValidationError(
            "deleted_by is recorded by soft deletions only; "
            f"this one removes rows of {model.__name__}",
            field="deleted_by",
        )
    return marks
