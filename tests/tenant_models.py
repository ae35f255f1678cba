"""Table models whose rows belong to tenants, some of them with soft deletion.

The tables refer to each other without foreign keys, so that rows can refer to another tenant's
rows.
"""

from typing import Any, ClassVar, Optional

from sqlalchemy import Column, String, and_, exists, func, select, text
from sqlalchemy.orm import column_property, foreign, registry
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
    """A link table whose rows belong to tenants."""

    mage_id: int = Field(primary_key=True)
    spell_id: int = Field(primary_key=True)


class Guild(SoftDeleteMixin, TenantMixin, SQLModel, table=True):
    """Also has soft deletion; a name is unique within its tenant."""

    __table_args__: ClassVar[Any] = (tenant_unique("name"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    wealth: int = 0

    mages: list["Mage"] = _related(
        "Guild.id == foreign(Mage.guild_id)", order_by="Mage.id", viewonly=True
    )


class Mage(SoftDeleteMixin, TenantMixin, SQLModel, table=True):
    """Also has soft deletion; with to-one, self-referential and many-to-many relationships."""

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
    """A plain model that belongs to a tenant."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)
    power: int = 0


class Pet(SQLModel, table=True):
    """Has no tenant, but relationships to tenants' rows."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    mage_id: int | None = None

    mage: Mage | None = _related("foreign(Pet.mage_id) == Mage.id")


class Hall(SQLModel, table=True):
    """Has no tenant; counts tenants' rows without a relationship."""

    id: int | None = Field(default=None, primary_key=True)

    # SQLModel ignores the annotation, which is for type checkers.
    mage_count: ClassVar[Any] = column_property(
        select(func.count(Mage.id)).where(Mage.level > 0).scalar_subquery()
    )


class Granary(SQLModel, table=True):
    """Counts them in a way that cannot be limited to a tenant."""

    id: int | None = Field(default=None, primary_key=True)

    spell_count: ClassVar[Any] = column_property(
        select(func.count(Spell.__table__.c.id)).scalar_subquery()  # type: ignore[attr-defined]
    )


class Scroll(TenantMixin, SQLModel, table=True):
    """Gives a new row a number that counts the rows of all tenants."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)
    number: int | None = Field(
        default=None,
        sa_column_kwargs={"default": select(func.count(Spell.id)).scalar_subquery()},
    )


class Almanac(SQLModel, table=True):
    """Has no tenant, and counts tenants' rows with each change."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)
    spells: int | None = Field(
        default=None, sa_column_kwargs={"onupdate": text("(SELECT count(*) FROM spell)")}
    )


MAGES: Any = Mage.__table__  # type: ignore[attr-defined]


class Stable(SQLModel, table=True):
    """Has a relationship to tenants' rows through joined tables."""

    id: int | None = Field(default=None, primary_key=True)
    pet_id: int | None = None

    guilds: list[Guild] = _related(
        "foreign(Stable.pet_id) == Pet.id",
        secondary=lambda: PETS.join(MAGES, MAGES.c.id == PETS.c.mage_id),
        secondaryjoin=lambda: MAGES.c.guild_id == foreign(Guild.id),
        viewonly=True,
    )


class Kennel(SQLModel, table=True):
    """Has a relationship to a row without a tenant, whose condition reads tenants' rows."""

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
    """Has a relationship to rows without a tenant, whose order reads tenants' rows."""

    id: int | None = Field(default=None, primary_key=True)

    pets: list[Pet] = _related(
        "Den.id == foreign(Pet.id)",
        order_by=lambda: select(MAGES.c.name).where(MAGES.c.id == PETS.c.mage_id).scalar_subquery(),
        viewonly=True,
    )


PETS: Any = Pet.__table__  # type: ignore[attr-defined]
KENNELS: Any = Kennel.__table__  # type: ignore[attr-defined]


class Fleet(TenantMixin, SQLModel, table=True):
    """Referenced by others; its name is unique within its tenant."""

    __table_args__: ClassVar[Any] = (tenant_unique("name"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    size: int = 0

    ships: list["Ship"] = Relationship(
        back_populates="fleet",
        sa_relationship_kwargs={"foreign_keys": "Ship.fleet_id", "passive_deletes": "all"},
    )


class Ship(TenantMixin, SQLModel, table=True):
    """Refers to a row of the same tenant."""

    __table_args__: ClassVar[Any] = (tenant_foreign_key("fleet_id", "fleet.id"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    fleet_id: int | None = None

    fleet: Fleet | None = Relationship(
        back_populates="ships", sa_relationship_kwargs={"foreign_keys": "Ship.fleet_id"}
    )


class Port(SQLModel, TenantMixin, table=True):
    """Identifies tenants by numbers."""

    tenant_id: int = Field(default=None, index=True)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)


class Wharf(SQLModel, TenantMixin, table=True):
    """Has the tenant in a column of another name."""

    tenant_id: str = Field(default=None, sa_column=Column("org", String(50), nullable=False))
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)


class Deed(SQLModel, TenantMixin, VersionMixin, SoftDeleteMixin, TrackChangesMixin, table=True):
    """Belongs to a tenant, and has all other mixins."""

    __track_redact__ = ("code",)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20, unique=True)
    code: str | None = Field(default=None, max_length=20, unique=True)
    worth: int = 0


class OfTable:
    """Has no tenant, but the table of a model of tenants."""


class OfSubquery:
    """Has no tenant, but reads the table of a model of tenants."""


_SPELLS: Any = Spell.__table__  # type: ignore[attr-defined]
_registry = registry()
_registry.map_imperatively(OfTable, _SPELLS)
_registry.map_imperatively(OfSubquery, select(_SPELLS.c.id, _SPELLS.c.label).subquery())
