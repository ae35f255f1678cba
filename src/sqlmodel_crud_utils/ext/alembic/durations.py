"""Parse durations given by a caller."""

from __future__ import annotations

import re
from datetime import timedelta

from sqlmodel_crud_utils.exceptions import ValidationError

_TEXT = re.compile(r"(\d+(?:\.\d+)?) *(ms|s|min)")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}
# Databases hold a limit in milliseconds, as a signed number of 32 bits; this is 24 days.
_LONGEST = (2**31 - 1) / 1000


def seconds_of(duration: object, field: str) -> float:
    """Return a duration in seconds; a longer one than databases can hold is cut to that.

    Args:
        duration: A number of seconds, a timedelta, or a text such as "5s", "500ms" or "2min".
        field: The name of the parameter; the error names it.

    Raises:
        ValidationError: The duration is anything else, or below 0.
    """
    seconds: float | None = None
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        seconds = float(duration)
    elif isinstance(duration, str) and (found := _TEXT.fullmatch(duration.strip())):
        seconds = float(found[1]) * _UNITS[found[2]]
    if seconds is None or not 0 <= seconds < float("inf"):
        raise ValidationError(
            'must be a number of seconds, 0 or more, or a text such as "5s", "500ms" or "2min"',
            field=field,
            value=duration,
        )
    return min(seconds, _LONGEST)
