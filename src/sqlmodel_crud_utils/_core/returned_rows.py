"""Rows that are returned: what is loaded in them, and how it survives a commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypedDict, TypeVar

from sqlalchemy import Result, Row
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.orm.base import DEFAULT_STATE_ATTR
from sqlalchemy.orm.collections import collection_adapter

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.sqlalchemy_internals import repeats_rows, width_of

T = TypeVar("T")


class RowList(list[T]):
    """A list of rows that also has `.all()`, like the results of v0.1.0."""

    def all(self) -> list[T]:
        """Return the rows themselves."""
        return self


class Untouched(Enum):
    """Why a write has changed nothing, so no commit is needed."""

    NOT_THERE = "there is no such row"
    NOT_AT_ONCE = "it takes a SELECT and a flush"


class InsertOutcome(TypedDict):
    """What happened to each row when the rows could not be inserted together.

    Attributes:
        success: The rows that were inserted, in the order of the input.
        failed: The rows that the database refused, in the order of the input.
    """

    success: list[Any]
    failed: list[Any]


def states_of(rows: Iterable[Any]) -> list[InstanceState[Any]]:
    """Return the states of those results that are rows of a model, alone or among others.

    Plain values have none.
    """
    found: list[InstanceState[Any]] = []
    for row in rows:
        # The same as inspect() for a row, but faster: it searches no other inspectors.
        state = getattr(row, DEFAULT_STATE_ATTR, None)
        if isinstance(state, InstanceState):
            found.append(state)
        elif isinstance(row, Row):
            found += states_of(row)
    return found


def column_values(row: Any) -> list[Any]:
    """Return the loaded values of a row's columns."""
    held = row.__dict__
    return [held[name] for name in facts_of(type(row)).columns if name in held]


def with_related(states: Iterable[InstanceState[Any]]) -> list[InstanceState[Any]]:
    """Return the states and those of all rows reachable through loaded relationships."""
    found = dict.fromkeys(states)
    # A shortcut for the common case: many rows without loaded relationships.
    waiting = [state for state in found if facts_of(state.class_).relationships]
    while waiting:
        new = [state for state in _related(waiting.pop()) if state not in found]
        found.update(dict.fromkeys(new))
        waiting.extend(new)
    return list(found)


def _related(state: InstanceState[Any]) -> list[InstanceState[Any]]:
    held = state.dict
    names = facts_of(state.class_).relationships
    values = [held[name] for name in names if name in held]
    return states_of(row for value in values for row in _members(value))


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | set | tuple) else [value]


def expired_columns(facts: Facts, state: InstanceState[Any]) -> list[str]:
    """Return the columns whose next access would query the database.

    Columns that are deferred by the mapping or by a load option are not among them.
    """
    if not state.expired_attributes:
        return []
    loaded = state.expired_attributes - facts.queried
    return [name for name in facts.columns if name in loaded]


Snapshot = list[tuple[InstanceState[Any], dict[str, Any]]]


def snapshot(states: Iterable[InstanceState[Any]]) -> Snapshot:
    """Remember the loaded values before a commit expires them."""
    return [(state, _loaded(state)) for state in states]


def _loaded(state: InstanceState[Any]) -> dict[str, Any]:
    kept = _kept(state.mapper)
    return {key: value for key, value in state.dict.items() if key in kept}


@cached
def _kept(mapper: Mapper[Any]) -> frozenset[str]:
    """Return the attributes whose values survive a commit."""
    relationships = [each.key for each in mapper.relationships if each.lazy not in _NEVER_LOADED]
    return frozenset([*mapper.column_attrs.keys(), *relationships])


# Their attributes hold no rows, only the means to query them.
_NEVER_LOADED = frozenset({"dynamic", "write_only"})


def restore(remembered: Snapshot) -> None:
    """Put back the values that the commit expired, without a query."""
    for state, loaded in remembered:
        if state.obj() is not None and state.persistent:
            _put_back(state, loaded)


def _put_back(state: InstanceState[Any], values: Mapping[str, Any]) -> None:
    """Set values as if they had just been loaded: a `set_committed_value` for many at once."""
    collections = _collections(state.mapper) & values.keys()
    for key in collections:
        # The same collection object: filling a new one might query the rows in it.
        collection_adapter(values[key]).invalidated = False
    state.dict.update(values)
    state.expired = False
    state.expired_attributes.difference_update(values)
    for outdated in filter(None, (state.committed_state, state.callables)):
        for key in outdated.keys() & values.keys() - collections:
            del outdated[key]


@cached
def _collections(mapper: Mapper[Any]) -> frozenset[str]:
    return frozenset(each.key for each in mapper.relationships if each.uselist)


def fetched(result: Result[Any]) -> list[Any]:
    """Return all rows of a result; with a single column, its values."""
    rows = _each_once(result)
    return list(rows.scalars() if width_of(rows) == 1 else rows)


def column_rows(result: Result[Any]) -> Result[Any]:
    """Return the result of a SELECT of columns, without the ORM's work for each row.

    That is the same values again.
    """
    # A listener may have replaced the result by one without a cursor.
    raw: Result[Any] | None = getattr(result, "raw", None)
    return result if raw is None else raw


def as_dicts(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return rows as dicts with these names; further values of a row are left out."""
    return [dict(zip(names, row)) for row in rows]  # noqa: B905 - see above


def first_of(result: Result[Any]) -> Any:
    """Return the first row of a result, or its value if it has one column; None without rows."""
    row = _each_once(result).first()
    return row[0] if row is not None and len(row) == 1 else row


def _each_once(result: Result[Any]) -> Result[Any]:
    # Joined eager loading of a collection repeats the parent; SQLAlchemy then requires unique().
    return result.unique() if repeats_rows(result) else result
