"""The library's exports to OpenTelemetry, collected in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sqlmodel_crud_utils.ext.opentelemetry import instrument, uninstrument

__all__ = ["Exported", "exported"]


class Exported:
    """The exported spans and metrics.

    Attributes:
        tracer_provider: The provider for spans.
        meter_provider: The provider for metrics.
    """

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in order of their end."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [span.name for span in self.spans]

    @property
    def only(self) -> ReadableSpan:
        """The only span."""
        [span] = self.spans
        return span

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the only span."""
        return dict(self.only.attributes or {})

    def parents(self) -> dict[str, str | None]:
        """Return the name of each span's parent by its own."""
        by_id = {span.context.span_id: span.name for span in self.spans}
        return {
            span.name: None if span.parent is None else by_id[span.parent.span_id]
            for span in self.spans
        }

    def points(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """Return the numbers of a metric (for a histogram, the counts) by attributes."""
        return {
            tuple(sorted(point.attributes.items())): getattr(point, "count", None)
            or getattr(point, "value", 0)
            for metric in self._metrics()
            if metric.name == name
            for point in metric.data.data_points
        }

    def total(self, name: str) -> Any:
        """Return the sum of a metric's numbers."""
        return sum(self.points(name).values())

    def text(self) -> str:
        """Return everything that was exported, as text."""
        metrics = (metric.to_json() for metric in self._metrics())
        return "\n".join([*(span.to_json() for span in self.spans), *metrics])

    def clear(self) -> None:
        """Discard the spans."""
        self._exporter.clear()

    def _metrics(self) -> Iterator[Any]:
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                yield from scope.metrics


@contextmanager
def exported() -> Iterator[Exported]:
    """Collect the exports of the calls inside the block."""
    collected = Exported()
    instrument(tracer_provider=collected.tracer_provider, meter_provider=collected.meter_provider)
    try:
        yield collected
    finally:
        uninstrument()
