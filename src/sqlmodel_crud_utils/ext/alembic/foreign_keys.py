"""Migrations on SQLite: one transaction, in which foreign keys delete no rows.

A batch operation of Alembic copies a table and drops the old one. If foreign keys are enforced, the
drop first deletes all rows, and thereby rows that refer to them with ON DELETE CASCADE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from sqlmodel_crud_utils._session.databases import begin_again_immediate, begin_immediate, has_begun
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_autocommitting
from sqlmodel_crud_utils.exceptions import ConstraintViolationError, MigrationLockError


@contextmanager
def unchecked(connection: Connection, patience: float) -> Iterator[None]:
    """Do not enforce foreign keys on a connection, which must not be in a transaction."""
    before = [_pragma(connection, name) for name in ("foreign_keys", "busy_timeout")]
    _pragma(connection, f"busy_timeout = {round(patience * 1000)}")
    _pragma(connection, "foreign_keys = OFF")
    try:
        yield
    finally:
        connection.rollback()
        connection.connection.rollback()  # SQLAlchemy sends none after a commit that has failed
        _pragma(connection, f"foreign_keys = {before[0]}")
        _pragma(connection, f"busy_timeout = {before[1]}")


@contextmanager
def begin_checked(connection: Connection, patience: float) -> Iterator[None]:
    """Take the database's lock; until the end, no commit may break foreign keys.

    A revision commits before the end with an `autocommit_block`, or where each has its transaction.

    Raises:
        MigrationLockError: Another process has the lock.
        ConstraintViolationError: Rows refer to rows that no longer exist.
    """
    try:
        begin_again_immediate(connection)
        begin_immediate(connection)
    except OperationalError as error:
        raise MigrationLockError(patience) from error
    before = _broken(connection)

    @event.listens_for(connection, "commit")
    def check(committing: Connection) -> None:
        if not is_autocommitting(committing):
            _check(committing, before)

    yield


def _check(connection: Connection, before: Counter[tuple[str, str]]) -> None:
    new = _broken(connection) - before
    if new:
        (table, parent), count = new.most_common(1)[0]
        rows = "1 row" if count == 1 else f"{count} rows"
        raise ConstraintViolationError(
            f"the migrations leave {rows} of {table} without the rows of {parent} that they refer "
            "to; their transaction is rolled back",
            kind="foreign_key",
        )


def _broken(connection: Connection) -> Counter[tuple[str, str]]:
    found = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return Counter((row[0], row[2]) for row in found)


def _pragma(connection: Connection, statement: str) -> Any:
    """Run a PRAGMA outside a transaction; inside one, `foreign_keys` has no effect."""
    driver: Any = connection.connection.dbapi_connection
    cursor = driver.cursor()
    # A driver with autocommit=False is always in a transaction.
    begun = has_begun(connection)
    if begun:
        cursor.execute("COMMIT")
    cursor.execute(f"PRAGMA {statement}")
    row = cursor.fetchone()
    if begun:
        cursor.execute("BEGIN")
    cursor.close()
    return None if row is None else row[0]
