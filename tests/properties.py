"""How thoroughly the property tests search."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def examples(number: int, *suppressed: HealthCheck) -> settings:
    """Return the settings for so many examples where CI is set, and for a quarter elsewhere.

    Args:
        number: How many are tried.
        suppressed: What Hypothesis would complain about, beside fixtures that are not made anew
            for each example.
    """
    return settings(
        max_examples=number if "CI" in os.environ else number // 4,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, *suppressed],
    )
