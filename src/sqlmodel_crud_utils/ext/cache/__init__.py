"""A cache for reads: in memory, in Redis or in memcached.

`configure_cache` switches it on. Reads use it with `use_cache=True` or `cached()`.

Example:
    >>> from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
    >>> configure_cache(InMemoryCache(), ttl=60)
    >>> configure_cache(None)
"""

from sqlmodel_crud_utils.ext.cache.configuring import Cache, configure_cache
from sqlmodel_crud_utils.ext.cache.memcached_store import MemcachedCache
from sqlmodel_crud_utils.ext.cache.memory_store import InMemoryCache
from sqlmodel_crud_utils.ext.cache.redis_store import RedisCache

__all__ = ["Cache", "InMemoryCache", "MemcachedCache", "RedisCache", "configure_cache"]
