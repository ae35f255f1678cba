"""The names that MySQL generates for unnamed keys."""

from __future__ import annotations

from collections.abc import Container, Mapping
from itertools import count

from sqlalchemy import ForeignKeyConstraint, Table, UniqueConstraint

from sqlmodel_crud_utils._core.sqlalchemy_internals import constraints_in_order

Key = UniqueConstraint | ForeignKeyConstraint


def key_names(table: Table) -> Mapping[Key, str]:
    """Return the names that CREATE TABLE gives to the keys of a table.

    A key without a name gets that of its first column, with a number if another key has it. Foreign
    keys take part, as each brings a key of its own, unless another one begins with its columns.
    """
    keys = [key for key in constraints_in_order(table) if isinstance(key, Key)]
    names: dict[Key, str] = {}
    for place, key in enumerate(keys):
        if isinstance(key, ForeignKeyConstraint) and _is_covered(table, keys, place):
            continue
        first = key.columns[0].name
        is_named = isinstance(key.name, str)
        names[key] = str(key.name) if is_named else _free_name(first, names.values())
    return names


def _is_covered(table: Table, keys: list[Key], place: int) -> bool:
    own = _columns(keys[place])
    longer = [
        other
        for at, other in enumerate(keys)
        if isinstance(other, UniqueConstraint) or at < place or len(other.columns) > len(own)
    ]
    covering = [tuple(table.primary_key.columns.keys()), *map(_columns, longer)]
    return any(columns[: len(own)] == own for columns in covering)


def _columns(key: Key) -> tuple[str, ...]:
    return tuple(column.name for column in key.columns)


def _free_name(first: str, taken: Container[str]) -> str:
    if first not in taken:
        return first
    return next(name for number in count(2) if (name := f"{first}_{number}") not in taken)
