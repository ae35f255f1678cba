"""The stores of buckets: in memory, or in Redis with a client for each API."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.orm import Session

from sqlmodel_crud_utils._core.connections.redis_options import REDIS_SCHEMES, check_redis_url
from sqlmodel_crud_utils._core.observers import Call
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.rate_limits.bills import Bill
from sqlmodel_crud_utils.ext.rate_limits.buckets import Charge
from sqlmodel_crud_utils.ext.rate_limits.memory_buckets import MemoryBuckets
from sqlmodel_crud_utils.ext.rate_limits.redis_outages import Outage

if TYPE_CHECKING:
    from sqlmodel_crud_utils.ext.rate_limits._async.redis_buckets import (
        RedisBuckets as AsyncRedisBuckets,
    )
    from sqlmodel_crud_utils.ext.rate_limits._sync.redis_buckets import RedisBuckets


@dataclass(frozen=True, slots=True)
class LimiterSettings:
    """The settings of a limiter."""

    url: str
    on_failure: str
    timeout: float
    prefix: str
    max_keys: int

    def check(self) -> None:
        """Raise a `ValidationError` for an unusable setting."""
        if not isinstance(self.url, str) or not (
            self.url == "memory://" or self.url.startswith(REDIS_SCHEMES)
        ):
            raise ValidationError("must be 'memory://' or the URL of a Redis", field="url")
        if self.on_failure not in {"allow", "refuse"}:
            raise ValidationError("must be 'allow' or 'refuse'", field="on_failure")
        if not isinstance(self.prefix, str) or not self.prefix:
            raise ValidationError("must be a non-empty string", field="prefix")
        if not _is_number(self.timeout, int, float) or not self.timeout > 0:
            raise ValidationError("must be a number of seconds above 0", field="timeout")
        if not _is_number(self.max_keys, int) or self.max_keys < 1:
            raise ValidationError("must be a whole number, 1 or more", field="max_keys")


def _is_number(value: object, *kinds: type[Any]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


class Buckets(Protocol):
    """A store in which bills are paid."""

    def settle(self, bill: Bill, charges: list[Charge]) -> Any:
        """Pay a part of a bill, or raise its refusal; in the async API, await the result."""
        ...


class Stores(Protocol):
    """The stores of a limiter."""

    def of(self, call: Call) -> Buckets:
        """Return the store for a call."""
        ...

    def close(self) -> None:
        """Close the connections of the sync API."""
        ...

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        ...


class _InMemory(Stores):
    """Buckets in memory, which both APIs share."""

    def __init__(self, settings: LimiterSettings) -> None:
        self._buckets = MemoryBuckets(settings.max_keys)

    def of(self, call: Call) -> Buckets:  # noqa: ARG002 - the same for all calls
        return self._buckets

    def close(self) -> None:
        self._buckets.clear()

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


class _InRedis(Stores):
    """Buckets in Redis; each API has its own connections, and is imported only when used."""

    def __init__(self, settings: LimiterSettings) -> None:
        _require_redis()
        check_redis_url(settings.url)
        self._refuses = settings.on_failure == "refuse"
        self._outage = Outage("refused" if self._refuses else "not limited")
        self._settings = settings

    def of(self, call: Call) -> Buckets:
        return self._sync if isinstance(call.session, Session) else self._async

    def close(self) -> None:
        if "_sync" in vars(self):
            self._sync.close()

    async def aclose(self) -> None:
        if "_async" in vars(self):
            await self._async.aclose()

    @cached_property
    def _sync(self) -> RedisBuckets:
        from sqlmodel_crud_utils.ext.rate_limits._sync.redis_buckets import RedisBuckets

        return RedisBuckets(*self._arguments, refuses=self._refuses)

    @cached_property
    def _async(self) -> AsyncRedisBuckets:
        from sqlmodel_crud_utils.ext.rate_limits._async.redis_buckets import RedisBuckets

        return RedisBuckets(*self._arguments, refuses=self._refuses)

    @property
    def _arguments(self) -> tuple[str, float, Outage]:
        return self._settings.url, self._settings.timeout, self._outage


def stores_for(settings: LimiterSettings) -> Stores:
    """Return the stores for a limiter's settings."""
    return _InMemory(settings) if settings.url == "memory://" else _InRedis(settings)


def _require_redis() -> None:
    try:
        import redis  # noqa: F401 - to say what is missing, and how to install it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'limits in Redis need redis-py: pip install "sqlmodel-crud-utils[ratelimit]"',
            name="redis",
        ) from error
