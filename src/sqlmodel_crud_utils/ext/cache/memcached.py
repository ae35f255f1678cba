"""A store in memcached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from sqlmodel_crud_utils._core.cached_reads import check_ttl
from sqlmodel_crud_utils.exceptions import ValidationError

_PORT = 11211
_LONGEST = 30 * 24 * 3600
"""The most seconds that memcached takes for a time from now, and not for a moment."""

_LARGEST = 1_000_000
"""The most bytes of a value; memcached itself takes 1 MiB with key and overhead."""


class MemcachedCache:
    """Keeps entries in memcached, where all processes share them, those with the other API too.

    Needs the extra `memcached`. What is larger than memcached takes, some 1 MB, is not kept.

    Args:
        url: Its address: `memcached://HOST` or `memcached://HOST:PORT`.
        timeout: For how many seconds a call waits for it before the database is asked.

    Raises:
        ValidationError: An address of another kind, or a time that is not above 0.
        ModuleNotFoundError: The packages `pymemcache` and `aiomcache` are missing.

    Example:
        >>> from sqlmodel_crud_utils.ext.cache import MemcachedCache, configure_cache
        >>> configure_cache(MemcachedCache("memcached://localhost"), ttl=60)
        >>> configure_cache(None)
    """

    def __init__(self, url: str, *, timeout: float = 0.1) -> None:
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme != "memcached" or not parts.hostname:
            raise ValidationError("must be memcached://HOST or memcached://HOST:PORT", field="url")
        for name in ("pymemcache", "aiomcache"):
            try:
                import_module(name)
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    f'MemcachedCache needs {name}: pip install "sqlmodel-crud-utils[memcached]"'
                ) from error
        self._host = parts.hostname
        self._port = parts.port or _PORT
        self._timeout = check_ttl(timeout, "timeout")

    @cached_property
    def sync(self) -> _SyncMemcached:
        """The store for the sync API."""
        pymemcache: Any = import_module("pymemcache.client.base")  # it has no types
        client = pymemcache.PooledClient(
            (self._host, self._port),
            connect_timeout=self._timeout,
            timeout=self._timeout,
            no_delay=True,
        )
        return _SyncMemcached(client, self._timeout)

    @cached_property
    def aio(self) -> _AsyncMemcached:
        """The store for the async API."""
        from aiomcache import Client

        from sqlmodel_crud_utils.ext.cache.clients import PerLoop

        return _AsyncMemcached(
            PerLoop(lambda: Client(self._host, self._port, pool_size=10, pool_minsize=1)),
            self._timeout,
        )

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


def _seconds(ttl: float) -> int:
    return min(math.ceil(ttl), _LONGEST)


def _fitting(entries: Mapping[str, bytes]) -> dict[str, bytes]:
    return {key: value for key, value in entries.items() if len(value) <= _LARGEST}


class _RefusedError(Exception):
    """Memcached has not kept a value."""


class _SyncMemcached:
    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self.timeout = timeout

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        found = self._client.get_many(keys)
        return [found.get(key) for key in keys]

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> None:
        if self._client.set_many(_fitting(entries), expire=_seconds(ttl), noreply=False):
            raise _RefusedError

    def close(self) -> None:
        self._client.close()

    def add(self, key: str, value: bytes, ttl: float) -> bool:
        return bool(self._client.add(key, value, expire=_seconds(ttl), noreply=False))


class _AsyncMemcached:
    def __init__(self, clients: Any, timeout: float) -> None:
        self._clients = clients
        self.timeout = timeout

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        names = [key.encode() for key in keys]
        found = await self._clients.here().multi_get(*names)
        return list(found)

    async def set_many(self, entries: Mapping[str, bytes], ttl: float) -> None:
        client = self._clients.here()
        for key, value in _fitting(entries).items():
            if not await client.set(key.encode(), value, exptime=_seconds(ttl)):
                raise _RefusedError

    async def aclose(self) -> None:
        client = self._clients.take()
        if client is not None:
            await client.close()

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        client = self._clients.here()
        return bool(await client.add(key.encode(), value, exptime=_seconds(ttl)))
