"""Neutral table models that hold JSON."""

from typing import Any

from sqlalchemy import JSON, Column, Dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, Relationship, SQLModel


class Tagged(TypeDecorator[Any]):
    """JSON that is stored inside another JSON value."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:
        """Wrap the value."""
        return None if value is None else {"tagged": value}

    def process_result_value(self, value: Any, _dialect: Dialect) -> Any:
        """Unwrap it."""
        return None if value is None else value["tagged"]


class Report(SQLModel, table=True):
    """JSON in the database's type, in a user's own type, and as JSONB if available."""

    id: int | None = Field(default=None, primary_key=True)
    data: Any = Field(default=None, nullable=True, sa_type=JSON(none_as_null=True))  # type: ignore[call-overload]
    tagged: Any = Field(default=None, nullable=True, sa_type=Tagged)
    binary: Any = Field(
        default=None,
        nullable=True,
        sa_type=JSON(none_as_null=True).with_variant(  # type: ignore[call-overload]
            JSONB(none_as_null=True), "postgresql"
        ),
    )


_OurJSON = JSON(none_as_null=True)


class Settings(SQLModel, table=True):
    """JSON of one type object in several columns, one of them with another name than its field."""

    id: int | None = Field(default=None, primary_key=True)
    data: Any = Field(default=None, nullable=True, sa_type=_OurJSON)  # type: ignore[call-overload]
    data_b: Any = Field(default=None, nullable=True, sa_type=_OurJSON)  # type: ignore[call-overload]
    da: Any = Field(default=None, sa_column=Column("other", _OurJSON))
    report_id: int | None = Field(default=None, foreign_key="report.id")
    report: Report | None = Relationship()
