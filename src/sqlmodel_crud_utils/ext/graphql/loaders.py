"""Loaders: related rows for your own resolvers, for many parents at a time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib import import_module
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sqlalchemy.orm import InstrumentedAttribute, RelationshipProperty, Session
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils.exceptions import ValidationError

if TYPE_CHECKING:
    from sqlmodel_crud_utils._runtime_async import AsyncSession

__all__ = ["relationship_loader"]

R = TypeVar("R")


@overload
def relationship_loader(
    new_session: Callable[[], AsyncSession], relationship: R
) -> Callable[[Sequence[Any]], Coroutine[Any, Any, list[R]]]: ...
@overload
def relationship_loader(
    new_session: Callable[[], Session], relationship: R
) -> Callable[[Sequence[Any]], list[R]]: ...
def relationship_loader(
    new_session: Callable[[], Any], relationship: Any
) -> Callable[[Sequence[Any]], Any]:
    """Return a function that loads a relationship for many rows at once, with one query.

    Pass it to a `DataLoader` (`load_fn=`), which batches the resolvers that ask for one row each.
    Use it for relationships that take arguments, which `for_selection` leaves to their resolvers.
    Each call opens its own session, so it does not disturb others; the returned rows belong to no
    session. As in every read, related rows that are soft-deleted or belong to another tenant are
    left out.

    Args:
        new_session: A function that opens a session, such as `session_factory(engine)`.
        relationship: The relationship, such as `Hero.team`.

    Returns:
        A function that takes rows and returns, in the same order, what each is related to: a row or
        None, or a list. With sessions of the async API, await it.

    Raises:
        ValidationError: Something that is not a relationship.

    Example:
        >>> from sqlmodel_crud_utils.sync import session_factory
        >>> _, owls = write_row(Team(name="Owls"), session)
        >>> _, hero = write_row(Hero(name="Ann", secret_name="?", team_id=owls.id), session)
        >>> teams_of = relationship_loader(session_factory(engine), Hero.team)
        >>> [team.name for team in teams_of([hero])]
        ['Owls']
    """
    facts, name = _relationship(relationship)

    def load(rows: Sequence[Any]) -> Any:
        keys = [_key_of(facts, row) for row in rows]
        session = new_session()
        tree = "_async" if hasattr(session, "sync_session") else "_sync"
        # Imported here, so that neither API loads the other.
        twin: Any = import_module(f"sqlmodel_crud_utils.ext.graphql.{tree}.related_rows")
        found = twin.related_rows(session, facts, name, list(dict.fromkeys(keys)))
        empty = list if facts.relationships[name].uselist else lambda: None
        return _later(found, keys, empty) if isawaitable(found) else _each(found, keys, empty)

    return load


async def _later(found: Any, keys: Sequence[Any], empty: Callable[[], Any]) -> list[Any]:
    return _each(await found, keys, empty)


def _each(found: Mapping[Any, Any], keys: Sequence[Any], empty: Callable[[], Any]) -> list[Any]:
    return [found[key] if key in found else empty() for key in keys]


def _relationship(given: Any) -> tuple[Facts, str]:
    attribute = given if isinstance(given, InstrumentedAttribute) else None
    if attribute is None or not isinstance(attribute.property, RelationshipProperty):
        raise ValidationError(
            f"takes a relationship, such as Hero.team, not {type(given).__name__}",
            field="relationship",
        )
    model: Any = attribute.class_
    return facts_of(model), attribute.key


def _key_of(facts: Facts, row: Any) -> tuple[Any, ...]:
    if not isinstance(row, facts.model):
        raise ValidationError(f"takes rows of {facts.model.__name__}, not {type(row).__name__}")
    identity: tuple[Any, ...] | None = instance_state(row).identity
    if identity is None:
        raise ValidationError(f"the row of {facts.model.__name__} has not been written yet")
    return identity
