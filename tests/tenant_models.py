"""Table models whose rows belong to tenants, some of them soft-deleted, too.

The tables refer to each other without foreign keys, so that rows can refer to those of another
tenant.
"""

from typing import Any, ClassVar, Optional

from sqlalchemy import and_, exists, func, select, text
from sqlalchemy.orm import column_property, foreign
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.ext.history import TrackChangesMixin
from sqlmodel_crud_utils.mixins import (
    SoftDeleteMixin,
    TenantMixin,
    VersionMixin,
    tenant_foreign_key,
    tenant_unique,
    unique_when_not_deleted,
)


def _related(condition: str, **more: Any) -> Any:
    return Relationship(sa_relationship_kwargs={"primaryjoin": condition, **more})


class MageSpell(TenantMixin, SQLModel, table=True):
    """A link that belongs to a tenant itself."""

    mage_id: int = Field(primary_key=True)
    spell_id: int = Field(primary_key=True)


class Guild(SoftDeleteMixin, TenantMixin, SQLModel, table=True):
    """Soft-deleted too; a name is unique for its tenant."""

    __table_args__: ClassVar[Any] = (tenant_unique("name"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    wealth: int = 0

    mages: list["Mage"] = _related(
        "Guild.id == foreign(Mage.guild_id)", order_by="Mage.id", viewonly=True
    )


class Mage(SoftDeleteMixin, TenantMixin, SQLModel, table=True):
    """Soft-deleted too; related to others, to its own kind, and many to many."""

    __table_args__: ClassVar[Any] = (unique_when_not_deleted("name", "tenant_id"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    level: int = 0
    guild_id: int | None = None
    mentor_id: int | None = None

    guild: Guild | None = _related("foreign(Mage.guild_id) == Guild.id")
    mentor: Optional["Mage"] = _related("foreign(Mage.mentor_id) == remote(Mage.id)")
    spells: list["Spell"] = _related(
        "Mage.id == foreign(MageSpell.mage_id)",
        secondaryjoin="foreign(MageSpell.spell_id) == Spell.id",
        secondary="magespell",
        order_by="Spell.id",
    )


class Spell(TenantMixin, SQLModel, table=True):
    """It belongs to a tenant, and is no more than that."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)
    power: int = 0


class Pet(SQLModel, table=True):
    """It belongs to nobody, but it leads to rows of tenants."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    mage_id: int | None = None

    mage: Mage | None = _related("foreign(Pet.mage_id) == Mage.id")


class Hall(SQLModel, table=True):
    """It belongs to nobody; without a relationship, it counts rows of tenants."""

    id: int | None = Field(default=None, primary_key=True)

    # SQLModel leaves the annotation alone, which is for type checkers.
    mage_count: ClassVar[Any] = column_property(
        select(func.count(Mage.id)).where(Mage.level > 0).scalar_subquery()
    )


class Granary(SQLModel, table=True):
    """It counts them in a way that no tenant can be added to."""

    id: int | None = Field(default=None, primary_key=True)

    spell_count: ClassVar[Any] = column_property(
        select(func.count(Spell.__table__.c.id)).scalar_subquery()  # type: ignore[attr-defined]
    )


class Scroll(TenantMixin, SQLModel, table=True):
    """A new row is given a number that counts the rows of all tenants."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)
    number: int | None = Field(
        default=None,
        sa_column_kwargs={"default": select(func.count(Spell.id)).scalar_subquery()},
    )


class Almanac(SQLModel, table=True):
    """It belongs to nobody, and counts them with each change."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)
    spells: int | None = Field(
        default=None, sa_column_kwargs={"onupdate": text("(SELECT count(*) FROM spell)")}
    )


MAGES: Any = Mage.__table__  # type: ignore[attr-defined]


class Stable(SQLModel, table=True):
    """It leads to rows of tenants through tables that are joined."""

    id: int | None = Field(default=None, primary_key=True)
    pet_id: int | None = None

    guilds: list[Guild] = _related(
        "foreign(Stable.pet_id) == Pet.id",
        secondary=lambda: PETS.join(MAGES, MAGES.c.id == PETS.c.mage_id),
        secondaryjoin=lambda: MAGES.c.guild_id == foreign(Guild.id),
        viewonly=True,
    )


class Kennel(SQLModel, table=True):
    """It leads to a row of nobody, by a condition that reads rows of tenants."""

    id: int | None = Field(default=None, primary_key=True)
    pet_id: int | None = None

    pet: Pet | None = Relationship(
        sa_relationship_kwargs={
            "primaryjoin": lambda: and_(
                foreign(KENNELS.c.pet_id) == PETS.c.id,
                exists(select(MAGES.c.id).where(MAGES.c.id == PETS.c.mage_id)),
            ),
            "viewonly": True,
        }
    )


class Den(SQLModel, table=True):
    """It leads to rows of nobody, in an order that reads rows of tenants."""

    id: int | None = Field(default=None, primary_key=True)

    pets: list[Pet] = _related(
        "Den.id == foreign(Pet.id)",
        order_by=lambda: select(MAGES.c.name).where(MAGES.c.id == PETS.c.mage_id).scalar_subquery(),
        viewonly=True,
    )


PETS: Any = Pet.__table__  # type: ignore[attr-defined]
KENNELS: Any = Kennel.__table__  # type: ignore[attr-defined]


class Fleet(TenantMixin, SQLModel, table=True):
    """What others refer to; its name is unique for its tenant."""

    __table_args__: ClassVar[Any] = (tenant_unique("name"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    size: int = 0

    ships: list["Ship"] = Relationship(
        back_populates="fleet",
        sa_relationship_kwargs={"foreign_keys": "Ship.fleet_id", "passive_deletes": "all"},
    )


class Ship(TenantMixin, SQLModel, table=True):
    """It refers to a row of the same tenant."""

    __table_args__: ClassVar[Any] = (tenant_foreign_key("fleet_id", "fleet.id"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    fleet_id: int | None = None

    fleet: Fleet | None = Relationship(
        back_populates="ships", sa_relationship_kwargs={"foreign_keys": "Ship.fleet_id"}
    )


class Port(SQLModel, TenantMixin, table=True):
    """Its tenants have numbers."""

    tenant_id: int = Field(default=None, index=True)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)


class Deed(SQLModel, TenantMixin, VersionMixin, SoftDeleteMixin, TrackChangesMixin, table=True):
    """It belongs to a tenant, and everything else."""

    __track_redact__ = ("code",)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20, unique=True)
    code: str | None = Field(default=None, max_length=20, unique=True)
    worth: int = 0
