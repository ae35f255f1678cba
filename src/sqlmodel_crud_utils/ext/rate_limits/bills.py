"""Bills: the charges of a call, at its beginning and as it writes rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlmodel_crud_utils._core.observers import Call
from sqlmodel_crud_utils.exceptions import RateLimitExceededError, ValidationError
from sqlmodel_crud_utils.ext.rate_limits.buckets import Charge, Denial
from sqlmodel_crud_utils.ext.rate_limits.limits import Limit


@dataclass(slots=True)
class Bill:
    """The charges of a call.

    Attributes:
        call: The call.
        limits: The limits that count it, by the keys of its buckets.
        paid: For how many rows it has paid; the call itself pays for the first.
    """

    call: Call
    limits: dict[str, Limit]
    paid: int = 1

    def first(self) -> list[Charge]:
        """Return the charges at the beginning."""
        return [limit.charge(key) for key, limit in self.limits.items()]

    def of_rows(self) -> list[Charge]:
        """Return the charges for the rows written so far.

        Raises:
            ValidationError: There are more rows than a limit ever allows in one call.
        """
        written = self.call.rows or 0
        owed = written - self.paid
        counting = {key: each for key, each in self.limits.items() if each.rows}
        if owed <= 0 or not counting:
            return []
        for limit in counting.values():
            if written > limit.rate.amount:
                raise ValidationError(
                    f"{self.call.name} writes {written} rows or more, which the rate limit "
                    f"{limit.rate.text} never allows in one call; write fewer at a time",
                    field="rows",
                )
        paid, self.paid = self.paid, written
        return [limit.charge(key, owed, paid) for key, limit in counting.items()]

    def check(self, charges: Sequence[Charge], refusal: Denial | None) -> None:
        """Raise the error for a refused charge."""
        if refusal is not None:
            self.call.refused = True
            limit = self.limits[charges[refusal.place].key]
            raise RateLimitExceededError(limit.rate.text, refusal.seconds)


def bill_for(call: Call, limits: Iterable[Limit]) -> Bill | None:
    """Return the bill of a call, or None if no limit counts it."""
    try:
        keys = [(limit.key(), limit) for limit in limits if limit.counts(call)]
    except RateLimitExceededError:
        call.refused = True
        raise
    counting = {key: limit for key, limit in keys if key is not None}
    return Bill(call, counting) if counting else None
