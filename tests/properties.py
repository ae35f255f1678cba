"""How thoroughly the property tests search."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def examples(number: int, *suppressed: HealthCheck) -> settings:
    """Return the settings for so many examples with TEST_THOROUGHLY, and for a quarter without.

    Args:
        number: How many are tried.
        suppressed: What Hypothesis would complain about, beside fixtures that serve
            several examples.
    """
    return settings(
        max_examples=number if "TEST_THOROUGHLY" in os.environ else number // 4,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, *suppressed],
    )
