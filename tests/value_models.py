"""Models whose fields or configurations change or restrict values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    HttpUrl,
    Json,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from sqlalchemy import JSON, Column, Computed, Integer, Numeric, SmallInteger, String
from sqlalchemy.dialects.postgresql import CIDR, INET, MACADDR
from sqlalchemy.orm import column_property, query_expression
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel

OurJSON = JSON(none_as_null=True)


class Address(BaseModel):
    """A Pydantic model, stored as JSON."""

    street: str
    since: date | None = None
    site: HttpUrl | None = None


class AddressIn(BaseModel):
    """The same in a request, with fewer fields."""

    street: str


@dataclass(frozen=True)
class Point:
    """A value of the program's own class."""

    x: int
    y: int


class PointType(TypeDecorator[Point]):
    """Points, stored as text; the type itself decides which values it accepts."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: Point | None, dialect: Any) -> str | None:  # noqa: ARG002
        """Return the text of a point."""
        return None if value is None else f"{value.x},{value.y}"

    def process_result_value(self, value: str | None, dialect: Any) -> Point | None:  # noqa: ARG002
        """Return the point of a text."""
        return None if value is None else Point(*map(int, value.split(",")))


def _joined(words: Any) -> Any:
    return (
        "+".join(words)
        if isinstance(words, list) and all(isinstance(each, str) for each in words)
        else words
    )


def _of_postgresql(type_: TypeEngine[Any]) -> Any:
    return String(60).with_variant(type_, "postgresql")


class Typed(SQLModel, table=True):
    """Nullable fields whose types are stricter than their columns."""

    id: int | None = Field(default=None, primary_key=True)
    code: str | None = Field(default=None, max_length=5)
    small: int | None = Field(default=None, sa_type=SmallInteger)
    whole: int | None = None
    real: float | None = None
    amount: Decimal | None = Field(default=None, sa_type=Numeric(6, 2))
    tidy: Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)] | None = None
    doubled: Annotated[int, AfterValidator(lambda value: value * 2)] | None = None
    words: Annotated[str, BeforeValidator(_joined)] | None = None
    address: Address | None = Field(default=None, sa_type=OurJSON)
    places: list[Address] | None = Field(default=None, sa_type=OurJSON)
    loose: dict[str, Any] | None = Field(default=None, sa_type=OurJSON)
    days: dict[str, date] | None = Field(default=None, sa_type=OurJSON)
    site: HttpUrl | None = Field(default=None, sa_type=String(60))
    ip: IPv4Address | None = None
    secret: SecretStr | None = Field(default=None, sa_type=String(40))
    parsed: Json[list[int]] | None = Field(default=None, sa_type=String(40))


class _Alone(TypeDecorator[Any]):
    """A PostgreSQL type that accepts what its driver accepts; text elsewhere."""

    impl = String
    cache_ok = True

    def __init__(self, type_: type[TypeEngine[Any]]) -> None:
        super().__init__(60)
        self.type_ = type_

    @property
    def python_type(self) -> type[Any]:
        """Return a type that accepts anything."""
        return object

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:
        """Return the type of the database."""
        return self.type_() if dialect.name == "postgresql" else String(60)


class Gateway(SQLModel, table=True):
    """Addresses and networks as objects, and a generated key."""

    id: int | None = Field(default=None, primary_key=True)
    ip: Any = Field(default=None, nullable=True, unique=True, sa_type=_Alone(INET))
    network: Any = Field(default=None, nullable=True, sa_type=_Alone(CIDR))


class Device(SQLModel, table=True):
    """PostgreSQL types; asyncpg's COPY does not support the last one."""

    id: int | None = Field(default=None, primary_key=True)
    ip: Any = Field(default=None, nullable=True, sa_type=_of_postgresql(INET()))
    network: Any = Field(default=None, nullable=True, sa_type=_of_postgresql(CIDR()))
    hardware: str | None = Field(default=None, sa_type=_of_postgresql(MACADDR()))


class Configured(SQLModel, table=True):
    """A configuration that its fields require."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        regex_engine="python-re",
        str_strip_whitespace=True,
        str_to_lower=True,
        str_max_length=10,
    )

    id: int | None = Field(default=None, primary_key=True)
    label: str | None = None
    # Only Python's own regex engine supports lookahead.
    pattern: Annotated[str, StringConstraints(pattern=r"^(?!x)")] | None = None
    at: Point | None = Field(default=None, sa_type=PointType)
    later: Later | None = Field(default=None, sa_type=OurJSON, nullable=True)
    checked: str | None = None
    low: int | None = None
    high: int | None = None

    @field_validator("checked")
    @classmethod
    def _mark(cls, value: str | None) -> str | None:
        return value and f"<{value}>"

    @field_validator("high")
    @classmethod
    def _is_above(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < (info.data["low"] or 0):
            raise ValueError("high is below low")
        return value


class Later(BaseModel):
    """A class that is defined after the model that refers to it."""

    n: int


class Carton(SQLModel, table=True):
    """Read-only attributes, computed by the database or by a query."""

    id: int | None = Field(default=None, primary_key=True)
    width: int
    height: int = 1
    area: int | None = Field(
        default=None, sa_column=Column(Integer, Computed("width * height", persisted=True))
    )


columns = Carton.__table__.c  # type: ignore[attr-defined]
Carton.outline = column_property(2 * (columns.width + columns.height))  # type: ignore[attr-defined]
Carton.asked = query_expression()  # type: ignore[attr-defined]
