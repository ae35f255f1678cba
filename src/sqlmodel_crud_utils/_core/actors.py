"""Who acts: the name that audit columns are filled with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_actor: ContextVar[str | None] = ContextVar("sqlmodel_crud_utils_actor", default=None)


def current_actor() -> str | None:
    """Return the name that `acting_as` holds here, None outside every such block."""
    return _actor.get()


@contextmanager
def acting_as(user: str | None) -> Iterator[None]:
    """Name who acts, for every audit column written inside the block.

    `created_by`, `updated_by` and `deleted_by` are filled with it by ORM flushes, by Core
    statements and by the functions of this library; a value that the caller gives himself wins.
    The name holds for this task or thread (and for the tasks that are started inside), and blocks
    nest: the innermost counts. `acting_as(None)` hides the name around it.

    Args:
        user: the name, at most 100 characters (the columns' length), or None.

    Example:
        >>> from sqlmodel_crud_utils.mixins import acting_as, current_actor
        >>> with acting_as("alice"):
        ...     with acting_as("bob"):
        ...         inner = current_actor()
        ...     outer = current_actor()
        >>> inner, outer, current_actor()
        ('bob', 'alice', None)
    """
    token = _actor.set(user)
    try:
        yield
    finally:
        _actor.reset(token)
