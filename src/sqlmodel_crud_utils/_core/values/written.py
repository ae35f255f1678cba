"""Checks the values that a flush is about to write, and converts them to the columns' types.

A table model does not validate its values, and SQLite stores whatever it gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy.orm import InstanceState, InstrumentedAttribute
from sqlalchemy.orm.attributes import instance_state, set_attribute

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.values.coercion import is_sql, is_storable, storable
from sqlmodel_crud_utils._core.values.columns import Kept, stored_as_is
from sqlmodel_crud_utils._core.values.expressions import require_assignable
from sqlmodel_crud_utils.exceptions import ValidationError


def check_row(row: Any) -> None:
    """Convert the pending values of a row, and of new rows that are linked to it.

    Of a row that already exists these are the values that were set since it was read.

    Raises:
        ValidationError: A value is not one that its column can store.
    """
    state = instance_state(row)
    facts = facts_of(state.class_)
    _check(facts, state)
    if any(map(state.dict.get, facts.relationships)):
        for _, _, related, _ in state.mapper.cascade_iterator("save-update", state):
            _check(facts_of(related.class_), related)


def pending_values(facts: Facts, row: Any) -> dict[str, Any]:
    """Return the values that were set since a row was read, converted, without its primary key.

    Raises:
        ValidationError: A value is not one that its column can store.
    """
    check_row(row)
    set_since = instance_state(row).committed_state
    names = sorted(facts.columns.keys() & set_since.keys() - set(facts.key))
    return {name: getattr(row, name) for name in names}


def check_rows(rows: Sequence[Any]) -> None:
    """Convert the pending values of many rows, as `check_row` does.

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
            raise of_row(index, refused) from None


def of_row(index: int, refused: ValidationError) -> ValidationError:
    """Return the error for a row among many, with its place."""
    reason = str(refused).partition(": ")[2]
    return ValidationError(f"row {index}: {reason}", refused.field, refused.value)


def _are_storable(model: type[Any], rows: Sequence[Any]) -> bool:
    """Return whether rows of one model can be stored unchanged, by a quick check of columns.

    False may also mean "unknown".
    """
    facts = facts_of(model)
    columns = _columns(facts)
    names = [column.name for column in columns]
    if len(names) < 2 or not facts.written.issuperset(names):
        return False
    held = [row.__dict__ for row in rows]
    if any(each.get(name) for name in facts.relationships for each in held):
        return False
    try:
        given = zip(*map(itemgetter(*names), held), strict=True)
    except KeyError:
        return False
    return all(
        is_storable(column.attribute, values, set(map(type, values)))
        for column, values in zip(columns, given, strict=True)
    )


def _check(facts: Facts, state: InstanceState[Any]) -> None:
    held = state.dict
    for column in _changed(facts, state):
        value = held.get(column.name)
        if value is None or column.keeps(value):
            continue
        if not is_sql(value):
            _convert(facts, state, column, value)
        else:
            facts.check_written(column.name, value)
            require_assignable(facts, column.name, value)


def _convert(facts: Facts, state: InstanceState[Any], column: _Column, value: Any) -> None:
    facts.check_written(column.name, value)
    made = storable(column.attribute, value)
    if made is not value:
        set_attribute(state.obj(), column.name, made)


def _changed(facts: Facts, state: InstanceState[Any]) -> Iterator[_Column] | Sequence[_Column]:
    columns = _columns(facts)
    if state.key is None:
        return columns
    return (column for column in columns if column.name in state.committed_state)


class _Column(NamedTuple):
    """A column of a model, and which of its values are stored unchanged."""

    name: str
    attribute: InstrumentedAttribute[Any]
    kept: Kept | None

    def keeps(self, value: Any) -> bool:
        """Return whether a value is stored unchanged; False may also mean "unknown"."""
        kept = self.kept
        if kept is None or (kept.kind is not object and type(value) is not kept.kind):
            return False
        return kept.check is None or kept.check.one(value)


@cached
def _columns(facts: Facts) -> Sequence[_Column]:
    """Return the columns that an instance may give values for."""
    return [
        _Column(
            name,
            facts.attributes[name],
            stored_as_is(column.type) if name in facts.written else None,
        )
        for name, column in facts.columns.items()
    ]
