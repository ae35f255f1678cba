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

from sqlalchemy import Engine, Pool
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


def counted(engine: Engine) -> tuple[Requests, bool]:
    """Return the count of an engine's requests, and whether it has just begun."""
    with _beginning:
        requests = _counted.get(engine)
        if requests is not None:
            return requests, False
        requests = _counted[engine] = Requests()
        _count(engine.pool, requests)
        return requests, True


def renewed(engine: Engine) -> None:
    """Go on counting where an engine has another pool."""
    _count(engine.pool, _counted[engine])


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
