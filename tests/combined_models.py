"""A table model with all features."""

from typing import Any, ClassVar

from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.ext.history import TrackChangesMixin
from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TenantMixin,
    VersionMixin,
    tenant_unique,
)


class Consignment(
    SQLModel,
    TenantMixin,
    VersionMixin,
    SoftDeleteMixin,
    AuditMixin,
    TrackChangesMixin,
    table=True,
):
    """A row with a tenant, versions, stamps, soft deletion and a history."""

    __table_args__: ClassVar[Any] = (tenant_unique("name"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    worth: int | None = None
