"""Sessions that choose a database for each statement: the leader or a follower, say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from sqlmodel_crud_utils._session.sqlalchemy_internals import flushing


@contextmanager
def as_writing(session: Session) -> Iterator[None]:
    """Let all statements inside go where a flush goes.

    A `get_bind` of the user's own sends a flush, and some kinds of statements, to the database that
    is written to. An INSERT may be none of these, a SELECT that belongs to a write never is, and a
    connection is asked for without any statement.
    """
    if type(session).get_bind is Session.get_bind:
        yield
        return
    with flushing(session):
        yield
