"""OpenTelemetry spans and metrics for the library's functions, in both APIs.

Needs the extra `telemetry`: `pip install "sqlmodel-crud-utils[telemetry]"`. It depends only on
OpenTelemetry's API; your program configures the SDK, and so where the spans go.

Example:
    >>> from sqlmodel_crud_utils.ext.opentelemetry import instrument, uninstrument
    >>> instrument()
    >>> uninstrument()
"""

try:
    import opentelemetry.metrics
    import opentelemetry.trace  # noqa: F401 - to say what is missing, and how to install it
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sqlmodel_crud_utils.ext.opentelemetry needs OpenTelemetry's API: "
        'pip install "sqlmodel-crud-utils[telemetry]"',
        name="opentelemetry",
    ) from error

from sqlmodel_crud_utils.ext.opentelemetry.calls import instrument, uninstrument
from sqlmodel_crud_utils.ext.opentelemetry.pools import observe_pool

__all__ = ["instrument", "observe_pool", "uninstrument"]
