"""One level of a `transaction()` block: its beginning, its end, its rollback."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Literal

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils._async._running.conflicts import conflict_of
from sqlmodel_crud_utils._async._running.settling import (
    CommittedError,
    commit,
    concluded,
    load_expired,
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
    Work,
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


class block:  # noqa: N801 - reads as a function; generators would cost more than the rest
    """Run a level of a block; after the outermost one, run the commit's callbacks.

    Args:
        session: The session.
        wrap_errors: Whether to raise an error as a `TransactionError`.
        modes: The modes of a transaction that begins here.
        locks_first: Whether to take SQLite's lock before anything is read.
        translates: Whether to raise database errors as the library's; otherwise the caller does.
    """

    __slots__ = (
        "_level",
        "_locks_first",
        "_modes",
        "_plain",
        "_session",
        "_translates",
        "_wraps_errors",
    )

    def __init__(
        self,
        session: AsyncSession,
        *,
        wrap_errors: bool,
        modes: Modes = USUAL,
        locks_first: bool = True,
        translates: bool = True,
    ) -> None:
        self._session = session
        self._translates = translates
        self._locks_first = locks_first
        self._plain = sync_session(session)
        self._wraps_errors = wrap_errors
        self._modes = modes

    async def __aenter__(self) -> None:
        """Begin the level."""
        with sole_use(self._plain):
            entered = blocks.enter(self._plain, self._modes, locks_first=self._locks_first)
        self._level = _Level(self._session, entered)
        try:
            await self._run(self._level.begin)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the level, or undo it after an error."""
        if error is None:
            await concluded(self._session, self._end)
            return
        try:
            await self._undo(error)
        finally:
            # An explicit commit inside the block has taken effect.
            await run_commit_callbacks(self._session)

    async def _end(self) -> None:
        try:
            await self._run(self._level.end)
        except BaseException as failure:
            await self._undo(failure)
            raise
        self._level.leave()

    async def _undo(self, error: BaseException) -> None:
        try:
            await shielded(self._level.undo)
        finally:
            self._level.leave()
        passed = isinstance(error, TransactionError | CommittedError)
        if isinstance(error, Exception) and self._wraps_errors and not passed:
            raise TransactionError(original_error=error) from error

    async def _run(self, step: Work[None]) -> None:
        """Begin or end the level."""
        with sole_use(self._plain):
            try:
                await step()
            except Exception as error:
                is_known = isinstance(error, SQLModelCRUDError) or not is_database_error(error)
                if is_known or not self._translates:
                    raise
                raise translate(blocks.behind(self._plain, error)) from error


class _Level:
    """One level of a block: the database transaction itself, or a savepoint in it."""

    def __init__(self, session: AsyncSession, block: blocks.BlockState) -> None:
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
        elif self._block.locks_first:
            await run_sync(self._session, blocks.begin, self._plain)
        else:
            blocks.begin_without_lock(self._plain)

    def leave(self) -> None:
        blocks.leave(self._plain, self._block)

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
            with suppress(InvalidRequestError):  # the row is gone
                await load_expired(self._session, [state])
        # A cancellation has to wait from here on: the outcome of an interrupted COMMIT is unknown.
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
        if is_used_by_others(self._plain):
            # Another task is using the savepoint: the whole block must be undone.
            self._block.doom(shared_session(), wholly=True)
            if self._block.in_callers:
                await roll_back(self._session)
            return
        try:
            await self._end_savepoint("rollback")
            if self._savepoint is not None:
                # Also drops refusals that came after SQLAlchemy ended the savepoint itself.
                self._block.refusals.drop(self._savepoint)
        except Exception as error:  # noqa: BLE001 - the first error counts; this dooms the block
            get_logger().error(f"rollback to a savepoint failed: {type(error).__name__}")
            if self._block.in_callers:
                # Nothing else would stop the caller from committing the rest.
                await roll_back(self._session)

    async def _end_savepoint(self, how: Literal["commit", "rollback"]) -> None:
        # An explicit commit or rollback inside the block has already ended the savepoint.
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
            "to continue after a failure, pass raise_on_error=False to the function, "
            "or put it in a transaction() block of its own",
            operation="commit",
            original_error=failure,
        ) from failure
