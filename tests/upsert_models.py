"""Neutral table models for the tests of upserts."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from pydantic import NaiveDatetime
from sqlalchemy import Column, ForeignKey, Integer, String, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TimestampMixin,
    VersionMixin,
    unique_when_not_deleted,
)

STAMPED = dt.datetime(2024, 3, 1, 10, 30)  # noqa: DTZ001 - a naive column's value

_VERSION = Column("version", Integer, nullable=False)


class Article(SQLModel, table=True):
    """Columns that fill themselves: on insert, on update, and a version."""

    __table_args__ = (UniqueConstraint("author", "number", name="uq_article_author_number"),)

    id: int | None = Field(default=None, primary_key=True)
    slug: str = Field(unique=True, max_length=50)
    author: str = Field(default="unknown", max_length=50)
    number: int | None = None
    title: str | None = None
    views: int = 7
    mood: str | None = Field(
        default="calm", sa_column=Column("state_of_mind", String(20), nullable=False)
    )
    state: str | None = Field(
        default=None, sa_column=Column(String(20), nullable=False, server_default="new")
    )
    updated_at: NaiveDatetime | None = Field(
        default=None, sa_column_kwargs={"onupdate": lambda: STAMPED}
    )
    editor: str | None = Field(default=None, sa_column_kwargs={"onupdate": "somebody"})
    seven: int | None = Field(default=None, sa_column_kwargs={"onupdate": func.abs(-7)})
    version: int = Field(default=1, sa_column=_VERSION)

    __mapper_args__ = {"version_id_col": _VERSION}


class Node(SQLModel, table=True):
    """A tree: rows refer to rows of the same table."""

    id: int | None = Field(default=None, primary_key=True)
    parent_id: int | None = Field(
        default=None, sa_column=Column(Integer, ForeignKey("node.id", ondelete="CASCADE"))
    )
    label: str | None = None
    note: str | None = None


class Reading(SQLModel, table=True):
    """A composite key and plain values, for many rows."""

    place: str = Field(primary_key=True, max_length=20)
    number: int = Field(primary_key=True)
    value: float | None = None
    note: str | None = None


class Nickname(SQLModel, table=True):
    """A key that ignores case where the database can."""

    name: str = Field(
        sa_column=Column(
            String(50).with_variant(String(50, collation="NOCASE"), "sqlite"), primary_key=True
        )
    )
    owner: str = Field(max_length=50)
    note: str | None = None


class Person(SQLModel, AuditMixin, SoftDeleteMixin, VersionMixin, table=True):
    """Every mixin, and a name that deleted rows leave to others."""

    __table_args__ = (unique_when_not_deleted("email"),)

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(max_length=50)
    number: int | None = Field(default=None, unique=True)
    note: str | None = None


class Item(SQLModel, table=True):
    """Small, with two keys, defaults and a field that must be given."""

    id: int | None = Field(default=None, primary_key=True)
    code: str | None = Field(default=None, unique=True, max_length=10)
    must: int
    plain: int | None = None
    python: int = 7
    server: int | None = Field(
        default=None, sa_column=Column(Integer, nullable=False, server_default="5")
    )


class Base(DeclarativeBase):
    """Plain SQLAlchemy models beside SQLModel's."""

    metadata = SQLModel.metadata


class Animal(Base):
    """A table that holds several kinds of rows."""

    __tablename__ = "animal"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(String(50))

    __mapper_args__: ClassVar[Any] = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Cat(Animal):
    """One of them."""

    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "cat"}


def _slug(context: Any) -> str:
    slug: str = context.get_current_parameters()["name"].lower()
    return slug


class Heading(SQLModel, table=True):
    """An `onupdate` that looks at what is written, and one that could and does not."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    slug: str | None = Field(default=None, sa_column_kwargs={"onupdate": _slug})
    seen: int | None = Field(default=None, sa_column_kwargs={"onupdate": lambda _context: 7})


class Leaflet(SQLModel, TimestampMixin, table=True):
    """Long texts, and a stamp that Python makes."""

    id: int | None = Field(default=None, primary_key=True)
    body: str = Field(sa_type=Text)
