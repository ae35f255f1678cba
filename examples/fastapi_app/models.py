"""The tables, and the models of request and response bodies."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.ext.history import TrackChangesMixin
from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TimestampMixin,
    VersionMixin,
    unique_when_not_deleted,
)

# --- Teams and tags ------------------------------------------------------------------------------


class TeamCreate(SQLModel):
    name: str = Field(min_length=1, max_length=100)
    city: str | None = Field(default=None, max_length=100)


class Team(TeamCreate, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)

    heroes: list["Hero"] = Relationship(back_populates="team")


class TeamPublic(TeamCreate):
    id: int


class HeroTag(SQLModel, table=True):
    hero_id: int = Field(foreign_key="hero.id", primary_key=True)
    tag_id: int = Field(foreign_key="tag.id", primary_key=True)


class Tag(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(unique=True, max_length=50)

    heroes: list["Hero"] = Relationship(back_populates="tags", link_model=HeroTag)


class TagPublic(SQLModel):
    label: str


# --- Heroes --------------------------------------------------------------------------------------


class HeroCreate(SQLModel):
    name: str = Field(min_length=1, max_length=100, description="No two heroes share a name.")
    secret_name: str = Field(min_length=1, max_length=100)
    age: int | None = Field(default=None, ge=0, le=100_000, description="In years.")
    team_id: int | None = None


class HeroUpdate(SQLModel):
    """The body of a PATCH; fields that it leaves out stay unchanged."""

    name: str | None = Field(default=None, min_length=1, max_length=100)
    secret_name: str | None = Field(default=None, min_length=1, max_length=100)
    age: int | None = Field(default=None, ge=0, le=100_000)
    team_id: int | None = None


class Hero(HeroCreate, AuditMixin, SoftDeleteMixin, VersionMixin, TrackChangesMixin, table=True):
    __track_redact__ = ("secret_name",)
    __table_args__ = (unique_when_not_deleted("name"),)

    id: int | None = Field(default=None, primary_key=True)
    team_id: int | None = Field(default=None, foreign_key="team.id")

    team: Team | None = Relationship(back_populates="heroes")
    tags: list[Tag] = Relationship(back_populates="heroes", link_model=HeroTag)


class HeroPublic(SQLModel):
    """A hero without the secret name."""

    id: int
    name: str
    age: int | None
    version: int
    created_by: str | None
    updated_by: str | None
    team: TeamPublic | None
    tags: list[TagPublic]


class ChangePublic(SQLModel):
    """A change of a hero; the values of the secret name are redacted."""

    operation: str
    changes: dict[str, list[Any]]
    changed_by: str | None
    changed_at: datetime


# --- The outbox ----------------------------------------------------------------------------------


class Message(TimestampMixin, SQLModel, table=True):
    """A message to other services, sent after the commit."""

    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(max_length=200)
    sent: bool = Field(default=False, index=True)


class MessagePublic(SQLModel):
    text: str
    sent: bool
