"""Moments in time: aware UTC in Python, with microseconds, on every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Dialect, Interval
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils.exceptions import ValidationError


def utc_now() -> datetime:
    """Return this moment as an aware datetime in UTC."""
    return datetime.now(UTC)


def in_utc(value: Any, field: str | None = None) -> datetime:
    """Return a moment in UTC.

    Args:
        value: An aware datetime.
        field: The field that it is for, if it is known; the error names it.

    Raises:
        ValidationError: If the value is naive, or no datetime.
    """
    if not isinstance(value, datetime):
        raise ValidationError(
            f"must be a datetime with a time zone, not {type(value).__name__}", field, value
        )
    if value.utcoffset() is None:
        raise ValidationError(
            "a datetime without a time zone is ambiguous; use datetime.now(UTC), "
            "or .replace(tzinfo=UTC) where it is meant as UTC",
            field,
            value,
        )
    return value.astimezone(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """A column of moments: aware datetimes go in, aware datetimes in UTC come out.

    Microseconds are kept everywhere (MySQL's own DATETIME rounds them away), and databases
    without time zones store UTC.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import UTCDateTime
        >>> class Meeting(SQLModel, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        ...     begins: datetime = Field(sa_type=UTCDateTime)
        >>> Meeting.__table__.c.begins.type
        UTCDateTime()
    """

    impl = DateTime
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def __repr__(self) -> str:
        return "UTCDateTime()"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that this database stores moments with."""
        if not features_of(dialect).microseconds:
            from sqlalchemy.dialects.mysql import DATETIME  # slow to import

            return dialect.type_descriptor(DATETIME(fsp=6))
        return super().load_dialect_impl(dialect)

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return what the driver gets; a naive datetime is a `ValidationError`."""
        if value is None:
            return None
        moment = in_utc(value)
        return moment if features_of(dialect).time_zones else moment.replace(tzinfo=None)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """Return what the driver gave as an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def coerce_compared_value(
        self,
        op: OperatorType | None,  # noqa: ARG002
        value: Any,
    ) -> TypeEngine[Any]:
        """Return the type of the other side of an expression: moments may be shifted."""
        return Interval() if isinstance(value, timedelta) else self
