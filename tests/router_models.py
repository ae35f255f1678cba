"""Three models of a service, with their models of bodies and responses."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from enum import Enum
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel, Field as PydanticField
from sqlalchemy import CheckConstraint
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    VersionMixin,
    acting_as,
    tenant_scope,
    unique_when_not_deleted,
)


class LodgeCreate(SQLModel):
    name: str = Field(min_length=1, max_length=20)
    motto: str | None = Field(default=None, max_length=20)


class Lodge(LodgeCreate, AuditMixin, SoftDeleteMixin, VersionMixin, table=True):
    """A UUID key, versions, soft deletion, an audit trail."""

    __tablename__ = "router_lodge"
    __table_args__ = (unique_when_not_deleted("name"),)

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    owner: str = Field(default="nobody", max_length=20)
    secret: str = "hidden"

    rangers: list["Ranger"] = Relationship(back_populates="lodge")


class CamelLodge(BaseModel):
    """A body with different names."""

    name: str = PydanticField(alias="lodgeName")
    motto: str = PydanticField(alias="lodgeMotto")


class LodgeUpdate(SQLModel):
    name: str | None = Field(default=None, min_length=1, max_length=20)
    motto: str | None = Field(default=None, max_length=20)
    owner: str | None = Field(default=None, max_length=20)


class LodgePublic(SQLModel):
    id: uuid.UUID
    name: str
    motto: str | None
    version: int
    created_by: str | None


class RangerCreate(SQLModel):
    name: str = Field(min_length=1, max_length=20)
    age: int | None = Field(default=None, ge=0, le=1000)
    wage: Decimal | None = Field(default=None, max_digits=8, decimal_places=2)
    lodge_id: uuid.UUID | None = None


class Ranger(RangerCreate, VersionMixin, table=True):
    """A plain key, versions, and a relationship that responses show."""

    __tablename__ = "router_ranger"
    __table_args__ = (CheckConstraint("age <> 13"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=20)
    lodge_id: uuid.UUID | None = Field(default=None, foreign_key="router_lodge.id")

    lodge: Lodge | None = Relationship(back_populates="rangers")


class RangerUpdate(SQLModel):
    name: str | None = Field(default=None, min_length=1, max_length=20)
    age: int | None = Field(default=None, ge=0, le=1000)
    wage: Decimal | None = Field(default=None, max_digits=8, decimal_places=2)
    lodge_id: uuid.UUID | None = None


class RangerPublic(SQLModel):
    id: int
    name: str
    age: int | None
    wage: Decimal | None
    lodge: LodgePublic | None


class BenchCreate(SQLModel):
    row: str = Field(max_length=5, regex="^[a-z]+$")
    number: int = Field(ge=0, le=1000)
    guest: str | None = Field(default=None, max_length=20)


class Bench(BenchCreate, table=True):
    """A composite key."""

    __tablename__ = "router_bench"

    row: str = Field(primary_key=True, max_length=5)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


class BenchUpdate(SQLModel):
    guest: str | None = Field(default=None, max_length=20)


async def acting_ann() -> AsyncIterator[None]:
    """A dependency that sets the user; it is `async def` in services of both APIs."""
    with acting_as("ann"):
        yield


async def in_tenant(x_tenant: Annotated[str, Header()]) -> AsyncIterator[None]:
    """A dependency that sets the tenant of the request."""
    with tenant_scope(x_tenant):
        yield


class ShipCreate(SQLModel):
    name: str = Field(max_length=20)
    fleet_id: int | None = None
    tenant_id: str | None = None


class ShipUpdate(SQLModel):
    name: str | None = None
    fleet_id: int | None = None
    tenant_id: str | None = None


class ShipPublic(SQLModel):
    id: int
    name: str
    fleet_id: int | None


class GuildCreate(SQLModel):
    name: str = Field(max_length=20)


class GuildPublic(GuildCreate):
    id: int


class DocketCreate(SQLModel):
    name: str = Field(max_length=40)
    stock: int | None = None


class DocketUpdate(SQLModel):
    name: str | None = None
    stock: int | None = None


class DocketPublic(DocketCreate):
    id: int


class LodgeWithMore(LodgeCreate):
    """Allows extra fields, which must not be written; one field has a default."""

    model_config = {"extra": "allow"}

    owner: str = "nobody"


class SpanCreate(SQLModel):
    name: str = Field(max_length=20)
    lasts: dt.timedelta | None = None


class Span(SpanCreate, table=True):
    """A duration, which can overflow in Pydantic."""

    __tablename__ = "router_span"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)


class SpanPublic(SpanCreate):
    id: int


class Watch(Enum):
    """A part of a day."""

    NIGHT = "at night"
    DAY = "by day"


class Shift(SQLModel, table=True):
    """A key of types whose format in Python differs from that in URLs."""

    __tablename__ = "router_shift"

    watch: Watch = Field(primary_key=True)
    starts: dt.datetime = Field(primary_key=True)
    lasts: dt.timedelta = Field(primary_key=True)
    guards: int = 1


class ShiftCreate(SQLModel):
    watch: Watch
    starts: dt.datetime
    lasts: dt.timedelta
    guards: int = 1
