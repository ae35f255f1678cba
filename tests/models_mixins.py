"""Neutral table models with the mixins: in every order, combination and relationship."""

import datetime as dt
import uuid
from typing import Any, ClassVar, Optional

from sqlalchemy import Column, Index, Integer, UniqueConstraint
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TimestampMixin,
    UTCDateTime,
    VersionMixin,
    unique_when_not_deleted,
)


class PlayerBadge(SQLModel, SoftDeleteMixin, table=True):
    """A link whose rows can be soft-deleted too."""

    player_id: int | None = Field(default=None, foreign_key="player.id", primary_key=True)
    badge_id: int | None = Field(default=None, foreign_key="badge.id", primary_key=True)


class Club(SQLModel, SoftDeleteMixin, table=True):
    """The "one" side; the mixin comes after SQLModel."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)

    players: list["Player"] = Relationship(back_populates="club")


class Player(SoftDeleteMixin, SQLModel, table=True):
    """The "many" side, also self-referential and many-to-many; the mixin comes before SQLModel."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    club_id: int | None = Field(default=None, foreign_key="club.id")
    captain_id: int | None = Field(default=None, foreign_key="player.id", ondelete="SET NULL")

    club: Club | None = Relationship(back_populates="players")
    captain: Optional["Player"] = Relationship(sa_relationship_kwargs={"remote_side": "Player.id"})
    badges: list["Badge"] = Relationship(back_populates="players", link_model=PlayerBadge)


class Badge(SQLModel, SoftDeleteMixin, table=True):
    """The other end of the many-to-many relationship."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=50)

    players: list[Player] = Relationship(back_populates="badges", link_model=PlayerBadge)


class Fan(SQLModel, table=True):
    """Without the mixin, but related to a model that has it."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    club_id: int | None = Field(default=None, foreign_key="club.id")

    club: Club | None = Relationship()


class Scout(SQLModel, table=True):
    """Related to it too, and loads it eagerly."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    club_id: int | None = Field(default=None, foreign_key="club.id")

    club: Club | None = Relationship(sa_relationship_kwargs={"lazy": "selectin"})


class Visit(SQLModel, TimestampMixin, table=True):
    """Time stamps, and another column of their type."""

    id: int | None = Field(default=None, primary_key=True)
    place: str = Field(default="here", max_length=50)
    until: dt.datetime | None = Field(default=None, sa_type=UTCDateTime)


class NotedBase(SQLModel, AuditMixin):
    """A base class without a table."""

    text: str = Field(max_length=50)


class Memo(NotedBase, table=True):
    """Inherits the audit trail from a base class."""

    id: int | None = Field(default=None, primary_key=True)


class Letter(NotedBase, SoftDeleteMixin, table=True):
    """Inherits it too; each has its own columns."""

    id: int | None = Field(default=None, primary_key=True)


class Parcel(VersionMixin, AuditMixin, SoftDeleteMixin, SQLModel, table=True):
    """All mixins, with its own key, table arguments and mapper arguments."""

    __table_args__: ClassVar[Any] = (
        UniqueConstraint("code", "size", name="uq_parcel_code_size"),
        Index("ix_parcel_size", "size"),
        {"comment": "what is on its way"},
    )
    __mapper_args__: ClassVar[Any] = {"confirm_deleted_rows": False}

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    code: str = Field(max_length=20)
    size: int = 1


class Counter(SQLModel, VersionMixin, table=True):
    """Only versions."""

    id: int | None = Field(default=None, primary_key=True)
    value: int = 0


_REVISION = Column("revision", Integer, nullable=False)


class Revision(SQLModel, VersionMixin, table=True):
    """Its own version column besides the mixin's."""

    __mapper_args__: ClassVar[Any] = {"version_id_col": _REVISION}

    id: int | None = Field(default=None, primary_key=True)
    revision: int = Field(default=1, sa_column=_REVISION)


class Membership(SQLModel, SoftDeleteMixin, table=True):
    """Values that must be unique among visible rows."""

    __table_args__ = (
        unique_when_not_deleted("email"),
        unique_when_not_deleted("realm", "nick", name="uq_nick"),
    )

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(max_length=50)
    realm: str = Field(default="main", max_length=20)
    nick: str = Field(max_length=20)


class Voucher(SQLModel, SoftDeleteMixin, table=True):
    """Values that must be unique among all rows, including deleted ones."""

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(unique=True, max_length=20)
    email: str = Field(unique=True, max_length=50)
    owner_id: int | None = Field(default=None, foreign_key="player.id")


class Trunk(SoftDeleteMixin, SQLModel, table=True):
    """Is deleted along with its boughs, and they with their twigs."""

    id: int | None = Field(default=None, primary_key=True)

    boughs: list["Bough"] = Relationship(back_populates="trunk", cascade_delete=True)


class Bough(SoftDeleteMixin, SQLModel, table=True):
    """The first level below."""

    id: int | None = Field(default=None, primary_key=True)
    trunk_id: int = Field(foreign_key="trunk.id")

    trunk: Trunk = Relationship(back_populates="boughs")
    twigs: list["Twig"] = Relationship(back_populates="bough", cascade_delete=True)


class Twig(SoftDeleteMixin, SQLModel, table=True):
    """The second."""

    id: int | None = Field(default=None, primary_key=True)
    bough_id: int = Field(foreign_key="bough.id")

    bough: Bough = Relationship(back_populates="twigs")
