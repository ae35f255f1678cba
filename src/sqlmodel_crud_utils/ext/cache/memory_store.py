"""A store in the memory of this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from time import monotonic
from typing import Any

from sqlmodel_crud_utils.exceptions import ValidationError

# Python's approximate overhead for an entry, besides its key and value.
_OVERHEAD = 200


class InMemoryCache:
    """Keeps entries in this process, and evicts the least recently read ones first.

    Other processes have their own entries and do not learn of writes in this one. So use it only in
    programs with a single process, and in tests.

    Args:
        max_entries: The maximum number of entries.
        max_bytes: The maximum size in bytes, including keys; None means no limit.

    Raises:
        ValidationError: A limit below 1.

    Example:
        >>> from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
        >>> configure_cache(InMemoryCache(max_entries=1_000), ttl=60)
        >>> configure_cache(None)
    """

    timeout: float | None = None
    """It never waits."""

    def __init__(self, *, max_entries: int = 10_000, max_bytes: int | None = None) -> None:
        self._max_entries = _positive("max_entries", max_entries)
        self._max_bytes = None if max_bytes is None else _positive("max_bytes", max_bytes)
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def aio(self) -> _AsyncMemory:
        """The store for the async API."""
        return _AsyncMemory(self)

    @property
    def sync(self) -> InMemoryCache:
        """The store for the sync API."""
        return self

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys; None for each missing one."""
        now = monotonic()
        with self._lock:
            return [self._get(key, now) for key in keys]

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        """Store values; return whether all of them were stored."""
        with self._lock:
            for key, value in entries.items():
                self._set(key, value, ttl)
            return all(key in self._entries for key in entries)

    def add(self, key: str, value: bytes, ttl: float) -> bool:
        """Store a value unless the key has one; return whether it was stored."""
        with self._lock:
            if self._get(key, monotonic()) is not None:
                return False
            self._set(key, value, ttl)
            return True

    def _get(self, key: str, now: float) -> bytes | None:
        found = self._entries.get(key)
        if found is None:
            return None
        end, value = found
        if end <= now:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return value

    def _set(self, key: str, value: bytes, ttl: float) -> None:
        self._remove(key)
        self._entries[key] = (monotonic() + ttl, value)
        self._bytes += _size(key, value)
        while len(self._entries) > self._max_entries or (
            self._max_bytes is not None and self._bytes > self._max_bytes
        ):
            self._remove(next(iter(self._entries)))

    def _remove(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= _size(key, found[1])


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD


def _positive(name: str, number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValidationError("must be a whole number of 1 or more", field=name, value=number)
    return number


class _AsyncMemory:
    """The same store for async code; it never waits."""

    timeout: float | None = None

    def __init__(self, memory: InMemoryCache) -> None:
        self._memory = memory

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._memory.get_many(keys)

    async def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        return self._memory.set_many(entries, ttl)

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        return self._memory.add(key, value, ttl)
