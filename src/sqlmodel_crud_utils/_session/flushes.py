"""What a write past the flush owes to a session: nobody misses it, and a refusal ends as usual."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from sqlmodel_crud_utils._core.listeners import listens_to_session


def is_unheard(session: Session, *events: str) -> bool:
    """Tell whether nobody wants to know, or to decide, how a session writes."""
    # A session that routes statements to several databases goes by the kind of statement.
    return type(session).get_bind is Session.get_bind and not listens_to_session(session, *events)


@contextmanager
def as_in_a_flush(session: Session) -> Iterator[None]:
    """Let a refusal inside end the transaction of the session as the one of a flush does."""
    transaction = session._autobegin_t()._begin()
    try:
        yield
        transaction.commit()
    except BaseException:
        transaction.rollback(_capture_exception=True)
        raise
