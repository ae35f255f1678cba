"""A session that several tasks read with: each waits for its turn, and spoils nothing for others.

Resolvers of GraphQL run beside each other. What one of them has read is looked at while another
one waits for the database, so that no relationship may be missing then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import ORMExecuteState, Session

from sqlmodel_crud_utils._session.leftovers import Held, put_back, set_aside
from sqlmodel_crud_utils._session.sqlalchemy_internals import close_cursor
from sqlmodel_crud_utils._session.state import noted, state_of


@dataclass(slots=True)
class Sharing:
    """Who waits for a session, and what its reader has set aside.

    Attributes:
        waiting: What wakes those who wait, the first first.
        aside: The relationships that are loaded again; None while nobody reads.
    """

    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    aside: list[Held] | None = None

    def next(self) -> None:
        """Wake whoever has waited longest."""
        if self.waiting:
            self.waiting.popleft()()


def share(session: Session) -> None:
    """Let those who read with the session at the same time wait for each other, from now on."""
    state = state_of(session)
    if state.sharing is None:
        state.sharing = Sharing()


def sharing_of(session: Session) -> Sharing | None:
    """Return the notes on how a session is shared; None if one alone works with it."""
    return noted(session).sharing


@contextmanager
def loaded_beside(sharing: Sharing) -> Iterator[None]:
    """Let the read inside load relationships that the session's objects hold already.

    They are out of the way while rows are put together, and back while the database is waited for.
    """
    sharing.aside = []
    try:
        yield
    finally:
        put_back(sharing.aside)
        sharing.aside = None


def executed_beside(execution: ORMExecuteState) -> Any:
    """Execute a statement of such a read; None for any other one, which goes on as it is."""
    sharing = sharing_of(execution.session)
    if sharing is None or sharing.aside is None:
        return None
    put_back(sharing.aside)
    result = execution.invoke_statement()
    close_cursor(result)
    sharing.aside = set_aside(execution.session)
    return result
