"""Table models for the tests of the CRUD functions."""

import datetime as dt
import uuid
from typing import Any

from pydantic import NaiveDatetime
from sqlalchemy import JSON, Column, Computed, Integer, PickleType, String, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, Relationship, SQLModel
from sqlmodel.main import SQLModelConfig

from sqlmodel_crud_utils.mixins import TimestampMixin, VersionMixin


class Cabinet(SQLModel, table=True):
    """Comes with its drawers in one query (joined), and takes them along when it is deleted."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(unique=True, max_length=50)

    drawers: list["Drawer"] = Relationship(
        back_populates="cabinet",
        sa_relationship_kwargs={"lazy": "joined", "cascade": "all, delete-orphan"},
    )


class Drawer(SQLModel, table=True):
    """Belongs to a cabinet."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    cabinet_id: int | None = Field(default=None, foreign_key="cabinet.id")

    cabinet: Cabinet | None = Relationship(back_populates="drawers")


class Warehouse(SQLModel, table=True):
    """What `Dock` refers to; the two have no relationship, so the database alone guards them."""

    code: str = Field(primary_key=True, max_length=10)


class Dock(SQLModel, table=True):
    """Refers to a warehouse."""

    id: int | None = Field(default=None, primary_key=True)
    warehouse_code: str = Field(foreign_key="warehouse.code", max_length=10)


class Product(SQLModel, table=True):
    """Fields with constraints of their own, and a column with another name than its attribute."""

    id: int | None = Field(default=None, primary_key=True)
    sku: str = Field(unique=True, max_length=10)
    stock: int = Field(default=0, ge=0, le=1000)
    released_date: dt.date | None = None
    shelf: int | None = Field(default=None, sa_column=Column("shelf_no", Integer))
    state: str | None = Field(
        default=None, sa_column=Column(String(20), nullable=False, server_default="new")
    )


class Ticket(SQLModel, table=True):
    """A composite key beside a column that is named "id" and is no key."""

    venue: str = Field(primary_key=True, max_length=20)
    number: int = Field(primary_key=True)
    id: int | None = Field(default=None, index=True)
    holder: str | None = None


class Draft(SQLModel, table=True):
    """A key that Python makes, and one column that is left to the database."""

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    title: str = Field(unique=True, max_length=50)
    created_at: NaiveDatetime | None = Field(
        default=None, sa_column_kwargs={"server_default": func.now(), "nullable": False}
    )


class Price(SQLModel, table=True):
    """A composite key, and a column that the database works out."""

    shop: str = Field(primary_key=True, max_length=20)
    item: str = Field(primary_key=True, max_length=20)
    net: int
    gross: int | None = Field(
        default=None, sa_column=Column(Integer, Computed("net + 1", persisted=True))
    )


class Prefs(SQLModel, table=True):
    """Values that can be changed in place, in the types that each database has for them."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(default="", max_length=50)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    binary: dict[str, Any] = Field(
        default_factory=dict, sa_type=JSON().with_variant(JSONB, "postgresql")
    )
    names: list[str] = Field(
        default_factory=list, sa_type=JSON().with_variant(ARRAY(String), "postgresql")
    )
    pickled: Any = Field(default=None, sa_type=PickleType, nullable=True)


class TrackedPrefs(SQLModel, VersionMixin, TimestampMixin, table=True):
    """The same kind of value, with a version and a time stamp."""

    id: int | None = Field(default=None, primary_key=True)
    size: int = 0
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class Careful(SQLModel, table=True):
    """Validates what is assigned to it."""

    model_config = SQLModelConfig(validate_assignment=True)

    id: int | None = Field(default=None, primary_key=True)
    size: int = Field(default=0, ge=0)
