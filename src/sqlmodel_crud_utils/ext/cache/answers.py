"""What a read returns, as a text for the store, and the rows of a session that are made of it.

An answer is a list of cells: plain values, rows of models, or several of these beside each other.
Each row is in it once, whatever leads to it, with the values of its columns and the places of the
related rows that it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Dialect, Row
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.orm.collections import collection_adapter

from sqlmodel_crud_utils._core.caching import Store
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.rows import expired_columns
from sqlmodel_crud_utils._session import kept_rows
from sqlmodel_crud_utils._session.sqlalchemy_internals import adopt
from sqlmodel_crud_utils.ext.cache.values import (
    Codec,
    DamagedError,
    UncacheableError,
    converts,
    decoded,
    encoded,
)

_NEVER_LOADED = frozenset(("dynamic", "write_only"))

_codecs: Store[tuple[Facts, str], Mapping[str, Codec]] = Store()


def _codecs_of(facts: Facts, dialect: Dialect) -> Mapping[str, Codec]:
    def make() -> Mapping[str, Codec]:
        return {name: Codec(column.type, dialect) for name, column in facts.columns.items()}

    return _codecs.get((facts, dialect.name), make)


_of_cells: Store[Any, Codec] = Store()


def _type_at(types: Sequence[Any], place: int) -> Any:
    return types[place] if place < len(types) else None


def _codec_at(types: Sequence[Any], place: int, dialect: Dialect) -> Codec | None:
    """Return how values are kept whose type converts them; others are kept as they are."""
    type_ = _type_at(types, place)
    if type_ is None or not converts(type_):
        return None
    return _of_cells.get((type_, dialect.name), lambda: Codec(type_, dialect))


def name_of(mapper: Mapper[Any]) -> str:
    """Return what an answer calls a model."""
    return f"{mapper.class_.__module__}.{mapper.class_.__qualname__}"


class UnfitError(Exception):
    """The session holds a row of an answer otherwise, so that the database has to be asked."""


# --- into the store ------------------------------------------------------------------------------


def loaded_states(session: Session) -> Collection[InstanceState[Any]]:
    """Return the objects that the next query leaves as they are: they say nothing about it.

    Where the session keeps rows from before, a query of the library reads all that it finds again.
    """
    if kept_rows.there_are(session):
        return ()
    return {state for state in session.identity_map.all_states() if not state.expired}


@dataclass(slots=True)
class Writer:
    """Puts down an answer.

    Attributes:
        dialect: The dialect of the database.
        held: Objects that were loaded before the read.
        types: The types of the columns of a result, None for a model.
    """

    dialect: Dialect
    held: Collection[InstanceState[Any]]
    types: Sequence[Any]
    shapes: dict[tuple[Any, ...], int] = field(default_factory=dict, init=False)
    rows: list[Any] = field(default_factory=list, init=False)
    places: dict[InstanceState[Any], int] = field(default_factory=dict, init=False)

    def write(self, answer: Sequence[Any]) -> dict[str, Any]:
        """Return the answer as what JSON can hold.

        Raises:
            UncacheableError: It has something that the store cannot hold, or that is not as the
                database has it.
        """
        cells = [self._cell(each) for each in answer]
        return {"shapes": list(self.shapes), "rows": self.rows, "cells": cells}

    def _cell(self, value: Any, place: int = 0) -> Any:
        state = getattr(value, "_sa_instance_state", None)
        if isinstance(state, InstanceState):
            return {"row": self._place(state)}
        if isinstance(value, tuple | Row):
            return {"several": [self._cell(each, at) for at, each in enumerate(value)]}
        codec = _codec_at(self.types, place, self.dialect)
        return encoded(value) if codec is None else codec.encode(value)

    def _place(self, state: InstanceState[Any]) -> int:
        """Return the place of a row in the answer, to which it and its related rows are added."""
        found = self.places.get(state)
        if found is not None:
            return found
        if state in self.held or state.key is None:
            raise UncacheableError("a row that the session held before")
        place = self.places[state] = len(self.rows)
        row: list[Any] = []
        self.rows.append(row)
        facts, held = facts_of(state.class_), state.dict
        codecs = _codecs_of(facts, self.dialect)
        columns = tuple(name for name in codecs if name in held)
        related = tuple(
            name
            for name, relationship in facts.relationships.items()
            if name in held and relationship.lazy not in _NEVER_LOADED
        )
        shape = (name_of(state.mapper), columns, related)
        number = self.shapes.setdefault(shape, len(self.shapes))
        values = [codecs[name].encode(held[name]) for name in columns]
        row += [number, values, [self._related(held[name]) for name in related]]
        return place

    def _related(self, value: Any) -> Any:
        if value is None:
            return None
        state = getattr(value, "_sa_instance_state", None)
        if isinstance(state, InstanceState):
            return self._place(state)
        return [self._place(instance_state(each)) for each in collection_adapter(value)]


# --- out of it -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    """A row of an answer.

    Attributes:
        facts: What its model is.
        values: What its columns hold.
        related: The places of the related rows by relationship.
        instance: The object of the session.
    """

    facts: Facts
    values: dict[str, Any]
    related: dict[str, Any]
    instance: Any = None

    @property
    def key(self) -> tuple[Any, ...]:
        """The primary key."""
        return tuple(self.values[name] for name in self.facts.key)


@dataclass(slots=True)
class Reader:
    """Makes the rows of an answer.

    Attributes:
        session: The session whose objects they become.
        dialect: The dialect of the database.
        model: The model that was asked for.
        types: The types of the columns of a result, None for a model.
    """

    session: Session
    dialect: Dialect
    model: type[Any]
    types: Sequence[Any]
    made: list[InstanceState[Any]] = field(default_factory=list, init=False)
    """The objects that were made; others were there."""

    def read(self, answer: Any) -> list[Any]:
        """Return the answer; nothing of the session is changed where it is damaged.

        Raises:
            DamagedError: No read has put this there.
            UnfitError: The session holds a row of it that is not as in the answer.
        """
        try:
            rows = self._rows(answer)
            cells = [self._checked(each, rows) for each in answer["cells"]]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DamagedError from error
        for row in rows:
            row.instance = self._held(row)
        for row in rows:
            if row.instance is None:
                row.instance = self._new(row)
        for row in rows:
            self._relate(row, rows)
        return [_filled(each, rows) for each in cells]

    def _rows(self, answer: Any) -> list[_Row]:
        models = _models_around(self.model)
        shapes = [
            (facts_of(models[name]), tuple(columns), tuple(related))
            for name, columns, related in answer["shapes"]
        ]
        rows = []
        for number, values, related in answer["rows"]:
            facts, columns, names = shapes[number]
            codecs = _codecs_of(facts, self.dialect)
            found = {
                name: codecs[name].decode(value)
                for name, value in zip(columns, values, strict=True)
            }
            rows.append(_Row(facts, found, dict(zip(names, related, strict=True))))
        for row in rows:
            _check(row, rows)
        return rows

    def _checked(self, cell: Any, rows: Sequence[_Row], place: int = 0) -> Any:
        """Return a cell with its values decoded, and rows by their places."""
        if not isinstance(cell, dict):
            codec = _codec_at(self.types, place, self.dialect)
            return (
                decoded(cell, _type_at(self.types, place)) if codec is None else codec.decode(cell)
            )
        if "several" in cell:
            return tuple(self._checked(each, rows, at) for at, each in enumerate(cell["several"]))
        return _Place(_index(cell["row"], rows, facts_of(self.model)))

    def _held(self, row: _Row) -> Any:
        """Return the object that the session holds for a row, None without one."""
        key = row.facts.mapper.identity_key_from_primary_key(row.key)
        held = self.session.identity_map.get(key)
        if held is None:
            return None
        state = instance_state(held)
        if state.class_ is not row.facts.model or expired_columns(row.facts, state):
            raise UnfitError
        is_kept = bool(kept_rows.keys_among(self.session, [held]))
        if is_kept and any(state.dict.get(name) != value for name, value in row.values.items()):
            raise UnfitError
        return held

    def _new(self, row: _Row) -> Any:
        mapper = row.facts.mapper
        key = mapper.identity_key_from_primary_key(row.key)
        made = adopt(self.session, mapper, key, row.values)
        self.made.append(instance_state(made))
        return made

    def _relate(self, row: _Row, rows: Sequence[_Row]) -> None:
        for name, places in row.related.items():
            # What an object of the session holds already stays, as after a query.
            if name not in instance_state(row.instance).dict:
                set_committed_value(row.instance, name, _members(places, rows))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row stands in an answer."""

    number: int


