"""How often a transaction is retried, and how long it waits before each attempt."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from sqlmodel_crud_utils._core.errors.transient import Cause
from sqlmodel_crud_utils.exceptions import ValidationError

# Seconds. A pause is random, up to a bound that doubles with each attempt, so that two transactions
# which collided do not collide again.
_FIRST_BOUND, _LAST_BOUND = 0.02, 1.0
_DOUBLINGS = math.ceil(math.log2(_LAST_BOUND / _FIRST_BOUND))


@dataclass
class Retries:
    """How often one transaction is attempted, and until when.

    Attributes:
        attempts: How many there may be.
        ends_at: When the last one may begin, on the monotonic clock.
        made: The number of attempts, including the current one.
    """

    attempts: int
    ends_at: float = math.inf
    made: int = 1
    _lost: int = 0

    def next_pause(self, cause: Cause) -> float | None:
        """Return how many seconds to wait before the next attempt, or None if this was the last.

        A connection that is lost once may have been an idle one that died; a second one is
        perhaps lost because of what the transaction does.
        """
        self._lost += cause == "connection"
        if self.made >= self.attempts or self._lost > 1:
            return None
        bound = min(_LAST_BOUND, _FIRST_BOUND * 2 ** min(self.made - 1, _DOUBLINGS))
        pause = random.uniform(0, bound)  # noqa: S311 - no secret
        if monotonic() + pause > self.ends_at:
            return None
        self.made += 1
        return pause


def retries_for(attempts: Any, deadline: Any) -> Retries:
    """Check the caller's limits, and return the attempts that they allow."""
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        raise ValidationError("must be a whole number, 1 or more", field="attempts")
    if deadline is None:
        return Retries(attempts)
    is_number = isinstance(deadline, int | float) and not isinstance(deadline, bool)
    if not is_number or not deadline > 0:
        raise ValidationError("must be a number of seconds above 0", field="deadline")
    return Retries(attempts, monotonic() + deadline)


def refuse_generators(work: Callable[..., Any]) -> None:
    """Refuse a generator function: its body would run after the transaction."""
    while isinstance(work, partial):
        work = work.func
    for each in (work, type(work).__call__):
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise ValidationError(
                "must not be a generator function: its body would run after the transaction; "
                "return a list in place of the yields",
                field="work",
            )
