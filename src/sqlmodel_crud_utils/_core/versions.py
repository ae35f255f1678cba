"""Optimistic locking: which version a row has, and the error when it is another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, event, select
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Session
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.coercion import coerce
from sqlmodel_crud_utils._core.listeners import own
from sqlmodel_crud_utils._core.models import mapper_of
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


def check_version(row: Any, expected: Any) -> None:
    """Raise a `ConflictError` if the row is not in the version that the caller has seen."""
    found = held_version(row)
    if found != expected:
        raise conflict(row, expected, found)


def conflict(row: Any, expected: Any, found: Any = None) -> ConflictError:
    """Return the error for a row that was changed, or removed, since it was read.

    Args:
        row: The row; nothing of it is loaded.
        expected: The version that was read; see `held_version`, and ask before a rollback.
        found: The version that is there now, if it is known.
    """
    return ConflictError(type(row), _shown_key(instance_state(row).identity), expected, found)


def _shown_key(identity: tuple[Any, ...] | None) -> Any:
    return identity[0] if identity is not None and len(identity) == 1 else identity


# --- flushes -------------------------------------------------------------------------------------

_KEY = "sqlmodel_crud_utils.versions"


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that a flush is about to write, and the version that it was read in."""

    model: type[Any]
    identity: tuple[Any, ...]
    version: Any

    def current_version(self) -> Select[Any]:
        """Return the SELECT of the version that is there now."""
        mapper = mapper_of(self.model)
        keys = zip(mapper.primary_key, self.identity, strict=True)
        criteria = [column == key for column, key in keys]
        return select(getattr(self.model, require_version(self.model))).where(*criteria)

    def conflict(self, found: Any = None) -> ConflictError:
        """Return the error for this row."""
        return ConflictError(self.model, _shown_key(self.identity), self.version, found)


def watch_flushes() -> None:
    """Begin to forget, at each flush, what the one before left; once there is a need to."""
    if not event.contains(Session, "before_flush", _forget):
        event.listen(Session, "before_flush", _forget)


@own
def _forget(session: Session, *_: Any) -> None:
    session.info.pop(_KEY, None)


def is_own_flush_listener(function: Any) -> bool:
    """Tell the library's listener to flushes from those of the caller."""
    return function is _forget


def claim(session: Session, row: Any) -> None:
    """Note that the flush under way writes to a row; when it fails, the row has no version left."""
    state = instance_state(row)
    _claims(session)[state] = Claim(type(row), state.identity or (), held_version(row))


def settle(session: Session, row: Any) -> None:
    """Note that the row was written."""
    _claims(session).pop(instance_state(row), None)


def take_claims(session: Session) -> list[Claim]:
    """Return the rows that the last flush failed to write; the one to blame is among them."""
    return list(session.info.pop(_KEY, {}).values())


def _claims(session: Session) -> dict[InstanceState[Any], Claim]:
    found: dict[InstanceState[Any], Claim] = session.info.setdefault(_KEY, {})
    return found
