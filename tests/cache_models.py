"""Table models for the tests of the cache."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

from pydantic import NaiveDatetime
from sqlalchemy import (
    JSON,
    Column,
    Enum as SqlEnum,
    LargeBinary,
    Numeric,
    PickleType,
    String,
    Text,
    func,
    inspect,
    select,
)
from sqlalchemy.orm import column_property, relationship
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.mixins import SoftDeleteMixin, TenantMixin, UTCDateTime, VersionMixin


class Bundle(SQLModel, table=True):
    """A plain model, for which every shortcut applies."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=40)
    stock: int | None = Field(default=0)


class Tally(SQLModel, VersionMixin, table=True):
    """A model with versions, whose rows may be written even if they came from a cache."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)


class PlankNovel(SQLModel, table=True):
    """A link table."""

    plank_id: int = Field(primary_key=True, foreign_key="plank.id")
    novel_id: int = Field(primary_key=True, foreign_key="novel.id")


class Loft(SQLModel, table=True):
    """The parent of planks."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)

    planks: list["Plank"] = Relationship(back_populates="loft")


class Plank(SQLModel, table=True):
    """Has a to-one relationship, and a many-to-many one through links."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)
    loft_id: int | None = Field(default=None, foreign_key="loft.id")

    loft: Loft | None = Relationship(back_populates="planks")
    novels: list["Novel"] = Relationship(back_populates="planks", link_model=PlankNovel)


class Novel(SQLModel, table=True):
    """The other end of the many-to-many relationship."""

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(max_length=40)

    planks: list[Plank] = Relationship(back_populates="novels", link_model=PlankNovel)


class Jotting(SoftDeleteMixin, TenantMixin, SQLModel, table=True):
    """A tenant's row with soft deletion."""

    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(max_length=40)


class Emblem(SQLModel, table=True):
    """A composite key, one of whose columns is text."""

    owner: str = Field(primary_key=True, max_length=20)
    number: int = Field(primary_key=True)
    label: str = Field(max_length=40)


class Backwards(TypeDecorator[str]):
    """Stores text reversed, in place of encryption."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        return None if value is None else value[::-1]

    def process_result_value(self, value: str | None, _dialect: Any) -> str | None:
        return None if value is None else value[::-1]


class Hashed(TypeDecorator[str]):
    """Stores a value different from the given one, and returns the stored one."""

    impl = String(60)
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        return None if value is None else f"hash({value})"


class Metal(enum.Enum):
    """A material."""

    GOLD = "gold"
    TIN = "tin"


class Bauble(SQLModel, table=True):
    """A value of every cacheable type."""

    id: int | None = Field(default=None, primary_key=True)
    code: uuid.UUID
    price: Decimal = Field(sa_column=Column(Numeric(12, 3)))
    weight: float
    is_sold: bool = False
    made_on: dt.date
    made_at: NaiveDatetime
    sold_at: dt.datetime | None = Field(default=None, sa_type=UTCDateTime)  # type: ignore[call-overload]
    opens: dt.time
    lasts: dt.timedelta
    metal: Metal = Field(sa_column=Column(SqlEnum(Metal)))
    picture: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    notes: Any = Field(default=None, sa_column=Column(JSON))
    secret: str | None = Field(default=None, sa_column=Column(Backwards))


def new_bauble(**more: Any) -> Bauble:
    """Return a row with a value of every type."""
    return Bauble(
        code=uuid.uuid4(),
        price=Decimal("12.500"),
        weight=0.1,
        is_sold=True,
        made_on=dt.date(2024, 2, 29),
        made_at=dt.datetime(2024, 2, 29, 12, 30, 1),  # noqa: DTZ001 - the column is naive
        sold_at=dt.datetime(2024, 3, 1, tzinfo=dt.UTC),
        opens=dt.time(8, 30),
        lasts=dt.timedelta(days=2, microseconds=0),
        metal=Metal.TIN,
        picture=b"\x00\xff",
        notes={"a": [1, None, {"b": 1.5}]},
        secret="drowssap",
        **more,
    )


class Password(SQLModel, table=True):
    """A value that is read differently from how it was written."""

    id: int | None = Field(default=None, primary_key=True)
    word: str = Field(sa_column=Column(Hashed))


class Pickled(SQLModel, table=True):
    """A pickled value, which executes code when it is read."""

    id: int | None = Field(default=None, primary_key=True)
    thing: Any = Field(default=None, sa_column=Column(PickleType))


class Variable(SQLModel, table=True):
    """A value that is pickled on the tests' databases, by variants of its type."""

    id: int | None = Field(default=None, primary_key=True)
    thing: Any = Field(
        default=None,
        sa_column=Column(
            JSON().with_variant(PickleType(), "sqlite", "postgresql", "mysql", "mariadb")
        ),
    )


class Loud(SQLModel, table=True):
    """A text of any length."""

    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(sa_type=Text)


class Hangar(SQLModel, table=True):
    """The parent of gliders; it counts its crew."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(default="", max_length=40)


class Glider(SQLModel, table=True):
    """Belongs to a hangar."""

    id: int | None = Field(default=None, primary_key=True)
    hangar_id: int | None = Field(default=None, foreign_key="hangar.id")

    hangar: Hangar | None = Relationship()


class Crew(SQLModel, table=True):
    """A link between pilots and hangars."""

    id: int | None = Field(default=None, primary_key=True)
    pilot_id: int = Field(foreign_key="pilot.id")
    hangar_id: int = Field(foreign_key="hangar.id")


class Pilot(SQLModel, table=True):
    """Flies the gliders of the hangars that it belongs to."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(default="", max_length=40)


def _add_properties() -> None:
    """Add features that SQLModel does not support."""
    hangar, glider, crew, pilot = (
        inspect(model).local_table for model in (Hangar, Glider, Crew, Pilot)
    )
    size = select(func.count()).where(crew.c.hangar_id == hangar.c.id).correlate(hangar)
    inspect(Hangar).add_property("crew_size", column_property(size.scalar_subquery()))
    flown = relationship(
        Glider,
        secondary=crew.join(hangar, crew.c.hangar_id == hangar.c.id),
        primaryjoin=crew.c.pilot_id == pilot.c.id,
        secondaryjoin=glider.c.hangar_id == hangar.c.id,
        viewonly=True,
    )
    inspect(Pilot).add_property("gliders", flown)


_add_properties()
