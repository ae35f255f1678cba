"""Run the library's functions: commits, failures and observers, inside and outside a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self, TypeGuard, TypeVar

from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils._async._running.block_levels import block
from sqlmodel_crud_utils._async._running.conflicts import conflict_of
from sqlmodel_crud_utils._async._running.hook_calls import HookFailedError, Hooks, want_session
from sqlmodel_crud_utils._async._running.refusals import Refusal
from sqlmodel_crud_utils._async._running.settling import (
    CommittedError,
    commit,
    concluded,
    load_expired,
    reading_to_write,
    roll_back,
)
from sqlmodel_crud_utils._core import observers
from sqlmodel_crud_utils._core.errors.translation import is_database_error, translate
from sqlmodel_crud_utils._core.logs import log_failure
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.observers import Call, Kind
from sqlmodel_crud_utils._core.returned_rows import Untouched, states_of, with_related
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    Work,
    call_hook,
    shielded,
    sync_session,
    take_turn,
)
from sqlmodel_crud_utils._session import blocks
from sqlmodel_crud_utils._session.blocks import (
    behind,
    block_of,
    in_callers_block,
    is_inside,
    refuse_in_reading,
)
from sqlmodel_crud_utils._session.pending_rows import SetApart, taking_back_keys
from sqlmodel_crud_utils._session.replica_sessions import stay_with_primary
from sqlmodel_crud_utils._session.sharing import sharing_of
from sqlmodel_crud_utils._session.sole_use import sole_use
from sqlmodel_crud_utils._session.tenant_of_session import serve_model
from sqlmodel_crud_utils._session.transaction_state import has_nothing_to_lose, is_lost
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    SQLModelCRUDError,
    ValidationError,
)

_Rows = TypeVar("_Rows", bound=Sequence[Any])
_Outcome = TypeVar("_Outcome", bound=Sequence[Any] | Untouched)


@dataclass(slots=True, eq=False)
class Operation(Call):
    """A call of a public function, from its beginning to its end.

    Observers are notified of both, and may refuse the call at its beginning.
    """

    async def __aenter__(self) -> Self:
        if observers.registered:
            await self.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.observers:
            observers.end(self, error)

    async def begin(self) -> None:
        """Notify observers that the call begins; an exception of theirs ends it."""
        observers.begin(self)
        try:
            for observer in self.observers:
                await call_hook(observer.admit, self)
        except BaseException as error:
            observers.end(self, error)
            raise

    async def written(self, rows: int) -> None:
        """Count rows that are written but not committed yet; an observer may refuse them."""
        self.rows = rows + (self.rows or 0)
        for observer in self.observers:
            await call_hook(observer.admit_rows, self, rows)


@dataclass(slots=True, eq=False)
class Block(Operation):
    """A block of the caller's code, in which other operations run."""

    kind: ClassVar[Kind] = "block"

    levels: blocks.BlockState | None = field(default=None, init=False)
    """The state of the block's levels, once it has begun."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        levels = self.levels
        is_outermost = levels is None or (levels.depth == 0 and not levels.in_callers)
        self.committed = levels is not None and levels.committed if is_outermost else None
        await Operation.__aexit__(self, kind, error, trace)


@dataclass(slots=True, eq=False)
class _OnSession(Operation):
    """An operation with exclusive use of its session; with a shared session, it waits its turn."""

    _use: sole_use = field(init=False, repr=False)

    async def __aenter__(self) -> Self:
        plain = sync_session(self.session)
        sharing = sharing_of(plain)
        if sharing is not None:
            await take_turn(self.session, sharing)
        self._use = sole_use(plain)
        self._use.__enter__()
        try:
            serve_model(plain, self.model)
            if observers.registered:
                await self.begin()
        except BaseException as error:
            self._use.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._use.__exit__(kind, error, trace)
        except ValidationError as interrupted:
            error = interrupted
            raise
        finally:
            if self.observers:
                observers.end(self, error)


@dataclass(slots=True, eq=False)
class Read(_OnSession):
    """A read; it raises database errors as the library's errors.

    A transaction that began here and was lost with its connection is rolled back, so that the
    session can be used at once.
    """

    kind: ClassVar[Kind] = "read"

    _began_here: bool = field(init=False, repr=False)

    async def __aenter__(self) -> Self:
        await _OnSession.__aenter__(self)
        self._began_here = has_nothing_to_lose(sync_session(self.session))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failure = None
        try:
            if error is not None:
                model = self.model or "query"
                failure = await _raised(self.session, error, model, self.name, self._began_here)
            if failure is not None:
                failure.__cause__ = error  # observers of the end read it
        finally:
            await _OnSession.__aexit__(self, kind, failure or error, trace)
        if failure is not None:
            raise failure from error


@dataclass(slots=True, eq=False)
class Write(_OnSession):
    """A write; it knows the model, what a failure does, and which hooks run."""

    kind: ClassVar[Kind] = "write"

    facts: Facts
    raise_on_error: bool | None = None
    hooks: Hooks = ()
    adding: Sequence[Any] = ()
    """New rows; keys that the write gives them are removed if it is undone."""
    deletes: bool = False
    """Whether it removes rows, which others may refer to."""

    @property
    def model(self) -> type[Any]:
        """The table model."""
        return self.facts.model

    def __post_init__(self) -> None:
        # A row that will be written is searched for in the database that is written to.
        stay_with_primary(sync_session(self.session))

    @property
    def inside(self) -> bool:
        """Whether a block will commit: a `transaction()` block, or the caller's own."""
        return is_inside(sync_session(self.session))

    @property
    def in_savepoint(self) -> bool:
        """Whether the write needs a savepoint of its own (outside a block: a transaction).

        A hook's exception must undo the write, even if the caller catches it inside a block; and
        the library's functions must not commit inside hooks. In the caller's own block, nothing
        else would undo a write whose failure was caught.
        """
        tolerant = self.inside and not self.strict
        return bool(self.hooks) or tolerant or in_callers_block(sync_session(self.session))

    @property
    def strict(self) -> bool:
        """Whether a refusal by the data raises: as the caller says, by default inside a block."""
        return self.inside if self.raise_on_error is None else self.raise_on_error


