"""What a flush is about to write: checked first, and converted to the columns' types.

A table model does not validate what it is given, and SQLite stores whatever it gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy.orm import InstanceState, InstrumentedAttribute
from sqlalchemy.orm.attributes import instance_state, set_attribute

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.models.mapping import (
    check_written,
    mapper_of,
    relationship_names,
    written_names,
)
from sqlmodel_crud_utils._core.values.coercion import (
    Kept,
    is_sql,
    is_storable,
    storable,
    stored_as_is,
)
from sqlmodel_crud_utils.exceptions import ValidationError


def check_row(row: Any) -> None:
    """Convert what a flush would write of a row, and of new rows that hang on it.

    Of a row that is there already these are the values that were set since it was read.

    Raises:
        ValidationError: A value is not one that its column can store.
    """
    state = instance_state(row)
    _check(state)
    if any(map(state.dict.get, relationship_names(state.class_))):
        for _, _, related, _ in state.mapper.cascade_iterator("save-update", state):
            _check(related)


def check_rows(rows: Sequence[Any]) -> None:
    """Convert what a flush would write of many rows, as `check_row` does.

    Raises:
        ValidationError: A value is not one that its column can store; the text says of which row.
    """
    start = 0
    for model, group in groupby(rows, key=type):
        same = list(group)
        if not _are_storable(model, same):
            _check_each(start, same)
        start += len(same)


def _check_each(start: int, rows: Iterable[Any]) -> None:
    for index, row in enumerate(rows, start):
        try:
            check_row(row)
        except ValidationError as refused:
            reason = str(refused).partition(": ")[2]
            raise ValidationError(f"row {index}: {reason}", refused.field, refused.value) from None


def _are_storable(model: type[Any], rows: Sequence[Any]) -> bool:
    """Return quickly whether rows of one model can be stored as they are, a column at a time.

    False also stands for "perhaps not".
    """
    columns = _columns(model)
    names = [column.name for column in columns]
    if len(names) < 2 or not written_names(model).issuperset(names):
        return False
    held = [row.__dict__ for row in rows]
    if any(each.get(name) for name in relationship_names(model) for each in held):
        return False
    try:
        given = zip(*map(itemgetter(*names), held), strict=True)
    except KeyError:
        return False
    return all(
        is_storable(column.attribute, values, set(map(type, values)))
        for column, values in zip(columns, given, strict=True)
    )


def _check(state: InstanceState[Any]) -> None:
    held = state.dict
    for column in _changed(state):
        value = held.get(column.name)
        if value is not None and not column.keeps(value) and not is_sql(value):
            _convert(state, column, value)


def _convert(state: InstanceState[Any], column: _Column, value: Any) -> None:
    check_written(state.class_, column.name, value)
    made = storable(column.attribute, value)
    if made is not value:
        set_attribute(state.obj(), column.name, made)


def _changed(state: InstanceState[Any]) -> Iterator[_Column] | Sequence[_Column]:
    columns = _columns(state.class_)
    if state.key is None:
        return columns
    return (column for column in columns if column.name in state.committed_state)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a model, and which of its values are stored as they are."""

    name: str
    attribute: InstrumentedAttribute[Any]
    kept: Kept | None

    def keeps(self, value: Any) -> bool:
        """Return quickly whether a value is stored as it is; False also stands for "perhaps"."""
        kept = self.kept
        if kept is None or (kept.kind is not object and type(value) is not kept.kind):
            return False
        return kept.check is None or kept.check.one(value)


@cached
def _columns(model: type[Any]) -> Sequence[_Column]:
    """Return the columns that an instance may give values for."""
    found = []
    written = written_names(model)
    for attribute in mapper_of(model).column_attrs:
        type_ = attribute.columns[0].type
        kept = stored_as_is(type_) if attribute.key in written else None
        found.append(_Column(attribute.key, getattr(model, attribute.key), kept))
    return found
