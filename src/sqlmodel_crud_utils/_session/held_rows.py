"""The objects that a session holds while a statement writes rows without the unit of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import (
    InstanceState,
    PassiveFlag,
    Session,
    aliased,
    object_session,
)
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.collections import CollectionAdapter, collection_adapter

from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, here
from sqlmodel_crud_utils._core.returned_rows import expired_columns
from sqlmodel_crud_utils._core.visibility.hiding import link_criteria
from sqlmodel_crud_utils._core.visibility.soft_delete import deleted, is_soft_delete
from sqlmodel_crud_utils._session.routing import as_writing


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


def recall_hidden(facts: Facts, row: Any, changes: Mapping[str, Any]) -> None:
    """Let a row know which soft-deleted ones among its new related rows it has links to already.

    The flush compares with what is loaded, which leaves them out: their links would be inserted
    again.
    """
    for name, value in changes.items():
        relationship = facts.relationships.get(name)
        if relationship is None or relationship.secondary is None:
            continue
        related = value.values() if isinstance(value, Mapping) else value
        hidden = [each for each in related if _is_hidden(each)]
        if hidden:
            collection = _loaded(row, name)
            for each in _linked(facts, row, name):
                if each in hidden and each not in collection:
                    collection.append_without_event(each)


def _is_hidden(row: Any) -> bool:
    return is_soft_delete(facts_of(type(row))) and bool(row.is_deleted)


def _loaded(row: Any, name: str) -> CollectionAdapter:
    """Return what a row holds of a relationship, loaded as for a flush."""
    state = instance_state(row)
    passive = PassiveFlag.PASSIVE_OFF | PassiveFlag.NO_RAISE
    return collection_adapter(state.get_impl(name).get(state, state.dict, passive=passive))


def _linked(facts: Facts, row: Any, name: str) -> Sequence[Any]:
    """Return the soft-deleted rows that a row is linked to, by links that are not deleted."""
    session, relationship = object_session(row), facts.relationship(name)
    if session is None:
        return []
    target = aliased(relationship.property.mapper.class_)
    linked = relationship.of_type(target).and_(*link_criteria(relationship, here(USUAL)))
    key = zip(facts.key_attributes, instance_state(row).identity or (), strict=True)
    own = (attribute == value for attribute, value in key)
    statement = select(target).select_from(facts.model).join(linked).where(*own, deleted(target))
    with as_writing(session):
        return session.scalars(statement).all()


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
