"""Table models for the tests of the CRUD functions."""

import datetime as dt
import uuid

from pydantic import NaiveDatetime
from sqlalchemy import Column, Computed, Integer, String, func
from sqlmodel import Field, Relationship, SQLModel


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
