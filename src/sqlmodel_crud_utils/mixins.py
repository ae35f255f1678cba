"""Mixins for table models: time stamps, audit trail, soft delete, optimistic locking, tenants.

List them before or after `SQLModel` among the bases, alone or together. They add columns with their
types, defaults and indexes. All fields have defaults, so you never need to set them.

Example:
    >>> from sqlmodel_crud_utils.mixins import AuditMixin, SoftDeleteMixin, acting_as
    >>> class Note(SQLModel, AuditMixin, SoftDeleteMixin, table=True):
    ...     id: int | None = Field(default=None, primary_key=True)
    ...     text: str
    >>> note = Note(text="Buy milk")
    >>> note.created_at.tzinfo, note.updated_at, note.is_deleted
    (datetime.timezone.utc, None, False)

In migrations, Alembic writes the type of the time columns as
`sqlmodel_crud_utils.mixins.UTCDateTime()`. With `run_migrations` of `ext.alembic`, revisions import
it by themselves; otherwise add `import sqlmodel_crud_utils.mixins` to the template of the
migrations (`script.py.mako`).
"""

from sqlmodel_crud_utils._core.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TenantMixin,
    TimestampMixin,
    UTCDateTime,
    VersionMixin,
    acting_as,
    all_tenants,
    current_actor,
    current_tenant,
    tenant_foreign_key,
    tenant_scope,
    tenant_unique,
    unique_when_not_deleted,
)
from sqlmodel_crud_utils._core.visibility.row_security import row_security
from sqlmodel_crud_utils._session import model_events as _model_events  # noqa: F401 - it listens

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
    "row_security",
    "tenant_foreign_key",
    "tenant_scope",
    "tenant_unique",
    "unique_when_not_deleted",
]
