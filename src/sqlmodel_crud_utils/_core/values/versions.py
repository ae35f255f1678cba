"""Optimistic locking: the version of a row, and the error for a changed one."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import LoaderCallableStatus
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.values.coercion import coerce
from sqlmodel_crud_utils.exceptions import ConflictError, ValidationError


def require_version(facts: Facts) -> str:
    """Return the field that counts the versions; a `ValidationError` for a model without one."""
    if facts.version is None:
        raise ValidationError(
            f"{facts.model.__name__} has no versions; inherit VersionMixin to use expected_version",
            field="expected_version",
        )
    return facts.version


def held_version(facts: Facts, row: Any) -> Any:
    """Return the version as it was read from the database, or None if it is not loaded.

    A version that the caller assigned since then doesn't count.
    """
    name, state = facts.version, instance_state(row)
    if name is None:
        return None
    found = state.committed_state.get(name, state.dict.get(name))
    return None if found is LoaderCallableStatus.NO_VALUE else found


def coerced_version(facts: Facts, expected: Any) -> Any:
    """Return the version that a caller expects, or None."""
    return None if expected is None else coerce(facts.attributes[require_version(facts)], expected)


def check_version(facts: Facts, row: Any, expected: Any, *, given: bool = False) -> None:
    """Raise a `ConflictError` if the row's version is not the expected one.

    Args:
        facts: What its model is.
        row: The row as it is now.
        expected: The version that was seen.
        given: Whether the caller named it; otherwise the session read it.
    """
    found = held_version(facts, row)
    if found != expected:
        raise conflict(row, expected, found, given=given)


def conflict(row: Any, expected: Any, found: Any = None, *, given: bool = False) -> ConflictError:
    """Return the error for a row that was changed, or removed, since it was read.

    Args:
        row: The row; nothing of it is loaded.
        expected: The version that was read; see `held_version`, and ask before a rollback.
        found: The current version, if it is known.
        given: Whether the caller named the version that is expected.
    """
    key = shown_key(instance_state(row).identity)
    return ConflictError(type(row), key, expected, found, version_given=given)


def shown_key(identity: tuple[Any, ...] | None) -> Any:
    return identity[0] if identity is not None and len(identity) == 1 else identity
