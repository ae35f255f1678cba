"""Rate limits: how often the functions of the library may be called, for each caller.

Counters are kept in memory, for one process, or in Redis, for any number of processes. Redis needs
the extra `ratelimit`: `pip install "sqlmodel-crud-utils[ratelimit]"`. One limiter serves both APIs.

Example:
    >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
    >>> limiter = RateLimiter("memory://")
    >>> handle = limiter.limit("100/minute", Hero, on="write")
    >>> limiter.close()
"""

from sqlmodel_crud_utils.exceptions import RateLimitExceededError, RateLimitUnavailableError
from sqlmodel_crud_utils.ext.rate_limits.limiter import RateLimiter
from sqlmodel_crud_utils.ext.rate_limits.limits import Limit

__all__ = ["Limit", "RateLimitExceededError", "RateLimitUnavailableError", "RateLimiter"]
