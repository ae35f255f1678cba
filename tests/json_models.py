"""Neutral table models that hold JSON."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel


class Tagged(TypeDecorator[Any]):
    """JSON that the database has inside another one."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:
        """Wrap the value."""
        return None if value is None else {"tagged": value}

    def process_result_value(self, value: Any, _dialect: Dialect) -> Any:
        """Unwrap it."""
        return None if value is None else value["tagged"]


class Report(SQLModel, table=True):
    """JSON of the database's own kind, of a kind of the user's, and JSONB where there is one."""

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
