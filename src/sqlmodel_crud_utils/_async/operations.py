"""How every function of the library runs: what it does on a failure, inside and outside a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlmodel_crud_utils._async.hook_calls import HookFailedError, Hooks
from sqlmodel_crud_utils._async.settling import (
    commit,
    load_expired,
    raise_together,
    roll_back,
    run_commit_callbacks,
)
from sqlmodel_crud_utils._async.transactions import transaction
from sqlmodel_crud_utils._core.blocks import block_of
from sqlmodel_crud_utils._core.errors import is_database_error, translate
from sqlmodel_crud_utils._core.logs import log_failure
from sqlmodel_crud_utils._core.rows import states_of, with_related
from sqlmodel_crud_utils._runtime_async import AsyncSession, Work, shielded, sync_session
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    SQLModelCRUDError,
    ValidationError,
)

Rows = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Write:
    """A write in progress: for whom, on which model, what a failure does, what else runs."""

    session: AsyncSession
    model: type[Any]
    name: str
    raise_on_error: bool | None = None
    hooks: Hooks = ()

    @property
    def inside(self) -> bool:
        """Whether a `transaction()` block is under way."""
        return block_of(sync_session(self.session)) is not None

    @property
    def strict(self) -> bool:
        """Whether a data outcome raises: as the caller says, else inside a block only."""
        return self.inside if self.raise_on_error is None else self.raise_on_error


@asynccontextmanager
async def translated(model: type[Any] | str, name: str) -> AsyncIterator[None]:
    """Raise a failure of the database as an error of the library; there is no other outcome."""
    try:
        yield
    except Exception as error:
        failure = _reported(error, model, name)
        if failure is None:
            raise
        raise failure from error


async def attempt(write: Write, work: Work[Rows]) -> Rows | None:
    """Run a write to its end and return its rows, or undo it.

    Outside a block a success commits and a failure rolls the session back. Inside a block nothing
    is committed, and a failure is left to the block, except with `raise_on_error=False`: then just
    this write is undone, with a savepoint. What a hook raises undoes the write too and goes on as
    it is.

    Returns:
        The rows that `work` returned, or None when the database refused the write and a failure
        is not to raise.
    """
    try:
        return await _run(write, work)
    except HookFailedError as failed:
        hook_error = failed.error
    except Exception as error:
        failure = _reported(error, write.model, write.name)
        if failure is None:
            raise
        if write.strict or _is_mistake(failure):
            _doom(write, failure)
            raise failure from error
        return None
    raise hook_error


async def insist(write: Write, work: Work[Rows]) -> Rows:
    """Run a set-based write to its end and return its rows, or undo it and raise.

    It commits and undoes as `attempt` does. `raise_on_error` only decides what a refusal raises:
    the library's error, or SQLAlchemy's own, as in v0.1.0.
    """
    try:
        return await _run(write, work)
    except HookFailedError as failed:
        hook_error = failed.error
    except Exception as error:
        failure = _reported(error, write.model, write.name)
        if failure is None or not (write.strict or _is_mistake(failure)):
            raise
        _doom(write, failure)
        raise failure from error
    raise hook_error


def _reported(error: Exception, model: type[Any] | str, name: str) -> SQLModelCRUDError | None:
    """Log a failure of the database and return it as the library's error, None for any other."""
    if isinstance(error, SQLModelCRUDError) or not is_database_error(error):
        return None
    log_failure(name, model, error)
    return translate(error, None if isinstance(model, str) else model)


def _is_mistake(error: SQLModelCRUDError) -> bool:
    """Tell a caller's mistake, which always raises, from a refusal by the data."""
    return isinstance(error, ValidationError) and not isinstance(error, ConstraintViolationError)


def _doom(write: Write, failure: SQLModelCRUDError) -> None:
    # Where a savepoint was there for the hooks, the refusal is no longer seen in the block itself.
    block = block_of(sync_session(write.session))
    if block is not None and write.hooks and write.strict:
        block.doom(failure)


async def _run(write: Write, work: Work[Rows]) -> Rows:
    if write.inside:
        # A hook that raises has to take the write with it, even if the caller catches the error.
        if write.strict and not write.hooks:
            return await _held(write.session, work)
        async with write.session.begin_nested():
            return await _held(write.session, work)
    if write.hooks:
        # What hooks write with the library belongs to this write: it must not commit by itself.
        async with transaction(write.session, wrap_errors=False):
            return await _held(write.session, work)
    rows = await _committed(write.session, work)
    raise_together(await run_commit_callbacks(write.session))
    return rows


async def _committed(session: AsyncSession, work: Work[Rows]) -> Rows:
    try:
        rows = await work()
        states = states_of(rows)
        await load_expired(session, states)
        await commit(session, states)
    except BaseException:
        await shielded(roll_back, session)
        raise
    return rows


async def _held(session: AsyncSession, work: Work[Rows]) -> Rows:
    rows = await work()
    await load_expired(session, states_of(rows))
    keep_loaded(session, rows)
    return rows


def keep_loaded(session: AsyncSession, rows: Iterable[Any], *, related: bool = False) -> None:
    """Keep rows loaded beyond the commit of the block under way, if there is one.

    Args:
        session: The session the rows belong to.
        rows: What a function of the library is about to return.
        related: Whether the rows they hold through loaded relationships are kept too.
    """
    block = block_of(sync_session(session))
    if block is not None:
        states = states_of(rows)
        block.keep(with_related(states) if related else states)
