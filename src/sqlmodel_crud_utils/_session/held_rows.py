"""The objects of a session that a set-based statement writes past."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.rows import expired_columns


def held(session: Session, model: type[Any]) -> list[InstanceState[Any]]:
    """Return the states of the session's objects that a statement may leave without values."""
    rows = [row for row in session.identity_map.values() if isinstance(row, model)]
    return [state for row in rows if not expired_columns(state := instance_state(row))]


def synchronization(session: Session, model: type[Any]) -> dict[str, Any]:
    """Return the options with which a statement reaches the objects that the session holds.

    SQLAlchemy asks for the keys of all rows then, which is for nothing in a session without any.
    """
    held = any(isinstance(row, model) for row in session.identity_map.values())
    return {"synchronize_session": "fetch" if held else False}
