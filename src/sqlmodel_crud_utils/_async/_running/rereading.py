"""Read rows again before they are written: for versions, for hooks, for what a flush compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._async._running.settling import reading_to_write
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.returned_rows import expired_columns
from sqlmodel_crud_utils._core.values.versions import check_version, conflict, held_version
from sqlmodel_crud_utils._core.visibility.soft_delete import restored_values
from sqlmodel_crud_utils._runtime_async import AsyncSession
from sqlmodel_crud_utils._session.held_rows import columns_to_reload, forget_related


async def expect_version(session: AsyncSession, facts: Facts, row: Any, expected: Any) -> None:
    """Raise a `ConflictError` if a row no longer has the version that the caller has seen."""
    if expected is None:
        return
    if held_version(facts, row) != expected:
        # The session's row may be outdated.
        await session.flush()
        await _refresh(session, facts, row)
    check_version(facts, row, expected, given=True)


async def load_for_hooks(session: AsyncSession, facts: Facts, row: Any) -> None:
    """Load the columns that have expired: a hook may read each of them."""
    if expired := expired_columns(facts, instance_state(row)):
        await _refresh(session, facts, row, expired)


async def reload_shown(
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
    await _refresh(session, facts, row, names, with_for_update=True)
    if seen is not None:
        check_version(facts, row, seen)


async def reload_marks(session: AsyncSession, facts: Facts, row: Any, *, is_deleted: bool) -> None:
    """Reload the flags of a soft deletion if the object disagrees with the query's criteria.

    Otherwise the flush would not write flags that the object already seems to have.
    """
    if row.is_deleted is not is_deleted:
        await _refresh(session, facts, row, list(restored_values()))


async def _refresh(
    session: AsyncSession,
    facts: Facts,
    row: Any,
    names: list[str] | None = None,
    *,
    with_for_update: bool = False,
) -> None:
    """Refresh a row; raise a `ConflictError` if somebody else has removed it."""
    seen = held_version(facts, row)
    try:
        async with reading_to_write(session):
            await session.refresh(row, names, with_for_update=with_for_update or None)
    except InvalidRequestError as error:
        if type(error) is not InvalidRequestError:  # a subclass is about the session
            raise
        raise conflict(row, seen) from error
