"""Observers of every call of a public function: tracing, metrics, rate limits.

Without an observer, a call pays one truth test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, ClassVar, Literal

from sqlmodel_crud_utils._core.logs import get_logger

Kind = Literal["read", "write", "block", "other"]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """A call of a public function, or of a method of a query builder.

    Attributes:
        session: The session that it works with; None for the functions of engines.
        facts: The `Facts` of the table model; None where it concerns none, or any number of them.
        name: The name of the function or method; "transaction" for a block.
        batch: How many rows or keys the caller has given, where that is known.
        rows: How many rows it has returned or written up to now, where that is known.
        attempts: How often it has run: more than once where it lost against others before.
        is_stream: Whether it hands out rows while the caller's own code runs in between. Then
            `resume` and `pause` tell when it is at work.
        cache: What a cache did for a read: "hit", "miss", or "bypass" where it was not asked;
            None for a call that uses no cache. Whoever caches says so before the call ends.
        refused: Whether a limit refused it. Whoever limits says so.
        committed: Of a block whether its transaction was committed; None for what is only a part
            of a transaction.
        error: What it failed with, whether that was raised or is only returned as a failure.
        observers: The observers that were notified of its beginning.
    """

    kind: ClassVar[Kind] = "other"

    session: Any
    facts: Any
    name: str
    batch: int | None = field(default=None, init=False)
    rows: int | None = field(default=None, init=False)
    attempts: int = field(default=1, init=False)
    is_stream: bool = field(default=False, init=False)
    cache: Literal["hit", "miss", "bypass"] | None = field(default=None, init=False)
    refused: bool = field(default=False, init=False)
    committed: bool | None = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    observers: tuple[Observer, ...] = field(default=(), init=False)

    @property
    def model(self) -> type[Any] | None:
        """The table model; None if the call concerns no model, or any number of them."""
        return None if self.facts is None else self.facts.model


class Observer:
    """Is notified of calls; each method does nothing unless a subclass overrides it.

    `begin` and `end` only hear, and what they raise is logged: they do not get in the way of a
    call. `admit` and `admit_rows` decide, and may wait for it: in the async API they may be
    `async def`. The arguments of a call are checked before it begins.
    """

    def begin(self, call: Call) -> None:
        """Called when a call begins, before anything is sent to the database.

        A stream begins with its first row.
        """

    def admit(self, call: Call) -> Any:
        """Admit a call, or refuse it with an exception; nothing has been done for it yet."""

    def admit_rows(self, call: Call, rows: int) -> Any:
        """Admit the rows that a bulk write has written; an exception undoes the whole write.

        A long write is reported in parts. Nothing is committed yet.
        """

    def resume(self, call: Call) -> None:
        """Called when a stream starts to read its next rows."""

    def pause(self, call: Call) -> None:
        """Called when a stream has read them, and the caller's code continues."""

    def end(self, call: Call) -> None:
        """Called once when a call has ended, whether it succeeded or failed.

        A stream ends with its last row, when it is closed, or when it is dropped: that may be in
        another task or thread.
        """


registered: tuple[Observer, ...] = ()
_registering = Lock()


def register(observer: Observer) -> None:
    """Register an observer; it is notified of all calls that begin from now on."""
    global registered  # noqa: PLW0603 - replaced as a whole: who reads it needs no lock
    with _registering:
        registered = (*registered, observer)


def unregister(observer: Observer) -> None:
    """Unregister an observer; it is still notified when calls under way end."""
    global registered  # noqa: PLW0603 - replaced as a whole: who reads it needs no lock
    with _registering:
        registered = tuple(each for each in registered if each is not observer)


def begin(call: Call) -> None:
    """Notify the observers that a call begins."""
    call.observers = registered
    for observer in call.observers:
        _notify(observer.begin, call)


def end(call: Call, error: BaseException | None = None) -> None:
    """Notify the observers, once, that a call has ended, and of its error if it failed.

    In reverse order of the beginning, so that contexts can be nested.
    """
    told, call.observers = call.observers, ()
    if error is not None:
        call.error = error
    for observer in reversed(told):
        _notify(observer.end, call)


@contextmanager
def at_work(call: Call) -> Iterator[None]:
    """Notify the observers that a stream reads rows inside the block."""
    told = call.observers
    for observer in told:
        _notify(observer.resume, call)
    try:
        yield
    finally:
        for observer in reversed(told):
            _notify(observer.pause, call)


def _notify(method: Callable[[Call], None], call: Call) -> None:
    try:
        method(call)
    except Exception as error:  # noqa: BLE001 - an observer's error must not break the call
        get_logger().error(f"an observer of {call.name} failed: {type(error).__name__}")


@contextmanager
def observed(name: str, session: Any = None) -> Iterator[None]:
    """Notify the observers of a call without I/O, which none of them can refuse."""
    if not registered:
        yield
        return
    call = Call(session, None, name)
    begin(call)
    try:
        yield
    except BaseException as error:
        end(call, error)
        raise
    end(call)
