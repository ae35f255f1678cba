"""The columns of the mixins, for existing tables with rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    column,
    select,
    table as table_named,
    update,
)

from sqlmodel_crud_utils._core.values.current_tenant import TENANT_NAME
from sqlmodel_crud_utils._core.values.datetimes import UTCDateTime
from sqlmodel_crud_utils._core.values.server_defaults import No, UTCNow
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = [
    "add_audit",
    "add_soft_delete",
    "add_tenant",
    "add_timestamps",
    "add_version",
    "drop_audit",
    "drop_soft_delete",
    "drop_tenant",
    "drop_timestamps",
    "drop_version",
]

_NAME_LENGTH = 100
_TIMESTAMPS = ("created_at", "updated_at")
_AUDIT = (*_TIMESTAMPS, "created_by", "updated_by")
_SOFT_DELETE = ("deleted_at", "deleted_by", "is_deleted")
_TENANT = "tenant_id"


def add_timestamps(op: Any, table: str, *, schema: str | None = None) -> None:
    """Add the columns of `TimestampMixin`; existing rows get the time of the migration.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `add_timestamps(op, "hero")`.
    """
    _add(op, table, schema, _timestamps())


def add_audit(op: Any, table: str, *, schema: str | None = None) -> None:
    """Add the columns of `AuditMixin`; existing rows have no known creator.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `add_audit(op, "hero")`.
    """
    names = [Column(name, String(_NAME_LENGTH)) for name in ("created_by", "updated_by")]
    _add(op, table, schema, [*_timestamps(), *names])


def add_soft_delete(op: Any, table: str, *, schema: str | None = None) -> None:
    """Add the columns and the index of `SoftDeleteMixin`; existing rows are not deleted.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `add_soft_delete(op, "hero")`.
    """
    flags: list[Column[Any]] = [
        Column("deleted_at", UTCDateTime()),
        Column("deleted_by", String(_NAME_LENGTH)),
        Column("is_deleted", Boolean(), nullable=False, server_default=No()),
    ]
    _add(op, table, schema, flags)
    _create_index(op, table, schema, "is_deleted")


def add_version(op: Any, table: str, *, schema: str | None = None) -> None:
    """Add the column of `VersionMixin`; existing rows start with version 1.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `add_version(op, "hero")`.
    """
    _add(op, table, schema, [Column("version", Integer(), nullable=False, server_default="1")])


def add_tenant(
    op: Any, table: str, *, tenant: str | None = None, schema: str | None = None
) -> None:
    """Add the column and the index of `TenantMixin`.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        tenant: The tenant of the existing rows; not needed for an empty table.
        schema: The table's schema, if it is not the default one.

    Raises:
        ValidationError: The table has rows, and no tenant is given.

    Example:
        In a revision: `add_tenant(op, "hero", tenant="acme")`.
    """
    if tenant is None and _has_rows(op, table, schema):
        raise ValidationError(
            f"{table} has rows; say which tenant they belong to: "
            f'add_tenant(op, "{table}", tenant="...")',
            field="tenant",
        )
    with op.batch_alter_table(table, schema=schema) as batch:
        batch.add_column(Column(_TENANT, TENANT_NAME, nullable=True))
    if tenant is not None:
        rows = table_named(table, column(_TENANT, TENANT_NAME), schema=schema)
        op.execute(update(rows).values({_TENANT: tenant}))
    with op.batch_alter_table(table, schema=schema) as batch:
        batch.alter_column(_TENANT, existing_type=TENANT_NAME, nullable=False)
    _create_index(op, table, schema, _TENANT)


def drop_timestamps(op: Any, table: str, *, schema: str | None = None) -> None:
    """Drop the columns of `TimestampMixin`.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `drop_timestamps(op, "hero")`.
    """
    _drop(op, table, schema, _TIMESTAMPS)


def drop_audit(op: Any, table: str, *, schema: str | None = None) -> None:
    """Drop the columns of `AuditMixin`.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `drop_audit(op, "hero")`.
    """
    _drop(op, table, schema, _AUDIT)


def drop_soft_delete(op: Any, table: str, *, schema: str | None = None) -> None:
    """Drop the columns and the index of `SoftDeleteMixin`; deleted rows reappear.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `drop_soft_delete(op, "hero")`.
    """
    _drop(op, table, schema, _SOFT_DELETE, indexed="is_deleted")


def drop_version(op: Any, table: str, *, schema: str | None = None) -> None:
    """Drop the column of `VersionMixin`.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `drop_version(op, "hero")`.
    """
    _drop(op, table, schema, ("version",))


def drop_tenant(op: Any, table: str, *, schema: str | None = None) -> None:
    """Drop the column and the index of `TenantMixin`; all rows become visible to everybody.

    Args:
        op: Alembic's `op`.
        table: The name of the table.
        schema: The table's schema, if it is not the default one.

    Example:
        In a revision: `drop_tenant(op, "hero")`.
    """
    _drop(op, table, schema, (_TENANT,), indexed=_TENANT)


# --- implementation ------------------------------------------------------------------------------


def _timestamps() -> list[Column[Any]]:
    return [
        Column("created_at", UTCDateTime(), nullable=False, server_default=UTCNow()),
        Column("updated_at", UTCDateTime()),
    ]


def _add(op: Any, table: str, schema: str | None, columns: Sequence[Column[Any]]) -> None:
    with op.batch_alter_table(table, schema=schema) as batch:
        for each in columns:
            batch.add_column(each)


def _drop(
    op: Any, table: str, schema: str | None, names: Sequence[str], indexed: str | None = None
) -> None:
    if indexed is not None:
        op.drop_index(_index_name(op, table, schema, indexed), table_name=table, schema=schema)
    with op.batch_alter_table(table, schema=schema) as batch:
        for name in names:
            batch.drop_column(name)


def _create_index(op: Any, table: str, schema: str | None, name: str) -> None:
    op.create_index(_index_name(op, table, schema, name), table, [name], schema=schema)


def _index_name(op: Any, table: str, schema: str | None, name: str) -> str:
    """Return the name that a column's index has in the project's models."""
    models = op.get_context().opts.get("target_metadata")
    convention = None if models is None else models.naming_convention
    described = Table(table, MetaData(naming_convention=convention), Column(name), schema=schema)
    return str(op.f(Index(None, described.c[name]).name))


def _has_rows(op: Any, table: str, schema: str | None) -> bool:
    migration = op.get_context()
    if migration.as_sql:
        return False
    rows = table_named(table, schema=schema)
    found = migration.connection.execute(select(1).select_from(rows).limit(1))
    return found.first() is not None
