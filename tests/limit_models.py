"""Neutral table models whose columns can hold less than their Python types."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from pydantic import NaiveDatetime
from sqlalchemy import CHAR, NUMERIC, DateTime, Dialect, Interval, Numeric, String, Time
from sqlalchemy.dialects.mysql import DATETIME, TIME as MYSQL_TIME
from sqlalchemy.dialects.postgresql import TIME, TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel


class Marked(TypeDecorator[str]):
    """A text of five characters, the first of which only the database sees."""

    impl = String(5)
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Add the first character."""
        return None if value is None else f"*{value}"

    def process_result_value(self, value: Any, _dialect: Dialect) -> str | None:
        """Remove the first character."""
        return None if value is None else value[1:]


class Chosen(TypeDecorator[str]):
    """A text whose length each database's own type says."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Return the type of the database."""
        return dialect.type_descriptor(String(5))


class Cents(TypeDecorator[Decimal]):
    """A decorated number, which rounds like its underlying type."""

    impl = Numeric(6, 2)
    cache_ok = True


SECONDS = (
    DateTime()
    .with_variant(TIMESTAMP(precision=0), "postgresql")
    .with_variant(DATETIME(fsp=0), "mysql", "mariadb")
)
CLOCK = (
    Time()
    .with_variant(TIME(precision=0), "postgresql")
    .with_variant(MYSQL_TIME(fsp=0), "mysql", "mariadb")
)


class Limited(SQLModel, table=True):
    """A column of each type that PostgreSQL's casts truncate or round."""

    id: int | None = Field(default=None, primary_key=True)
    word: str | None = Field(default=None, max_length=5)
    fixed: str | None = Field(default=None, sa_type=CHAR(5))  # type: ignore[call-overload]
    marked: str | None = Field(default=None, sa_type=Marked)
    chosen: str | None = Field(default=None, sa_type=Chosen)
    at: NaiveDatetime | None = Field(default=None, sa_type=SECONDS)  # type: ignore[call-overload]
    clock: dt.time | None = Field(default=None, sa_type=CLOCK)  # type: ignore[call-overload]
    span: dt.timedelta | None = Field(
        default=None,
        sa_type=Interval(second_precision=0),  # type: ignore[call-overload]
    )
    price: Decimal | None = Field(default=None, max_digits=6, decimal_places=2)
    amount: Decimal | None = Field(
        default=None,
        sa_type=NUMERIC(6, 2),  # type: ignore[call-overload]
    )
    cents: Decimal | None = Field(default=None, sa_type=Cents)
    note: str | None = None


class Rate(SQLModel, table=True):
    """A composite key whose columns PostgreSQL's casts round or truncate."""

    __tablename__ = "rate"

    percent: Decimal = Field(primary_key=True, max_digits=6, decimal_places=2)
    place: str = Field(primary_key=True, max_length=5)


class Step(SQLModel, table=True):
    """A key that is a decimal number."""

    __tablename__ = "step"

    # SQLAlchemy 2.0 would make such a key SERIAL on PostgreSQL.
    height: Decimal = Field(
        primary_key=True,
        max_digits=6,
        decimal_places=2,
        sa_column_kwargs={"autoincrement": False},
    )
    note: str | None = None
