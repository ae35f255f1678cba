"""Lifecycle hooks: your own code that runs with the writes of a model.

A hook is any object with one or more of the methods `before_create`, `after_create`,
`before_update`, `after_update`, `before_delete` and `after_delete`. One registry serves both APIs;
in the async API a method may be `async def`. A method with a parameter `session` gets the session
of the operation, so that it can query and write in the same transaction.

Example:
    >>> from sqlmodel_crud_utils.hooks import register_hook, unregister_hook
    >>> class Shout:
    ...     def before_create(self, instance: Hero) -> None:
    ...         instance.name = instance.name.upper()
    >>> shout = Shout()
    >>> register_hook(Hero, shout)
    >>> unregister_hook(Hero, shout)
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol, TypeVar, Union

from pydantic import ValidationError as PydanticError

from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = [
    "AfterCreate",
    "AfterDelete",
    "AfterUpdate",
    "BeforeCreate",
    "BeforeDelete",
    "BeforeUpdate",
    "OperationHook",
    "ValidateOnWrite",
    "clear_hooks",
    "get_hooks",
    "register_hook",
    "registered_hook",
    "unregister_hook",
]

T = TypeVar("T")
_Row_contra = TypeVar("_Row_contra", contravariant=True)
_Same = TypeVar("_Same")

METHODS = (
    "before_create",
    "after_create",
    "before_update",
    "after_update",
    "before_delete",
    "after_delete",
)


class BeforeCreate(Protocol[_Same]):
    """A hook that runs before a row is inserted, and may return another row to insert instead."""

    def before_create(self, instance: _Same, /) -> _Same | Awaitable[_Same | None] | None:
        """Return the row to insert; None means `instance`.

        Args:
            instance: The row, which does not belong to a session yet.
        """
        ...


class AfterCreate(Protocol[_Row_contra]):
    """A hook that runs after a row is inserted, before the commit."""

    def after_create(self, instance: _Row_contra, /) -> object:
        """Work with the row, which has its key now.

        Args:
            instance: The row, after its flush.
        """
        ...


class BeforeUpdate(Protocol[_Row_contra]):
    """A hook that runs before a row is updated, and may return other data to write instead."""

    def before_update(
        self, instance: _Row_contra, data: dict[str, Any], /
    ) -> Mapping[str, Any] | Awaitable[Mapping[str, Any] | None] | None:
        """Return the data to write; None means `data`, with any changes made to it in place.

        Args:
            instance: The row as it is before the update.
            data: The values that are about to be written, by field.
        """
        ...


class AfterUpdate(Protocol[_Row_contra]):
    """A hook that runs after a row is updated, before the commit."""

    def after_update(self, instance: _Row_contra, /) -> object:
        """Work with the row.

        Args:
            instance: The row as it is now.
        """
        ...


class BeforeDelete(Protocol[_Row_contra]):
    """A hook that runs before a row is deleted or soft-deleted."""

    def before_delete(self, instance: _Row_contra, /) -> object:
        """Raise to keep the row.

        Args:
            instance: The row that is about to be deleted, or marked.
        """
        ...


class AfterDelete(Protocol[_Row_contra]):
    """A hook that runs after a row is deleted or soft-deleted, before the commit."""

    def after_delete(self, instance: _Row_contra, /) -> object:
        """Work with what is left of the row.

        Args:
            instance: The row. If it was removed, it no longer belongs to a session.
        """
        ...


# The same with the operation's session: a `Session`, or an `AsyncSession` in the async API.


class _BeforeCreateInSession(Protocol[_Same]):
    def before_create(
        self, instance: _Same, /, *, session: Any
    ) -> _Same | Awaitable[_Same | None] | None: ...


class _AfterCreateInSession(Protocol[_Row_contra]):
    def after_create(self, instance: _Row_contra, /, *, session: Any) -> object: ...


class _BeforeUpdateInSession(Protocol[_Row_contra]):
    def before_update(
        self, instance: _Row_contra, data: dict[str, Any], /, *, session: Any
    ) -> Mapping[str, Any] | Awaitable[Mapping[str, Any] | None] | None: ...


class _AfterUpdateInSession(Protocol[_Row_contra]):
    def after_update(self, instance: _Row_contra, /, *, session: Any) -> object: ...


class _BeforeDeleteInSession(Protocol[_Row_contra]):
    def before_delete(self, instance: _Row_contra, /, *, session: Any) -> object: ...


class _AfterDeleteInSession(Protocol[_Row_contra]):
    def after_delete(self, instance: _Row_contra, /, *, session: Any) -> object: ...


OperationHook = Union[  # noqa: UP007 - a generic alias, to be subscripted at run time too
    BeforeCreate[T],
    AfterCreate[T],
    BeforeUpdate[T],
    AfterUpdate[T],
    BeforeDelete[T],
    AfterDelete[T],
    _BeforeCreateInSession[T],
    _AfterCreateInSession[T],
    _BeforeUpdateInSession[T],
    _AfterUpdateInSession[T],
    _BeforeDeleteInSession[T],
    _AfterDeleteInSession[T],
]
"""What can be registered for a model: an object with one or more of the six methods.

