"""Failures of the cache's store: when it may be used again, and which renewals it missed."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from time import monotonic

from sqlmodel_crud_utils._core.logs import get_logger

_REST = 5.0
"""For how many seconds a failed store is not used."""

_MOST_OWED = 10_000


class Outages:
    """The known failures of a store, shared by both APIs and all threads."""

    def __init__(self) -> None:
        self._suspended_until = 0.0
        self._renewals_pause_until = 0.0
        self._bypassed_until = 0.0
        self._failing: set[str] = set()
        self._longest = 0.0
        self._owed: set[str] = set()
        self._lock = Lock()

    def may_read(self) -> bool:
        """Return whether the store may be read now and its entries are valid."""
        now = monotonic()
        return self._suspended_until <= now and self._bypassed_until <= now

    def may_renew(self) -> bool:
        """Return whether tokens may be renewed in the store now.

        They may even after a failed read: other processes may use entries that a write invalidates.
        """
        return self._renewals_pause_until <= monotonic()

    def owes(self) -> bool:
        """Return whether missed renewals should be tried again now."""
        return bool(self._owed) and self.may_renew()

    def keep_for(self, ttl: float) -> None:
        """Note for how long an entry is kept."""
        self._longest = max(self._longest, ttl)

    def succeeded(self, operation: str) -> None:
        """Note that an operation of the store succeeded."""
        self._failing.discard(operation)

    def failed(self, operation: str, error: BaseException) -> None:
        """Stop reading the store for a while; log that once, not each time that it fails again."""
        self._suspended_until = monotonic() + _REST
        was_failing = bool(self._failing)
        self._failing.add(operation)
        if not was_failing:
            get_logger().warning(
                f"the cache failed ({type(error).__name__}); reads go to the database"
            )

    def pause_renewals(self) -> None:
        """Stop renewing tokens for a while."""
        self._renewals_pause_until = monotonic() + _REST

    def owe(self, tokens: Iterable[str]) -> None:
        """Note tokens that could not be renewed.

        Entries that they should have invalidated may stay as long as the longest-lived entry.
        """
        with self._lock:
            self._bypassed_until = monotonic() + self._longest
            self._owed.update(tokens)
            if len(self._owed) > _MOST_OWED:
                self._owed.clear()  # the entries are bypassed until they have expired

    def take_owed(self) -> set[str]:
        """Remove and return the tokens that still have to be renewed."""
        if not self._owed:
            return set()
        with self._lock:
            owed, self._owed = self._owed, set()
        return owed
