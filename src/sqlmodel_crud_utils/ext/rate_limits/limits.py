"""Limits: which calls a limit counts, for which callers, and the keys of its buckets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.observers import Call
from sqlmodel_crud_utils.exceptions import RateLimitExceededError, ValidationError
from sqlmodel_crud_utils.ext.rate_limits.buckets import Charge
from sqlmodel_crud_utils.ext.rate_limits.rates import Rate, rate_of

On = Literal["read", "write", "all"]
By = Callable[[], object] | str | None


@dataclass(frozen=True, eq=False)
class Limit:
    """A limit, as returned by `RateLimiter.limit`.

    Attributes:
        rate: The number of calls and the period.
        model: The model whose calls it counts; None means every model.
        on: Which calls it counts.
        by: Whose calls it counts separately.
        rows: Whether it counts rows.
        anonymous: What happens to calls without a caller.

    Example:
        >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
        >>> limiter = RateLimiter("memory://")
        >>> handle = limiter.limit("100/minute")
        >>> handle.remove()
    """

    rate: Rate
    model: type[Any] | None
    on: On
    by: By
    rows: bool
    anonymous: Literal["allow", "refuse"]
    _prefix: str = field(repr=False)
    _remove: Callable[[Limit], None] = field(repr=False)
    _ordinal: int = field(default=0, repr=False)

    def remove(self) -> None:
        """Remove the limit; calls under way are not counted further.

        Example:
            >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
            >>> RateLimiter("memory://").limit("100/minute").remove()
        """
        self._remove(self)

    def counts(self, call: Call) -> bool:
        """Return whether the limit counts a call."""
        if call.kind not in {"read", "write"} or self.on not in {"all", call.kind}:
            return False
        if self.model is None:
            return True
        return call.model is not None and issubclass(call.model, self.model)

    def key(self) -> str | None:
        """Return the key of the caller's bucket; None for an anonymous caller that is allowed.

        Raises:
            RateLimitExceededError: The caller is anonymous and refused.
        """
        caller = self.by() if callable(self.by) else self.by
        if self.by is not None and caller is None:
            if self.anonymous == "refuse":
                raise RateLimitExceededError(self.rate.text, None)
            return None
        digest = blake2b(repr((self.identity, self._ordinal, str(caller))).encode(), digest_size=16)
        return f"{self._prefix}:{digest.hexdigest()}"

    def charge(self, key: str, cost: int = 1, paid: int = 0) -> Charge:
        """Return the charge for a call."""
        return Charge(key, self.rate.amount, self.rate.seconds, cost, paid)

    @property
    def identity(self) -> tuple[object, ...]:
        """What identifies the same limit across processes."""
        return (
            *(self.rate.amount, self.rate.seconds, self.on, self.rows),
            None if self.model is None else _name_of(self.model),
            _name_of(self.by) if callable(self.by) else None,
        )


def _name_of(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def check_limit(
    rate: str, model: type[Any] | None, on: str, by: object, *, rows: bool, anonymous: str
) -> Rate:
    """Check the arguments of a limit; return the rate."""
    if model is not None:
        facts_of(model)
    if on not in {"read", "write", "all"}:
        raise ValidationError("must be 'read', 'write' or 'all'", field="on")
    if anonymous not in {"allow", "refuse"}:
        raise ValidationError("must be 'allow' or 'refuse'", field="anonymous")
    if rows and on != "write":
        raise ValidationError("rows are counted only for writes: pass on='write' too", field="rows")
    if not (by is None or isinstance(by, str) or callable(by)):
        raise ValidationError(
            f"must be a string or a function that returns the caller, not {type(by).__name__}",
            field="by",
        )
    if inspect.iscoroutinefunction(by) or inspect.iscoroutinefunction(type(by).__call__):
        raise ValidationError("must be a plain function, not an async one", field="by")
    return rate_of(rate)
