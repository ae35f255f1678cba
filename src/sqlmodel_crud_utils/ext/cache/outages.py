"""How the cache gets along without its store: who may ask it, and from when on again."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from time import monotonic

from sqlmodel_crud_utils._core.logs import get_logger

_REST = 5.0
"""For how many seconds a store that failed is not asked."""

_MOST_OWED = 10_000


class Outages:
    """What is known of the failures of a store; both APIs and all threads share it."""

    def __init__(self) -> None:
        self._rests_until = 0.0
        self._silent_until = 0.0
        self._bypassed_until = 0.0
        self._failing: set[str] = set()
        self._longest = 0.0
        self._owed: set[str] = set()
        self._lock = Lock()

    def may_read(self) -> bool:
        """Return whether what the store holds may be believed now."""
        now = monotonic()
        return self._rests_until <= now and self._bypassed_until <= now

    def may_tell(self) -> bool:
        """Return whether the store may be told of a write.

        It may after a read that failed: others have entries that the write ends.
        """
        return self._silent_until <= monotonic()

    def owes(self) -> bool:
        """Return whether there are tokens to renew, and it is time to try again."""
        return bool(self._owed) and self.may_tell()

    def keep_for(self, ttl: float) -> None:
        """Note for how long an entry is kept."""
        self._longest = max(self._longest, ttl)

    def succeeded(self, operation: str) -> None:
        """Note that the store has done something."""
        self._failing.discard(operation)

    def failed(self, operation: str, error: BaseException) -> None:
        """Leave the store alone for a while; say so once, not each time that it fails again."""
        self._rests_until = monotonic() + _REST
        is_told = bool(self._failing)
        self._failing.add(operation)
        if not is_told:
            get_logger().warning(
                f"the cache failed ({type(error).__name__}); reads go to the database"
            )

    def fall_silent(self) -> None:
        """Tell the store nothing for a while."""
        self._silent_until = monotonic() + _REST

    def owe(self, tokens: Iterable[str]) -> None:
        """Note tokens that could not be renewed.

        Entries that they should have ended may be there as long as any entry is.
        """
        with self._lock:
            self._bypassed_until = monotonic() + self._longest
            self._owed.update(tokens)
            if len(self._owed) > _MOST_OWED:
                self._owed.clear()  # by the time that they are told, they do not matter any more

    def take_owed(self) -> set[str]:
        """Return the tokens that are still to be renewed, and forget them."""
        if not self._owed:
            return set()
        with self._lock:
            owed, self._owed = self._owed, set()
        return owed
