"""Soft-deleted rows: how a statement leaves them out, whatever way they would come in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Executable, event, false, inspect, true
from sqlalchemy.orm import Mapper, with_loader_criteria
from sqlalchemy.orm.util import LoaderCriteriaOption

from sqlmodel_crud_utils.mixins import SoftDeleteMixin

_S = TypeVar("_S", bound=Executable)


@lru_cache(1024)
def is_soft_delete(model: type[Any]) -> bool:
    """Tell whether rows of the model are marked as deleted instead of being removed."""
    return issubclass(model, SoftDeleteMixin)


def visible(entity: Any) -> ColumnElement[bool] | None:
    """Return the criterion for rows that are not soft-deleted.

    Args:
        entity: a table model, or an alias of one.

    Returns:
        The criterion, or None for a model without the mixin: all of its rows are visible.
    """
    if not is_soft_delete(inspect(entity).mapper.class_):
        return None
    criterion: ColumnElement[bool] = entity.is_deleted == false()
    return criterion


def deleted(entity: Any) -> ColumnElement[bool]:
    """Return the criterion for rows that are soft-deleted; none is, without the mixin."""
    if not is_soft_delete(inspect(entity).mapper.class_):
        return false()
    criterion: ColumnElement[bool] = entity.is_deleted == true()
    return criterion


def hide_deleted(statement: _S, model: type[Any]) -> _S:
    """Leave soft-deleted rows out of everything that the statement returns.

    That is the model itself, joined entities and aliases, and related rows that come with the
    rows (selectin, joined) or later (lazy loading).
    """
    options = _criteria(model)
    return statement.options(*options) if options else statement


@lru_cache(1024)
def _criteria(model: type[Any]) -> tuple[LoaderCriteriaOption, ...]:
    return tuple(
        with_loader_criteria(
            mapper.class_, mapper.class_.is_deleted == false(), include_aliases=True
        )
        for mapper in _reachable(inspect(model))
        if is_soft_delete(mapper.class_)
    )


def _reachable(mapper: Mapper[Any]) -> Iterator[Mapper[Any]]:
    """Return the mapper and all those that relationships lead to, subclasses included."""
    found: set[Mapper[Any]] = set()
    waiting = [mapper]
    while waiting:
        found_next = waiting.pop()
        if found_next not in found:
            found.add(found_next)
            waiting.extend(found_next.self_and_descendants)
            waiting.extend(relationship.mapper for relationship in found_next.relationships)
    return iter(sorted(found, key=lambda m: m.class_.__qualname__))


# A model that is declared later may add relationships to those there are.
event.listen(Mapper, "after_configured", lambda: _criteria.cache_clear())
