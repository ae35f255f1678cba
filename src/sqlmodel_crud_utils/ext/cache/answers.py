"""Answers: the result of a read, encoded for the store, and decoded into rows of a session.

An answer is one column or several, of plain values or of rows of models. It contains each row once,
with the values of its columns and the places of its related rows. Values are grouped by column, so
that most are checked, encoded and decoded a column at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.orm.collections import collection_adapter

from sqlmodel_crud_utils._core.cached_reads import Form, Question
from sqlmodel_crud_utils._core.memoizing import Store
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.returned_rows import expired_columns
from sqlmodel_crud_utils._session import kept_rows
from sqlmodel_crud_utils._session.sqlalchemy_internals import adopting
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.cache.stored_values import (
    Codec,
    DamagedError,
    UncacheableError,
    are_of,
    converts,
    decoded,
    encoded,
)

_DAMAGES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    StopIteration,
    TypeError,
    ValidationError,
    ValueError,
)
_NEVER_LOADED = frozenset(("dynamic", "write_only"))

_codecs: Store[tuple[Facts, str], Mapping[str, Codec]] = Store()


def _codecs_of(facts: Facts, dialect: Dialect) -> Mapping[str, Codec]:
    def make() -> Mapping[str, Codec]:
        return {name: Codec(column.type, dialect) for name, column in facts.columns.items()}

    return _codecs.get((facts, dialect.name), make)


_of_cells: Store[Any, Codec] = Store()


def _codec_of(type_: Any, dialect: Dialect) -> Codec | None:
    """Return the codec of a type that converts values, or None for other types."""
    if not converts(type_):
        return None
    return _of_cells.get((type_, dialect.name), lambda: Codec(type_, dialect))


def has_tuples(form: Form, types: Sequence[Any]) -> bool:
    """Return whether the rows of an answer are tuples."""
    return form == "tuples" or (form == "rows" and len(types) > 1)


def name_of(mapper: Mapper[Any]) -> str:
    """Return the name of a model in answers."""
    return f"{mapper.class_.__module__}.{mapper.class_.__qualname__}"


class UnfitError(Exception):
    """The session's state of a row differs from the answer, so the database must be queried."""


# --- encoding ------------------------------------------------------------------------------------


def loaded_states(session: Session) -> Collection[InstanceState[Any]]:
    """Return the objects that the next query would not refresh, so that they may be outdated.

    If the session holds kept rows, the library's queries refresh all rows that they find.
    """
    if kept_rows.has_any(session):
        return ()
    return {state for state in session.identity_map.all_states() if not state.expired}


_Shape = tuple[str, tuple[str, ...], tuple[str, ...]]
"""The model of a row, the columns that it holds, and the relationships."""


@dataclass(slots=True)
class _Alike:
    """Rows of one shape.

    Attributes:
        facts: The facts of their model.
        number: The number of the shape in the answer.
        values: The values of their columns, for each row.
        related: The places of their related rows, for each row.
    """

    facts: Facts
    number: int
    values: list[list[Any]] = field(default_factory=list)
    related: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True)