Each method may have one parameter more, `session`: it gets the session of the operation.
"""


# --- the registry --------------------------------------------------------------------------------

_lock = Lock()
# The tuples are replaced, never changed, so that readers need no lock.
_registered: dict[type[Any], tuple[Any, ...]] = {}


def register_hook(model: type[T], hook: OperationHook[T]) -> None:
    """Run a hook with all further writes of a model and its subclasses.

    Hooks of base classes run first; hooks of the same class run in the order of registration.
    Registering a hook again changes nothing. It applies to the whole process and to both APIs; the
    sync API refuses a write that would call an `async def` method.

    Args:
        model: A table model, or a class that table models inherit.
        hook: An object with one or more of the six methods.

    Raises:
        ValidationError: The hook has none of the methods, has a misspelt one, or is a class.

    Example:
        >>> class Count:
        ...     created = 0
        ...
        ...     def after_create(self, instance: Hero) -> None:
        ...         self.created += 1
        >>> count = Count()
        >>> register_hook(Hero, count)
        >>> get_hooks(Hero) == (count,)
        True
        >>> clear_hooks()
    """
    _require_class(model)
    _require_hook(hook)
    _add(model, hook)


def unregister_hook(model: type[T], hook: OperationHook[T]) -> None:
    """Stop running a hook.

    Args:
        model: The class for which it was registered.
        hook: The hook itself.

    Raises:
        ValidationError: The hook is not registered for this class.

    Example:
        >>> class Quiet:
        ...     def after_delete(self, instance: Hero) -> None: ...
        >>> unregister_hook(Hero, Quiet())
        Traceback (most recent call last):
        sqlmodel_crud_utils.exceptions.ValidationError: Validation failed for 'hook': ...
    """
    _require_class(model)
    if not _remove(model, hook):
        raise ValidationError(
            f"{_name_of(hook)} is not registered for {model.__name__}", field="hook"
        )


def get_hooks(model: type[Any]) -> tuple[Any, ...]:
    """Return the hooks that run for a model, in the order in which they run.

    Args:
        model: The class. The result includes the hooks of its base classes, which come first.

    Example:
        >>> get_hooks(Hero)
        ()
    """
    _require_class(model)
    if not _registered:
        return ()
    return tuple(hook for base in reversed(model.__mro__) for hook in _registered.get(base, ()))


def clear_hooks(model: type[Any] | None = None) -> None:
    """Unregister the hooks of a class, or all hooks.

    Args:
        model: The class; the hooks of its base classes stay. None means every class.

    Example:
        >>> clear_hooks(Hero)
    """
    if model is not None:
        _require_class(model)
    with _lock:
        if model is None:
            _registered.clear()
        else:
            _registered.pop(model, None)


@contextmanager
def registered_hook(model: type[T], hook: OperationHook[T]) -> Iterator[OperationHook[T]]:
    """Run a hook with the writes of a model inside the block.

    It applies to the whole process, not just to the task or thread that runs the block. A hook that
    was already registered stays registered afterwards.

    Args:
        model: A table model, or a class that table models inherit.
        hook: An object with one or more of the six methods.

    Yields:
        The hook.

    Example:
        >>> class Quiet:
        ...     def after_delete(self, instance: Hero) -> None: ...
        >>> with registered_hook(Hero, Quiet()) as quiet:
        ...     get_hooks(Hero) == (quiet,)
        True
        >>> get_hooks(Hero)
        ()
    """
    _require_class(model)
    _require_hook(hook)
    is_new = _add(model, hook)
    try:
        yield hook
    finally:
        if is_new:
            _remove(model, hook)


def _add(model: type[Any], hook: Any) -> bool:
    with _lock:
        known = _registered.get(model, ())
        is_new = all(each is not hook for each in known)
        if is_new:
            _registered[model] = (*known, hook)
        return is_new


def _remove(model: type[Any], hook: Any) -> bool:
    with _lock:
        known = _registered.get(model, ())
        kept = tuple(each for each in known if each is not hook)
        if kept:
            _registered[model] = kept
        else:
            _registered.pop(model, None)
        return len(kept) < len(known)


def _require_class(model: Any) -> None:
    if not isinstance(model, type):
        raise ValidationError(
            f"hooks must be registered for a class, not for an instance of {_name_of(model)}",
            field="model",
        )


def _require_hook(hook: Any) -> None:
    if isinstance(hook, type):
        raise ValidationError(
            f"{hook.__name__} is a class; register an instance of it", field="hook"
        )
    named = [name for name in dir(hook) if _is_like_a_method(name)]
    there = [name for name in named if callable(getattr(hook, name))]
    unknown = [name for name in there if name not in METHODS]
    if unknown or not there:
        problem = f"has {', '.join(unknown)}" if unknown else "defines no hook method"
        raise ValidationError(
            f"{_name_of(hook)} {problem}; the hook methods are: {', '.join(METHODS)}", "hook"
        )


def _is_like_a_method(name: str) -> bool:
    """Return whether a name is a hook method's, or probably meant to be."""
    from difflib import get_close_matches  # few programs need it

    return name.startswith(("before_", "after_")) or bool(
        not name.startswith("_") and get_close_matches(name, METHODS, n=1, cutoff=0.85)
    )


