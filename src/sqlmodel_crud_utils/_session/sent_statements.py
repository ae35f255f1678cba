"""Listeners to every statement sent, including COPY, for which SQLAlchemy fires no event.

`events.listening_to_statements` registers them.
"""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str], None]

listeners: tuple[Listener, ...] = ()


def notify(statement: str) -> None:
    """Call each listener with a statement that is about to be sent."""
    for listener in listeners:
        listener(statement)


def add(listener: Listener) -> None:
    """Add a listener."""
    global listeners  # noqa: PLW0603 - replaced as a whole: another thread may iterate over it
    listeners = (*listeners, listener)


def remove(listener: Listener) -> None:
    """Remove a listener."""
    global listeners  # noqa: PLW0603 - replaced as a whole: another thread may iterate over it
    listeners = tuple(each for each in listeners if each is not listener)