class Writer:
    """Encodes an answer.

    Attributes:
        dialect: The dialect of the database.
        held: Objects that were loaded before the read.
        form: The form of the answer.
        types: The types of the result's columns; None for a model.
    """

    dialect: Dialect
    held: Collection[InstanceState[Any]]
    form: Form
    types: Sequence[Any]
    shapes: dict[_Shape, _Alike] = field(default_factory=dict, init=False)
    order: list[int] = field(default_factory=list, init=False)
    places: dict[InstanceState[Any], int] = field(default_factory=dict, init=False)

    def write(self, answer: Sequence[Any]) -> dict[str, Any]:
        """Return the answer in a form that JSON can represent.

        Raises:
            UncacheableError: The answer contains a value that cannot be stored, or that may differ
                from the database's.
        """
        columns = zip(*answer, strict=True) if has_tuples(self.form, self.types) else [answer]
        written = [self._column(values, at) for at, values in enumerate(columns)]
        shapes = [
            [*shape, self._encoded(shape[1], alike), alike.related]
            for shape, alike in self.shapes.items()
        ]
        return {"columns": written, "shapes": shapes, "order": self.order}

    def _column(self, values: Sequence[Any], at: int) -> dict[str, list[Any]]:
        type_ = self.types[at]
        if type_ is None:
            return {"rows": [self._place(instance_state(each)) for each in values]}
        codec = _codec_of(type_, self.dialect)
        if codec is not None:
            return {"values": codec.encode_all(values)}
        if not are_of(type_, values):
            raise UncacheableError(f"not as {type_!r} has it")
        return {"values": list(map(encoded, values))}

    def _encoded(self, names: Sequence[str], alike: _Alike) -> list[list[Any]]:
        codecs = _codecs_of(alike.facts, self.dialect)
        pairs = zip(names, zip(*alike.values, strict=True), strict=True)
        return [codecs[name].encode_all(column) for name, column in pairs]

    def _place(self, state: InstanceState[Any]) -> int:
        """Return the place of a row in the answer, adding it and its related rows if necessary."""
        found = self.places.get(state)
        if found is not None:
            return found
        if state in self.held or state.key is None:
            raise UncacheableError("a row that the session held before")
        place = self.places[state] = len(self.places)
        facts, held = facts_of(state.class_), state.dict
        columns = tuple(name for name in facts.columns if name in held)
        related = tuple(
            name
            for name, relationship in facts.relationships.items()
            if name in held and relationship.lazy not in _NEVER_LOADED
        )
        shape = (name_of(state.mapper), columns, related)
        alike = self.shapes.get(shape)
        if alike is None:
            alike = self.shapes[shape] = _Alike(facts, len(self.shapes))
        self.order.append(alike.number)
        alike.values.append([held[name] for name in columns])
        places: list[Any] = []
        alike.related.append(places)
        places += [self._related(held[name]) for name in related]
        return place

    def _related(self, value: Any) -> Any:
        if value is None:
            return None
        state = getattr(value, "_sa_instance_state", None)
        if isinstance(state, InstanceState):
            return self._place(state)
        return [self._place(instance_state(each)) for each in collection_adapter(value)]


# --- decoding ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    """A row of an answer.

    Attributes:
        facts: The facts of its model.
        key: Its identity key.
        values: The values of its columns.
        related: The places of the related rows by relationship.
        adopt: Creates a persistent object in the session.
        instance: The session's object.
    """

    facts: Facts
    key: Any
    values: dict[str, Any]
    related: dict[str, Any]
    adopt: Callable[[Any, dict[str, Any]], Any]
    instance: Any = None


@dataclass(slots=True)
class Reader:
    """Decodes an answer into rows.

    Attributes:
        session: The session that gets the rows.
        dialect: The dialect of the database.
        question: The question.
        types: The types of the result's columns; None for a model.
    """

    session: Session
    dialect: Dialect
    question: Question
    types: Sequence[Any]
    made: list[InstanceState[Any]] = field(default_factory=list, init=False)
    """The objects that were created; others existed."""

    def read(self, answer: Any) -> list[Any]:
        """Return the answer; if it is damaged, the session stays unchanged.

        Raises:
            DamagedError: No read has stored this answer.
            UnfitError: The session's state of a row differs from the answer.
        """
        try:
            rows = self._rows(answer)
            columns = [self._column(each, at, rows) for at, each in enumerate(answer["columns"])]
            self._check(columns)
        except _DAMAGES as error:
            raise DamagedError from error
        self._find(rows)
        filled = [_filled(each, rows) for each in columns]
        return list(zip(*filled, strict=True)) if self._has_tuples else filled[0]

    @property
    def _has_tuples(self) -> bool:
        return has_tuples(self.question.form, self.types)

    def _check(self, columns: Sequence[Sequence[Any]]) -> None:
        """Refuse columns that do not fit the question."""
        sizes = set(map(len, columns))
        # Without rows there are no tuples, and thus no columns.
        is_empty = self._has_tuples and not columns
        if len(sizes) > 1 or not (is_empty or len(columns) == len(self.types)):
            raise DamagedError
        if self.question.check is not None:
            self.question.check(list(zip(*columns, strict=True)))
        if self.question.form in {"value", "count"}:
            [[value]] = columns
            if self.question.form == "count" and (type(value) is not int or value < 0):
                raise DamagedError

    def _rows(self, answer: Any) -> list[_Row]:
        models = _models_around(self.question.model)
        alike = [
            iter(self._alike(facts_of(models[name]), *found)) for name, *found in answer["shapes"]
        ]
        rows = [next(alike[number]) for number in answer["order"]]
        if len({row.key for row in rows}) < len(rows):
            raise DamagedError
        for row in rows:
            if row.related:
                _check_related(row, rows)
        return rows

    def _alike(
        self, facts: Facts, names: Any, relationships: Any, columns: Any, related: Any
    ) -> list[_Row]:
        """Return rows of one shape."""
        codecs = _codecs_of(facts, self.dialect)
        pairs = zip(names, columns, strict=True)
        values = {name: codecs[name].decode_all(column) for name, column in pairs}
        keys = [values[name] for name in facts.key]
        if any(None in column for column in keys):
            raise DamagedError
        adopt = adopting(self.session, facts.mapper, values.keys())
        key_of = facts.mapper.identity_key_from_primary_key
        return [
            _Row(
                facts,
                key_of(key),
                dict(zip(values, row, strict=True)),
                dict(zip(relationships, places, strict=True)),
                adopt,
            )
            for key, row, places in zip(
                zip(*keys, strict=True), zip(*values.values(), strict=True), related, strict=True
            )
        ]

    def _column(self, column: Any, at: int, rows: Sequence[_Row]) -> _Places | list[Any]:
        """Return a column with its values decoded, or the places of its rows."""
        type_ = self.types[at]
        if type_ is None:
            return _Places(_checked(column["rows"], rows, facts_of(self.question.model)))
        codec, values = _codec_of(type_, self.dialect), _listed(column["values"])
        if codec is not None:
            return codec.decode_all(values)
        found = [decoded(each, type_) for each in values]
        if not are_of(type_, found):
            raise DamagedError
        return found

    def _find(self, rows: Sequence[_Row]) -> None:
        """Find the session's object for each row, or create one."""
        if len(self.session.identity_map):
            for row in rows:
                row.instance = self._held(row)
        for row in rows:
            if row.instance is None:
                row.instance = row.adopt(row.key, row.values)
                self.made.append(instance_state(row.instance))
        for row in rows:
            if row.related:
                _relate(row, rows)

    def _held(self, row: _Row) -> Any:
        """Return the session's object for a row, or None."""
        held = self.session.identity_map.get(row.key)
        if held is None:
            return None
        state = instance_state(held)
        if state.class_ is not row.facts.model or expired_columns(row.facts, state):
            raise UnfitError
        is_kept = bool(kept_rows.keys_among(self.session, [held]))
        if is_kept and any(state.dict.get(name) != value for name, value in row.values.items()):
            raise UnfitError
        return held


