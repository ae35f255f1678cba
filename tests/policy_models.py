"""Table models that a second policy is about, beside soft deletion; and that policy.

Rows belong to a realm, and a statement sees and touches those of one realm, whoever runs it. The
tables refer to each other without foreign keys, so that rows can be taken away realm by realm.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Optional

from sqlalchemy import ColumnElement, ForeignKey, String, UniqueConstraint, bindparam
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils._core import caching
from sqlmodel_crud_utils._core.models import policies
from sqlmodel_crud_utils._session.events import listen_where_needed
from sqlmodel_crud_utils.mixins import SoftDeleteMixin, unique_when_visible

_realm: ContextVar[str] = ContextVar("realm")


def current_realm() -> str:
    """Return the realm that is ruled."""
    return _realm.get()


class OfRealm:
    """Rows that belong to a realm."""


class RealmMixin(OfRealm, SQLModel):
    """The same, with the column."""

    realm: str = Field(
        default=None, max_length=10, sa_column_kwargs={"default": current_realm}, nullable=False
    )


def _related(condition: str, **more: Any) -> Any:
    return Relationship(sa_relationship_kwargs={"primaryjoin": condition, **more})


class MageSpell(RealmMixin, table=True):
    """A link that belongs to a realm itself."""

    mage_id: int = Field(primary_key=True)
    spell_id: int = Field(primary_key=True)


class Guild(SoftDeleteMixin, RealmMixin, table=True):
    """Both policies are about it; a name is unique in its realm."""

    __table_args__: ClassVar[Any] = (UniqueConstraint("name", "realm"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    wealth: int = 0

    mages: list["Mage"] = _related(
        "Guild.id == foreign(Mage.guild_id)", order_by="Mage.id", viewonly=True
    )


class Mage(SoftDeleteMixin, RealmMixin, table=True):
    """Both policies are about it; related to others, to its own kind, and many to many."""

    __table_args__: ClassVar[Any] = (unique_when_visible("name", "realm"),)

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


class Spell(RealmMixin, table=True):
    """The second policy alone is about it."""

    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)


class Pet(SQLModel, table=True):
    """No policy is about it, but it leads to rows that one is about."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    mage_id: int | None = None

    mage: Mage | None = _related("foreign(Pet.mage_id) == Mage.id")


class _Base(DeclarativeBase):
    """Plain SQLAlchemy, beside the other tables: inheritance over several tables."""

    metadata = SQLModel.metadata


class Place(OfRealm, _Base):
    """The base of an inheritance; the policy's column is in its table."""

    __tablename__ = "place"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str] = mapped_column(String(20))
    realm: Mapped[str] = mapped_column(String(10), default=current_realm)

    __mapper_args__: ClassVar[Any] = {
        "polymorphic_on": "kind",
        "polymorphic_identity": "place",
        "with_polymorphic": "*",
    }


class Castle(Place):
    """A subclass with a table of its own."""

    __tablename__ = "castle"

    id: Mapped[int] = mapped_column(ForeignKey("place.id"), primary_key=True)
    towers: Mapped[int]

    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "castle"}


_REALM = bindparam("realm_of_policy", callable_=current_realm, type_=String())


def _is_of_realm(rows: Any) -> ColumnElement[bool]:
    criterion: ColumnElement[bool] = rows.realm == _REALM
    return criterion


REALMS = policies.Policy(
    "realms",
    OfRealm,
    ("realm",),
    _is_of_realm,
    everywhere=True,
    key_columns=frozenset(("realm",)),
    stamps=frozenset(("realm",)),
)


@contextmanager
def ruling(realm: str) -> Iterator[None]:
    """Name the realm inside; no policy holds because of that alone."""
    token = _realm.set(realm)
    try:
        yield
    finally:
        _realm.reset(token)


@contextmanager
def realms_apart() -> Iterator[None]:
    """Let the policy hold inside."""
    policies.registered(REALMS)
    listen_where_needed()
    try:
        yield
    finally:
        del policies._policies[REALMS.name]
        caching.forget_all()
