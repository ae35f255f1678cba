"""Table models of a small project with migrations, separate from those of the other tests."""

from typing import Any

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TenantMixin,
    TimestampMixin,
    VersionMixin,
)


class Base(SQLModel, registry=registry()):
    """Models with a separate metadata."""


class Ship(Base, table=True):
    """A parent whose table a batch operation copies on SQLite."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50, unique=True)


class Sailor(Base, table=True):
    """Its children, which are deleted with it."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50, index=True)
    age: int | None = None
    ship_id: int | None = Field(default=None, foreign_key="ship.id", ondelete="CASCADE")


class Mixed(SQLModel, registry=registry()):
    """Models with the mixins, in a separate metadata."""


class Stamped(Mixed, TimestampMixin, table=True):
    """The table `stamped`."""

    id: int | None = Field(default=None, primary_key=True)


class Audited(Mixed, AuditMixin, table=True):
    """The table `audited`."""

    id: int | None = Field(default=None, primary_key=True)


class Deletable(Mixed, SoftDeleteMixin, table=True):
    """The table `deletable`."""

    id: int | None = Field(default=None, primary_key=True)


class Versioned(Mixed, VersionMixin, table=True):
    """The table `versioned`."""

    id: int | None = Field(default=None, primary_key=True)


class Rented(Mixed, TenantMixin, table=True):
    """The table `rented`."""

    id: int | None = Field(default=None, primary_key=True)


ENGINES: list[Any] = []
"""The engine that an env.py uses, if a test provides it."""
