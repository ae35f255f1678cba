"""Rows of link tables with models of their own that a flush writes without these models.

It does so for collections: appending a row to one inserts a row into the link table, and removing a
row deletes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy.orm import InstanceState, RelationshipProperty
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keys import Key
from sqlmodel_crud_utils.exceptions import ValidationError

Models = Callable[[Any], Iterable[type[Any]]]


class Links(NamedTuple):
    """Rows of a link model.

    Attributes:
        added: The keys of the rows that are inserted.
        removed: The keys of the rows that are deleted.
    """

    added: dict[Key, None]
    removed: dict[Key, None]


def links_of(
    states: Iterable[tuple[InstanceState[Any], bool]], models: Models
) -> Mapping[type[Any], Links]:
    """Return the links that a flush writes, each once, whichever end was changed.

    Args:
        states: The flushed objects, each with whether it is deleted.
        models: Returns the models of a table that are of interest.
    """
    found: dict[type[Any], Links] = {}
    for state, is_deleted in states:
        for relationship in _with_links(state):
            for model in models(relationship.secondary):
                links = found.setdefault(model, Links({}, {}))
                added, removed = _ends(state, relationship, is_deleted)
                links.added.update(dict.fromkeys(_keys(model, relationship, state, added)))
                links.removed.update(dict.fromkeys(_keys(model, relationship, state, removed)))
    return found


def _with_links(state: InstanceState[Any]) -> Iterator[RelationshipProperty[Any]]:
    for relationship in state.mapper.relationships:
        if relationship.secondary is not None and not relationship.viewonly:
            yield relationship


def _ends(
    state: InstanceState[Any], relationship: RelationshipProperty[Any], is_deleted: bool
) -> tuple[list[Any], list[Any]]:
    """Return the rows that are newly linked, and those that are no longer linked."""
    attribute = state.attrs[relationship.key]
    if is_deleted:  # the flush loads the collection too, to delete its links
        history = attribute.load_history()
        return [], [*history.unchanged, *history.deleted]
    history = attribute.history
    return list(history.added), list(history.deleted)


def _keys(
    model: type[Any],
    relationship: RelationshipProperty[Any],
    state: InstanceState[Any],
    others: Iterable[Any],
) -> Iterator[Key]:
    facts = facts_of(model)
    own = [facts.columns[name] for name in facts.key]
    for other in others:
        if other is None:
            continue
        values = {
            **_values(state, relationship.synchronize_pairs),
            **_values(instance_state(other), relationship.secondary_synchronize_pairs or ()),
        }
        if not values.keys() >= set(own):
            raise ValidationError(
                f"{relationship} does not say which rows of {model.__name__} it writes, as the "
                f"collection has no {', '.join(facts.key)}; add and delete these rows directly",
                field=relationship.key,
            )
        yield tuple(values[column] for column in own)


def _values(state: InstanceState[Any], pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the values of a link's columns that refer to one of its ends."""
    mapper, row = state.mapper, state.obj()
    return {
        column: getattr(row, mapper.get_property_by_column(source).key) for source, column in pairs
    }
