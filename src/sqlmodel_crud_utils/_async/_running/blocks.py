"""One level of a `transaction()` block: how it begins, ends, or is undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session as PlainSession, SessionTransaction
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils._async._running.conflicts import conflict_of
from sqlmodel_crud_utils._async._running.settling import (
    CommittedError,
    commit,
    load_expired,
    raise_together,
    roll_back,
    run_commit_callbacks,
)
from sqlmodel_crud_utils._core.errors.translation import (
    ends_transaction,
    is_database_error,
    shared_session,
    translate,
)
from sqlmodel_crud_utils._core.logs import get_logger, log_failure
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    run_sync,
    shielded,
    sync_session,
)
from sqlmodel_crud_utils._session import blocks
from sqlmodel_crud_utils._session.modes import USUAL, Modes
from sqlmodel_crud_utils._session.savepoints import innermost_transaction, is_within
from sqlmodel_crud_utils._session.sole_use import is_used_by_others, sole_use
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_clean
from sqlmodel_crud_utils.exceptions import SQLModelCRUDError, TransactionError


async def _run_outermost_callbacks(session: AsyncSession) -> list[Exception]:
    inside = blocks.is_inside(sync_session(session))
    return [] if inside else await run_commit_callbacks(session)


@asynccontextmanager
async def block(
    session: AsyncSession, *, wrap_errors: bool, modes: Modes = USUAL
) -> AsyncIterator[None]:
    """Run a level of a block, and after the outermost one what waited for its commit."""
    late: list[Exception] = []
    try:
        async with _level(session, wrap_errors, modes):
            yield
    except CommittedError as failed:
        late = [failed.error]
    except BaseException:
        # What was committed by hand inside the block, or while a cancellation came in, stays.
        await _run_outermost_callbacks(session)
        raise
    raise_together([*late, *await _run_outermost_callbacks(session)])


@asynccontextmanager
async def _level(session: AsyncSession, wrap_errors: bool, modes: Modes) -> AsyncIterator[None]:
    plain = sync_session(session)
    with sole_use(plain):
        block = blocks.enter(plain, modes)
    level = _Level(session, block)
    try:
        with sole_use(plain), _translating(plain):
            await level.begin()
        yield
        with sole_use(plain), _translating(plain):
            await level.end()
    except BaseException as error:
        await shielded(level.undo)
        passed = isinstance(error, TransactionError | CommittedError)
        if isinstance(error, Exception) and wrap_errors and not passed:
            raise TransactionError(original_error=error) from error
        raise
    finally:
        blocks.leave(plain, block)


@contextmanager
def _translating(session: PlainSession) -> Iterator[None]:
    """Raise what the database refuses at the begin or the end of a level as the library's error."""
    try:
        yield
    except Exception as error:
        if isinstance(error, SQLModelCRUDError) or not is_database_error(error):
            raise
        raise translate(blocks.behind(session, error)) from error


class _Level:
    """One level of a block: the database transaction itself, or a savepoint in it."""

    def __init__(self, session: AsyncSession, block: blocks.Block) -> None:
        self._session = session
        self._plain = sync_session(session)
        self._block = block
        self._outermost = block.depth == 1 and not block.in_callers
        self._savepoint: SessionTransaction | None = None

    async def begin(self) -> None:
        if not self._outermost:
            if self._block.depth == 1:
                await run_sync(self._session, blocks.join_callers, self._plain)
            await self._session.begin_nested()
            self._savepoint = self._plain.get_nested_transaction()
            return
        await run_sync(self._session, blocks.begin, self._plain)

    async def end(self) -> None:
        self._refuse_if_doomed()
        try:
            await self._write()
        except CommittedError:
            raise
        except Exception as error:
            log_failure("commit", "the session", error, "debug")
            raise

    async def _write(self) -> None:
        await self._flush()
        if not self._outermost:
            await self._end_savepoint("commit")
            return
        for state in list(self._block.kept):
            with suppress(InvalidRequestError):  # the row is gone, there is nothing to load
                await load_expired(self._session, [state])
        # From here on a cancellation waits: whether a COMMIT that is cut off was carried out,
        # nobody could tell.
        await shielded(commit, self._session, self._block.kept)

    async def _flush(self) -> None:
        if is_clean(self._plain):
            return
        try:
            await self._session.flush()
        except StaleDataError as error:
            raise await conflict_of(self._session) or translate(error) from error

    async def undo(self) -> None:
        if self._outermost:
            await roll_back(self._session)
            return
        if is_used_by_others(self._plain) and not self._block.in_callers:
            # Another task's statement is under way in the savepoint: all of it has to go.
            self._block.doom(shared_session(), wholly=True)
            return
        try:
            await self._end_savepoint("rollback")
            if self._savepoint is not None:
                # What failed after SQLAlchemy's own rollback is undone just as well.
                self._block.refusals.drop(self._savepoint)
        except Exception as error:  # noqa: BLE001 - the first error counts; this dooms the block
            get_logger().error(f"rollback to a savepoint failed: {type(error).__name__}")
            if self._block.in_callers:
                # Nobody else would keep the caller from committing the rest.
                await roll_back(self._session)

    async def _end_savepoint(self, how: Literal["commit", "rollback"]) -> None:
        # A commit or rollback by hand inside the block has ended the savepoint already.
        if self._savepoint is not None and self._is_open(self._savepoint):
            await run_sync(self._session, getattr(self._savepoint, how))

    def _is_open(self, savepoint: SessionTransaction) -> bool:
        return is_within(innermost_transaction(self._plain), savepoint)

    def _refuse_if_doomed(self) -> None:
        refusal = self._block.refusal(self._savepoint)
        if refusal is None:
            return
        failure = translate(refusal) if isinstance(refusal, Exception) else refusal
        if ends_transaction(refusal):
            raise TransactionError(operation="commit", original_error=failure) from failure
        raise TransactionError(
            "the database refused a statement of this block, so all of it is rolled back; "
            "to go on after a failure pass raise_on_error=False to the function, "
            "or put it in a transaction() block of its own",
            operation="commit",
            original_error=failure,
        ) from failure
