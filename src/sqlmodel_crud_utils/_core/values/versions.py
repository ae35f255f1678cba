"""Optimistic locking: which version a row has, and the error when it is another one."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import LoaderCallableStatus
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.models.mapping import mapper_of
from sqlmodel_crud_utils._core.values.coercion import coerce
from sqlmodel_crud_utils.exceptions import ConflictError, ValidationError


@cached
def version_name(model: type[Any]) -> str | None:
    """Return the field that counts the versions of a row, None for a model without one."""
    mapper = mapper_of(model)
    column = mapper.version_id_col
    return None if column is None else mapper.get_property_by_column(column).key


def require_version(model: type[Any]) -> str:
    """Return the field that counts the versions; a `ValidationError` for a model without one."""
    name = version_name(model)
    if name is None:
        raise ValidationError(
            f"{model.__name__} has no versions; inherit VersionMixin to use expected_version",
            field="expected_version",
        )
    return name


def held_version(row: Any) -> Any:
    """Return the version that was read from the database, None where none is loaded.

    A version that the caller assigned since then doesn't count.
    """
    name = version_name(type(row))
    if name is None:
        return None
    state = instance_state(row)
    found = state.committed_state.get(name, state.dict.get(name))
    return None if found is LoaderCallableStatus.NO_VALUE else found


def coerced_version(model: type[Any], expected: Any) -> Any:
    """Return the version that a caller expects, None if the caller doesn't say."""
    return None if expected is None else coerce(getattr(model, require_version(model)), expected)


def check_version(row: Any, expected: Any, *, given: bool = False) -> None:
    """Raise a `ConflictError` if the row is not in the version that was seen.

    Args:
        row: The row as it is now.
        expected: The version that was seen.
        given: Whether the caller named it; otherwise the session read it.
    """
    found = held_version(row)
    if found != expected:
        raise conflict(row, expected, found, given=given)


def conflict(row: Any, expected: Any, found: Any = None, *, given: bool = False) -> ConflictError:
    """Return the error for a row that was changed, or removed, since it was read.

    Args:
        row: The row; nothing of it is loaded.
        expected: The version that was read; see `held_version`, and ask before a rollback.
        found: The version that is there now, if it is known.
        given: Whether the caller named the version that is expected.
    """
    key = shown_key(instance_state(row).identity)
    return ConflictError(type(row), key, expected, found, version_given=given)


def shown_key(identity: tuple[Any, ...] | None) -> Any:
    return identity[0] if identity is not None and len(identity) == 1 else identity
