"""How the stores of the cache and of the rate limits connect to Redis."""

from __future__ import annotations

from typing import Any

from sqlmodel_crud_utils.exceptions import ValidationError

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")

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


def check_redis_url(url: str) -> None:
    """Refuse a URL that redis-py cannot use, without quoting it: it may contain a password.

    redis-py would only say so when it connects for the first time.

    Raises:
        ValidationError: A URL that cannot be read, or with an option that there is not.
    """
    from redis import ConnectionPool  # the caller has checked that redis-py is installed

    try:
        ConnectionPool.from_url(url).make_connection()  # it does not connect
    except (TypeError, ValueError):
        raise ValidationError(
            "cannot be read; write redis://user:password@localhost:6379/0, with special characters "
            "in the user or password percent-encoded, and options of redis.Redis only",
            field="url",
        ) from None
