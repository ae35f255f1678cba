"""Unique constraints and foreign keys within a tenant."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import (
    ForeignKeyConstraint,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.base import SchemaEventTarget

from sqlmodel_crud_utils.exceptions import ValidationError

TENANT = "tenant_id"

ROWS_OF_TENANTS = "sqlmodel_crud_utils.rows_of_tenants"
"""In the `info` of a table: its rows belong to tenants, or to nobody where `tenant_id` is NULL."""

_TARGETS = "sqlmodel_crud_utils.tenant_targets"


def tenant_unique(*columns: str, name: str | None = None) -> UniqueConstraint:
    """Declare that values are unique among the rows of a tenant.

    An ordinary `unique=True` counts the rows of all tenants: a value that another tenant has cannot
    be used, which reveals that it exists. Upserts find the key by these columns, without
    `tenant_id`. Where deleted rows do not count, use `unique_when_not_deleted("tenant_id", ...)`.

    Args:
        columns: The names of the columns whose values are unique together.
        name: The name of the constraint; left out, the naming convention or the database names it.

    Returns:
        An item for `__table_args__`.

    Raises:
        ValidationError: No column is given.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import TenantMixin, tenant_unique
        >>> class Shop(SQLModel, TenantMixin, table=True):
        ...     __table_args__ = (tenant_unique("name"),)
        ...     id: int | None = Field(default=None, primary_key=True)
        ...     name: str
    """
    if not columns:
        raise ValidationError("tenant_unique needs at least one column")
    return UniqueConstraint(TENANT, *columns, name=name)


def tenant_foreign_key(
    column: str, target: str, *, name: str | None = None, ondelete: str | None = None
) -> SchemaItem:
    """Declare a foreign key that leads to rows of the same tenant only.

    It makes a constraint on `(tenant_id, column)`, and the unique constraint that the target needs
    for it. Without it the database accepts the key of another tenant's row.

    The column has no other foreign key. A relationship along it says which column leads:
    `sa_relationship_kwargs={"foreign_keys": "Hero.team_id"}`.

    Args:
        column: The name of the column.
        target: The column that it refers to, as `table.column`; that table has a `tenant_id`.
        name: The name of the constraint.
        ondelete: "CASCADE", "RESTRICT" or "NO ACTION"; the others would touch `tenant_id`.

    Returns:
        An item for `__table_args__`.

    Raises:
        ValidationError: A target that is not a column of a table, or another `ondelete`.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import TenantMixin, tenant_foreign_key
        >>> class Fleet(SQLModel, TenantMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> class Ship(SQLModel, TenantMixin, table=True):
        ...     __table_args__ = (tenant_foreign_key("fleet_id", "fleet.id"),)
        ...     id: int | None = Field(default=None, primary_key=True)
        ...     fleet_id: int | None = None
    """
    table, _, referred = target.rpartition(".")
    if not table or not referred:
        raise ValidationError(
            f"{target!r} is not a column: give it as table.column", field="target"
        )
    if ondelete is not None and ondelete.upper() not in {"CASCADE", "RESTRICT", "NO ACTION"}:
        raise ValidationError(
            f"{ondelete} would write to tenant_id too; use CASCADE, RESTRICT or NO ACTION",
            field="ondelete",
        )
    return _TenantForeignKey(column, table, referred, name, ondelete)


class _TenantForeignKey(SchemaItem):
    """Becomes a composite foreign key when the table is created."""

    def __init__(
        self, column: str, table: str, referred: str, name: str | None, ondelete: str | None
    ) -> None:
        self._column = column
        self._target = table, referred
        self._name = name
        self._ondelete = ondelete

    def _set_parent(self, parent: SchemaEventTarget, **_: Any) -> None:
        table = cast("Table", parent)
        target, referred = self._target
        constraint = ForeignKeyConstraint(
            [TENANT, self._column],
            [f"{target}.{TENANT}", f"{target}.{referred}"],
            name=self._name,
            ondelete=self._ondelete,
        )
        table.append_constraint(constraint)
        table.metadata.info.setdefault(_TARGETS, {})[target, referred] = True
        make_targets_unique(table.metadata)


def make_targets_unique(metadata: MetaData) -> None:
    """Add the unique constraints that the targets of tenants' foreign keys need.

    A target may be declared after the table that refers to it: then it is too early for it.
    """
    for target, referred in metadata.info.get(_TARGETS, ()):
        table = metadata.tables.get(target)
        if table is not None and not _is_unique(table, {TENANT, referred}):
            table.append_constraint(UniqueConstraint(TENANT, referred))


def _is_unique(table: Table, names: set[str]) -> bool:
    return any(
        isinstance(each, UniqueConstraint | PrimaryKeyConstraint)
        and set(each.columns.keys()) == names
        for each in table.constraints
    )
