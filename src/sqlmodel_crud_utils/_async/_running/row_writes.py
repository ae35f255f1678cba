"""Insert, update or delete one row, inside an operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import object_session
from sqlalchemy.orm.attributes import instance_state, set_attribute

from sqlmodel_crud_utils._async._running.hook_calls import (
    Hooks,
    before_create,
    before_update,
    run_hooks,
)
from sqlmodel_crud_utils._async._running.operations import Write, attempt
from sqlmodel_crud_utils._async._running.settling import load_expired, reading_to_write, reload
from sqlmodel_crud_utils._async._running.shortcuts import inserted_at_once
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of, facts_of_row
from sqlmodel_crud_utils._core.returned_rows import expired_columns, snapshot
from sqlmodel_crud_utils._core.values.coercion import is_sql, storable
from sqlmodel_crud_utils._core.values.payload import changes_of_hooks, without_key
from sqlmodel_crud_utils._core.values.versions import check_version, conflict, held_version
from sqlmodel_crud_utils._core.values.written import check_row, pending_values
from sqlmodel_crud_utils._core.visibility.soft_delete import (
    is_soft_delete,
    require_soft_delete,
    restored_values,
)
from sqlmodel_crud_utils._runtime_async import AsyncSession, run_sync, sync_session
from sqlmodel_crud_utils._session.held_rows import columns_to_reload, forget_related, recall_hidden
from sqlmodel_crud_utils._session.leftovers import shown_to_deletion
from sqlmodel_crud_utils._session.pending_rows import seen_by_hooks
from sqlmodel_crud_utils.exceptions import ValidationError

T = TypeVar("T")


async def rewrite(write: Write, row: T) -> tuple[Literal[True], T] | tuple[Literal[False], None]:
    """Write unflushed changes of an existing row, with the hooks of an update."""
    changes = pending_values(row)
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
        await _expect_version(session, write.facts, row, expected_version)
        await change(write, row, changes, is_outdated=is_outdated)
        return [row]

    if await attempt(write, work) is not None:
        return True, row
    await reload(session, row, before)
    return False, row


async def reload_marks(session: AsyncSession, row: Any, *, is_deleted: bool) -> None:
    """Reload the flags of a soft deletion if the object disagrees with the query's criteria.

    Otherwise the flush would not write flags that the object already seems to have.
    """
    if row.is_deleted is not is_deleted:
        await _refresh(session, row, list(restored_values()))


async def _refresh(
    session: AsyncSession,
    row: Any,
    names: list[str] | None = None,
    *,
    with_for_update: bool = False,
) -> None:
    """Refresh a row; raise a `ConflictError` if somebody else has removed it."""
    seen = held_version(facts_of(type(row)), row)
    try:
        async with reading_to_write(session):
            await session.refresh(row, names, with_for_update=with_for_update or None)
    except InvalidRequestError as error:
        if type(error) is not InvalidRequestError:  # a subclass is about the session
            raise
        raise conflict(row, seen) from error


async def _expect_version(session: AsyncSession, facts: Facts, row: Any, expected: Any) -> None:
    if expected is None:
        return
    if held_version(facts, row) != expected:
        # The session's row may be outdated.
        await session.flush()
        await _refresh(session, row)
    check_version(facts, row, expected, given=True)


async def change(
    write: Write, row: Any, changes: Mapping[str, Any], *, is_outdated: bool = False
) -> None:
    """Write changes to a row, as modified by its hooks."""
    session, facts, hooks = write.session, write.facts, write.hooks
    if hooks:
        if expired := expired_columns(facts, instance_state(row)):
            await _refresh(session, row, expired)
        made = await before_update(session, hooks, row, changes)
        changes = without_key(facts, row, changes_of_hooks(facts, changes, made))
        check_row(row)
    if is_outdated or hooks:
        await _reload_shown(session, facts, row, changes)
    await run_sync(session, _assign, row, changes)
    await session.flush()
    await _run_after(session, hooks, "after_update", row)


async def _reload_shown(
    session: AsyncSession, facts: Facts, row: Any, changes: Mapping[str, Any]
) -> None:
    """Reload columns that already equal their new values, so that the flush compares correctly."""
    forget_related(facts, row, changes)
    names = columns_to_reload(facts, row, changes)
    if not names:
        return
    seen = held_version(facts, row)
    if facts.version is not None:
        names.append(facts.version)
    # The UPDATE that follows needs the lock anyway; a plain SELECT may read an old snapshot.
    await _refresh(session, row, names, with_for_update=True)
    if seen is not None:
        check_version(facts, row, seen)


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
        await _expect_version(session, write.facts, row, expected_version)
        await remove(write, row, marks, deleted_by)
        return [row]

    return await attempt(write, work) is not None


async def remove(write: Write, row: Any, marks: bool, deleted_by: str | None) -> None:
    """Delete a row, or mark it as deleted, with the hooks of a deletion."""
    session, hooks = write.session, write.hooks
    if marks:
        await reload_marks(session, row, is_deleted=False)
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
