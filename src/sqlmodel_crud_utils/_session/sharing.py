"""A session shared by several tasks that read: each waits its turn and leaves objects intact.

GraphQL resolvers run concurrently. One of them may look at objects while another waits for the
database, so no relationship may be missing from them at that time.
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
    """The tasks that wait for a session, and the relationships that its reader has set aside.

    Attributes:
        waiting: Functions that wake the waiting tasks, in order of arrival.
        aside: The relationships that are being loaded again; None while no task reads.
    """

    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    aside: list[Held] | None = None

    def next(self) -> None:
        """Wake the task that has waited longest."""
        if self.waiting:
            self.waiting.popleft()()


def share(session: Session) -> None:
    """Make concurrent readers of a session wait for each other from now on."""
    state = state_of(session)
    if state.sharing is None:
        state.sharing = Sharing()


def sharing_of(session: Session) -> Sharing | None:
    """Return how a session is shared, or None if it is not."""
    return noted(session).sharing


@contextmanager
def shared_read(sharing: Sharing) -> Iterator[None]:
    """Let the read inside reload relationships that the session's objects already hold.

    They are set aside while objects are built from rows, and put back while waiting for the
    database.
    """
    sharing.aside = []
    try:
        yield
    finally:
        put_back(sharing.aside)
        sharing.aside = None


def execute_in_shared_read(execution: ORMExecuteState) -> Any:
    """Execute a statement of a shared read; return None for any other statement."""
    sharing = sharing_of(execution.session)
    if sharing is None or sharing.aside is None:
        return None
    put_back(sharing.aside)
    result = execution.invoke_statement()
    close_cursor(result)
    sharing.aside = set_aside(execution.session)
    return result
