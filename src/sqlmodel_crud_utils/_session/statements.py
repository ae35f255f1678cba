"""Who hears of each statement that is sent, COPY included, of which SQLAlchemy's events don't tell.

`events.heard` lets somebody hear.
"""

from __future__ import annotations

from collections.abc import Callable

Hearer = Callable[[str], None]

hearers: tuple[Hearer, ...] = ()


def tell(statement: str) -> None:
    """Tell that a statement is sent."""
    for hearer in hearers:
        hearer(statement)


def add(hearer: Hearer) -> None:
    """Tell somebody of every statement from here on."""
    global hearers  # noqa: PLW0603 - replaced as a whole: another thread may be telling
    hearers = (*hearers, hearer)


def remove(hearer: Hearer) -> None:
    """Tell somebody of no further statement."""
    global hearers  # noqa: PLW0603 - replaced as a whole: another thread may be telling
    hearers = tuple(each for each in hearers if each is not hearer)
