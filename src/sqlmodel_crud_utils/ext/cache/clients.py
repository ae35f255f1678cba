"""Clients of stores for the async API, of which each event loop needs its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from sqlmodel_crud_utils._runtime_async import event_loop, is_over

_C = TypeVar("_C")


class PerLoop(Generic[_C]):
    """A client for each event loop; those of loops that are closed are dropped.

    Args:
        make: Makes a client.
    """

    def __init__(self, make: Callable[[], _C]) -> None:
        self._make = make
        self._clients: dict[object, _C] = {}
        self._lock = Lock()

    def here(self) -> _C:
        """Return the client of the loop that runs."""
        loop = event_loop()
        found = self._clients.get(loop)
        if found is None:
            with self._lock:
                self._drop_old()
                found = self._clients[loop] = self._make()
        return found

    def take(self) -> _C | None:
        """Return the client of the loop that runs, if it has one, and forget it."""
        with self._lock:
            self._drop_old()
            return self._clients.pop(event_loop(), None)

    def _drop_old(self) -> None:
        # Their connections cannot be closed any more, for that takes the loop.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for loop in [each for each in self._clients if is_over(each)]:
                del self._clients[loop]
