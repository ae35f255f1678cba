"""Rates: "100/minute"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlmodel_crud_utils.exceptions import ValidationError

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_RATE = re.compile(
    r"\s*(\d{1,9})(?:\s*/\s*|\s+per\s+)(?:(\d{1,6})\s*)?([a-z]+?)s?\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Rate:
    """The number of calls and the period.

    Attributes:
        text: The rate as the program wrote it.
        amount: The number of calls.
        seconds: The period in seconds.
    """

    text: str
    amount: int
    seconds: int


def rate_of(text: object) -> Rate:
    """Return the rate in a text; raise a `ValidationError` for anything else."""
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    unit = found and _SECONDS.get(found[3].lower())
    if not isinstance(text, str) or not found or not unit:
        raise ValidationError(
            "must be a rate such as '100/minute' or '5 per 10 seconds', "
            "in seconds, minutes, hours or days",
            field="rate",
        )
    amount, seconds = int(found[1]), int(found[2] or 1) * unit
    if amount == 0 or seconds == 0:
        raise ValidationError("must have a count and a period above 0", field="rate")
    return Rate(" ".join(text.split()), amount, seconds)