class _Places(list[int]):
    """The places of the rows in a column."""


def _filled(column: _Places | list[Any], rows: Sequence[_Row]) -> list[Any]:
    if not isinstance(column, _Places):
        return column
    return [rows[place].instance for place in column]


def _relate(row: _Row, rows: Sequence[_Row]) -> None:
    for name, places in row.related.items():
        # A relationship that the object already holds stays, as after a query.
        if name not in instance_state(row.instance).dict:
            set_committed_value(row.instance, name, _members(places, rows))


def _members(places: Any, rows: Sequence[_Row]) -> Any:
    if places is None:
        return None
    if isinstance(places, int):
        return rows[places].instance
    return [rows[place].instance for place in places]


def _check_related(row: _Row, rows: Sequence[_Row]) -> None:
    """Refuse a row whose related rows belong to another model."""
    for name, places in row.related.items():
        relationship = row.facts.relationships[name]
        if isinstance(places, list) != bool(relationship.uselist):
            raise DamagedError
        found = [places] if isinstance(places, int) else places or []
        _checked(found, rows, facts_of(relationship.mapper.class_))


def _checked(places: Any, rows: Sequence[_Row], facts: Facts) -> list[int]:
    """Return places after checking that each has a row of the model."""
    found: list[int] = _listed(places)
    if not set(map(type, found)) <= {int} or min(found, default=0) < 0:
        raise DamagedError
    models = {rows[place].facts.model for place in found}
    if not all(issubclass(model, facts.model) for model in models):
        raise DamagedError
    return found


def _listed(values: Any) -> list[Any]:
    if type(values) is not list:
        raise DamagedError
    return values


def _models_around(model: type[Any]) -> Mapping[str, type[Any]]:
    return _around.get(
        model,
        lambda: {name_of(mapper): mapper.class_ for mapper in facts_of(model).reachable()},
    )


_around: Store[Any, Mapping[str, type[Any]]] = Store()
