"""A connection in a transaction that only the test fixture ends."""

from __future__ import annotations

from sqlalchemy import Connection, event

from sqlmodel_crud_utils._session.databases import begin_immediate
from sqlmodel_crud_utils._session.sqlalchemy_internals import innermost_savepoint, is_autocommitting
from sqlmodel_crud_utils.exceptions import TransactionError, ValidationError


def begin(connection: Connection) -> None:
    """Begin the transaction of a test."""
    if is_autocommitting(connection):
        raise ValidationError(
            "nothing can be undone on an engine with isolation_level AUTOCOMMIT; "
            "use an engine with a transactional isolation level",
            field="engine",
        )
    connection.begin()
    # SQLite's driver begins no transaction before a savepoint, whose release would then commit.
    begin_immediate(connection)
    event.listen(connection, "commit", _refuse_commit)
    event.listen(connection, "release_savepoint", _refuse_overlap)


def end(connection: Connection) -> None:
    """Undo everything, even if the code under test has ended the transaction explicitly."""
    if connection.in_transaction():
        connection.rollback()
    elif not connection.invalidated:
        connection.connection.rollback()


def _refuse_commit(_connection: Connection) -> None:
    raise TransactionError(
        "a test's connection is not committed, so that its writes can be undone; "
        "commit the session, or use a real database for this test",
        operation="commit",
    )


def _refuse_overlap(connection: Connection, savepoint: str, _context: None) -> None:
    # Releasing a savepoint also releases all later ones; the driver's error would not say so.
    if innermost_savepoint(connection) != savepoint:
        raise TransactionError(
            "the sessions of a test share one transaction, so the one that began last must end "
            "first; commit, roll back or close the other session first",
            operation="commit",
        )
