"""Call hooks, and let their exceptions propagate unchanged from the operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from types import FunctionType
from typing import Any

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.writes.table_writes import WriteKind
from sqlmodel_crud_utils._runtime_async import AsyncSession, call_hook, require_callable
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.hooks import METHODS, get_hooks

Hooks = Sequence[Any]


class HookFailedError(Exception):
    """Carries a hook's exception past the handlers for database errors."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__()


def hooks_of(model: type[Any], operation: WriteKind) -> Hooks:
    """Return the hooks that an operation on a model runs; refuse one that cannot be called."""
    names = (f"before_{operation}", f"after_{operation}")
    hooks = [hook for hook in get_hooks(model) if any(_method(hook, name) for name in names)]
    for hook in hooks:
        for name in names:
            if method := _method(hook, name):
                require_callable(method, "hook")
    return hooks


def _method(hook: Any, name: str) -> Any:
    return getattr(hook, name, None)


async def before_create(session: AsyncSession, hooks: Hooks, row: Any) -> Any:
    """Run the `before_create` hooks; return the row to insert."""
    for hook in hooks:
        returned = await _call(session, hook, "before_create", row)
        if returned is not None and not isinstance(returned, type(row)):
            raise _wrong_result(hook, "before_create", f"a {type(row).__name__}", returned)
        row = row if returned is None else returned
    return row


async def before_update(
    session: AsyncSession, hooks: Hooks, row: Any, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Run the `before_update` hooks; return the data to write."""
    current = dict(data)
    for hook in hooks:
        returned = await _call(session, hook, "before_update", row, current)
        if returned is not None and not isinstance(returned, Mapping):
            raise _wrong_result(hook, "before_update", "a mapping", returned)
        current = current if returned is None else dict(returned)
    return current


async def run_hooks(session: AsyncSession, hooks: Hooks, name: str, row: Any) -> None:
    """Call a hook method whose result is ignored."""
    for hook in hooks:
        await _call(session, hook, name, row)


async def _call(session: AsyncSession, hook: Any, name: str, *args: Any) -> Any:
    method = _method(hook, name)
    if method is None:
        return None
    wanted = {"session": session} if _wants_session(method) else {}
    try:
        return await call_hook(method, *args, **wanted)
    except Exception as error:
        raise HookFailedError(error) from error


def want_session(hooks: Hooks) -> bool:
    """Return whether one of the hooks takes the session."""
    methods = (_method(hook, name) for hook in hooks for name in METHODS)
    return any(_wants_session(method) for method in methods if method is not None)


def _wants_session(method: Any) -> bool:
    function = getattr(method, "__func__", method)
    # Other callables may be unhashable.
    is_function = isinstance(function, FunctionType)
    return _has_session(function) if is_function else _names_session(function)


def _names_session(function: Any) -> bool:
    try:
        return "session" in signature(function).parameters
    except ValueError:  # some functions in C have no signature
        return False


_has_session = cached(_names_session)


def _wrong_result(hook: Any, name: str, expected: str, returned: Any) -> HookFailedError:
    return HookFailedError(
        ValidationError(
            f"{type(hook).__qualname__}.{name} returned {type(returned).__name__}; "
            f"it must return {expected}, or None for no change",
            field="hook",
        )
    )
