"""What every UPDATE writes besides the caller's values: time stamps, actors, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnDefault

from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils.exceptions import QueryExecutionError


class Context:
    """The context of an `onupdate` function, in place of SQLAlchemy's, which does not exist yet.

    Attributes:
        current_parameters: The values that the statement sets, by column keys.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.current_parameters = parameters

    def get_current_parameters(self, **_: bool) -> Mapping[str, Any]:
        """Return the values that the statement sets, by column keys."""
        return self.current_parameters


def on_update_values(facts: Facts, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the values of the `onupdate` defaults of the model's columns.

    SQLAlchemy writes them by itself, but only what a statement names is brought into the objects
    that the session holds; they would keep their old version, and conflict with their own row.

    Args:
        facts: What the model is.
        given: The fields that the statement sets already, and their values.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import TimestampMixin
        >>> from sqlmodel_crud_utils._core.models.facts import facts_of
        >>> class Ticket(SQLModel, TimestampMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> list(on_update_values(facts_of(Ticket)))
        ['updated_at']
    """
    values: dict[str, Any] = {}
    given = {} if given is None else given
    context = Context({facts.columns[name].key: given[name] for name in given})
    for name in facts.updated_always:
        default = facts.columns[name].onupdate
        if isinstance(default, ColumnDefault) and name not in given:
            values[name] = _value(facts, name, default, context)
    return values


def _value(facts: Facts, name: str, default: Any, context: Context) -> Any:
    if name == facts.version:
        # With the model's attribute, so that SQLAlchemy can also evaluate it for objects.
        return facts.attributes[name] + 1
    if not default.is_callable:
        return default.arg
    try:
        return default.arg(context)
    except Exception as error:
        raise QueryExecutionError(
            f"Query execution failed for {facts.model.__name__}: the onupdate of "
            f"{facts.columns[name]} failed ({type(error).__name__})",
            original_error=error,
        ) from error
