"""A store in memcached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from os import getpid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlmodel_crud_utils._core.cached_reads import check_ttl
from sqlmodel_crud_utils.exceptions import ValidationError

if TYPE_CHECKING:
    from sqlmodel_crud_utils._loops import PerLoop

_PORT = 11211
_LONGEST = 30 * 24 * 3600
"""The longest expiry in seconds; memcached takes a larger number as a Unix time."""

_LARGEST = 1_000_000
"""The most bytes of a value; memcached allows 1 MiB with key and overhead."""


class MemcachedCache:
    """Keeps entries in memcached, where all processes share them, whichever API they use.

    Needs the extra `memcached`. Values that are too large for memcached (over about 1 MB) are not
    kept.

    Args:
        url: The server's URL: `memcached://HOST` or `memcached://HOST:PORT`.
        timeout: How many seconds a call waits for the server before it queries the database.

    Raises:
        ValidationError: Any other URL, or a timeout that is not above 0.
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
        pymemcache: Any = import_module("pymemcache.client.base")  # untyped

        def make() -> Any:
            return pymemcache.PooledClient(
                (self._host, self._port),
                connect_timeout=self._timeout,
                timeout=self._timeout,
                no_delay=True,
            )

        return _SyncMemcached(make, self._timeout)

    @cached_property
    def aio(self) -> _AsyncMemcached:
        """The store for the async API."""
        from aiomcache import Client

        from sqlmodel_crud_utils._loops import PerLoop

        def make() -> _FreeClients:
            return _FreeClients(lambda: Client(self._host, self._port, pool_size=1))

        return _AsyncMemcached(PerLoop(make), self._timeout)

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
    # memcached counts whole seconds, and 0 means no expiry.
    return min(max(1, int(ttl)), _LONGEST)


def _fitting(entries: Mapping[str, bytes]) -> dict[str, bytes]:
    return {key: value for key, value in entries.items() if len(value) <= _LARGEST}


class _RefusedError(Exception):
    """Memcached did not store a value."""


class _SyncMemcached:
    def __init__(self, make: Callable[[], Any], timeout: float) -> None:
        self._make = make
        self._clients: dict[int, Any] = {}
        self.timeout = timeout

    @property
    def _client(self) -> Any:
        """The client of this process; a forked process must not use its parent's sockets."""
        process = getpid()
        found = self._clients.get(process)
        if found is None:
            self._clients = {process: (found := self._make())}
        return found

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        found = self._client.get_many(keys)
        return [found.get(key) for key in keys]

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        fitting = _fitting(entries)
        if self._client.set_many(fitting, expire=_seconds(ttl), noreply=False):
            raise _RefusedError
        return len(fitting) == len(entries)

    def close(self) -> None:
        self._client.close()

    def add(self, key: str, value: bytes, ttl: float) -> bool:
        return bool(self._client.add(key, value, expire=_seconds(ttl), noreply=False))


class _FreeClients:
    """The unused clients of an event loop, with one connection each."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._free: list[Any] = []

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of a client, with exclusive use of its connection."""
        client = self._free.pop() if self._free else self._make()
        try:
            found = await getattr(client, method)(*args, **options)
        except BaseException:
            # The next call must not receive the late answer to an interrupted one.
            await client.close()
            raise
        self._free.append(client)
        return found

    async def close(self) -> None:
        """Close their connections."""
        while self._free:
            await self._free.pop().close()


class _AsyncMemcached:
    def __init__(self, clients: PerLoop[_FreeClients], timeout: float) -> None:
        self._clients = clients
        self.timeout = timeout

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        names = [key.encode() for key in keys]
        return list(await self._clients.here().call("multi_get", *names))

    async def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        fitting = _fitting(entries)
        clients = self._clients.here()
        for key, value in fitting.items():
            if not await clients.call("set", key.encode(), value, exptime=_seconds(ttl)):
                raise _RefusedError
        return len(fitting) == len(entries)

    async def aclose(self) -> None:
        clients = self._clients.take()
        if clients is not None:
            await clients.close()

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        clients = self._clients.here()
        return bool(await clients.call("add", key.encode(), value, exptime=_seconds(ttl)))
