"""Table models whose foreign keys are part of keys, or may not be NULL."""

from typing import Any

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.mixins import VersionMixin


class Ware(SQLModel, table=True):
    """A product; orders refer to it through an association with a quantity."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(default="", max_length=20)

    lines: list["Line"] = Relationship(back_populates="ware")


class Purchase(SQLModel, VersionMixin, table=True):
    """An order, with a version."""

    id: int | None = Field(default=None, primary_key=True)

    lines: list["Line"] = Relationship(back_populates="purchase")


class Line(SQLModel, table=True):
    """The association; its key consists of both foreign keys."""

    ware_id: int | None = Field(default=None, foreign_key="ware.id", primary_key=True)
    purchase_id: int | None = Field(default=None, foreign_key="purchase.id", primary_key=True)
    quantity: int = 1

    ware: Ware | None = Relationship(back_populates="lines")
    purchase: Purchase | None = Relationship(back_populates="lines")


class Rack(SQLModel, table=True):
    """A composite key that boxes refer to."""

    room: str = Field(primary_key=True, max_length=10)
    number: int = Field(primary_key=True)

    boxes: list["Box"] = Relationship(back_populates="rack")


class Box(SQLModel, table=True):
    """Requires a rack."""

    __table_args__: Any = (
        ForeignKeyConstraint(
            ["rack_room", "rack_number"], ["rack.room", "rack.number"], name="fk_box_rack"
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    rack_room: str = Field(max_length=10)
    rack_number: int
    label: str | None = None

    rack: Rack | None = Relationship(back_populates="boxes")
