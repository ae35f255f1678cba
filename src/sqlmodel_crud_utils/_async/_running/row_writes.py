"""Insert, update or delete one row, inside an operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy.orm import object_session
from sqlalchemy.orm.attributes import instance_state, set_attribute

from sqlmodel_crud_utils._async._running.hook_calls import (
    Hooks,
    before_create,
    before_update,
    run_hooks,
)
from sqlmodel_crud_utils._async._running.operations import Write, attempt
from sqlmodel_crud_utils._async._running.rereading import (
    expect_version,
    load_for_hooks,
    reload_marks,
    reload_shown,
)
from sqlmodel_crud_utils._async._running.settling import load_expired, reload
from sqlmodel_crud_utils._async._running.shortcuts import inserted_at_once
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of, facts_of_row
from sqlmodel_crud_utils._core.returned_rows import snapshot
from sqlmodel_crud_utils._core.values.coercion import is_sql, storable
from sqlmodel_crud_utils._core.values.payload import changes_of_hooks, without_key
from sqlmodel_crud_utils._core.values.written import check_row, pending_values
from sqlmodel_crud_utils._core.visibility.soft_delete import (
    is_soft_delete,
    require_soft_delete,
)
from sqlmodel_crud_utils._runtime_async import AsyncSession, run_sync, sync_session
from sqlmodel_crud_utils._session.held_rows import recall_hidden
from sqlmodel_crud_utils._session.leftovers import shown_to_deletion
from sqlmodel_crud_utils._session.pending_rows import seen_by_hooks
from sqlmodel_crud_utils.exceptions import ValidationError

T = TypeVar("T")


async def rewrite(write: Write, row: T) -> tuple[Literal[True], T] | tuple[Literal[False], None]:
    """Write unflushed changes of an existing row, with the hooks of an update."""
    changes = pending_values(write.facts, row)
    if changes:
        # Take the changes off the row: hooks must see it before they are written, and they must
        # be written inside the savepoint that may undo them.
        write.session.expire(row, list(changes))
    written, row = await update(write, row, changes)
    return (True, row) if written else (False, None)


async def insert(session: AsyncSession, facts: Facts, row: T, hooks: Hooks) -> T:
    """Insert a row, or the one that a hook replaces it by, and return it."""
    if hooks:
        with seen_by_hooks(row):
            made = await before_create(session, hooks, row)
        row = made
    check_row(row)
    if not await inserted_at_once(session, facts, row):
        session.add(row)
        await session.flush()
    await _run_after(session, hooks, "after_create", row)
    return row


async def _run_after(session: AsyncSession, hooks: Hooks, name: str, row: Any) -> None:
    if hooks:
        # A hook may read every column.
        await load_expired(session, [instance_state(row)])
        await run_hooks(session, hooks, name, row)


def facts_for(session: AsyncSession, row: Any) -> Facts:
    """Return the facts of a row's model; refuse a row of another session."""
    facts = facts_of_row(row)
    if object_session(row) not in (None, sync_session(session)):
        raise ValidationError(
            f"the {facts.model.__name__} row belongs to another session; "
            "write it with that one, or expunge it there first",
            field="data_row",
        )
    return facts


async def update(
    write: Write,
    row: T,
    changes: Mapping[str, Any],
    expected_version: Any = None,
    *,
    is_outdated: bool = False,
) -> tuple[bool, T]:
    """Write changes to a row; return whether they were written.

    Args:
        write: The write.
        row: The row.
        changes: The new values.
        expected_version: The version that the caller has seen, if any.
        is_outdated: Whether the row may be outdated.
    """
    session = write.session
    before = snapshot([instance_state(row)])

    async def work() -> Sequence[T]:
        await expect_version(session, write.facts, row, expected_version)
        await change(write, row, changes, is_outdated=is_outdated)
        return [row]

    if await attempt(write, work) is not None:
        return True, row
    await reload(session, row, before)
    return False, row


async def change(
    write: Write, row: Any, changes: Mapping[str, Any], *, is_outdated: bool = False
) -> None:
    """Write changes to a row, as modified by its hooks."""
    session, facts, hooks = write.session, write.facts, write.hooks
    if hooks:
        await load_for_hooks(session, facts, row)
        made = await before_update(session, hooks, row, changes)
        changes = without_key(facts, row, changes_of_hooks(facts, changes, made))
        check_row(row)
    if is_outdated or hooks:
        await reload_shown(session, facts, row, changes)
    await run_sync(session, _assign, row, changes)
    await session.flush()
    await _run_after(session, hooks, "after_update", row)


def _assign(row: Any, changes: Mapping[str, Any]) -> None:
    recall_hidden(facts_of(type(row)), row, changes)
    # For a collection, SQLAlchemy loads its previous content.
    for name, value in changes.items():
        if is_sql(value):  # not a value yet, so the class's own __setattr__ must not see it
            set_attribute(row, name, value)
        else:
            setattr(row, name, value)


async def delete(
    write: Write, row: Any, marks: bool, deleted_by: str | None, expected_version: Any = None
) -> bool:
    """Delete a row, or mark it as deleted; return whether that was done."""
    session = write.session

    async def work() -> Sequence[Any]:
        await expect_version(session, write.facts, row, expected_version)
        await remove(write, row, marks, deleted_by)
        return [row]

    return await attempt(write, work) is not None


async def remove(write: Write, row: Any, marks: bool, deleted_by: str | None) -> None:
    """Delete a row, or mark it as deleted, with the hooks of a deletion."""
    session, hooks = write.session, write.hooks
    if marks:
        await reload_marks(session, write.facts, row, is_deleted=False)
    await run_hooks(session, hooks, "before_delete", row)
    if marks:
        row.soft_delete(deleted_by)
        await session.flush()
    else:
        with shown_to_deletion(row) as show:
            await run_sync(session, show)
            await session.delete(row)
            await session.flush()
    await _run_after(session, hooks, "after_delete", row)


def soft_for(facts: Facts, soft: bool | None, deleted_by: str | None) -> bool:
    """Return whether a deletion is soft; raise a `ValidationError` if the model forbids that."""
    if soft:
        require_soft_delete(facts, "soft")
    marks = is_soft_delete(facts) if soft is None else soft
    if deleted_by is not None and not marks:
        raise ValidationError(
            "deleted_by is recorded by soft deletions only; "
            f"this one removes rows of {facts.model.__name__}",
            field="deleted_by",
        )
    if deleted_by is not None:
        storable(facts.attributes["deleted_by"], deleted_by)
    return marks
