"""What every UPDATE writes besides the caller's values: time stamps, actors, versions."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from sqlalchemy import Column, ColumnDefault

from sqlmodel_crud_utils._core.models.mapping import mapper_of
from sqlmodel_crud_utils._core.values.versions import version_name


def update_stamps(model: type[Any], given: Container[str] = ()) -> dict[str, Any]:
    """Return the values that the `onupdate` of the model's columns gives.

    SQLAlchemy writes them by itself, but only what a statement names is brought into the objects
    that the session holds; they would keep their old version, and conflict with their own row.

    Args:
        model: The table model.
        given: The fields that the statement sets already.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import TimestampMixin
        >>> class Ticket(SQLModel, TimestampMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> list(update_stamps(Ticket))
        ['updated_at']
    """
    stamps: dict[str, Any] = {}
    for attribute in mapper_of(model).column_attrs:
        column = attribute.columns[0]
        default = column.onupdate if isinstance(column, Column) else None
        if isinstance(default, ColumnDefault) and attribute.key not in given:
            stamps[attribute.key] = _value(model, attribute.key, default)
    return stamps


def _value(model: type[Any], name: str, default: ColumnDefault) -> Any:
    if name == version_name(model):
        # In terms of the model, so that SQLAlchemy can do the sum for its objects too.
        return getattr(model, name) + 1
    return default.arg(None) if default.is_callable else default.arg
