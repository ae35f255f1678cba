"""Settings for the property tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def examples(number: int, *suppressed: HealthCheck) -> settings:
    """Return settings for a number of examples, or a quarter of them without TEST_THOROUGHLY.

    Args:
        number: The number of examples.
        suppressed: Health checks to suppress, besides the one for function-scoped fixtures.
    """
    return settings(
        max_examples=number if "TEST_THOROUGHLY" in os.environ else number // 4,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, *suppressed],
    )
