"""Observers of calls, like those of tracing and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlmodel_crud_utils._core import observers
from sqlmodel_crud_utils._core.observers import Call, Observer

__all__ = [
    "Call",
    "Limit",
    "LimitError",
    "Observer",
    "Recording",
    "Working",
    "failing",
    "observing",
    "recorded_calls",
]


class LimitError(Exception):
    """The error with which a limit refuses a call."""


class Recording(Observer):
    """Records calls.

    Attributes:
        events: "begin" or "end" with the name of the call, in order.
        calls: The calls that have ended.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.calls: list[Call] = []

    def begin(self, call: Call) -> None:
        """Record the beginning."""
        self.events.append(("begin", call.name))

    def end(self, call: Call) -> None:
        """Record the end."""
        self.events.append(("end", call.name))
        self.calls.append(call)

    @property
    def only(self) -> Call:
        """The only recorded call."""
        [call] = self.calls
        assert self.events == [("begin", call.name), ("end", call.name)]
        return call


class Working(Recording):
    """Also records when a stream is working: "resume" and "pause"."""

    def resume(self, call: Call) -> None:
        """Record that the stream works."""
        self.events.append(("resume", call.name))

    def pause(self, call: Call) -> None:
        """Record that its caller works."""
        self.events.append(("pause", call.name))


class Limit(Observer):
    """Refuses rows beyond a number, and calls with some names."""

    def __init__(self, rows: int | None = None, *names: str) -> None:
        self._left = rows
        self._names = names

    def admit(self, call: Call) -> None:
        """Refuse some calls."""
        if call.name in self._names:
            raise LimitError(call.name)

    def admit_rows(self, call: Call, rows: int) -> None:
        """Count down the rows."""
        if self._left is not None:
            self._left -= rows
            if self._left < 0:
                raise LimitError(call.name)


@contextmanager
def observing(*listening: Observer) -> Iterator[None]:
    """Register observers inside the block."""
    for each in listening:
        observers.register(each)
    try:
        yield
    finally:
        for each in listening:
            observers.unregister(each)


@contextmanager
def recorded_calls() -> Iterator[Recording]:
    """Record the calls inside the block."""
    recording = Recording()
    with observing(recording):
        yield recording


def failing(*methods: str) -> Observer:
    """Return an observer whose methods raise."""

    def fail(*_: Any) -> None:
        raise RuntimeError

    raising: dict[str, Callable[..., None]] = dict.fromkeys(methods, fail)
    return type("Broken", (Observer,), raising)()
