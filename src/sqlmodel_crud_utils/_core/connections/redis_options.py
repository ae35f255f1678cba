"""How the stores of the cache and of the rate limits connect to Redis."""

from __future__ import annotations

from typing import Any

_MOST_CONNECTIONS = 10
"""Callers beyond these wait for one of them; a burst of new connections takes longer than that."""


def options_for_redis(timeout: float) -> dict[str, Any]:
    """Return the options of a pool that waits, by the time that a call may take.

    Without a pool that waits, redis-py refuses a call when a hundred others are under way, which
    looks like an outage.

    Args:
        timeout: For how many seconds a call waits, for a connection, and for an answer.
    """
    return {
        "max_connections": _MOST_CONNECTIONS,
        "timeout": timeout,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
