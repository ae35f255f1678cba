"""Finds event listeners that a shortcut past the flush would bypass.

The library's own listeners don't count: such a write has nothing to do for them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlmodel_crud_utils._core.models.facts import Facts

_F = TypeVar("_F", bound=Callable[..., Any])

_own: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


def own(listener: _F) -> _F:
    """Mark a listener as the library's own."""
    _own.add(listener)
    return listener


def listens_to_rows(facts: Facts, operation: str) -> bool:
    """Return whether anybody listens to the "insert", "update" or "delete" of a model's rows."""
    return has_listeners(facts.mapper.dispatch, (f"before_{operation}", f"after_{operation}"))


def listens_to_fields(facts: Facts, names: Iterable[str]) -> bool:
    """Return whether anything, such as a validator, listens to changes of these fields."""
    return any(has_listeners(facts.attributes[name].dispatch, ("set",)) for name in names)


def has_listeners(dispatch: Any, names: Iterable[str]) -> bool:
    """Return whether anything but the library listens to one of these events."""
    return any(listener not in _own for name in names for listener in getattr(dispatch, name))
