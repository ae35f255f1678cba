"""Table models for the tests of changes."""

from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.mixins import AuditMixin, SoftDeleteMixin, VersionMixin


class Watched(SQLModel, table=True):
    """A plain model, for which every shortcut applies."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=40)
    stock: int = Field(default=0)


class Guarded(SQLModel, SoftDeleteMixin, AuditMixin, VersionMixin, table=True):
    """A model with stamps, soft deletion and versions, which is written by the unit of work."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=40)
    stock: int = Field(default=0)
