"""Reads in progress: callers that miss the same entry wait for one query."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

_S = TypeVar("_S")


@dataclass(slots=True, eq=False)
class Flight(Generic[_S]):
    """A read that others may wait for.

    Attributes:
        signal: Given when the read is over.
        is_stored: Whether its answer was stored.
        has_failed: Whether it was interrupted, so that another caller has to query.
    """

    signal: _S
    is_stored: bool = False
    has_failed: bool = True


class Flights(Generic[_S]):
    """The reads in progress in a process.

    Args:
        make_signal: Creates the signal of a read.

    Attributes:
        landed: How many reads are over.
    """

    def __init__(self, make_signal: Callable[[], _S]) -> None:
        self.landed = 0
        self._make_signal = make_signal
        self._under_way: dict[Hashable, Flight[_S]] = {}
        self._lock = Lock()

    def join(self, key: Hashable) -> tuple[Flight[_S], bool]:
        """Return the current read of an entry, and whether this call has started it."""
        with self._lock:
            found = self._under_way.get(key)
            if found is not None:
                return found, False
            made = self._under_way[key] = Flight(self._make_signal())
            return made, True

    def land(self, key: Hashable) -> None:
        """Remove a read that is over."""
        with self._lock:
            del self._under_way[key]
            self.landed += 1
