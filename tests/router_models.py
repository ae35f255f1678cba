"""Three models of a service, and what of them comes in and goes out."""

import uuid
from collections.abc import AsyncIterator

from sqlalchemy import CheckConstraint
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    VersionMixin,
    acting_as,
    unique_when_visible,
)


class GuildCreate(SQLModel):
    name: str = Field(min_length=1, max_length=20)
    motto: str | None = Field(default=None, max_length=20)


class Guild(GuildCreate, AuditMixin, SoftDeleteMixin, VersionMixin, table=True):
    """A UUID key, versions, soft deletion, an audit trail."""

    __tablename__ = "router_guild"
    __table_args__ = (unique_when_visible("name"),)

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    owner: str = Field(default="nobody", max_length=20)
    secret: str = "hidden"

    members: list["Member"] = Relationship(back_populates="guild")


class GuildUpdate(SQLModel):
    name: str | None = Field(default=None, min_length=1, max_length=20)
    motto: str | None = Field(default=None, max_length=20)
    owner: str | None = Field(default=None, max_length=20)


class GuildPublic(SQLModel):
    id: uuid.UUID
    name: str
    motto: str | None
    version: int
    created_by: str | None


class MemberCreate(SQLModel):
    name: str = Field(min_length=1, max_length=20)
    age: int | None = Field(default=None, ge=0, le=1000)
    guild_id: uuid.UUID | None = None


class Member(MemberCreate, VersionMixin, table=True):
    """A plain key, versions, and a relationship that goes out."""

    __tablename__ = "router_member"
    __table_args__ = (CheckConstraint("age <> 13"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=20)
    guild_id: uuid.UUID | None = Field(default=None, foreign_key="router_guild.id")

    guild: Guild | None = Relationship(back_populates="members")


class MemberUpdate(SQLModel):
    name: str | None = Field(default=None, min_length=1, max_length=20)
    age: int | None = Field(default=None, ge=0, le=1000)
    guild_id: uuid.UUID | None = None


class MemberPublic(SQLModel):
    id: int
    name: str
    age: int | None
    guild: GuildPublic | None


class ChairCreate(SQLModel):
    row: str = Field(max_length=5, regex="^[a-z]+$")
    number: int = Field(ge=0, le=1000)
    guest: str | None = Field(default=None, max_length=20)


class Chair(ChairCreate, table=True):
    """A composite key."""

    __tablename__ = "router_chair"

    row: str = Field(primary_key=True, max_length=5)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


class ChairUpdate(SQLModel):
    guest: str | None = Field(default=None, max_length=20)


async def acting_ann() -> AsyncIterator[None]:
    """A dependency that names the user; it is `async def` in services of both APIs."""
    with acting_as("ann"):
        yield
