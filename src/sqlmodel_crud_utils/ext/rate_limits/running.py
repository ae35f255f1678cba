"""Track nested calls, such as those made by the hooks of another call."""

from __future__ import annotations

from contextvars import ContextVar

from sqlmodel_crud_utils._core.observers import Call


class Nesting:
    """The outermost call that runs in a task or thread."""

    def __init__(self) -> None:
        self._outermost: ContextVar[Call | None] = ContextVar("outermost_call", default=None)

    def enter(self, call: Call) -> None:
        """Note a call, unless it is inside another one."""
        if self._under_way() is None:
            self._outermost.set(call)

    def leave(self, call: Call) -> None:
        """Forget a call."""
        if self._outermost.get() is call:
            self._outermost.set(None)

    def is_inner(self, call: Call) -> bool:
        """Return whether a call is inside another one."""
        outermost = self._under_way()
        return outermost is not None and outermost is not call

    def _under_way(self) -> Call | None:
        # A call that has ended in another task or thread is still noted here.
        outermost = self._outermost.get()
        return outermost if outermost is not None and outermost.observers else None
