"""The objects that a session holds while a statement writes rows without the unit of work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.rows import expired_columns


def held(session: Session, model: type[Any]) -> list[InstanceState[Any]]:
    """Return the states of the session's objects that have no expired columns yet."""
    rows = [row for row in session.identity_map.values() if isinstance(row, model)]
    states = map(instance_state, rows)
    return [state for state in states if not expired_columns(facts_of(state.class_), state)]


def synchronization(session: Session, model: type[Any]) -> dict[str, Any]:
    """Return execution options that make a statement update the session's objects.

    SQLAlchemy then fetches the keys of all rows, which is wasted if the session holds none.
    """
    return {"synchronize_session": "fetch" if holds(session, model) else False}


def holds(session: Session, model: type[Any]) -> bool:
    """Return whether a session holds any object of a model."""
    return any(isinstance(row, model) for row in session.identity_map.values())


def forget_related(facts: Facts, row: Any, changes: Mapping[str, Any]) -> None:
    """Expire related rows that will be replaced, to compare the new ones with the database's."""
    state = instance_state(row)
    names = [name for name in changes if name in facts.relationships]
    loaded = [name for name in names if name in _unchanged(state)]
    if loaded and state.session is not None:
        state.session.expire(row, loaded)


def columns_to_reload(facts: Facts, row: Any, changes: Mapping[str, Any]) -> list[str]:
    """Return the columns to reload before changes are compared with them.

    A value that already equals the new one would not be written, although it may be outdated or
    changed in place.
    """
    state = instance_state(row)
    names: set[str] = set()
    for name, value in changes.items():
        names |= _links(facts, name) if name in facts.relationships else _shown(state, name, value)
    return sorted(names & _unchanged(state))


def _unchanged(state: InstanceState[Any]) -> set[str]:
    # Columns that were set since then are written either way.
    return state.dict.keys() - state.committed_state.keys()


def _shown(state: InstanceState[Any], name: str, value: Any) -> set[str]:
    is_shown = state.manager[name].impl.is_equal(state.dict.get(name), value) is True
    return {name} if is_shown else set()


def _links(facts: Facts, name: str) -> set[str]:
    """Return the columns through which a row refers to a related one."""
    columns = facts.relationships[name].local_columns
    return {facts.name_of(column) for column in columns if not column.primary_key}
