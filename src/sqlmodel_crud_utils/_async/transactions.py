"""All or nothing: `transaction()` blocks, and what waits for their commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeVar

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils._async.conflicts import conflict_of
from sqlmodel_crud_utils._async.settling import (
    commit,
    load_expired,
    raise_together,
    roll_back,
    run_commit_callbacks,
)
from sqlmodel_crud_utils._core.errors import is_database_error, translate
from sqlmodel_crud_utils._core.logs import get_logger, log_failure
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    require_callable,
    require_session,
    run_sync,
    shielded,
    sync_session,
)
from sqlmodel_crud_utils._session import blocks, commit_callbacks
from sqlmodel_crud_utils.exceptions import TransactionError

__all__ = ["on_commit", "transaction"]

_S = TypeVar("_S", bound=AnySession)


@asynccontextmanager
async def transaction(session: _S, *, wrap_errors: bool = True) -> AsyncIterator[_S]:
    """Run a block of code that is written as a whole or not at all.

    Inside, the functions of the library flush and do not commit; the exit of the outermost block
    commits once. Blocks may be nested: an inner one is a savepoint, so that an inner failure
    which the caller catches undoes only the inner part.

    When the database has refused a statement and the error is caught inside the block, the block
    is doomed: its exit rolls back and raises. To go on after a failure, pass
    `raise_on_error=False` to the function, or put the statement in a block of its own.

    On SQLite a block takes the write lock at once (BEGIN IMMEDIATE), so that two blocks that read
    and then write wait for each other.

    A session that is already in use is taken over: what it has not committed yet is committed or
    rolled back with the block.

    Args:
        session: The session to work with, SQLModel's, SQLAlchemy's or a scoped one.
        wrap_errors: Whether an exception of the block arrives as `TransactionError`. With False
            it arrives as it is, which suits an HTTPException in a web handler.

    Yields:
        The session.

    Raises:
        TransactionError: The block failed; the original exception is its `__cause__` and its
            `original_error`. A `TransactionError` is not wrapped twice; KeyboardInterrupt,
            SystemExit, GeneratorExit and a cancellation pass through as they are.
        ValidationError: The session is not one of this API.
        ExceptionGroup: Callbacks of `on_commit` failed; what was committed stays.

    Example:
        >>> async with transaction(session):
        ...     _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        ...     hero.age = 48
        >>> hero.age
        48
    """
    target = require_session(session)
    try:
        async with _level(target, wrap_errors=wrap_errors):
            yield session
    except BaseException:
        # What was committed by hand inside the block, or while a cancellation came in, stays.
        await _run_outermost_callbacks(target)
        raise
    raise_together(await _run_outermost_callbacks(target))


async def _run_outermost_callbacks(session: AsyncSession) -> list[Exception]:
    inside = blocks.block_of(sync_session(session)) is not None
    return [] if inside else await run_commit_callbacks(session)


@asynccontextmanager
async def _level(session: AsyncSession, *, wrap_errors: bool) -> AsyncIterator[None]:
    plain = sync_session(session)
    block = blocks.enter(plain)
    level = _Level(session, block)
    try:
        await level.begin()
        yield
        await level.end()
    except BaseException as error:
        await shielded(level.undo)
        if isinstance(error, Exception) and wrap_errors and not isinstance(error, TransactionError):
            raise TransactionError(original_error=error) from error
        raise
    finally:
        blocks.leave(plain, block)


class _Level:
    """One level of a block: the database transaction itself, or a savepoint in it."""

    def __init__(self, session: AsyncSession, block: blocks.Block) -> None:
        self._session = session
        self._plain = sync_session(session)
        self._block = block
        self._outermost = block.depth == 1
        self._savepoint: SessionTransaction | None = None

    async def begin(self) -> None:
        if not self._outermost:
            await self._session.begin_nested()
            self._savepoint = self._plain.get_nested_transaction()
            return
        try:
            await run_sync(self._session, blocks.begin, self._plain)
        except Exception as error:
            if not is_database_error(error):
                raise
            raise translate(error) from error

    async def end(self) -> None:
        self._refuse_if_doomed()
        try:
            await self._write()
        except Exception as error:
            # A function of the library that fails in the block has told it already; this is news.
            log_failure("commit", "the session", error)
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
        if self._plain._is_clean():
            return
        try:
            await self._session.flush()
        except StaleDataError as error:
            raise await conflict_of(self._session) or translate(error) from error

    async def undo(self) -> None:
        if self._outermost:
            await roll_back(self._session)
            return
        try:
            await self._end_savepoint("rollback")
            if self._savepoint is not None:
                # What failed after SQLAlchemy's own rollback is undone just as well.
                self._block.forget(self._savepoint)
        except Exception as error:  # noqa: BLE001 - the first error counts; this dooms the block
            get_logger().error(f"rollback to a savepoint failed: {type(error).__name__}")

    async def _end_savepoint(self, how: Literal["commit", "rollback"]) -> None:
        # A commit or rollback by hand inside the block has ended the savepoint already.
        if self._savepoint is not None and self._is_open(self._savepoint):
            await run_sync(self._session, getattr(self._savepoint, how))

    def _is_open(self, savepoint: SessionTransaction) -> bool:
        return blocks.is_within(blocks.innermost_transaction(self._plain), savepoint)

    def _refuse_if_doomed(self) -> None:
        refusal = self._block.refusal(self._savepoint)
        if refusal is not None:
            raise TransactionError(
                "the database refused a statement of this block, so all of it is rolled back; "
                "to go on after a failure pass raise_on_error=False to the function, "
                "or put it in a transaction() block of its own",
                operation="commit",
                original_error=refusal,
            ) from refusal


def on_commit(session: AnySession, callback: Callable[[], Any]) -> None:
    """Run a function when the work of the session is committed, and never after a rollback.

    Inside `transaction()` it runs after the commit of the outermost block; what is registered in a
    savepoint that is rolled back is dropped. Outside a block it runs after the next commit of the
    library. Callbacks run in the order of registration, each one even if another raised; the
    errors are logged and raised together after the last, and what was committed stays.

    Args:
        session: The session whose commit is waited for.
        callback: A function without parameters.

    Raises:
        ValidationError: The callback cannot be called here, or the session is not one of this API.

    Example:
        >>> sent = []
        >>> async with transaction(session):
        ...     _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        ...     on_commit(session, lambda: sent.append(hero.name))
        ...     sent
        []
        >>> sent
        ['Rusty']
    """
    require_callable(callback, "callback")
    commit_callbacks.add(sync_session(require_session(session)), callback)
