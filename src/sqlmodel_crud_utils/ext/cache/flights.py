"""Reads that are under way, so that callers who miss the same entry wait for one of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

_S = TypeVar("_S")


@dataclass(slots=True, eq=False)
class Flight(Generic[_S]):
    """A read that others wait for.

    Attributes:
        signal: Is given when it is over.
        is_stored: Whether its answer went into the store.
        has_failed: Whether it was cut off, so that another one has to query.
    """

    signal: _S
    is_stored: bool = False
    has_failed: bool = True


class Flights(Generic[_S]):
    """The reads that are under way in a process.

    Args:
        make_signal: Makes what others wait for.

    Attributes:
        landed: How many are over.
    """

    def __init__(self, make_signal: Callable[[], _S]) -> None:
        self.landed = 0
        self._make_signal = make_signal
        self._under_way: dict[Hashable, Flight[_S]] = {}
        self._lock = Lock()

    def join(self, key: Hashable) -> tuple[Flight[_S], bool]:
        """Return the read of an entry that is under way, and whether it begins with this call."""
        with self._lock:
            found = self._under_way.get(key)
            if found is not None:
                return found, False
            made = self._under_way[key] = Flight(self._make_signal())
            return made, True

    def land(self, key: Hashable) -> None:
        """Forget a read that is over."""
        with self._lock:
            del self._under_way[key]
            self.landed += 1
