"""Table models for the tests of the bulk functions."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal
from itertools import count
from typing import Any, ClassVar

from pydantic import NaiveDatetime
from sqlalchemy import (
    ARRAY,
    JSON,
    REAL,
    BigInteger,
    ColumnElement,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    func,
)
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from tests.models import Colour


class Base(DeclarativeBase):
    """Plain SQLAlchemy models, because SQLModel does not support joined inheritance."""

    metadata = SQLModel.metadata


class Vehicle(Base):
    """The base table of a joined inheritance."""

    __tablename__ = "vehicle"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(50))

    __mapper_args__: ClassVar[Any] = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Truck(Vehicle):
    """The second table of the joined inheritance."""

    __tablename__ = "truck"

    id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)
    load: Mapped[int]

    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "truck"}


class Van(Vehicle):
    """Another second, which is loaded by a query of its own where vehicles are read."""

    __tablename__ = "van"

    id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)
    seats: Mapped[int]

    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "van", "polymorphic_load": "selectin"}


class NowhereBase(DeclarativeBase):
    """Models whose tables are never created."""


class Nowhere(NowhereBase):
    """A model without a table."""

    __tablename__ = "nowhere"

    id: Mapped[int] = mapped_column(primary_key=True)


class Sealed(Base):
    """A version that the database generates."""

    __tablename__ = "sealed"

    id: Mapped[int] = mapped_column(primary_key=True)
    seal: Mapped[int] = mapped_column(server_default="1")
    note: Mapped[str | None] = mapped_column(String(20))

    __mapper_args__: ClassVar[Any] = {"version_id_col": seal, "version_id_generator": False}


class Reversed(TypeDecorator[str]):
    """Text that is stored reversed."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Reverse the text."""
        return None if value is None else value[::-1]

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Reverse it back."""
        return self.process_bind_param(value, dialect)


class Lowered(TypeDecorator[str]):
    """Text that an SQL function changes when it is written."""

    impl = String(50)
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> ColumnElement[str]:
        """Wrap the parameter."""
        return func.lower(bindparam)


_ANY_JSON = JSON().with_variant(JSONB(), "postgresql")
_NUMBERS = ARRAY(Integer).with_variant(JSON(), "sqlite", "mysql", "mariadb")


class Everything(SQLModel, table=True):
    """A nullable column of every type that models use."""

    id: int | None = Field(default=None, primary_key=True)
    whole: int | None = None
    small: int | None = Field(default=None, sa_type=SmallInteger)
    big: int | None = Field(default=None, sa_type=BigInteger)
    text: str | None = Field(default=None, sa_type=Text().with_variant(LONGTEXT, "mysql"))
    capped: str | None = Field(default=None, max_length=20)
    real: float | None = Field(default=None, sa_type=Double)
    single: float | None = Field(default=None, sa_type=REAL)
    amount: Decimal | None = Field(default=None, sa_type=Numeric(12, 4))
    flag: bool | None = None
    day: dt.date | None = None
    clock: dt.time | None = None
    moment: dt.datetime | None = None
    naive: NaiveDatetime | None = None
    duration: dt.timedelta | None = None
    token: uuid.UUID | None = None
    colour: Colour | None = None
    shade: Colour | None = Field(default=None, sa_type=Enum(Colour, native_enum=False))
    blob: bytes | None = Field(default=None, sa_type=LargeBinary)
    payload: Any = Field(default=None, sa_type=JSON, nullable=True)
    document: Any = Field(default=None, sa_type=_ANY_JSON, nullable=True)
    numbers: list[int] | None = Field(default=None, sa_type=_NUMBERS)
    mirror: str | None = Field(default=None, sa_type=Reversed)
    source: str | None = Field(default=None, sa_column_kwargs={"default": lambda: "python"})
    rank: int = Field(default=3, sa_column_kwargs={"server_default": "7"})


_TICKETS = count(1)


class Ticket(Base):
    """Defaults that Python computes or has as constants, and a value that SQL changes."""

    __tablename__ = "bulk_ticket"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None] = mapped_column(Lowered)
    number: Mapped[int | None] = mapped_column(default=lambda: next(_TICKETS))
    fixed: Mapped[int | None] = mapped_column(default=5)


def _shouted(context: Any) -> str:
    given: Mapping[str, Any] = context.get_current_parameters()
    return str(given["label"]).upper()


class Sign(Base):
    """A default that depends on the rest of the row."""

    __tablename__ = "bulk_sign"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(50))
    loud: Mapped[str | None] = mapped_column(String(50), default=_shouted)


class Mark(Base):
    """A default that SQLAlchemy renders into the statement."""

    __tablename__ = "bulk_mark"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(50))
    length: Mapped[int | None] = mapped_column(default=func.length("four"))


class Plain(Base):
    """A class whose subclass adds a column to its table, without a discriminator."""

    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None] = mapped_column(String(20))


class Extra(Plain):
    """The subclass."""

    extra: Mapped[str | None] = mapped_column(String(20))