def _name_of(thing: Any) -> str:
    return type(thing).__qualname__


# --- ready-made ----------------------------------------------------------------------------------


class ValidateOnWrite:
    """A hook that validates a row against its model before it is created or updated.

    A table model does not validate its values, not even their types. With this hook, values that
    `Model.model_validate` would refuse raise a `ValidationError`, and nothing is written.

    Example:
        >>> with registered_hook(Hero, ValidateOnWrite()):
        ...     await write_row(Hero(name=5, secret_name="Tommy"), session)
        Traceback (most recent call last):
        sqlmodel_crud_utils.exceptions.ValidationError: Validation failed for 'name': ...
    """

    def before_create(self, instance: Any) -> None:
        """Validate the row.

        Args:
            instance: The row that is about to be inserted.
        """
        _validate(instance, {})

    def before_update(self, instance: Any, data: dict[str, Any]) -> None:
        """Validate the row as it will be after the update.

        Args:
            instance: The row as it is before the update.
            data: The values that are about to be written, by field.
        """
        _validate(instance, data)


def _validate(instance: Any, data: Mapping[str, Any]) -> None:
    model = type(instance)
    if not hasattr(model, "model_validate"):
        raise ValidationError(
            f"{model.__name__} is not a SQLModel class; ValidateOnWrite can only validate those",
            field="model",
        )
    fields = model.model_fields
    held = {name: value for name, value in vars(instance).items() if name in fields}
    # A SQL expression cannot be validated; the current value stands in for it.
    held |= {name: value for name, value in data.items() if name in fields and not is_sql(value)}
    try:
        model.model_validate({fields[name].alias or name: held[name] for name in held})
    except PydanticError as error:
        # Pydantic's own message quotes the values.
        details = error.errors(include_input=False, include_url=False, include_context=False)
        reasons = "; ".join(_reason(each["loc"], each["msg"]) for each in details)
        raise ValidationError(reasons, _place(details[0]["loc"]) or None, errors=details) from error


def _reason(location: tuple[Any, ...], message: str) -> str:
    return f"{_place(location)}: {message}" if location else message


def _place(location: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in location)
