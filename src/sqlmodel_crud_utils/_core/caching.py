"""A cache for what is worked out from models and types, which stay the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Bounded, so that programs that make model classes at run time do not grow without end.
_SIZE = 2048


def cached(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Remember the results of a function; its signature stays, also for type checkers."""
    return cast("Callable[_P, _R]", lru_cache(_SIZE)(function))
