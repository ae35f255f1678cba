"""Sessions that choose a database for each statement, such as the primary or a replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from sqlmodel_crud_utils._session.sqlalchemy_internals import flushing


@contextmanager
def as_writing(session: Session) -> Iterator[None]:
    """Send all statements inside to the database that a flush would go to.

    A `get_bind` of the user's own sends flushes, and some kinds of statements, to the database for
    writes. An INSERT may not be among these kinds, a SELECT that is part of a write never is, and
    a connection is requested without any statement.
    """
    if not chooses_itself(session):
        yield
        return
    with flushing(session):
        yield


def chooses_itself(session: Session) -> bool:
    """Return whether a `get_bind` of the user's own chooses the database."""
    return type(session).get_bind is not Session.get_bind
