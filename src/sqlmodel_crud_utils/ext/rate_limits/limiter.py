"""The limiter: its limits, and the observer that charges calls."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Lock
from typing import Any, Literal

from sqlmodel_crud_utils._core import observers
from sqlmodel_crud_utils._core.observers import Call, Observer
from sqlmodel_crud_utils._core.scopes import Scope
from sqlmodel_crud_utils.ext.rate_limits.bills import Bill, bill_for
from sqlmodel_crud_utils.ext.rate_limits.limits import By, Limit, On, check_limit
from sqlmodel_crud_utils.ext.rate_limits.running import Nesting
from sqlmodel_crud_utils.ext.rate_limits.stores import LimiterSettings, Stores, stores_for


class RateLimiter:
    """Limits the calls of the library's functions, in both APIs.

    A call beyond a limit raises `RateLimitExceededError` before anything is sent to the database,
    whatever `raise_on_error` says. Such a call is not counted, and a surrounding block can
    continue. The limits count each call of a function or a query builder's method that reads or
    writes. They do not count a `transaction()` block, or calls made by a hook. Work that is rolled
    back stays counted.

    A rate of N per period allows a burst of N calls, and after that an even flow. There are no
    fixed windows with edges: in any tenth of a period at most 1.1 N calls are allowed. In a whole
    period, at most 2 N are allowed after a pause, and N from then on.

    Args:
        url: Where the counters are kept: "memory://" for this process alone, or the URL of a Redis
            ("redis://", "rediss://" or "unix://") for all processes that use it.
        on_failure: What happens to calls while Redis fails: "allow", or "refuse" with a
            `RateLimitUnavailableError`.
        timeout: How many seconds Redis may take to answer; after a failure it is not used for a
            second.
        prefix: The prefix of the keys in Redis; programs that share a Redis need different
            prefixes.
        max_keys: How many callers are kept in memory; beyond that, the least recent caller is
            forgotten.

    Raises:
        ValidationError: An argument that cannot be used.
        ModuleNotFoundError: redis-py is not installed; the message names the extra.

    Example:
        >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter, RateLimitExceededError
        >>> limiter = RateLimiter("memory://")
        >>> handle = limiter.limit("2/minute", Hero, on="read")
        >>> for _ in range(3):
        ...     try:
        ...         _ = get_rows(session, Hero)
        ...     except RateLimitExceededError as error:
        ...         print(error.limit)
        2/minute
        >>> limiter.close()
    """

    def __init__(
        self,
        url: str,
        *,
        on_failure: Literal["allow", "refuse"] = "allow",
        timeout: float = 0.1,
        prefix: str = "sqlmodel_crud",
        max_keys: int = 100_000,
    ) -> None:
        settings = LimiterSettings(url, on_failure, timeout, prefix, max_keys)
        settings.check()
        self._prefix = prefix
        self._stores: Stores = stores_for(settings)
        self._limits: tuple[Limit, ...] = ()
        self._scope = Scope[tuple[Limit, ...]]("rate_limits", default=())
        self._observer = _Cashier(self._counting, self._stores)
        self._is_listening = False
        self._lock = Lock()

    def limit(
        self,
        rate: str,
        model: type[Any] | None = None,
        *,
        on: On = "all",
        by: By = None,
        rows: bool = False,
        anonymous: Literal["allow", "refuse"] = "allow",
    ) -> Limit:
        """Limit the calls that work with a model from now on; return the limit.

        Args:
            rate: The number of calls and the period: "100/minute", "5 per 10 seconds".
            model: A table model. Without it, the calls of all models count together.
            on: Which calls count: "read", "write" or "all". `get_one_or_create` is a write.
            by: Whose calls are counted separately: a function that returns the caller, such as
                `current_actor` or `current_tenant`. Without it, all callers count together.
            rows: Whether each written row counts, instead of the call. Functions for many rows are
                charged as they go; beyond the limit, all of their work is undone.
            anonymous: What happens to a call if `by` returns None: "allow" it without a limit, or
                "refuse" it.

        Returns:
            The limit; its `remove()` ends it.

        Raises:
            ValidationError: An argument that cannot be used.

        Example:
            >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
            >>> from sqlmodel_crud_utils.mixins import current_actor
            >>> limiter = RateLimiter("memory://")
            >>> handle = limiter.limit("100/minute", Hero, on="write", by=current_actor)
            >>> handle.remove()
        """
        made = self._made(rate, model, on, by, rows=rows, anonymous=anonymous)
        with self._lock:
            # Equal limits count separately: each has its own buckets.
            same = sum(each.identity == made.identity for each in self._limits)
            made = replace(made, _ordinal=same)
            self._limits = (*self._limits, made)
        self._listen()
        return made

    def limited(
        self, rate: str, *, by: By = None, on: On = "all", rows: bool = False
    ) -> AbstractContextManager[None]:
        """Limit the calls inside a `with` block, whatever their model.

        The limit applies to this task or thread and the tasks started inside. Blocks with the same
        rate and the same `by` share a counter, also across processes.

        Args:
            rate: The number of calls and the period: "1000/hour".
            by: Whose calls are counted: a string, such as an API key, or a function that returns
                the caller.
            on: Which calls count: "read", "write" or "all".
            rows: Whether each written row counts, as in `limit`.

        Returns:
            A context manager for `with`, in async code too.

        Raises:
            ValidationError: An argument that cannot be used.

        Example:
            >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
            >>> limiter = RateLimiter("memory://")
            >>> with limiter.limited("1000/hour", by="key:4711"):
            ...     _ = get_rows(session, Hero)
            >>> limiter.close()
        """
        made = self._made(rate, None, on, by, rows=rows, anonymous="allow")
        self._listen()
        return self._scope.holding((*self._scope.get(), replace(made, _ordinal=-1)))

    def close(self) -> None:
        """Remove all limits; close the connections of the sync API.

        Example:
            >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
            >>> RateLimiter("memory://").close()
        """
        with self._lock:
            self._limits = ()
            self._is_listening = False
            observers.unregister(self._observer)
        self._stores.close()

    async def aclose(self) -> None:
        """Do what `close` does, and close the connections of the running event loop.

        Example:
            >>> from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
            >>> await RateLimiter("memory://").aclose()
        """
        self.close()
        await self._stores.aclose()

    def _made(
        self,
        rate: str,
        model: type[Any] | None,
        on: On,
        by: By,
        *,
        rows: bool,
        anonymous: Literal["allow", "refuse"],
    ) -> Limit:
        checked = check_limit(rate, model, on, by, rows=rows, anonymous=anonymous)
        return Limit(checked, model, on, by, rows, anonymous, self._prefix, self._removed)

    def _removed(self, limit: Limit) -> None:
        with self._lock:
            self._limits = tuple(each for each in self._limits if each is not limit)

    def _listen(self) -> None:
        with self._lock:
            if not self._is_listening:
                self._is_listening = True
                observers.register(self._observer)

    def _counting(self) -> tuple[Limit, ...]:
        return (*self._limits, *self._scope.get())


class _Cashier(Observer):
    """Charges calls before they run, and for rows as they are written."""

    def __init__(self, limits: Any, stores: Stores) -> None:
        self._limits = limits
        self._stores = stores
        self._nesting = Nesting()
        self._bills: dict[Call, Bill] = {}

    def begin(self, call: Call) -> None:
        if call.kind in {"read", "write"} and not call.is_stream:
            self._nesting.enter(call)

    def resume(self, call: Call) -> None:
        self._nesting.enter(call)

    def pause(self, call: Call) -> None:
        self._nesting.leave(call)

    def end(self, call: Call) -> None:
        self._nesting.leave(call)
        self._bills.pop(call, None)

    def admit(self, call: Call) -> Any:
        if self._nesting.is_inner(call):
            return None
        bill = bill_for(call, self._limits())
        if bill is None:
            return None
        self._bills[call] = bill
        return self._stores.of(call).settle(bill, bill.first())

    def admit_rows(self, call: Call, rows: int) -> Any:
        del rows  # call.rows includes them
        bill = self._bills.get(call)
        charges = [] if bill is None else bill.of_rows()
        if bill is None or not charges:
            return None
        return self._stores.of(call).settle(bill, charges)
