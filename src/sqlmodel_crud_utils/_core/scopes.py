"""Scopes: a value that a `with` block sets for its task or thread."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Scope(Generic[T]):
    """A value that blocks set; tasks that are started inside a block inherit it.

    Args:
        name: What it is called in debuggers.
        default: What holds outside every block.
    """

    def __init__(self, name: str, default: T) -> None:
        self._variable: ContextVar[T] = ContextVar(f"sqlmodel_crud_utils_{name}", default=default)

    def get(self) -> T:
        """Return the current value."""
        return self._variable.get()

    def holding(self, value: T) -> AbstractContextManager[None]:
        """Return a block that sets the value, for `with`, in async code too."""
        return _Block(self._variable, value)


class _Block(AbstractContextManager[None], Generic[T]):
    """The block; not a `@contextmanager`, which could be misused as a decorator of coroutines."""

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value
        self._tokens: list[Token[T]] = []

    def __enter__(self) -> None:
        self._tokens.append(self._variable.set(self._value))

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        token = self._tokens.pop()
        try:
            self._variable.reset(token)
        except ValueError:
            # A generator that is closed in another context, where the value was never set.
            return
