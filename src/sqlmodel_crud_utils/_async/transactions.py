"""All or nothing: `transaction()` blocks, and what waits for their commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlmodel_crud_utils._async._running.blocks import block
from sqlmodel_crud_utils._async._running.operations import Block
from sqlmodel_crud_utils._core.observers import observed
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    require_callable,
    require_session,
    sync_session,
)
from sqlmodel_crud_utils._session import commit_callbacks
from sqlmodel_crud_utils._session.blocks import block_of

__all__ = ["on_commit", "transaction"]

_S = TypeVar("_S", bound=AnySession)


@asynccontextmanager
async def transaction(session: _S, *, wrap_errors: bool = True) -> AsyncIterator[_S]:
    """Run a block of code that is written as a whole or not at all.

    Inside, the functions of the library flush and do not commit; the exit of the outermost block
    commits once. Blocks may be nested: an inner one is a savepoint, so that an inner failure
    which the caller catches undoes only the inner part.

    When the database has refused a statement and the error is caught inside the block, the block is
    doomed: its exit rolls back and raises. To carry on after a failure, pass `raise_on_error=False`
    to the function, or put the statement in a block of its own.

    On SQLite a block takes the write lock at once (BEGIN IMMEDIATE), so that two blocks that read
    and then write wait for each other.

    A session that is already in use is taken over: what it has not committed yet is committed or
    rolled back with the block. Inside the caller's own `session.begin()` block it is a savepoint.

    Args:
        session: The session to work with, SQLModel's, SQLAlchemy's or a scoped one.
        wrap_errors: Whether an exception of the block arrives as `TransactionError`. With False
            it arrives as it is, which suits an HTTPException in a web handler.

    Yields:
        The session.

    Raises:
        TransactionError: The block failed; the original exception is its `__cause__` and its
            `original_error`, the library's error where the database refused something. Its
            `outcome_unknown` is True where the connection was lost when the COMMIT was on its
            way, with `wrap_errors=False` too. A `TransactionError` is not wrapped twice;
            KeyboardInterrupt, SystemExit, GeneratorExit and a cancellation pass through.
        ValidationError: The session is not one of this API, or another task uses it.
        ExceptionGroup: Callbacks of `on_commit`, or the caller's listeners, failed after the
            commit; what was committed stays.

    Example:
        >>> async with transaction(session):
        ...     _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        ...     hero.age = 48
        >>> hero.age
        48
    """
    plain = require_session(session)
    operation = Block(plain, None, "transaction")
    async with operation, block(plain, wrap_errors=wrap_errors):
        operation.levels = block_of(sync_session(plain))
        yield session


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
    found = require_session(session)
    with observed("on_commit", found):
        commit_callbacks.add(sync_session(found), callback)
