"""Buckets in Redis, shared by any number of processes."""

from __future__ import annotations

from typing import Any

from redis.exceptions import NoScriptError, RedisError

from sqlmodel_crud_utils._runtime_async import RedisClients, within
from sqlmodel_crud_utils.exceptions import RateLimitUnavailableError
from sqlmodel_crud_utils.ext.rate_limits.bills import Bill
from sqlmodel_crud_utils.ext.rate_limits.buckets import (
    DIGEST,
    SCRIPT,
    Charge,
    Denial,
    arguments,
    refusal_of,
)
from sqlmodel_crud_utils.ext.rate_limits.redis_outages import Outage


class RedisBuckets:
    """The buckets.

    Args:
        url: The URL of Redis.
        timeout: How many seconds Redis may take to answer.
        outage: Tracks its failures.
        refuses: Whether calls are refused while Redis fails.
    """

    def __init__(self, url: str, timeout: float, outage: Outage, *, refuses: bool) -> None:
        self._clients = RedisClients(url, timeout)
        self._timeout = timeout
        self._outage = outage
        self._refuses = refuses

    async def settle(self, bill: Bill, charges: list[Charge]) -> None:
        """Pay a part of a bill, or raise its refusal.

        Raises:
            RateLimitExceededError: A bucket would overflow.
            RateLimitUnavailableError: Redis fails, and calls are refused meanwhile.
        """
        try:
            refusal = await self._pour(charges)
        except RateLimitUnavailableError:
            bill.call.refused = True
            raise
        bill.check(charges, refusal)

    async def aclose(self) -> None:
        """Close the connections; with an event loop, those of the running one."""
        await self._clients.aclose()

    async def _pour(self, charges: list[Charge]) -> Denial | None:
        if not self._outage.is_under_way:
            try:
                answer = await within(self._timeout, self._ask, charges)
            except (RedisError, OSError) as error:  # a timeout is an OSError
                self._outage.failed(error)
            else:
                self._outage.ended()
                return refusal_of(answer)
        if self._refuses:
            raise RateLimitUnavailableError
        return None

    async def _ask(self, charges: list[Charge]) -> Any:
        client = self._clients.get()
        keys = [each.key for each in charges]
        try:
            return await client.evalsha(DIGEST, len(keys), *keys, *arguments(charges))
        except NoScriptError:  # Redis was restarted
            return await client.eval(SCRIPT, len(keys), *keys, *arguments(charges))
