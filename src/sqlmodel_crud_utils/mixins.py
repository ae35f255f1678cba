"""Mixins for table models: time stamps, audit trail, soft delete, optimistic locking."""

from sqlmodel_crud_utils._core.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TimestampMixin,
    UTCDateTime,
    VersionMixin,
    acting_as,
    current_actor,
    unique_when_visible,
)

__all__ = [
    "AuditMixin",
    "SoftDeleteMixin",
    "TimestampMixin",
    "UTCDateTime",
    "VersionMixin",
    "acting_as",
    "current_actor",
    "unique_when_visible",
]
