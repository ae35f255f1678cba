"""Who acts: the name that goes into audit columns."""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqlmodel_crud_utils._core.scopes import Scope
from sqlmodel_crud_utils.exceptions import ValidationError

_MAX_LENGTH = 100

_actor = Scope[str | None]("actor", default=None)


def current_actor() -> str | None:
    """Return the name that `acting_as` has set here, or None outside such blocks.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import acting_as, current_actor
        >>> with acting_as("alice"):
        ...     current_actor()
        'alice'
    """
    return _actor.get()


def acting_as(user: str | None) -> AbstractContextManager[None]:
    """Set who acts, for every audit column that is written inside the block.

    `created_by`, `updated_by` and `deleted_by` get this name in ORM flushes, Core statements and
    the functions of this library; a value that you set explicitly wins. The name applies to this
    task or thread and the tasks started from it. Of nested blocks, the innermost counts. What
    matters is the time of the flush: objects that are added inside the block but flushed after it
    get the name in effect then.

    Args:
        user: The name, at most 100 characters; None hides the name of an outer block.

    Returns:
        A context manager for `with`, in async code too.

    Raises:
        ValidationError: The name is not a string, or too long for the columns.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import acting_as, current_actor
        >>> with acting_as("alice"):
        ...     with acting_as("bob"):
        ...         inner = current_actor()
        ...     outer = current_actor()
        >>> inner, outer, current_actor()
        ('bob', 'alice', None)
    """
    if user is not None and not isinstance(user, str):
        raise ValidationError(f"must be a name, not {type(user).__name__}", field="user")
    if user is not None and len(user) > _MAX_LENGTH:
        raise ValidationError(f"must have at most {_MAX_LENGTH} characters", field="user")
    return _actor.holding(user)
