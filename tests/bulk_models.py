"""Table models for the tests of the bulk functions."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel import SQLModel


class Base(DeclarativeBase):
    """Plain SQLAlchemy models, as SQLModel has no joined inheritance."""

    metadata = SQLModel.metadata


class Vehicle(Base):
    """The first of two tables of a joined inheritance."""

    __tablename__ = "vehicle"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(50))

    __mapper_args__: ClassVar[Any] = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Truck(Vehicle):
    """The second."""

    __tablename__ = "truck"

    id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)
    load: Mapped[int]

    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "truck"}


class NowhereBase(DeclarativeBase):
    """Models whose tables nobody makes."""


class Nowhere(NowhereBase):
    """A model without a table."""

    __tablename__ = "nowhere"

    id: Mapped[int] = mapped_column(primary_key=True)


class Sealed(Base):
    """Its version is made by the database."""

    __tablename__ = "sealed"

    id: Mapped[int] = mapped_column(primary_key=True)
    seal: Mapped[int] = mapped_column(server_default="1")
    note: Mapped[str | None] = mapped_column(String(20))

    __mapper_args__: ClassVar[Any] = {"version_id_col": seal, "version_id_generator": False}
