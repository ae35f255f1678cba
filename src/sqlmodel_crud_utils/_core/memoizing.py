"""A cache in memory for what is derived from models and types."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Generic, ParamSpec, TypeVar, cast

_K = TypeVar("_K", bound=Hashable)
_P = ParamSpec("_P")
_R = TypeVar("_R")

# Bounded, because programs may create model classes at run time.
_SIZE = 2048


_forgetting: list[Callable[[], None]] = []


def forget_all() -> None:
    """Forget everything: a newly declared model may add relationships to others."""
    for forget in _forgetting:
        forget()


def cached(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Cache a function's results; type checkers still see its signature.

    They are forgotten when a model is declared, which may add relationships to others.
    """
    remembering = lru_cache(_SIZE)(function)
    _forgetting.append(remembering.cache_clear)
    return cast("Callable[_P, _R]", remembering)


class Store(Generic[_K, _R]):
    """Results by key, for results that depend on more than the key."""

    def __init__(self) -> None:
        self._found: dict[_K, _R] = {}
        _forgetting.append(self._found.clear)

    def get(self, key: _K, make: Callable[[], _R]) -> _R:
        """Return the cached result for a key; call the function for a missing one."""
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _SIZE:
                self._found.pop(next(iter(self._found), key), None)
            found = self._found[key] = make()
        return found
