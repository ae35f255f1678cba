"""End work: load expired rows, commit and keep them loaded, or roll back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar, cast

from sqlalchemy.exc import IllegalStateChangeError, SQLAlchemyError
from sqlalchemy.orm import InstanceState

from sqlmodel_crud_utils._core.errors.translation import is_database_error, unknown_outcome
from sqlmodel_crud_utils._core.logs import get_logger, log_failure
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.returned_rows import Snapshot, expired_columns, restore, snapshot
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    Work,
    call_hook,
    run_sync,
    shielded,
    sync_session,
)
from sqlmodel_crud_utils._session import commit_callbacks, kept_rows
from sqlmodel_crud_utils._session.blocks import is_inside, only_reads
from sqlmodel_crud_utils._session.routing import as_writing, chooses_itself
from sqlmodel_crud_utils._session.sole_use import is_interrupted, is_used_by_others
from sqlmodel_crud_utils._session.sqlalchemy_internals import autoflush
from sqlmodel_crud_utils._session.state import forget
from sqlmodel_crud_utils._session.transaction_state import (
    abandon,
    committing,
    connections_of,
    cut_off,
    is_committing,
    release_locks,
)

_R = TypeVar("_R")


class CommittedError(Exception):
    """Carries an error raised after the commit past the handlers for failed writes."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__()


@asynccontextmanager
async def reading_to_write(session: AsyncSession) -> AsyncIterator[None]:
    """Send the SELECTs inside to the database that a flush would go to.

    A replica may not have the row yet that is to be written. Inside nothing is flushed, so what a
    read would flush is flushed before.
    """
    plain = sync_session(session)
    if chooses_itself(plain):
        await run_sync(session, autoflush, plain)
    with as_writing(plain):
        yield


async def load_expired(session: AsyncSession, states: Sequence[InstanceState[Any]]) -> None:
    """Load values that the database generated and the flush did not fetch."""
    for state in states:
        facts = facts_of(state.class_)
        names = expired_columns(facts, state)
        if names and state.persistent:
            with as_writing(sync_session(session)):
                await session.refresh(state.obj(), names)
        for track in facts.change_trackers:
            track(state)


async def reload(session: AsyncSession, row: Any, before: Snapshot) -> None:
    """Refresh a row whose write was undone, so that its columns are loaded.

    If that fails, restore the values from before.
    """
    try:
        async with reading_to_write(session):
            await session.refresh(row)
    except Exception as error:
        # The row may be gone, or the database with it; the failed write is reported already.
        if not is_database_error(error):
            raise
        get_logger().error(f"reading a row after a failed write failed: {type(error).__name__}")
        if not is_inside(sync_session(session)):
            await roll_back(session)
        restore(before)


async def commit(session: AsyncSession, states: Iterable[InstanceState[Any]]) -> None:
    """Commit; these rows stay loaded, others expire as the session is configured.

    Raises:
        TransactionError: The outcome of the commit is unknown.
        CommittedError: A listener of the caller's failed after the commit.
    """
    plain = sync_session(session)
    kept = list(states) if plain.expire_on_commit else []
    # Where nothing else would expire, nothing does: that is quicker than putting values back.
    is_whole = kept_rows.are_all(plain, kept)
    remembered = [] if is_whole else snapshot(kept)
    committing(plain)
    try:
        with kept_rows.without_expiry(plain) if is_whole else nullcontext():
            await session.commit()
    except Exception as error:
        if not is_committing(plain):
            await _end_committed(session)
            raise CommittedError(error) from error
        # For a read-only transaction, the outcome does not matter.
        unknown = None if only_reads(plain) else unknown_outcome(error)
        if unknown is None:
            raise
        raise unknown from error
    finally:
        forget(plain, "committing")
    restore(remembered)
    kept_rows.note(plain, kept)


async def _end_committed(session: AsyncSession) -> None:
    """End a transaction whose end a listener prevented; the listener may fail again."""
    try:
        if sync_session(session).in_transaction():
            await session.close()
    except Exception as error:  # noqa: BLE001 - the first error is raised
        log_failure("close", "the session", error, "error")


async def roll_back(session: AsyncSession) -> None:
    """Roll back, and discard connections on which that fails.

    A connection in use by another task is discarded too: its driver might execute that task's
    statement after the rollback, outside any transaction.
    """
    plain = sync_session(session)
    if is_used_by_others(plain):
        await _discard(session)
        return
    try:
        await session.rollback()
    except Exception as error:  # noqa: BLE001 - the first error counts
        if is_interrupted(plain):  # the task that ends the transaction handles its connection
            return
        get_logger().error(f"rollback failed, the connection is discarded: {type(error).__name__}")
        await run_sync(session, release_locks, connections_of(plain))
        await _discard(session)


async def _discard(session: AsyncSession) -> None:
    """Discard the session's connections."""
    try:
        await session.invalidate()
    except IllegalStateChangeError:  # the other task is checking out a connection
        await run_sync(session, cut_off, sync_session(session))


async def close_safely(session: AsyncSession) -> None:
    """Close a session, even if its connection is dead; log a failure instead of raising it.

    All work is already committed, or was lost with an error of its own, so the caller could do
    nothing about the failure.
    """
    connections = connections_of(sync_session(session))
    try:
        await session.close()
    except SQLAlchemyError as error:
        log_failure("close", "the session", error, "error")
        await run_sync(session, abandon, connections)


async def concluded(session: AsyncSession, end: Work[_R]) -> _R:
    """Run work that ends in a commit, then the callbacks of the commit; return its result.

    Raises:
        ExceptionGroup: Callbacks or listeners failed after the commit, which is done.
    """
    outcome, late = None, []
    try:
        outcome = await end()
    except CommittedError as failed:
        late = [failed.error]
    except BaseException:
        # An explicit commit, or one that a cancellation arrived in, has taken effect.
        await run_commit_callbacks(session)
        raise
    late += await run_commit_callbacks(session)
    if late:
        raise ExceptionGroup(
            "on_commit callbacks or listeners failed; the transaction is committed", late
        )
    return cast("_R", outcome)


async def run_commit_callbacks(session: AsyncSession) -> list[Exception]:
    """Run the callbacks that are due, in order; return their exceptions.

    Inside a block they keep waiting.
    """
    plain = sync_session(session)
    due = [] if is_inside(plain) else commit_callbacks.take_due(plain)
    return await shielded(_run_each, iter(due)) if due else []


async def _run_each(callbacks: Iterator[Callable[[], Any]]) -> list[Exception]:
    failures: list[Exception] = []
    for callback in callbacks:
        try:
            await call_hook(callback)
        except Exception as error:  # noqa: BLE001 - raised together after the last
            get_logger().error(f"on_commit callback failed: {type(error).__name__}")
            failures.append(error)
        except BaseException:
            await _run_each(callbacks)  # the remaining callbacks run either way
            raise
    return failures
