"""What telemetry and rate limits add to a call: `python -m benchmarks.watching [REDIS_URL]`.

A row is read by its key on SQLite in memory, without both, with each, and with only a span and a
histogram point of the SDK around the call. They alternate in one process; it prints the CPU time of
the best round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import thread_time_ns

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.ext.opentelemetry import instrument, uninstrument
from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
from sqlmodel_crud_utils.sync import create_pooled_engine, get_row, session_factory, write_row

_TRACERS = TracerProvider()
_METERS = MeterProvider([InMemoryMetricReader()])


class Base(SQLModel, registry=registry()):
    """Models with a separate registry."""


class Watched(Base, table=True):
    """The table that is read."""

    id: int | None = Field(default=None, primary_key=True)
    name: str


@contextmanager
def _traced() -> Iterator[None]:
    instrument(tracer_provider=_TRACERS, meter_provider=_METERS)
    try:
        yield
    finally:
        uninstrument()


@contextmanager
def _limited(url: str) -> Iterator[None]:
    limiter = RateLimiter(url, prefix="benchmark", timeout=1)
    limiter.limit("999999999/second")
    try:
        yield
    finally:
        limiter.close()


def measure(redis_url: str | None = None, calls: int = 200, rounds: int = 20) -> dict[str, float]:
    """Return the microseconds of a call in each variant."""
    engine = create_pooled_engine("sqlite://")
    Base.metadata.create_all(engine)
    with session_factory(engine)() as session:
        write_row(Watched(id=1, name="x"), session)

        def read() -> None:
            get_row(1, session, Watched)

        ways: dict[str, tuple[Callable[[], AbstractContextManager[None]], Callable[[], None]]] = {
            "alone": (nullcontext, read),
            "bare span and point": (nullcontext, _in_bare_span(read)),
            "telemetry": (_traced, read),
            "limits in memory": (lambda: _limited("memory://"), read),
        }
        if redis_url is not None:
            ways["limits in Redis"] = (lambda: _limited(redis_url), read)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, (way, call) in ways.items():
                with way():
                    best[name] = min(best[name], _microseconds(call, calls))
    engine.dispose()
    return best


def _in_bare_span(read: Callable[[], None]) -> Callable[[], None]:
    tracer = _TRACERS.get_tracer("benchmark")
    histogram = _METERS.get_meter("benchmark").create_histogram("benchmark.duration")
    attributes = {"code.function.name": "get_row", "db.collection.name": "watched"}

    def call() -> None:
        with tracer.start_as_current_span("get_row watched", attributes=attributes) as span:
            read()
            span.set_attribute("db.response.returned_rows", 1)
        histogram.record(0.001, attributes)

    return call


def _microseconds(call: Callable[[], object], calls: int) -> float:
    before = thread_time_ns()
    for _ in range(calls):
        call()
    return (thread_time_ns() - before) / calls / 1_000


if __name__ == "__main__":
    for name, taken in measure(sys.argv[1] if len(sys.argv) > 1 else None).items():
        print(f"{name:20} {taken:8.1f} µs")
