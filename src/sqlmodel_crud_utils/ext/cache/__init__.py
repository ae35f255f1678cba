"""A cache for reads: in memory, in Redis or in memcached.

`configure_cache` switches it on; what reads take `use_cache=True` or `cached()` for is in their own
documentation.

Example:
    >>> from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
    >>> configure_cache(InMemoryCache(), ttl=60)
    >>> configure_cache(None)
"""

from sqlmodel_crud_utils.ext.cache.configuring import Cache, configure_cache
from sqlmodel_crud_utils.ext.cache.memcached import MemcachedCache
from sqlmodel_crud_utils.ext.cache.memory import InMemoryCache
from sqlmodel_crud_utils.ext.cache.redis import RedisCache

__all__ = ["Cache", "InMemoryCache", "MemcachedCache", "RedisCache", "configure_cache"]
