"""Switch the cache on and off."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from sqlmodel_crud_utils._core import cached_reads
from sqlmodel_crud_utils._core.cached_reads import check_ttl
from sqlmodel_crud_utils._session import events
from sqlmodel_crud_utils._session.changes import Change, Need, TableChange
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_autocommitting
from sqlmodel_crud_utils._session.transaction_state import connections_of
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.cache.entries import Settings
from sqlmodel_crud_utils.ext.cache.store_names import written_tokens


class Cache(Protocol):
    """A store for entries: `RedisCache`, `MemcachedCache` or `InMemoryCache`."""

    @property
    def aio(self) -> Any:
        """The store for the async API."""
        ...

    @property
    def sync(self) -> Any:
        """The store for the sync API."""
        ...


class _Cached:
    """The cache of a program: it answers reads, and subscribes to changes."""

    def __init__(self, cache: Cache, settings: Settings) -> None:
        self._cache = cache
        self._settings = settings

    @cached_property
    def aio(self) -> Any:
        """The reads of the async API; a sync program does not load them."""
        from sqlmodel_crud_utils.ext.cache._async.cached_queries import Reads

        return Reads(self._cache.aio, self._settings)

    @cached_property
    def sync(self) -> Any:
        """The reads of the sync API."""
        from sqlmodel_crud_utils.ext.cache._sync.cached_queries import Reads

        return Reads(self._cache.sync, self._settings)

    def need(self, model: type[Any]) -> Need:  # noqa: ARG002 - the same for all
        """Return `Need.MODEL` for every model, because other processes may cache any of them."""
        return Need.MODEL

    def written(self, session: Session, change: Change) -> None:
        """Invalidate entries at once under AUTOCOMMIT, where each statement is committed."""
        connections = connections_of(session)
        if any(map(is_autocommitting, connections)):
            self.tables_written(connections, [change])

    def committed(self, session: Session, changes: Sequence[Change]) -> None:
        """Invalidate the entries of what a transaction has written."""
        self.tables_written(connections_of(session), changes)

    def tables_written(
        self, connections: Collection[Connection], changes: Sequence[Change | TableChange]
    ) -> None:
        """Invalidate the entries of what a transaction has written."""
        names = written_tokens(changes)
        if not names:
            return
        if any(connection.dialect.is_async for connection in connections):
            self.aio.renew_in_commit(names)
        else:
            self.sync.renew_in_commit(names)


_configured: _Cached | None = None


def configure_cache(cache: Cache | None, *, ttl: float | None = None) -> None:
    """Answer reads with `use_cache=True`, and queries with `cached()`, from a cache.

    It applies to both APIs and the whole process. Every process that writes must configure the same
    cache, because its writes invalidate what others have read. A second call replaces the cache.

    Args:
        cache: The store for entries; None switches the cache off.
        ttl: For how many seconds an entry is kept. The actual time is up to a tenth shorter, so
            that entries do not all expire at once. If the cache does not learn of a write, an entry
            stays stale for at most this time.

    Raises:
        ValidationError: Something that is not a cache; no `ttl`, or one that is not above 0.

    Example:
        >>> from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
        >>> configure_cache(InMemoryCache(), ttl=60)
        >>> configure_cache(None)
    """
    global _configured  # noqa: PLW0603 - one cache per process
    made = None if cache is None else _made(cache, ttl)
    if _configured is not None:
        events.unsubscribe(_configured)
    cached_reads.register(made)
    if made is None:
        events.ignore_cached_rows()
    else:
        events.listen_to_cached_rows()
        events.subscribe(made)
    _configured = made


def _made(cache: Any, ttl: Any) -> _Cached:
    if isinstance(cache, type) or not hasattr(cache, "aio") or not hasattr(cache, "sync"):
        name = cache.__name__ if isinstance(cache, type) else type(cache).__name__
        raise ValidationError(
            f"must be RedisCache(...), MemcachedCache(...), InMemoryCache() or None, not {name}",
            field="cache",
        )
    if ttl is None:
        raise ValidationError("is required: for how many seconds to keep an entry", field="ttl")
    return _Cached(cache, Settings(check_ttl(ttl)))
