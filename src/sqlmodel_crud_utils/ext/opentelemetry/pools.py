"""The metrics of connection pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from sqlalchemy import Engine, QueuePool

from sqlmodel_crud_utils._session.engine_events import requests_of
from sqlmodel_crud_utils._session.engine_setup import status_of
from sqlmodel_crud_utils._session.sqlalchemy_internals import max_overflow
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.opentelemetry import names

__all__ = ["observe_pool"]

Series = tuple[tuple[str, str], ...]
"""The attributes of a number, in pairs."""


def observe_pool(
    engine: Any, *, name: str = "default", meter_provider: MeterProvider | None = None
) -> None:
    """Report the connections of an engine's pool with each export of metrics.

    | metric | what it counts |
    |---|---|
    | `db.client.connection.count` | connections by `db.client.connection.state`: idle, used |
    | `db.client.connection.max` | the maximum number of connections, if the pool has a limit |
    | `db.client.connection.pending_requests` | callers that wait for a connection |
    | `db.client.connection.timeouts` | callers that timed out |

    They are reported as long as the engine exists; observing does not keep it alive. An engine that
    is observed again with the same provider gets the new name.

    Args:
        engine: The engine, of either API.
        name: The pool's name, in the attribute `db.client.connection.pool.name`. The numbers of
            engines with the same name are added together.
        meter_provider: Where the metrics go. The default is OpenTelemetry's global provider.

    Raises:
        ValidationError: The engine is not an engine, or the name is empty.

    Example:
        >>> from sqlmodel_crud_utils.ext.opentelemetry import observe_pool
        >>> observe_pool(engine, name="main")
    """
    plain = getattr(engine, "sync_engine", engine)
    if not isinstance(plain, Engine):
        raise ValidationError(
            f"must be an Engine or AsyncEngine, not {type(engine).__name__}", field="engine"
        )
    if not isinstance(name, str) or not name:
        raise ValidationError("must be a non-empty string", field="name")
    key = _GLOBAL if meter_provider is None else meter_provider
    with _observing:
        pools = _pools_of.get(key)
        if pools is None:
            pools = _pools_of[key] = _Pools(meter_provider)
    pools.add(plain, name)


class _Global:
    """Stands for the global provider, which may be set after its first use."""


_GLOBAL = _Global()
_pools_of: WeakKeyDictionary[Any, _Pools] = WeakKeyDictionary()
_observing = Lock()


class _Pools:
    """The pools observed with one provider, which share its instruments."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self._names: WeakKeyDictionary[Engine, str] = WeakKeyDictionary()
        self._lock = Lock()
        meter = metrics.get_meter(names.SCOPE, names.VERSION, provider)
        meter.create_observable_up_down_counter(
            names.CONNECTIONS, [self._sum(_connections)], "{connection}", "Connections of pools."
        )
        meter.create_observable_up_down_counter(
            names.MOST_CONNECTIONS, [self._sum(_most)], "{connection}", "The maximum of a pool."
        )
        meter.create_observable_up_down_counter(
            names.PENDING, [self._sum(_pending)], "{request}", "Callers that wait."
        )
        meter.create_observable_counter(
            names.TIMEOUTS,
            [self._sum(_timeouts)],
            "{timeout}",
            "Callers that got no connection in time.",
        )

    def add(self, engine: Engine, name: str) -> None:
        """Observe another engine, or rename one."""
        requests_of(engine)
        with self._lock:
            self._names[engine] = name

    def _sum(
        self, numbers_of: Callable[[Engine], Iterable[tuple[str, int]]]
    ) -> Callable[[CallbackOptions], Iterator[Observation]]:
        """Return a callback that sums the numbers of all pools by name and state."""

        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            with self._lock:
                engines = list(self._names.items())
            numbers: Counter[Series] = Counter()
            for engine, name in engines:
                for state, number in numbers_of(engine):
                    numbers[_series(name, state)] += number
            for series, number in numbers.items():
                yield Observation(number, dict(series))

        return observe


def _series(name: str, state: str) -> Series:
    return ((names.POOL, name), (names.STATE, state)) if state else ((names.POOL, name),)


def _connections(engine: Engine) -> Iterator[tuple[str, int]]:
    status = status_of(engine.pool)
    yield "idle", status["checked_in"]
    yield "used", status["checked_out"]


def _most(engine: Engine) -> Iterator[tuple[str, int]]:
    pool = engine.pool
    if isinstance(pool, QueuePool):
        if max_overflow(pool) >= 0:
            yield "", pool.size() + max_overflow(pool)
    elif size := status_of(pool)["size"]:
        yield "", size


def _pending(engine: Engine) -> Iterator[tuple[str, int]]:
    yield "", requests_of(engine).pending


def _timeouts(engine: Engine) -> Iterator[tuple[str, int]]:
    yield "", requests_of(engine).timeouts
