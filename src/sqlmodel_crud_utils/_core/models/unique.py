"""Unique indexes that ignore soft-deleted rows."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Boolean, Column, ColumnElement, Computed, Index, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.base import SchemaEventTarget
from sqlalchemy.sql.compiler import SQLCompiler

from sqlmodel_crud_utils.exceptions import ValidationError

MARKER = "not_deleted_marker"
"""The generated column that such an index ends with: NULL, which is never equal, when deleted."""


def unique_when_not_deleted(*columns: str, name: str | None = None) -> SchemaItem:
    """Declare values unique among the rows that are not soft-deleted.

    An ordinary `unique=True` includes deleted rows, so a deleted name could never be reused. Put
    this into `__table_args__` of a model with `SoftDeleteMixin`. It creates a unique index on these
    columns and `not_deleted_marker`, a column that the database generates. The marker is NULL for a
    deleted row, and NULLs are never equal. This works the same on SQLite, PostgreSQL, MySQL and
    MariaDB (the latter two have no partial indexes), and Alembic sees it like any other index.

    Args:
        columns: The names of the columns whose values are unique together.
        name: The name of the index. The default is built from the names of the table and the
            columns.

    Returns:
        An item for `__table_args__`.

    Raises:
        ValidationError: No column is given; or, when the model is declared, the table lacks one of
            them.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import SoftDeleteMixin, unique_when_not_deleted
        >>> class Member(SQLModel, SoftDeleteMixin, table=True):
        ...     __table_args__ = (unique_when_not_deleted("email"),)
        ...     id: int | None = Field(default=None, primary_key=True)
        ...     email: str
        >>> [index.name for index in Member.__table__.indexes if index.unique]
        ['uq_member_email_not_deleted']
    """
    if not columns:
        raise ValidationError("unique_when_not_deleted needs at least one column")
    return _UniqueWhenNotDeleted(columns, name)


class _UniqueWhenNotDeleted(SchemaItem):
    """Becomes a generated column and an index when the table is created."""

    def __init__(self, columns: tuple[str, ...], name: str | None) -> None:
        self._columns = columns
        self._name = name

    def _set_parent(self, parent: SchemaEventTarget, **_: Any) -> None:
        table = cast("Table", parent)
        missing = [name for name in (*self._columns, "is_deleted") if name not in table.c]
        if missing:
            raise ValidationError(
                f"unique_when_not_deleted: table {table.name!r} has no column {', '.join(missing)}"
                + ("; inherit SoftDeleteMixin" if "is_deleted" in missing else "")
            )
        name = self._name or f"uq_{table.name}_{'_'.join(self._columns)}_not_deleted"
        Index(name, *(table.c[column] for column in self._columns), _marker(table), unique=True)


def _marker(table: Table) -> Column[bool]:
    if MARKER not in table.c:
        table.append_column(Column(MARKER, Boolean, Computed(_null_when_deleted(), persisted=True)))
    return table.c[MARKER]


class _null_when_deleted(ColumnElement[bool]):  # noqa: N801 - SQL functions have such names
    """The value of the generated column: false for a visible row, NULL for a deleted one.

    It is written the way each database reports it, so that Alembic finds no difference.
    """

    type = Boolean()
    inherit_cache = True


@compiles(_null_when_deleted)
def _standard(_element: _null_when_deleted, _compiler: SQLCompiler, **_: Any) -> str:
    return "NULLIF(is_deleted, true)"


@compiles(_null_when_deleted, "mysql", "mariadb")
def _mysql(_element: _null_when_deleted, _compiler: SQLCompiler, **_: Any) -> str:
    return "nullif(`is_deleted`,1)"
