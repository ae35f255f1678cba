"""Transactions that are retried if concurrent ones made them fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlmodel_crud_utils._async._running.block_levels import block
from sqlmodel_crud_utils._async._running.operations import Block, keep_loaded
from sqlmodel_crud_utils._async._running.settling import close_safely
from sqlmodel_crud_utils._core.errors.retry_delays import Retries, refuse_generators, retries_for
from sqlmodel_crud_utils._core.errors.transient import Cause, cause_of, is_transient
from sqlmodel_crud_utils._core.logs import log_retry
from sqlmodel_crud_utils._core.returned_rows import states_of
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    Function,
    call_hook,
    pause,
    require_callable,
    require_session,
    runner,
    shielded,
    sync_session,
)
from sqlmodel_crud_utils._session import blocks
from sqlmodel_crud_utils._session.blocks import block_of, is_inside
from sqlmodel_crud_utils._session.modes import Modes, modes_for
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_clean
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.pagination import CursorPage, Page

__all__ = ["is_transient", "run_transaction"]

_R = TypeVar("_R")

_NAME = "run_transaction"


async def run_transaction(
    new_session: Callable[[], AnySession],
    work: Function[_R],
    *args: Any,
    attempts: int = 5,
    isolation_level: str | None = None,
    read_only: bool = False,
    deadline: float | None = None,
    **kwargs: Any,
) -> _R:
    """Run a function in a transaction, and repeat it if other transactions made it fail.

    Each attempt calls the whole function with a new session in a `transaction()` block, and then
    closes the session. Between attempts it holds no connection. The pause is random, grows with
    each attempt, and is at most one second. `is_transient` defines which errors lead to another
    attempt; a connection that is lost before the COMMIT is replaced once. Callbacks of `on_commit`
    run only for the attempt that is committed.

    The function may run several times, so anything it does outside the database belongs in
    `on_commit`. If it commits some of its work itself, it does not run again.

    Args:
        new_session: A function that opens a session, such as `session_factory(engine)`.
        work: The function; it is called with the session, `args` and `kwargs`.
        *args: More arguments of the function.
        attempts: How often the function may run, 1 or more.
        isolation_level: "READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ" or "SERIALIZABLE"
            for this transaction. The default is the engine's level. SQLite is always serializable.
        read_only: Whether the transaction refuses to write. On SQLite, it then does not wait for
            writers.
        deadline: How many seconds after the call the last attempt may begin. A running attempt is
            not interrupted.
        **kwargs: More arguments of the function, by name.

    Returns:
        What the function returned. Rows in the result, also inside lists, dicts and pages, are
        loaded, so you can use them after the session is closed.

    Raises:
        TransactionError: The connection was lost during the COMMIT; its
            `outcome_unknown` is True. The function does not run again.
        ValidationError: An argument that cannot be used, a generator function, a call inside the
            function of another `run_transaction`, or a session that is already in use: only the
            outermost transaction can run again.
        Exception: The error of the last attempt, unchanged, with a note about the attempts.
        ExceptionGroup: Callbacks of `on_commit` failed after the commit; what was committed stays.

    Example:
        >>> async def hire(session, name):
        ...     _, hero = await write_row(Hero(name=name, secret_name="Tommy"), session)
        ...     return hero
        >>> hero = await run_transaction(session_factory(engine), hire, "Rusty")
        >>> hero.name
        'Rusty'
    """
    require_callable(new_session, "new_session")
    require_callable(work, "work")
    refuse_generators(work)
    _refuse_nested()
    modes = modes_for(isolation_level, read_only)
    retries = retries_for(attempts, deadline)
    async with Block(None, None, _NAME) as operation:
        while True:
            session = await _opened(new_session)
            attempt = _Attempt(session, modes)
            operation.attempts = retries.made
            try:
                result: _R = await attempt.run(work, args, kwargs)
                if retries.made > 1:
                    log_retry(f"succeeded at attempt {retries.made}")
                return result
            except Exception as error:
                seconds = attempt.next_pause(retries, error)
                if seconds is None:
                    _give_up(retries, error)
                    raise
            finally:
                operation.levels = attempt.block
                await shielded(close_safely, session)
            await pause(seconds)


# --- one attempt ---------------------------------------------------------------------------------


@dataclass
class _Attempt:
    """One run of the function, in a transaction of its own."""

    session: AsyncSession
    modes: Modes
    block: blocks.BlockState | None = None
    ended_by: BaseException | None = None
    """The error that ended the transaction, even if the function caught it."""

    async def run(
        self, work: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        async with block(self.session, wrap_errors=False, modes=self.modes):
            self.block = block_of(sync_session(self.session))
            try:
                with _at_work():
                    result = await call_hook(work, self.session, *args, **kwargs)
            except Exception:
                self.ended_by = self.block.refusal(None) if self.block else None
                raise
            own = sync_session(self.session)
            rows = [state.obj() for state in states_of(_members(result)) if state.session is own]
            keep_loaded(self.session, rows, related=True)
        return result

    def next_pause(self, retries: Retries, error: Exception) -> float | None:
        """Return the seconds until the next attempt, or None to give up."""
        if self.block is not None and self.block.committed:
            return None
        cause: Cause | None = cause_of(error) or cause_of(self.ended_by)
        seconds = None if cause is None else retries.next_pause(cause)
        if seconds is not None:
            log_retry(f"begins attempt {retries.made} in {seconds:.3f} s", error)
        return seconds


def _members(value: Any) -> Iterator[Any]:
    """Yield the members of a result, at any depth."""
    if isinstance(value, Page | CursorPage):
        value = value.items
    parts: Iterable[Any] | None = None
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    if parts is None:
        yield value
    else:
        for part in parts:
            yield from _members(part)


def _give_up(retries: Retries, error: Exception) -> None:
    if retries.made > 1 or cause_of(error) is not None:
        number = f"{retries.made} attempt{'s' if retries.made > 1 else ''}"
        error.add_note(f"{_NAME} gave up after {number}")
        log_retry(f"gives up at attempt {retries.made}", error)


# --- what cannot run again -----------------------------------------------------------------------

_running: ContextVar[object] = ContextVar("sqlmodel_crud_utils_running", default=None)


@contextmanager
def _at_work() -> Iterator[None]:
    """Mark the current task or thread while it runs the function of a `run_transaction`."""
    before = _running.get()
    _running.set(runner())
    try:
        yield
    finally:
        _running.set(before)


def _refuse_nested() -> None:
    if _running.get() is runner():
        raise ValidationError(
            f"{_NAME} was called inside the function of another {_NAME}; only the outermost "
            "transaction can run again: use transaction(session) inside",
            field="new_session",
        )


async def _opened(new_session: Callable[[], AnySession]) -> AsyncSession:
    """Return a new session; refuse a result of the factory that is not a session, or in use."""
    made = await call_hook(new_session)
    try:
        session = require_session(made)
    except ValidationError as error:
        raise ValidationError(
            f"must return a session of this API, not {type(made).__name__}; "
            "pass session_factory(engine)",
            field="new_session",
        ) from error
    plain = sync_session(session)
    if is_inside(plain) or plain.in_transaction() or not is_clean(plain):
        raise ValidationError(
            "new_session returned a session that is already in a transaction, which cannot run "
            "again; pass a function that opens a new session, such as session_factory(engine)",
            field="new_session",
        )
    return session
