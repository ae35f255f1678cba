"""Table models whose changes are recorded."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any, Optional

from sqlalchemy import (
    CHAR,
    JSON,
    Column,
    Enum as SqlEnum,
    FetchedValue,
    LargeBinary,
    Numeric,
    String,
)
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.ext.history import TrackChangesMixin
from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TenantMixin,
    TimestampMixin,
    UTCDateTime,
    VersionMixin,
)


class Pallet(SQLModel, TrackChangesMixin, table=True):
    """A plain model, for which every shortcut would apply."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=40)
    stock: int | None = Field(default=0)


class Docket(SQLModel, TrackChangesMixin, SoftDeleteMixin, AuditMixin, VersionMixin, table=True):
    """A model with stamps, soft deletion and versions."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=40)
    stock: int | None = Field(default=0)


class Waybill(SQLModel, TrackChangesMixin, TimestampMixin, table=True):
    """A model whose every UPDATE sets a time."""

    id: int | None = Field(default=None, primary_key=True)
    stock: int | None = Field(default=0)


class Reversed(TypeDecorator[str]):
    """Stores text reversed, in place of encryption."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        return None if value is None else value[::-1]

    def process_result_value(self, value: str | None, _dialect: Any) -> str | None:
        return None if value is None else value[::-1]


class Grade(enum.Enum):
    """A quality."""

    LOW = "low"
    HIGH = "high"


class Vault(SQLModel, TrackChangesMixin, table=True):
    """Secrets, and values of every type."""

    __track_exclude__ = ("last_seen",)
    __track_redact__ = ("pin",)

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    pin: str | None = Field(default=None, max_length=40)
    code: str | None = Field(default=None, sa_type=Reversed)
    last_seen: int | None = None
    price: Decimal | None = Field(default=None, sa_type=Numeric(10, 2))
    grade: Grade | None = None
    is_open: bool | None = None
    weight: float | None = None
    content: bytes | None = Field(default=None, sa_type=LargeBinary)
    labels: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    day: dt.date | None = None
    moment: dt.datetime | None = Field(default=None, sa_type=UTCDateTime)
    duration: dt.timedelta | None = None
    owner: uuid.UUID | None = None


class Specimen(SQLModel, TrackChangesMixin, table=True):
    """Values that the database itself can convert to text."""

    __track_redact__ = ("pin",)

    id: int | None = Field(default=None, primary_key=True)
    text: str | None = Field(default=None, max_length=40)
    is_open: bool | None = None
    price: Decimal | None = Field(default=None, sa_type=Numeric(10, 2))
    grade: Grade | None = None
    moment: dt.datetime | None = Field(default=None, sa_type=UTCDateTime)
    number: int | None = None
    other: int | None = None
    pin: str | None = Field(default=None, max_length=40)


class Dial(SQLModel, TrackChangesMixin, table=True):
    """Values whose text the database would write differently from Python."""

    id: int | None = Field(default=None, primary_key=True)
    number: int | None = None
    price: Decimal | None = Field(default=None, sa_type=Numeric(10, 2))
    wide: Decimal | None = Field(default=None, sa_type=Numeric(20, 2))
    rate: float | None = Field(default=None, sa_type=Numeric(10, 2, asdecimal=False))
    code: str | None = Field(default=None, sa_type=CHAR(8))


class Tariff(SQLModel, TrackChangesMixin, table=True):
    """A key that may be written with fewer digits, or spaces, than the column has."""

    price: Decimal = Field(primary_key=True, sa_type=Numeric(8, 2))
    code: str = Field(primary_key=True, sa_type=CHAR(4))
    name: str = Field(default="", max_length=20)


class Exact(TypeDecorator[str]):
    """A text that minds case on all databases."""

    impl = String(40)
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        is_mysql = dialect.name in {"mysql", "mariadb"}
        return VARCHAR(40, collation="utf8mb4_bin") if is_mysql else String(40)


class Shelfmark(SQLModel, TrackChangesMixin, table=True):
    """Keys that may differ in case alone."""

    code: str = Field(primary_key=True, sa_type=Exact)


class Holding(SQLModel, TrackChangesMixin, TenantMixin, table=True):
    """Tenants that may differ in case alone."""

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: str = Field(default=None, sa_type=Exact)


class Lease(SQLModel, TrackChangesMixin, TenantMixin, table=True):
    """Rows that belong to tenants."""

    id: int | None = Field(default=None, primary_key=True)
    rent: int = 0


class Trinket(SQLModel, TrackChangesMixin, table=True):
    """Values that only Python can convert to text."""

    id: int | None = Field(default=None, primary_key=True)
    code: str | None = Field(default=None, sa_type=Reversed)
    grade: Grade | None = Field(
        default=None,
        sa_column=Column(
            SqlEnum(Grade, values_callable=lambda all_: [k.value for k in all_], name="level")
        ),
    )


class Ticker(SQLModel, TrackChangesMixin, table=True):
    """A column that the database may change with each update."""

    id: int | None = Field(default=None, primary_key=True)
    number: int = 0
    beat: int = Field(default=0, sa_column_kwargs={"server_onupdate": FetchedValue()})


class Estate(SQLModel, TrackChangesMixin, TenantMixin, table=True):
    """Rows that belong to tenants with a UUID."""

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: uuid.UUID = Field(default=None, index=True)  # type: ignore[assignment]
    rent: int = 0


class Slot(SQLModel, TrackChangesMixin, table=True):
    """A key of two columns."""

    row: int = Field(primary_key=True)
    place: str = Field(primary_key=True, max_length=20)
    label: str = Field(default="", max_length=20)


class LongName(SQLModel, TrackChangesMixin, table=True):
    """A key that may be too long for the history."""

    __tablename__ = "history_name"

    id: str = Field(primary_key=True, max_length=400)


class Cupboard(SQLModel, table=True):
    """Not tracked, but its books are."""

    __tablename__ = "history_cupboard"

    id: int | None = Field(default=None, primary_key=True)
    books: list["Tome"] = Relationship(back_populates="cupboard")


class Tome(SQLModel, TrackChangesMixin, table=True):
    """Refers to a row that is not tracked."""

    __tablename__ = "history_tome"

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(default="", max_length=20)
    cupboard_id: int | None = Field(default=None, foreign_key="history_cupboard.id")
    cupboard: Optional[Cupboard] = Relationship(back_populates="books")  # noqa: UP045


class BakerLoaf(SQLModel, TrackChangesMixin, table=True):
    """A tracked link table."""

    __tablename__ = "history_baker_loaf"

    baker_id: int = Field(primary_key=True, foreign_key="history_baker.id")
    loaf_id: int = Field(primary_key=True, foreign_key="history_loaf.id")


class Recipe(SQLModel, TrackChangesMixin, table=True):
    """A tracked link table with a separate key."""

    __tablename__ = "history_recipe"

    id: int | None = Field(default=None, primary_key=True)
    baker_id: int = Field(foreign_key="history_baker.id")
    loaf_id: int = Field(foreign_key="history_loaf.id")


class Baker(SQLModel, table=True):
    """One end of a many-to-many relationship."""

    __tablename__ = "history_baker"

    id: int | None = Field(default=None, primary_key=True)
    loaves: list["Loaf"] = Relationship(back_populates="bakers", link_model=BakerLoaf)
    planned: list["Loaf"] = Relationship(link_model=Recipe)


class Loaf(SQLModel, table=True):
    """The other end."""

    __tablename__ = "history_loaf"

    id: int | None = Field(default=None, primary_key=True)
    bakers: list[Baker] = Relationship(back_populates="loaves", link_model=BakerLoaf)
