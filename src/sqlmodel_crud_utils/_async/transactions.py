"""`transaction()` blocks, and callbacks that run after the commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlmodel_crud_utils._async._running.block_levels import block
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
    """Run a block of code whose writes are committed together or not at all.

    Inside, the functions of the library flush but do not commit; the exit of the outermost block
    commits once. Blocks may be nested. An inner block is a savepoint: if you catch its failure,
    only the inner part is undone.

    If the database refuses a statement and you catch the error inside the block, the block is
    doomed: its exit rolls back and raises. To continue after a failure, pass `raise_on_error=False`
    to the function, or put the statement in a block of its own.

    On SQLite a block takes the write lock at once (BEGIN IMMEDIATE), so that blocks that read and
    then write run one after the other.

    If the session already has uncommitted work, that work is committed or rolled back with the
    block. Inside your own `session.begin()` block, the block is a savepoint.

    Args:
        session: The session to work with: one of SQLModel or SQLAlchemy, or a scoped one.
        wrap_errors: Whether an exception inside the block is raised as a `TransactionError`. With
            False it propagates unchanged, which suits an HTTPException in a web handler.

    Yields:
        The session.

    Raises:
        TransactionError: The block failed. The original exception is its `__cause__` and its
            `original_error`; if the database refused something, that is the library's error. If the
            connection was lost during the COMMIT, `outcome_unknown` is True, and the error is
            raised even with `wrap_errors=False`. A `TransactionError` is not wrapped again.
            KeyboardInterrupt, SystemExit, GeneratorExit and a cancellation pass through.
        ValidationError: The session is not one of this API, or another task uses it.
        ExceptionGroup: Callbacks of `on_commit`, or your own event listeners, failed after the
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
    """Run a function after the session's work is committed, and never after a rollback.

    Inside `transaction()` it runs after the commit of the outermost block; a callback registered in
    a savepoint that is rolled back is dropped. Outside a block it runs after the library's next
    commit. Callbacks run in the order of registration. If one raises, the others still run; the
    errors are logged, and raised together after the last callback. What was committed stays.

    Args:
        session: The session whose commit the callback waits for.
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
