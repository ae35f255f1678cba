"""The mixins, as definitions: columns with their types, defaults and indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, dataclass_transform

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import String
from sqlmodel import Field

from sqlmodel_crud_utils._core.models.tenant_keys import tenant_foreign_key, tenant_unique
from sqlmodel_crud_utils._core.models.unique import unique_when_not_deleted
from sqlmodel_crud_utils._core.values.actors import acting_as, current_actor
from sqlmodel_crud_utils._core.values.current_tenant import (
    TENANT_NAME,
    all_tenants,
    current_tenant,
    tenant_scope,
)
from sqlmodel_crud_utils._core.values.datetimes import UTCDateTime, utc_now
from sqlmodel_crud_utils._core.values.server_defaults import No, UTCNow

__all__ = [
    "AuditMixin",
    "SoftDeleteMixin",
    "TenantMixin",
    "TimestampMixin",
    "UTCDateTime",
    "VersionMixin",
    "acting_as",
    "all_tenants",
    "current_actor",
    "current_tenant",
    "tenant_foreign_key",
    "tenant_scope",
    "tenant_unique",
    "unique_when_not_deleted",
]

# Documentation and migrations look for it there.
UTCDateTime.__module__ = "sqlmodel_crud_utils.mixins"

_NAME_LENGTH = 100

if TYPE_CHECKING:
    # SQLModel and BaseModel declare some methods differently, and a checker would report that for
    # every model that inherits both. So type checkers see only the fields.
    @dataclass_transform(kw_only_default=True, field_specifiers=(Field,))
    class _Fields: ...

else:
    _Fields = BaseModel


class TimestampMixin(_Fields):
    """When a row was created, and when it was last changed.

    All datetimes are timezone-aware, and in UTC when read. A naive one raises a `ValidationError`.

    Attributes:
        created_at: Set when the object is created; set by the database for rows that are inserted
            without the ORM.
        updated_at: None until the first update; set by every UPDATE, ORM or Core, upserts
            included.

    Example:
        >>> from datetime import datetime
        >>> class Stamped(SQLModel, TimestampMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> Stamped(created_at=datetime(2025, 1, 1))
        Traceback (most recent call last):
        sqlmodel_crud_utils.exceptions.ValidationError: Validation failed for 'created_at': ...
    """

    created_at: AwareDatetime = Field(
        default_factory=utc_now,
        sa_type=UTCDateTime,
        sa_column_kwargs={"server_default": UTCNow()},
    )
    updated_at: AwareDatetime | None = Field(
        default=None, sa_type=UTCDateTime, sa_column_kwargs={"onupdate": utc_now}
    )


class AuditMixin(TimestampMixin):
    """When a row was created and last changed, and by whom.

    The names come from `acting_as`; a value that you set explicitly wins. An update outside
    `acting_as` sets `updated_by` to None, as nobody knows who made the last change.

    Attributes:
        created_by: Who created the row.
        updated_by: Who changed it last.

    Example:
        >>> class Page(SQLModel, AuditMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> Page.__table__.c.created_by.type
        String(length=100)
    """

    created_by: str | None = Field(
        default=None,
        max_length=_NAME_LENGTH,
        sa_type=String(_NAME_LENGTH),
        sa_column_kwargs={"default": current_actor},
    )
    updated_by: str | None = Field(
        default=None,
        max_length=_NAME_LENGTH,
        sa_type=String(_NAME_LENGTH),
        sa_column_kwargs={"onupdate": current_actor},
    )


class SoftDeleteMixin(_Fields):
    """Rows that are marked as deleted instead of being removed.

    `delete_row` marks them, and the library's reads leave them out unless you pass
    `include_deleted=True`.

    Attributes:
        deleted_at: When the row was deleted; None if it is not deleted.
        deleted_by: Who deleted it, if known.
        is_deleted: Whether it is deleted; indexed.

    Example:
        >>> class Memo(SQLModel, SoftDeleteMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> memo = Memo()
        >>> memo.soft_delete("alice")
        >>> memo.is_deleted, memo.deleted_by
        (True, 'alice')
        >>> memo.restore()
        >>> memo.is_deleted, memo.deleted_at, memo.deleted_by
        (False, None, None)
    """

    deleted_at: AwareDatetime | None = Field(default=None, sa_type=UTCDateTime)
    deleted_by: str | None = Field(
        default=None, max_length=_NAME_LENGTH, sa_type=String(_NAME_LENGTH)
    )
    is_deleted: bool = Field(default=False, index=True, sa_column_kwargs={"server_default": No()})

    def soft_delete(self, user: str | None = None) -> None:
        """Mark the row as deleted; the next flush writes it.

        Args:
            user: Who deletes it. The default is whoever `acting_as` names.
        """
        self.is_deleted = True
        self.deleted_at = utc_now()
        self.deleted_by = current_actor() if user is None else user

    def restore(self) -> None:
        """Restore the row; the next flush writes it."""
        self.is_deleted = False
        self.deleted_at = None
        self.deleted_by = None


class VersionMixin(_Fields):
    """Optimistic locking: a write is refused if the row has changed since it was read.

    Every update increments `version`. An update or delete of a row whose version differs from the
    one that was read raises a `ConflictError`; plain SQLAlchemy raises `StaleDataError`.

    Attributes:
        version: 1 for a new row; incremented by every UPDATE.

    Example:
        >>> class Stock(SQLModel, VersionMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> Stock().version
        1
    """

    version: int = Field(default=1, sa_column_kwargs={"server_default": "1"})


class TenantMixin(_Fields):
    """Rows that belong to a tenant, and that no other tenant can read or write.

    Every statement of a session reaches only the rows of one tenant, which `tenant_scope` names.
    Without a tenant it raises a `TenantError` before anything is sent. New rows get the tenant
    automatically, and keep it.

    A model may redeclare the column, with another type or a foreign key:
    `tenant_id: int = Field(default=None, foreign_key="tenant.id", index=True)`.

    Attributes:
        tenant_id: The tenant: a string of at most 100 characters, indexed.

    Example:
        >>> class Contract(SQLModel, TenantMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        ...     title: str
        >>> Contract.__table__.c.tenant_id.nullable
        False
    """

    tenant_id: str = Field(
        default=None,
        max_length=_NAME_LENGTH,
        sa_type=TENANT_NAME,
        index=True,
        nullable=False,
    )
