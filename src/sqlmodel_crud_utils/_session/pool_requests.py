"""The number of pending requests for a connection of an engine, and of those that timed out.

SQLAlchemy fires an event when a connection is checked out, but not when a caller starts to wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Engine, Pool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


@dataclass(slots=True)
class Requests:
    """The counts of requests for a connection.

    Attributes:
        pending: How many are under way, including those that open a new connection.
        timeouts: How many failed because no connection became free in time.
    """

    pending: int = 0
    timeouts: int = 0
    _lock: Any = field(default_factory=Lock, repr=False)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a request."""
        with self._lock:
            self.pending += 1
        timed_out = False
        try:
            yield
        except PoolTimeoutError:
            timed_out = True
            raise
        finally:
            with self._lock:
                self.pending -= 1
                self.timeouts += timed_out


def counted(engine: Engine) -> tuple[Requests, bool]:
    """Return the counts of an engine's requests, and whether counting has just begun."""
    with _beginning:
        requests = _counted.get(engine)
        if requests is not None:
            return requests, False
        requests = _counted[engine] = Requests()
        _count(engine.pool, requests)
        return requests, True


def renewed(engine: Engine) -> None:
    """Continue counting after an engine has replaced its pool."""
    _count(engine.pool, _counted[engine])


_counted: WeakKeyDictionary[Engine, Requests] = WeakKeyDictionary()
_beginning = Lock()


def _count(pool: Pool, requests: Requests) -> None:
    # `connect` is public, and every connection comes from it. A strong reference to the pool would
    # be a cycle and keep it alive until the garbage collector runs.
    vars(pool)["connect"] = partial(_connected, ref(pool), requests)


def _connected(pool: ref[Pool], requests: Requests) -> Any:
    found: Any = pool()  # alive, because its method is being called
    with requests.one():
        return type(found).connect(found)
