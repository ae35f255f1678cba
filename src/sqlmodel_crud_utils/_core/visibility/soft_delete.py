"""Soft-deleted rows: what marks them, and how a statement leaves them out.

SQLAlchemy's `with_loader_criteria` reaches the model itself, joined entities, aliases, subqueries
and related rows, loaded now or later. `any()` and `has()` (before 2.1), tables that a statement
names without their model and the link tables of many-to-many relationships are beyond it;
`hidden_tables` writes the criteria for these into the statement.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, false, inspect, true

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.mixins import SoftDeleteMixin
from sqlmodel_crud_utils._core.values.actors import current_actor
from sqlmodel_crud_utils._core.values.datetimes import utc_now
from sqlmodel_crud_utils.exceptions import ValidationError


@cached
def is_soft_delete(model: type[Any]) -> bool:
    """Tell whether rows of the model are marked as deleted instead of being removed."""
    return issubclass(model, SoftDeleteMixin)


def visible(entity: Any) -> ColumnElement[bool] | None:
    """Return the criterion for rows that are not soft-deleted.

    Args:
        entity: A table model, or an alias of one.

    Returns:
        The criterion, or None for a model without the mixin: all of its rows are visible.
    """
    return _is_visible(entity) if is_soft_delete(inspect(entity).mapper.class_) else None


def _is_visible(entity: Any) -> ColumnElement[bool]:
    criterion: ColumnElement[bool] = entity.is_deleted == false()
    return criterion


def deleted(entity: Any) -> ColumnElement[bool]:
    """Return the criterion for rows that are soft-deleted; without the mixin, none is."""
    if not is_soft_delete(inspect(entity).mapper.class_):
        return false()
    criterion: ColumnElement[bool] = entity.is_deleted == true()
    return criterion


def require_soft_delete(model: type[Any], field: str = "model") -> None:
    """Refuse a model whose rows cannot be soft-deleted."""
    if not is_soft_delete(model):
        raise ValidationError(
            f"rows of {model.__name__} cannot be soft-deleted; "
            "inherit SoftDeleteMixin" + (", or leave soft out" if field == "soft" else ""),
            field=field,
        )


def deleted_values(user: str | None = None) -> dict[str, Any]:
    """Return what a set-based soft delete writes."""
    return {
        "is_deleted": True,
        "deleted_at": utc_now(),
        "deleted_by": current_actor() if user is None else user,
    }


def restored_values() -> dict[str, Any]:
    """Return what a set-based restore writes."""
    return {"is_deleted": False, "deleted_at": None, "deleted_by": None}


# --- statements ----------------------------------------------------------------------------------


# --- link tables ---------------------------------------------------------------------------------
