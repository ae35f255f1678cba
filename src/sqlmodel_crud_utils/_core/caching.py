"""A cache for what is worked out from models and types."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

from sqlalchemy import event
from sqlalchemy.orm import Mapper

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Bounded, so that programs that make model classes at run time do not grow without end.
_SIZE = 2048


def cached(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Remember the results of a function; its signature stays, also for type checkers.

    They are forgotten when a model is declared, which may add relationships to others.
    """
    remembering = lru_cache(_SIZE)(function)
    event.listen(Mapper, "after_configured", remembering.cache_clear)
    return cast("Callable[_P, _R]", remembering)
