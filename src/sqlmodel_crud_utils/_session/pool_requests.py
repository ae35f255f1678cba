"""How many callers wait for a connection of an engine, and how many have waited in vain.

SQLAlchemy tells of a connection that is taken, and of no one who waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Engine, Pool, event
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


@dataclass(slots=True)
class Requests:
    """The requests for a connection.

    Attributes:
        pending: How many are under way, to open a new connection among them.
        timeouts: How many have ended because no connection came free in time.
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


def requests_of(engine: Engine) -> Requests:
    """Return the count of an engine's requests, which begins with the first call."""
    with _beginning:
        if (counted := _counted.get(engine)) is None:
            counted = _counted[engine] = Requests()
            _count(engine.pool, counted)
            # Then the engine has another pool.
            event.listen(engine, "engine_disposed", lambda each: _count(each.pool, counted))
    return counted


_counted: WeakKeyDictionary[Engine, Requests] = WeakKeyDictionary()
_beginning = Lock()


def _count(pool: Pool, requests: Requests) -> None:
    # `connect` is public, and the one way to a connection; a reference to the pool itself would
    # keep it alive until the garbage collector comes.
    vars(pool)["connect"] = partial(_connected, ref(pool), requests)


def _connected(pool: ref[Pool], requests: Requests) -> Any:
    found: Any = pool()  # whoever calls a method of the pool holds it
    with requests.one():
        return type(found).connect(found)
