"""Neutral table models that the tests of both trees share.

A table may be declared only once per metadata, and the async tests are copied into sync twins,
so models live here (or in another neutral module beside this one), never in a test module.
"""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

from pydantic import NaiveDatetime
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Text,
    UniqueConstraint,
)
from sqlmodel import Field, Relationship, SQLModel


class Team(SQLModel, table=True):
    """A team of heroes; its name is unique."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    city: str | None = None

    heroes: list["Hero"] = Relationship(back_populates="team")


class HeroTag(SQLModel, table=True):
    """The link between heroes and tags: a table that consists of its composite key."""

    hero_id: int | None = Field(default=None, foreign_key="hero.id", primary_key=True)
    tag_id: int | None = Field(default=None, foreign_key="tag.id", primary_key=True)


class Hero(SQLModel, table=True):
    """The main character: a unique name, a nullable age, an optional team, any number of tags."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    secret_name: str
    age: int | None = Field(default=None, index=True)
    team_id: int | None = Field(default=None, foreign_key="team.id")

    team: Team | None = Relationship(back_populates="heroes")
    tags: list["Tag"] = Relationship(back_populates="heroes", link_model=HeroTag)


class Tag(SQLModel, table=True):
    """A label, many to many with heroes."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(unique=True, max_length=100)

    heroes: list[Hero] = Relationship(back_populates="tags", link_model=HeroTag)


class Seat(SQLModel, table=True):
    """A composite key: a row and a number."""

    row: str = Field(primary_key=True, max_length=10)
    number: int = Field(primary_key=True)
    guest: str | None = None


class Document(SQLModel, table=True):
    """A UUID key that Python makes."""

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    title: str


class Currency(SQLModel, table=True):
    """A string key that is not named "id"."""

    code: str = Field(primary_key=True, max_length=3)
    name: str
    numeric: int | None = None


class Invoice(SQLModel, table=True):
    """An integer key that is not named "id"."""

    number: int | None = Field(default=None, primary_key=True)
    customer: str
    total: Decimal = Field(default=Decimal(0), sa_type=Numeric(12, 4))


class Colour(enum.Enum):
    """The values of `AllTypes.colour`; names and values differ on purpose."""

    RED = "red"
    GREEN = "green"


class AllTypes(SQLModel, table=True):
    """One nullable column of every type that filters and coercion must know."""

    id: int | None = Field(default=None, primary_key=True)
    integer: int | None = None
    big: int | None = Field(default=None, sa_type=BigInteger)
    text: str | None = None
    long_text: str | None = Field(default=None, sa_type=Text)
    real: float | None = None
    amount: Decimal | None = Field(default=None, sa_type=Numeric(12, 4))
    flag: bool | None = None
    day: dt.date | None = None
    moment: dt.datetime | None = None
    naive_moment: NaiveDatetime | None = None
    clock: dt.time | None = None
    duration: dt.timedelta | None = None
    token: uuid.UUID | None = None
    colour: Colour | None = None
    blob: bytes | None = Field(default=None, sa_type=LargeBinary)
    payload: dict[str, Any] | None = Field(default=None, sa_type=JSON)


class Setting(SQLModel, table=True):
    """Defaults of every kind: by the server, by SQLAlchemy, by Pydantic."""

    __table_args__ = (UniqueConstraint("scope", "key", name="uq_setting_scope_key"),)

    id: int | None = Field(default=None, primary_key=True)
    scope: str = Field(default="global", max_length=50)
    key: str = Field(max_length=50)
    # None means "not given": the column's own default has to fill it.
    priority: int | None = Field(
        default=None, sa_column=Column(Integer, nullable=False, server_default="5")
    )
    state: str | None = Field(
        default=None, sa_column=Column(String(20), nullable=False, server_default="new")
    )
    source: str | None = Field(
        default=None, sa_column=Column(String(20), nullable=False, default="python")
    )


class OddName(SQLModel, table=True):
    """Field names that look like lookups and paths."""

    id: int | None = Field(default=None, primary_key=True)
    name__like: str | None = None
    team__name: str | None = None


class Parent(SQLModel, table=True):
    """What `DeferredChild` points to."""

    id: int | None = Field(default=None, primary_key=True)
    name: str


class DeferredChild(SQLModel, table=True):
    """A foreign key that is checked only at commit; the table has none on MySQL, which cannot."""

    __table_args__ = (
        ForeignKeyConstraint(
            ["parent_id"],
            ["parent.id"],
            name="fk_deferred_child_parent",
            deferrable=True,
            initially="DEFERRED",
        ).ddl_if(callable_=lambda *_args, dialect, **_kw: dialect.name in {"postgresql", "sqlite"}),
    )

    id: int | None = Field(default=None, primary_key=True)
    parent_id: int


class Account(SQLModel, table=True):
    """A balance that a check constraint keeps from going below zero."""

    __table_args__ = (CheckConstraint("balance >= 0", name="ck_account_balance"),)

    id: int | None = Field(default=None, primary_key=True)
    owner: str = Field(max_length=100)
    balance: int = 0
