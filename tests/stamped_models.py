"""Models with columns that every UPDATE sets."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, Column, String, func
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.mixins import AuditMixin, UTCDateTime


class Mood(enum.Enum):
    """The meaning of a posting."""

    CALM = "calm"
    WILD = "wild"


class StampedPosting(SQLModel, AuditMixin, table=True):
    """Stamps, and columns of many types."""

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(default="a", max_length=50)
    views: int | None = None
    level: float | None = None
    price: Decimal | None = Field(default=None, max_digits=8, decimal_places=2)
    is_open: bool | None = None
    day: dt.date | None = None
    moment: dt.datetime | None = Field(default=None, sa_type=UTCDateTime)
    mood: Mood | None = None
    token: uuid.UUID | None = None
    extra: Any = Field(default=None, sa_type=JSON)


def _summary(context: Any) -> str:
    return f"level: {context.get_current_parameters()['level']}"


class StampedGauge(SQLModel, table=True):
    """Stamps from a function in C without a signature, and from one that takes the context."""

    id: int | None = Field(default=None, primary_key=True)
    title: str | None = Field(default=None, max_length=50, sa_column_kwargs={"onupdate": str})
    level: int = 0
    note: str | None = Field(default=None, max_length=50, sa_column_kwargs={"onupdate": _summary})


class StampedLabel(SQLModel, table=True):
    """A value and an expression as stamps, and text that SQLite compares ignoring case."""

    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(default="a", max_length=50)
    name: str = Field(
        default="a",
        sa_column=Column(
            String(50)
            .with_variant(String(50, collation="NOCASE"), "sqlite")
            .with_variant(String(50, collation="utf8mb4_bin"), "mysql", "mariadb"),
            nullable=False,
        ),
    )
    editor: str | None = Field(
        default=None, max_length=50, sa_column_kwargs={"onupdate": "somebody"}
    )
    seven: int | None = Field(default=None, sa_column_kwargs={"onupdate": func.abs(-7)})
