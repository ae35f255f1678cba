"""Update or delete many rows of a large table in small transactions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Delete, Update, select

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = ["backfill"]


def backfill(op: Any, statement: Update | Delete, *, by: Any, size: int = 5_000) -> int:
    """Run an UPDATE or DELETE of many rows in chunks, and commit each, so that locks are brief.

    Give it a revision of its own: earlier steps of the revision are committed with the first chunk.
    After a crash, run the revision again; it continues with the rows that its WHERE still finds.

    On SQLite, where a migration locks the whole database, all chunks are one transaction. With
    `--sql` it is one statement.

    Args:
        op: Alembic's `op`.
        statement: An `update()` or `delete()` whose WHERE leaves out the rows that are already
            done.
        by: A column of the table that is unique and never NULL, such as its key. Chunks follow its
            order.
        size: How many rows are in a chunk, 1 or more.

    Returns:
        How many rows were written; 0 with `--sql`.

    Raises:
        ValidationError: A statement without WHERE, one that is not an `update()` or `delete()` of a
            table, a column of another table, or a size below 1.

    Example:
        In a revision:

        ```python
        hero = sa.table("hero", sa.column("id"), sa.column("age"))
        backfill(op, sa.update(hero).values(age=0).where(hero.c.age.is_(None)), by=hero.c.id)
        ```
    """
    _check(statement, by, size)
    migration = op.get_context()
    if migration.as_sql:
        op.execute(statement)
        return 0
    if features_of(migration.dialect).single_writer:
        return _run(migration.connection, statement, by, size)
    with migration.autocommit_block():
        return _run(migration.connection, statement, by, size)


def _check(statement: Any, by: Any, size: Any) -> None:
    if not isinstance(statement, Update | Delete):
        raise ValidationError(
            f"must be an update() or a delete(), not {type(statement).__name__}", "statement"
        )
    if statement.whereclause is None:
        raise ValidationError(
            "has no WHERE; add a where(...) that selects the rows still to be done", "statement"
        )
    if getattr(by, "table", None) is not statement.table:
        raise ValidationError("must be a column of the table that is written to", "by")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValidationError("must be a whole number, 1 or more", "size", size)


def _run(connection: Connection, statement: Any, by: Column[Any], size: int) -> int:
    written, last = 0, None
    while True:
        rest = statement.whereclause if last is None else statement.whereclause & (by > last)
        keys = select(by.label("key")).where(rest).order_by(by).limit(size).subquery()
        # PostgreSQL has no max() of a UUID.
        upper = connection.scalar(select(keys.c.key).order_by(keys.c.key.desc()).limit(1))
        if upper is None:
            return written
        chunk = statement.where(by <= upper)
        written += connection.execute(chunk if last is None else chunk.where(by > last)).rowcount
        last = upper
