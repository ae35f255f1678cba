"""Neutral table models whose columns are named like parameters of statements."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel import SQLModel


class Base(DeclarativeBase):
    """Plain SQLAlchemy models, because names of Pydantic fields must begin with a letter."""

    metadata = SQLModel.metadata


class Lookalike(Base):
    """Names that the library could use, and names that SQLAlchemy generates."""

    __tablename__ = "lookalike"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(20), unique=True)
    email_1: Mapped[int | None] = mapped_column(default=None)
    new_email: Mapped[int | None] = mapped_column(default=None)
    new_size: Mapped[int | None] = mapped_column(default=None)
    id_1: Mapped[int | None] = mapped_column(default=None)
    key_id: Mapped[int | None] = mapped_column(default=None)
    key_email: Mapped[int | None] = mapped_column(default=None)
    key_0: Mapped[int | None] = mapped_column(default=None)
    key_1: Mapped[int | None] = mapped_column(default=None)
    where_0: Mapped[int | None] = mapped_column(default=None)
    where_1: Mapped[int | None] = mapped_column(default=None)
    after_0: Mapped[int | None] = mapped_column(default=None)
    param_1: Mapped[int | None] = mapped_column(default=None)
    size: Mapped[int | None] = mapped_column(default=None)
    start: Mapped[int | None] = mapped_column(default=None)
    total: Mapped[int | None] = mapped_column(default=None)
    value: Mapped[int | None] = mapped_column(default=None)
    count: Mapped[int | None] = mapped_column(default=None)
    first: Mapped[int | None] = mapped_column("_0", default=None)
    second: Mapped[int | None] = mapped_column("_1", default=None)
    under: Mapped[int | None] = mapped_column("_size", default=None)
    underscores: Mapped[int | None] = mapped_column("__0", default=None)
    # Not "key 0": with asyncpg, SQLAlchemy 2.0 would confuse it with "key_0".
    spaced: Mapped[int | None] = mapped_column("after 1", default=None)


class LookalikeLink(Base):
    """A composite key of such names."""

    __tablename__ = "lookalike_link"

    key_1: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key_0: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    new_key_0: Mapped[int | None] = mapped_column(default=None)
    first: Mapped[int | None] = mapped_column("_0", default=None)


class Percent(Base):
    """A percent sign in the name of the key, which drivers may interpret."""

    __tablename__ = "percent"

    id: Mapped[int] = mapped_column("id%s", primary_key=True, autoincrement=False)
    text: Mapped[str | None] = mapped_column(String(20), default=None)


class OnlyPercents(Base):
    """A percent sign in the name of each column."""

    __tablename__ = "only_percents"

    id: Mapped[int] = mapped_column("id%s", primary_key=True, autoincrement=False)
    share: Mapped[int | None] = mapped_column("%", default=None)