@asynccontextmanager
async def translated(session: AsyncSession, model: type[Any], name: str) -> AsyncIterator[None]:
    """Raise database errors as `Read` does, in a part of an operation."""
    began_here = has_nothing_to_lose(sync_session(session))
    try:
        yield
    except BaseException as error:
        failure = await _raised(session, error, model, name, began_here)
        if failure is None:
            raise
        raise failure from error


async def _raised(
    session: AsyncSession,
    error: BaseException,
    model: type[Any] | str,
    name: str,
    began_here: bool,
) -> SQLModelCRUDError | None:
    if began_here and is_lost(sync_session(session)):
        await roll_back(session)
    return _reported(session, error, model, name)


@asynccontextmanager
async def searching(write: Write) -> AsyncIterator[None]:
    """Raise errors of the search that a write begins with; outside a block, roll back."""
    async with translated(write.session, write.model, write.name):
        try:
            async with reading_to_write(write.session):
                yield
        except BaseException as error:
            is_interrupted = not isinstance(error, Exception)
            if (is_interrupted or _is_refusal(error)) and not write.inside:
                await shielded(roll_back, write.session)
            raise


async def attempt(write: Write, work: Work[_Rows]) -> _Rows | None:
    """Run a write to its end and return its rows, or undo it.

    Outside a block a success commits and a failure rolls the session back. Inside a block nothing
    is committed, and a failure is left to the block, except with `raise_on_error=False`: then only
    this write is undone, with a savepoint. A hook's exception undoes the write too, and propagates
    unchanged.

    Returns:
        The rows that `work` returned, or None if the database refused the write and failures do
        not raise.
    """
    outcome = await outcome_of(write, work)
    if isinstance(outcome, SQLModelCRUDError):
        write.error = outcome
        log_failure(write.name, write.model, outcome)
        return None
    write.rows = len(outcome)
    return outcome


async def outcome_of(write: Write, work: Work[_Outcome]) -> _Outcome | SQLModelCRUDError:
    """Run a write as `attempt` does; return its rows, or a failure that does not raise.

    The caller logs a returned failure.
    """
    outcome = await _run(write, work)
    if not isinstance(outcome, Refusal):
        return outcome
    _doom(write, outcome.failure)
    return outcome.failure


async def run_or_raise(write: Write, work: Work[_Rows]) -> _Rows:
    """Run a set-based write to its end and return its rows, or undo it and raise.

    It commits and undoes as `attempt` does. `raise_on_error` only decides what a refusal raises:
    the library's error, or SQLAlchemy's own, as in v0.1.0.
    """
    outcome = await _run(write, work)
    if not isinstance(outcome, Refusal):
        return outcome
    log_failure(write.name, write.model, outcome.failure, "debug")
    raise outcome.error