def _members(places: Any, rows: Sequence[_Row]) -> Any:
    if places is None:
        return None
    if isinstance(places, int):
        return rows[places].instance
    return [rows[place].instance for place in places]


def _filled(cell: Any, rows: Sequence[_Row]) -> Any:
    if isinstance(cell, _Place):
        return rows[cell.number].instance
    if isinstance(cell, tuple):
        return tuple(_filled(each, rows) for each in cell)
    return cell


def _check(row: _Row, rows: Sequence[_Row]) -> None:
    """Refuse a row without a key, or with related rows of another model."""
    if None in row.key:
        raise DamagedError
    for name, places in row.related.items():
        relationship = row.facts.relationships[name]
        facts = facts_of(relationship.mapper.class_)
        if isinstance(places, list) != bool(relationship.uselist):
            raise DamagedError
        for place in _listed(places):
            _index(place, rows, facts)


def _listed(places: Any) -> Iterable[Any]:
    if places is None:
        return ()
    return places if isinstance(places, list) else (places,)


def _index(place: Any, rows: Sequence[_Row], facts: Facts) -> int:
    if type(place) is not int or place < 0 or not issubclass(rows[place].facts.model, facts.model):
        raise DamagedError
    return place


def _models_around(model: type[Any]) -> Mapping[str, type[Any]]:
    return _around.get(
        model,
        lambda: {name_of(mapper): mapper.class_ for mapper in facts_of(model).reachable()},
    )


_around: Store[Any, Mapping[str, type[Any]]] = Store()
