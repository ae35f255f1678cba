"""A span and a few metrics for each call of a public function."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter

from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, StatusCode, TracerProvider

from sqlmodel_crud_utils._core import observers
from sqlmodel_crud_utils._core.observers import Call, Observer
from sqlmodel_crud_utils._session.blocks import block_of
from sqlmodel_crud_utils.ext.opentelemetry import names
from sqlmodel_crud_utils.ext.opentelemetry.outcomes import (
    Attributes,
    error_type_of,
    of_begin,
    of_end,
    of_scope,
    outcome_of,
)

__all__ = ["instrument", "uninstrument"]

# In seconds, as OpenTelemetry recommends for database calls.
_BOUNDARIES = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]


def instrument(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Record a span and metrics for each call of the library's functions, from now on.

    Each call is recorded as one INTERNAL span, such as `update_row hero`, and one point of the
    histogram `sqlmodel_crud.operation.duration`. So are the outermost `transaction()` block and
    each call of `run_transaction`. Statements get no spans here; spans of another instrumentation
    become children. Functions that never talk to the database, such as `session_factory` and
    `on_commit`, are not recorded.

    The export contains no values of rows, keys, filters or statements, and no error messages.
    Attributes are names of functions, tables and classes, numbers of rows, and codes.

    A second call replaces the first.

    Args:
        tracer_provider: Where the spans go. The default is OpenTelemetry's global provider.
        meter_provider: Where the metrics go. The default is OpenTelemetry's global provider.

    Example:
        >>> from sqlmodel_crud_utils.ext.opentelemetry import instrument, uninstrument
        >>> instrument()
        >>> uninstrument()
    """
    _replace(_Telemetry(tracer_provider, meter_provider))


def uninstrument() -> None:
    """Stop recording; calls under way still end their spans.

    Example:
        >>> from sqlmodel_crud_utils.ext.opentelemetry import uninstrument
        >>> uninstrument()
    """
    _replace(None)


def _replace(telemetry: _Telemetry | None) -> None:
    global _current  # noqa: PLW0603 - one per process, as the docstring of `instrument` says
    with _replacing:
        if _current is not None:
            observers.unregister(_current)
        _current = telemetry
        if telemetry is not None:
            observers.register(telemetry)


@dataclass(slots=True)
class _Running:
    """A call in progress.

    Attributes:
        span: Its span.
        about: Its attributes known from the beginning.
        outside: The context before the span became current.
        begun_at: When it began, in seconds.
    """

    span: Span
    about: Attributes
    outside: Context | None = None
    begun_at: float = field(default_factory=perf_counter)

    def enter(self) -> None:
        """Make the span current."""
        self.outside = context.get_current()
        context.attach(trace.set_span_in_context(self.span, self.outside))

    def leave(self) -> None:
        """Restore the previous context, unless this runs in another one.

        A token of `attach` would not work: a FastAPI dependency may end in another thread, or a
        generator in another task, where there is nothing to restore.
        """
        if self.outside is not None and trace.get_current_span() is self.span:
            context.attach(self.outside)


class _Telemetry(Observer):
    """Reports calls to OpenTelemetry; the caller of an observer logs its exceptions."""

    def __init__(
        self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        self._tracer = trace.get_tracer(names.SCOPE, names.VERSION, tracer_provider)
        self._metrics = _Metrics(meter_provider)
        self._running: dict[Call, _Running] = {}

    def begin(self, call: Call) -> None:
        if call.kind == "other" or _is_inner_block(call):
            return
        about = of_begin(call)
        table = about.get(names.COLLECTION)
        name = f"{call.name} {table}" if table else call.name
        span = self._tracer.start_span(name, attributes={**about, **of_scope()})
        running = _Running(span, about)
        self._running[call] = running
        if not call.is_stream:
            running.enter()

    def resume(self, call: Call) -> None:
        if running := self._running.get(call):
            running.enter()

    def pause(self, call: Call) -> None:
        if running := self._running.get(call):
            running.leave()

    def end(self, call: Call) -> None:
        running = self._running.pop(call, None)
        if running is None:
            return
        seconds = perf_counter() - running.begun_at
        running.leave()
        try:
            _finish(running.span, call)
        finally:
            self._metrics.count(call, running.about, seconds)


def _is_inner_block(call: Call) -> bool:
    """Return whether a call is a savepoint, which is part of its transaction's span."""
    if call.kind != "block" or call.session is None:
        return False
    plain = getattr(call.session, "sync_session", call.session)
    return block_of(plain) is not None


def _finish(span: Span, call: Call) -> None:
    try:
        if span.is_recording():
            for name, value in of_end(call).items():  # usually one: `set_attributes` is slower
                span.set_attribute(name, value)
            if error_type_of(call.error):
                span.set_status(StatusCode.ERROR)
    finally:
        span.end()


class _Metrics:
    """The metrics of calls."""

    def __init__(self, provider: MeterProvider | None) -> None:
        meter = metrics.get_meter(names.SCOPE, names.VERSION, provider)
        self._duration = meter.create_histogram(
            names.DURATION,
            unit="s",
            description="Duration of calls of the library.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._retries = meter.create_counter(
            names.RETRIES, unit="{attempt}", description="Attempts after the first one."
        )
        self._cache_requests = meter.create_counter(
            names.CACHE_REQUESTS, unit="{request}", description="Reads that may use a cache."
        )
        self._refusals = meter.create_counter(
            names.REFUSALS, unit="{call}", description="Calls that a rate limit refused."
        )
        self._transactions = meter.create_counter(
            names.TRANSACTIONS, unit="{transaction}", description="Blocks by how they ended."
        )

    def count(self, call: Call, about: Attributes, seconds: float) -> None:
        """Count a call that has ended."""
        if call.attempts > 1:
            self._retries.add(call.attempts - 1, about)
        if call.cache is not None:
            self._cache_requests.add(1, {**about, names.RESULT: call.cache})
        if call.refused:
            self._refusals.add(1, about)
        if (outcome := outcome_of(call)) is not None:
            self._transactions.add(1, {names.OUTCOME: outcome})
        self._duration.record(seconds, _with_error(about, call))


def _with_error(about: Attributes, call: Call) -> Attributes:
    error_type = error_type_of(call.error)
    return about if error_type is None else {**about, names.ERROR_TYPE: error_type}


_current: _Telemetry | None = None
_replacing = Lock()
