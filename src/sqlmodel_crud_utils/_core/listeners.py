"""Who listens to the writes of a model: what goes past the flush must not go past them.

The library's own listeners don't count: there is nothing to do for them in such a write.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlmodel_crud_utils._core.models.facts import Facts

_F = TypeVar("_F", bound=Callable[..., Any])

_own: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


def own(listener: _F) -> _F:
    """Mark a listener as one of the library's own, which doesn't count."""
    _own.add(listener)
    return listener


def listens_to_rows(facts: Facts, operation: str) -> bool:
    """Return whether somebody listens to the "insert", "update" or "delete" of a model's rows."""
    return is_heard(facts.mapper.dispatch, (f"before_{operation}", f"after_{operation}"))


def listens_to_fields(facts: Facts, names: Iterable[str]) -> bool:
    """Return whether somebody, a validator for example, listens to fields that are set."""
    return any(is_heard(facts.attributes[name].dispatch, ("set",)) for name in names)


def is_heard(dispatch: Any, names: Iterable[str]) -> bool:
    """Return whether anybody but the library listens to one of these events."""
    return any(listener not in _own for name in names for listener in getattr(dispatch, name))
