"""Write, update or delete one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, overload

from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._async._running.fetching import find_for, may_find_outdated
from sqlmodel_crud_utils._async._running.hook_calls import hooks_of
from sqlmodel_crud_utils._async._running.operations import Write, attempt
from sqlmodel_crud_utils._async._running.row_writes import (
    delete,
    facts_for,
    insert,
    rewrite,
    soft_for,
    update,
)
from sqlmodel_crud_utils._async._running.shortcuts import alone, written_at_once
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.values.payload import changes_for, without_key
from sqlmodel_crud_utils._core.values.versions import coerced_version
from sqlmodel_crud_utils._core.visibility.soft_delete import visibility_with
from sqlmodel_crud_utils._runtime_async import AnySession, require_session
from sqlmodel_crud_utils._shortcuts.by_key import delete_at_once, marking_at_once, update_at_once

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

    The model's create hooks run, or its update hooks if the row already exists. An exception from a
    hook undoes the write and propagates unchanged, whatever `raise_on_error` says.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        data_row: An instance of a table model.
        session_inst: The session to write with.
        raise_on_error: Whether a refusal by the database raises; by default, only inside a block.
            False inside a block undoes just this write.

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
    facts = facts_for(session, data_row)
    is_there = instance_state(data_row).persistent
    hooks = hooks_of(facts.model, "update" if is_there else "create")
    async with Write(session, facts, "write_row", raise_on_error, hooks, [data_row]) as write:
        if is_there and hooks:
            return await rewrite(write, data_row)

        async def work() -> Sequence[T]:
            return [await insert(session, facts, data_row, hooks)]

        rows = await attempt(write, work)
        return (False, None) if rows is None else (True, rows[0])


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

    All values are validated against the types of the model's fields before any is written. The
    primary key is never changed. Afterwards the database has the given values, even if the session
    holds an older state of the row, or if a value such as a dict was changed in place.

    The model's update hooks run. An exception from a hook undoes the update and propagates
    unchanged, whatever `raise_on_error` says.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        id_str: The key, coerced to the column's type. A composite key is a tuple.
        data: A mapping, or a Pydantic or SQLModel object. Of an object, only the fields that were
            set are written, so a PATCH resets nothing. The values of a mapping may be SQL, such as
            `Product.stock - 1`; the returned row has the result that the database computed.
        session_inst: The session to write with.
        model: The table model.
        pk_field: The key's column. The default is "id" if the model has it, otherwise the primary
            key.
        raise_on_error: Whether a missing row or a refusal by the database raises; by default, only
            inside a block. False inside a block undoes just this update.
        include_deleted: Whether a soft-deleted row may be updated.
        expected_version: The `version` that the caller has seen, for callers that keep no session
            between reading and writing, as in a web application. Needs `VersionMixin`.

    Returns:
        `(True, row)`; `(False, None)` when there is no such row; `(False, row)`, with the row as it
        is in the database, when the database refused the update or the row has another version.

    Raises:
        RecordNotFoundError: There is no such row (see `raise_on_error`).
        ConflictError: The row has changed since it was read (see `raise_on_error`).
        ConstraintViolationError: A constraint is broken (see `raise_on_error`).
        QueryExecutionError: Any other refusal by the database (see `raise_on_error`).
        ValidationError: An unknown field, a value that its field does not accept, another primary
            key.
        MultipleRecordsError: Several rows have that key.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        >>> updated, hero = await update_row(hero.id, {"age": "48"}, session, Hero)
        >>> hero.age, hero.secret_name
        (48, 'Tommy')
        >>> _, hero = await update_row(hero.id, {"age": Hero.age + 1}, session, Hero)
        >>> hero.age
        49
        >>> await update_row(999, {"age": 48}, session, Hero)
        (False, None)
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    changes = changes_for(facts, data)
    expected = coerced_version(facts, expected_version)
    visibility = visibility_with(include_deleted=include_deleted)
    hooks = hooks_of(model, "update")
    async with Write(session, facts, "update_row", raise_on_error, hooks) as write:
        if expected is None and (sought := alone(write, id_str, pk_field)):
            change = update_at_once(sought, changes, visibility)
            written = await written_at_once(write, change, visibility)
            if written is not None:
                return written
        is_outdated = may_find_outdated(write)
        row = await find_for(write, id_str, pk_field, visibility=visibility)
        if row is None:
            return False, None
        changes = without_key(facts, row, changes)
        return await update(write, row, changes, expected, is_outdated=is_outdated)


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

    A relationship decides what happens to the rows that refer to this one through it; by default, a
    nullable reference is set to NULL.

    The model's delete hooks run. An exception from a hook undoes the deletion and propagates
    unchanged, whatever `raise_on_error` says.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        id_str: The key, coerced to the column's type. A composite key is a tuple.
        session_inst: The session to write with.
        model: The table model.
        pk_field: The key's column. The default is "id" if the model has it, otherwise the primary
            key.
        soft: Whether to mark the row as deleted instead of removing it; by default, if the model
            has the mixin. False removes the row even if it is already marked.
        deleted_by: Who deletes the row, recorded if it is marked. The default is whoever
            `acting_as` names.
        raise_on_error: Whether a missing row or a refusal by the database raises; by default, only
            inside a block. False inside a block undoes just this deletion.
        expected_version: The `version` that the caller has seen, for callers that keep no session
            between reading and deleting. Needs `VersionMixin`.

    Returns:
        Whether the row is deleted.

    Raises:
        RecordNotFoundError: There is no such row (see `raise_on_error`).
        ConflictError: The row has changed since it was read (see `raise_on_error`).
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
    facts = facts_of(model)
    marks = soft_for(facts, soft, deleted_by)
    visibility = visibility_with(include_deleted=not marks)
    expected = coerced_version(facts, expected_version)
    hooks = hooks_of(model, "delete")
    operation = Write(session, facts, "delete_row", raise_on_error, hooks, deletes=not marks)
    async with operation as write:
        if expected is None and (sought := alone(write, id_str, pk_field)):
            change = marking_at_once(sought, deleted_by) if marks else delete_at_once(sought)
            written = await written_at_once(write, change, visibility)
            if written is not None:
                return written[0]
        row = await find_for(write, id_str, pk_field, visibility=visibility)
        if row is None:
            return False
        return await delete(write, row, marks, deleted_by, expected)
