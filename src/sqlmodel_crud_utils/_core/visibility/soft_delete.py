"""Soft deletion: the policy that hides deleted rows, and the values that mark them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, false, inspect, true

from sqlmodel_crud_utils._core.mixins import SoftDeleteMixin
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.policies import (
    USUAL,
    Policy,
    Visibility,
    here,
    registered,
)
from sqlmodel_crud_utils._core.models.unique import MARKER
from sqlmodel_crud_utils._core.values.actors import current_actor
from sqlmodel_crud_utils._core.values.datetimes import utc_now
from sqlmodel_crud_utils.exceptions import ValidationError


def _is_not_deleted(rows: Any) -> ColumnElement[bool]:
    criterion: ColumnElement[bool] = rows.is_deleted == false()
    return criterion


SOFT_DELETION = registered(
    Policy(
        "soft_deletion",
        SoftDeleteMixin,
        ("is_deleted",),
        _is_not_deleted,
        key_columns=frozenset((MARKER,)),
    )
)

WITH_DELETED = Visibility(frozenset((SOFT_DELETION.name,)))
"""Soft-deleted rows are visible like all others."""


def visibility_with(*, include_deleted: bool) -> Visibility:
    """Return the visibility for a public function's `include_deleted`."""
    return here(WITH_DELETED if include_deleted else USUAL)


def is_soft_delete(facts: Facts) -> bool:
    """Return whether the model's rows are marked as deleted instead of being removed."""
    return SOFT_DELETION in facts.policies


def deleted(entity: Any) -> ColumnElement[bool]:
    """Return the criterion for soft-deleted rows; false for a model without the mixin."""
    if not is_soft_delete(facts_of(inspect(entity).mapper.class_)):
        return false()
    criterion: ColumnElement[bool] = entity.is_deleted == true()
    return criterion


def require_soft_delete(facts: Facts, field: str = "model") -> None:
    """Refuse a model whose rows cannot be soft-deleted."""
    if not is_soft_delete(facts):
        raise ValidationError(
            f"rows of {facts.model.__name__} cannot be soft-deleted; "
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
