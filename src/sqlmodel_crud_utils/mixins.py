"""Mixins for table models: time stamps, audit trail, soft delete, optimistic locking."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import false
from sqlmodel import Field

from sqlmodel_crud_utils._core.actors import acting_as, current_actor
from sqlmodel_crud_utils._core.datetimes import utc_now

__all__ = ["AuditMixin", "SoftDeleteMixin", "TimestampMixin", "VersionMixin", "acting_as"]


class TimestampMixin(BaseModel):
    created_at: AwareDatetime = Field(default_factory=utc_now)
    updated_at: AwareDatetime | None = Field(default=None, sa_column_kwargs={"onupdate": utc_now})


class AuditMixin(TimestampMixin):
    created_by: str | None = Field(
        default=None, max_length=100, sa_column_kwargs={"default": current_actor}
    )
    updated_by: str | None = Field(
        default=None, max_length=100, sa_column_kwargs={"onupdate": current_actor}
    )


class SoftDeleteMixin(BaseModel):
    is_deleted: bool = Field(
        default=False, index=True, sa_column_kwargs={"server_default": false()}
    )
    deleted_at: AwareDatetime | None = Field(default=None)
    deleted_by: str | None = Field(default=None, max_length=100)


class VersionMixin(BaseModel):
    version: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
