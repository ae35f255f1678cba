"""What every UPDATE writes besides the caller's values: time stamps, actors, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ColumnDefault

from sqlmodel_crud_utils._core.models.mapping import mapper_of
from sqlmodel_crud_utils._core.values.versions import version_name


class Context:
    """What a function of `onupdate` is told of its statement, which SQLAlchemy has not made yet.

    Attributes:
        current_parameters: The values that the statement sets, by column keys.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.current_parameters = parameters

    def get_current_parameters(self, **_: bool) -> Mapping[str, Any]:
        """Return the values that the statement sets, by column keys."""
        return self.current_parameters


def update_stamps(model: type[Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the values that the `onupdate` of the model's columns gives.

    SQLAlchemy writes them by itself, but only what a statement names is brought into the objects
    that the session holds; they would keep their old version, and conflict with their own row.

    Args:
        model: The table model.
        given: The fields that the statement sets already, and their values.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import TimestampMixin
        >>> class Ticket(SQLModel, TimestampMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> list(update_stamps(Ticket))
        ['updated_at']
    """
    stamps: dict[str, Any] = {}
    given = {} if given is None else given
    attributes = mapper_of(model).column_attrs
    context = Context({attributes[name].columns[0].key: given[name] for name in given})
    for attribute in attributes:
        column = attribute.columns[0]
        default = column.onupdate if isinstance(column, Column) else None
        if isinstance(default, ColumnDefault) and attribute.key not in given:
            stamps[attribute.key] = _value(model, attribute.key, default, context)
    return stamps


def _value(model: type[Any], name: str, default: Any, context: Context) -> Any:
    if name == version_name(model):
        # In terms of the model, so that SQLAlchemy can do the sum for its objects too.
        return getattr(model, name) + 1
    return default.arg(context) if default.is_callable else default.arg
