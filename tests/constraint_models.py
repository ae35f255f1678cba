"""Tables with constraints of every kind, for the tests of the error classification.

They have a separate metadata, because only those tests create them, and not every database can.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    column,
    func,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, ExcludeConstraint, Range
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Digits(TypeDecorator[str]):
    """A type that refuses anything but numbers before the database sees it."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is not None and not value.isdigit():
            raise ValueError(f"{value!r} is no number")
        return value


class Base(DeclarativeBase):
    """The base of the tables that every database can create."""

    metadata = MetaData()


class Gadget(Base):
    """Unnamed constraints, and an attribute whose name differs from its column's."""

    __tablename__ = "gadget"
    __table_args__ = (
        UniqueConstraint("maker", "model"),
        CheckConstraint("price > cost"),
        {"mysql_engine": "InnoDB"},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    serial: Mapped[str | None] = mapped_column("serial_no", String(10), unique=True)
    maker: Mapped[str | None] = mapped_column(String(20))
    model: Mapped[str | None] = mapped_column(String(20))
    size: Mapped[int | None] = mapped_column(Integer, CheckConstraint("size > 0"))
    price: Mapped[int | None]
    cost: Mapped[int | None]
    part_of: Mapped[int | None] = mapped_column(ForeignKey("gadget.id"))


class Ticket(Base):
    """Unnamed keys that begin with the same column."""

    __tablename__ = "theater_ticket"
    __table_args__ = (
        UniqueConstraint("hall", "row"),
        ForeignKeyConstraint(["hall", "before"], ["theater_ticket.hall", "theater_ticket.seat"]),
        UniqueConstraint("hall", "guest"),
        UniqueConstraint("hall", "seat"),
        {"mysql_engine": "InnoDB"},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    hall: Mapped[int]
    seat: Mapped[int]
    row: Mapped[int]
    guest: Mapped[int]
    before: Mapped[int | None]


class Label(Base):
    """A named unique index, and one on an expression if the database supports it."""

    __tablename__ = "label"
    __table_args__ = (
        Index("ix_label_text_lower", func.lower(column("text")), unique=True).ddl_if(
            callable_=lambda *_args, dialect, **_kw: dialect.name != "mysql"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(50), index=True, unique=True)
    text: Mapped[str | None] = mapped_column(String(100))
    digits: Mapped[str | None] = mapped_column(Digits(20))


class PostgresBase(DeclarativeBase):
    """The base of the tables that only PostgreSQL can create."""

    metadata = MetaData()


class Booking(PostgresBase):
    """Bookings must not overlap."""

    __tablename__ = "booking"
    __table_args__ = (
        ExcludeConstraint((column("during"), "&&"), name="ex_booking_during", using="gist"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    during: Mapped[Range[int]] = mapped_column(INT4RANGE)


class Shift(PostgresBase):
    """A key that is checked immediately, and two deferrable constraints."""

    __tablename__ = "shift"
    __table_args__ = (
        UniqueConstraint("place", deferrable=True, initially="IMMEDIATE"),
        ExcludeConstraint((column("during"), "&&"), using="gist", deferrable=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    place: Mapped[int | None]
    during: Mapped[Range[int] | None] = mapped_column(INT4RANGE)


class Turn(PostgresBase):
    """A deferred key, checked at the commit."""

    __tablename__ = "turn"
    __table_args__ = (UniqueConstraint("place", deferrable=True, initially="DEFERRED"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int | None]
