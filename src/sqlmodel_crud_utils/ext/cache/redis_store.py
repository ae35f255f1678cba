"""A store in Redis, or in a server with its protocol (Valkey, KeyDB, Dragonfly)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlmodel_crud_utils._core.cached_reads import check_ttl
from sqlmodel_crud_utils._core.connections.redis_options import REDIS_SCHEMES, check_redis_url
from sqlmodel_crud_utils.exceptions import ValidationError


class RedisCache:
    """Keeps entries in Redis, where all processes share them, whichever API they use.

    Needs the extra `cache`. It connects on demand; each forked process and each event loop has its
    own connections.

    Args:
        url: The server's URL: `redis://`, `rediss://` or `unix://`, with the options that
            `redis.Redis.from_url` accepts.
        timeout: How many seconds a call waits for the server before it queries the database.

    Raises:
        ValidationError: Any other URL, or a timeout that is not above 0.
        ModuleNotFoundError: The package `redis` is missing.

    Example:
        >>> from sqlmodel_crud_utils.ext.cache import RedisCache, configure_cache
        >>> configure_cache(RedisCache("redis://localhost/0"), ttl=60)
        >>> configure_cache(None)
    """

    def __init__(self, url: str, *, timeout: float = 0.1) -> None:
        if not isinstance(url, str) or not url.startswith(REDIS_SCHEMES):
            raise ValidationError(f"must begin with {', '.join(REDIS_SCHEMES)}", field="url")
        try:
            import redis  # noqa: F401 - to fail now if it is missing
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'RedisCache needs redis: pip install "sqlmodel-crud-utils[cache]"'
            ) from error
        check_redis_url(url)
        self._url = url
        self._timeout = check_ttl(timeout, "timeout")

    @cached_property
    def sync(self) -> _SyncRedis:
        """The store for the sync API."""
        from sqlmodel_crud_utils._runtime_sync import RedisClients

        return _SyncRedis(RedisClients(self._url, self._timeout), self._timeout)

    @cached_property
    def aio(self) -> _AsyncRedis:
        """The store for the async API."""
        from sqlmodel_crud_utils._runtime_async import RedisClients

        return _AsyncRedis(RedisClients(self._url, self._timeout), self._timeout)

    def close(self) -> None:
        """Close the connections of the sync API, at the end of a program."""
        store = self.__dict__.pop("sync", None)
        if store is not None:
            store.close()

    async def aclose(self) -> None:
        """Close the connections of the async API, at the end of a program or its event loop."""
        store = self.__dict__.get("aio")
        if store is not None:
            await store.aclose()


def _milliseconds(ttl: float) -> int:
    return max(1, int(ttl * 1000))


class _SyncRedis:
    def __init__(self, clients: Any, timeout: float) -> None:
        self._clients = clients
        self.timeout = timeout

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = self._clients.get().mget(keys)
        return found

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        with self._clients.get().pipeline(transaction=False) as pipeline:
            for key, value in entries.items():
                pipeline.set(key, value, px=_milliseconds(ttl))
            return all(pipeline.execute())

    def close(self) -> None:
        self._clients.close()

    def add(self, key: str, value: bytes, ttl: float) -> bool:
        return bool(self._clients.get().set(key, value, px=_milliseconds(ttl), nx=True))


class _AsyncRedis:
    def __init__(self, clients: Any, timeout: float) -> None:
        self._clients = clients
        self.timeout = timeout

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = await self._clients.get().mget(keys)
        return found

    async def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        async with self._clients.get().pipeline(transaction=False) as pipeline:
            for key, value in entries.items():
                pipeline.set(key, value, px=_milliseconds(ttl))
            return all(await pipeline.execute())

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        client = self._clients.get()
        return bool(await client.set(key, value, px=_milliseconds(ttl), nx=True))
