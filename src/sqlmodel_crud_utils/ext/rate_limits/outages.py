"""What is known of a Redis that fails; both APIs and all threads share it."""

from __future__ import annotations

from time import monotonic

from sqlmodel_crud_utils._core.logs import get_logger

_REST = 1.0
"""For how many seconds a Redis that has failed is not asked."""


class Outage:
    """Whether there is one, and until when nobody asks."""

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence
        self._rests_until = 0.0
        self._is_told = False

    @property
    def is_under_way(self) -> bool:
        """Whether Redis has failed just now."""
        return monotonic() < self._rests_until

    def failed(self, error: BaseException) -> None:
        """Leave Redis alone for a while; say so once in an outage."""
        self._rests_until = monotonic() + _REST
        if not self._is_told:
            self._is_told = True
            get_logger().error(
                f"the Redis of the rate limits failed ({type(error).__name__}); "
                f"calls are {self._consequence} until it answers"
            )

    def ended(self) -> None:
        """Note that it answers."""
        self._is_told = False