async def _run(write: Write, work: Work[_Outcome]) -> _Outcome | Refusal:
    """Run a write to its end; return its refusal if that does not raise."""
    try:
        return await _ended(write, work)
    except HookFailedError as failed:
        hook_error = failed.error
    except Exception as error:
        failure = await _failure_of(write, error)
        if failure is None:
            raise
        if write.strict or is_mistake(failure):
            _refuse(write, failure, error)
        return Refusal(error, failure)
    raise hook_error


async def _failure_of(write: Write, error: Exception) -> SQLModelCRUDError | None:
    """Return an error of a write as the library's, or None for errors other than the database's."""
    if isinstance(error, ConflictError):  # detected before anything was written
        return error
    failure = _translated(write.session, error, write.model, deletes=write.deletes)
    if isinstance(error, StaleDataError):
        return await conflict_of(write.session) or failure
    return failure


def _refuse(write: Write, failure: SQLModelCRUDError, error: Exception) -> NoReturn:
    log_failure(write.name, write.model, failure, "debug")
    if failure is error:
        raise failure
    _doom(write, failure)
    raise failure from error


def _reported(
    session: AsyncSession, error: BaseException, model: type[Any] | str, name: str
) -> SQLModelCRUDError | None:
    """Log a database error and return it as the library's; return None for any other error."""
    failure = _translated(session, error, model)
    if failure is not None:
        log_failure(name, model, failure, "debug")
    return failure


def _translated(
    session: AsyncSession,
    error: BaseException,
    model: type[Any] | str,
    *,
    deletes: bool = False,
) -> SQLModelCRUDError | None:
    if not isinstance(error, Exception) or not _is_refusal(error):
        return None
    error = behind(sync_session(session), error)
    return translate(error, None if isinstance(model, str) else model, deletes=deletes)


def _is_refusal(error: BaseException) -> bool:
    return is_database_error(error) and not isinstance(error, SQLModelCRUDError)


def is_mistake(error: SQLModelCRUDError) -> TypeGuard[ValidationError]:
    """Return whether an error is the caller's mistake, which always raises, not the data's."""
    return isinstance(error, ValidationError) and not isinstance(error, ConstraintViolationError)


def _doom(write: Write, failure: SQLModelCRUDError) -> None:
    # The rollback of a savepoint (for hooks, or in get_one_or_create) drops the block's refusal;
    # and a flush may end a transaction although the database refused nothing (a version conflict).
    plain = sync_session(write.session)
    block = block_of(plain)
    refused = write.strict and not is_mistake(failure)
    if block is not None and (refused or not plain.is_active):
        block.doom(failure)


async def _ended(write: Write, work: Work[_Outcome]) -> _Outcome:
    refuse_in_reading(sync_session(write.session))
    if write.inside and not sync_session(write.session).is_active:
        # A flush would raise this too, but by then the row would be in the session.
        raise PendingRollbackError("an earlier statement of the block was refused")
    with taking_back_keys(write.adding):
        return await _settled(write, work)


async def _settled(write: Write, work: Work[_Outcome]) -> _Outcome:
    if write.in_savepoint:
        with SetApart(write.adding) as apart:
            # A hook may write based on what it reads, which must not change in between.
            locks_first = write.inside or want_session(write.hooks)
            level = block(
                write.session, wrap_errors=False, locks_first=locks_first, translates=False
            )
            async with level:
                apart.put_back()
                return await _uncommitted(write.session, work)
    if write.inside:
        return await _uncommitted(write.session, work)
    return await concluded(write.session, partial(_committed, write.session, work))


async def _committed(session: AsyncSession, work: Work[_Outcome]) -> _Outcome:
    try:
        outcome = await work()
        if not isinstance(outcome, Untouched):
            states = states_of(outcome)
            await load_expired(session, states)
            await shielded(commit, session, states)
        return outcome
    except CommittedError:
        raise
    except BaseException:
        await shielded(roll_back, session)
        raise


async def _uncommitted(session: AsyncSession, work: Work[_Outcome]) -> _Outcome:
    outcome = await work()
    if not isinstance(outcome, Untouched):
        await load_expired(session, states_of(outcome))
        keep_loaded(session, outcome)
    return outcome


def keep_loaded(session: AsyncSession, rows: Iterable[Any], *, related: bool = False) -> None:
    """Keep rows loaded after the commit of the current block, if there is one.

    Args:
        session: The session that holds the rows.
        rows: The rows that a function of the library is about to return.
        related: Whether to keep rows in their loaded relationships too.
    """
    block = block_of(sync_session(session))
    if block is not None:
        states = states_of(rows)
        block.keep(with_related(states) if related else states)
