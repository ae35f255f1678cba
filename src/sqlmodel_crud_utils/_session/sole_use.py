"""One user at a time: a session that two tasks, or two threads, work with at once is refused.

SQLAlchemy's sessions are not made for it, and notice it only by chance. Whoever works with a
session is known by its context: what a hook starts to wait for belongs to the same work.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType

from sqlalchemy.orm import Session

from sqlmodel_crud_utils._core.errors.translation import shared_session
from sqlmodel_crud_utils._session.state import noted, state_of

_works: ContextVar[tuple[object, ...]] = ContextVar("works", default=())


def is_used_by_others(session: Session) -> bool:
    """Return whether somebody else is at work with the session."""
    user = noted(session).user
    return user is not None and user not in _works.get()


class sole_use:  # noqa: N801 - reads as a function; a generator would cost more than the rest
    """Work with a session, alone; work inside of this work is part of it.

    Raises:
        ValidationError: Somebody else is at work with the session.
    """

    __slots__ = ("_before", "_session", "_state", "_work")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._work: object | None = None

    def __enter__(self) -> None:
        """Begin to work with the session."""
        self._before = _works.get()
        self._state = state_of(self._session)
        user = self._state.user
        if user is None:
            self._work = self._state.user = object()
            _works.set((*self._before, self._work))
        elif user not in self._before:
            raise shared_session()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the session to others."""
        if self._work is not None:
            del self._state.user  # the rest stays: the next work needs it at once
            if self._state.sharing is not None:
                self._state.sharing.next()
            # Not reset(): work that is abandoned may end in another context.
            _works.set(self._before)
