"""Outages of Redis, tracked for both APIs and all threads."""

from __future__ import annotations

from time import monotonic

from sqlmodel_crud_utils._core.logs import get_logger

_REST = 1.0
"""For how many seconds Redis is not used after a failure."""


class Outage:
    """Whether Redis is failing, and until when it is not used."""

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence
        self._suspended_until = 0.0
        self._is_logged = False

    @property
    def is_under_way(self) -> bool:
        """Whether Redis has failed recently, so that it is not used."""
        return monotonic() < self._suspended_until

    def failed(self, error: BaseException) -> None:
        """Stop using Redis for a while; log that once in an outage."""
        self._suspended_until = monotonic() + _REST
        if not self._is_logged:
            self._is_logged = True
            get_logger().error(
                f"the Redis of the rate limits failed ({type(error).__name__}); "
                f"calls are {self._consequence} until it answers"
            )

    def ended(self) -> None:
        """Note that Redis answers again."""
        self._is_logged = False
