"""Buckets in the memory of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic

from sqlmodel_crud_utils.ext.rate_limits.bills import Bill
from sqlmodel_crud_utils.ext.rate_limits.buckets import Charge, Denial, leaked, wait_for


class MemoryBuckets:
    """The buckets; if there are too many, the least recently used is dropped.

    Args:
        max_keys: The maximum number of buckets.
        clock: Returns the time in seconds.
    """

    def __init__(self, max_keys: int, clock: Callable[[], float] = monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def pour(self, charges: Sequence[Charge]) -> Denial | None:
        """Pay all charges or none; return the refusal, if any."""
        with self._lock:
            now = self._clock()
            levels = [self._level(each, now) for each in charges]
            waits = [wait_for(level, each) for level, each in zip(levels, charges, strict=True)]
            longest = max(waits)
            if longest > 0:
                return Denial(waits.index(longest), longest)
            for level, charge in zip(levels, charges, strict=True):
                self._buckets[charge.key] = level + charge.cost, now
            while len(self._buckets) > self._max_keys:
                del self._buckets[next(iter(self._buckets))]
        return None

    def settle(self, bill: Bill, charges: list[Charge]) -> None:
        """Pay a part of a bill, or raise its refusal."""
        bill.check(charges, self.pour(charges))

    def clear(self) -> None:
        """Drop all buckets."""
        with self._lock:
            self._buckets.clear()

    def _level(self, charge: Charge, now: float) -> float:
        """Return the level of a bucket, and mark it as the most recently used."""
        found = self._buckets.pop(charge.key, None)
        if found is None:
            return 0.0
        self._buckets[charge.key] = found
        level, at = found
        return leaked(level, now - at, charge)
