"""Moments in time: aware UTC in Python, with microseconds, on every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Dialect, Interval
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils.exceptions import ValidationError


def utc_now() -> datetime:
    """Return the moment as an aware datetime in UTC."""
    return datetime.now(UTC)


def aware(value: Any, field: str | None = None) -> datetime:
    """Return the value in UTC; a `ValidationError` for one that is naive or no datetime."""
    if not isinstance(value, datetime):
        raise ValidationError(
            f"must be a datetime with a time zone, not {type(value).__name__}", field, value
        )
    if value.utcoffset() is None:
        raise ValidationError(
            "must have a time zone; use datetime.now(UTC) or value.replace(tzinfo=…)", field, value
        )
    return value.astimezone(UTC)
