"""One row by its key, rows by a list of keys: names, values and criteria."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    Integer,
    Select,
    bindparam,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TupleType, TypeEngine

from sqlmodel_crud_utils._core.chunks import COMPOSITE_KEYS_PER_QUERY, fitting
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.filters.lists import in_list, is_beyond, longest_list
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility
from sqlmodel_crud_utils._core.parameters import exact
from sqlmodel_crud_utils._core.values.coercion import coerce, is_coerced
from sqlmodel_crud_utils._core.visibility.hiding import hide
from sqlmodel_crud_utils.exceptions import ValidationError

Key = tuple[Any, ...]


def key_names(facts: Facts, pk_field: str | Sequence[str] | None, key: Any) -> tuple[str, ...]:
    """Return the names of the columns that a caller's key consists of.

    Without `pk_field` that is "id" where the model has such a column, as in v0.1.0, and the
    primary key otherwise. A tuple always stands for a composite primary key.
    """
    if pk_field is not None:
        return tuple(facts.attribute(name).key for name in _listed(pk_field))
    composite = len(facts.key) > 1 and isinstance(key, tuple)
    return ("id",) if not composite and "id" in facts.columns else facts.key


def _listed(pk_field: Any) -> Sequence[str]:
    names = (pk_field,) if isinstance(pk_field, str) else pk_field
    # Without any column the key would fit every row of the table.
    if isinstance(names, list | tuple) and names:
        return names
    raise ValidationError(
        f"pk_field is the name of a column or a list of names, not {type(pk_field).__name__}"
        + (" without any" if isinstance(names, list | tuple) else ""),
        field="pk_field",
    )


@cached
def by_key(model: type[Any], names: tuple[str, ...], visibility: Visibility) -> Select[Any]:
    """Return the SELECT of one row; its parameters are `key_0`, `key_1` and so on."""
    columns = [getattr(model, name) for name in names]
    statement = select(model).where(*equals_key(columns, "key_"))
    return hide(statement, visibility, model)


def equals_key(columns: Iterable[ColumnElement[Any]], prefix: str) -> list[ColumnElement[bool]]:
    """Return the criteria of one row; its parameters are the prefix with 0, 1 and so on."""
    return [
        column == bindparam(f"{prefix}{place}", type_=_key_type(column))
        for place, column in enumerate(columns)
    ]


def has_key(facts: Facts, key: Sequence[Any]) -> list[ColumnElement[bool]]:
    """Return the criteria of the row with this key."""
    columns = [facts.columns[name] for name in facts.key]
    return [
        column == bindparam(None, value, type_=_key_type(column), unique=True)
        for column, value in zip(columns, key, strict=True)
    ]


def _key_type(column: ColumnElement[Any]) -> TypeEngine[Any]:
    # PostgreSQL's drivers refuse a number that is too large for the column; no row can have it.
    return BigInteger() if isinstance(column.type, Integer) else exact(column.type)


def key_parameters(facts: Facts, names: tuple[str, ...], key: Any) -> dict[str, Any]:
    """Return the parameters of `by_key`, coerced to the types of the key's columns."""
    return {f"key_{i}": value for i, value in enumerate(key_values(facts, names, key))}


def key_values(facts: Facts, names: tuple[str, ...], key: Any) -> tuple[Any, ...]:
    """Return the key as a tuple of values of the columns' types; refuse None."""
    values = (key,) if len(names) == 1 and not isinstance(key, tuple) else key
    if not isinstance(values, tuple | list) or len(values) != len(names):
        raise ValidationError(
            f"the key of {facts.model.__name__} is ({', '.join(names)}); "
            f"pass {'its value' if len(names) == 1 else f'a tuple of {len(names)} values'}",
            field=", ".join(names),
            value=key,
        )
    return tuple(
        coerce(facts.attributes[name], value) for name, value in zip(names, values, strict=True)
    )


def key_list(
    facts: Facts, pk_field: str | Sequence[str] | None, keys: Iterable[Any]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the names of the key's columns, and the distinct keys as tuples of values.

    Keys that hold a None are left out, as no row has them.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise ValidationError(
            f"a list of keys of {facts.model.__name__} is expected, not {type(keys).__name__}",
            field="id_str_list",
        )
    listed = list(keys)
    names = key_names(facts, pk_field, listed[0] if listed else None)
    try:
        found = dict.fromkeys(_coerced_keys(facts, names, listed))
    except TypeError:  # lists and dicts, as columns of arrays and JSON hold them
        raise ValidationError(
            f"the values of {facts.model.__name__}.{names[0]} cannot be keys; "
            f"filter with {names[0]}__in",
            field=names[0],
        ) from None
    return names, [key for key in found if None not in key]


def _coerced_keys(
    facts: Facts, names: tuple[str, ...], keys: Sequence[Any]
) -> Iterable[tuple[Any, ...]]:
    kinds = set(map(type, keys))
    alone = len(names) == 1 and kinds.isdisjoint((tuple, list))
    if alone and is_coerced(facts.attributes[names[0]], keys, kinds):
        return zip(keys, strict=True)
    return (key_values(facts, names, key) for key in keys)


def by_key_list(
    model: type[Any],
    names: tuple[str, ...],
    keys: Sequence[tuple[Any, ...]],
    dialect: Dialect,
    visibility: Visibility = USUAL,
) -> Select[Any]:
    """Return the SELECT of all rows whose key is among `keys`."""
    statement = select(model).where(among_keys(model, names, keys, dialect))
    return hide(statement, visibility, model)


def among_keys(
    model: type[Any], names: tuple[str, ...], keys: Sequence[tuple[Any, ...]], dialect: Dialect
) -> ColumnElement[bool]:
    """Return the criterion that a row's key is among `keys`."""
    attributes = [getattr(model, name) for name in names]
    if len(attributes) == 1:
        return in_list(attributes[0], [key[0] for key in keys], dialect)
    possible = _possible(attributes, keys, dialect)
    type_ = TupleType(*(exact(attribute.property.columns[0].type) for attribute in attributes))
    return tuple_(*attributes).in_(
        bindparam(None, possible, type_=type_, expanding=True, unique=True)
    )


def _possible(
    attributes: Sequence[InstrumentedAttribute[Any]],
    keys: Sequence[tuple[Any, ...]],
    dialect: Dialect,
) -> Sequence[tuple[Any, ...]]:
    """Leave out numbers that are too large for their columns; see `_key_type`."""
    if not features_of(dialect).refuses_large_numbers:
        return keys
    types = [attribute.property.columns[0].type for attribute in attributes]
    return [
        key
        for key in keys
        if not any(is_beyond(type_, (value,)) for type_, value in zip(types, key, strict=True))
    ]


def key_chunks(
    model: type[Any],
    names: Sequence[str],
    keys: Sequence[tuple[Any, ...]],
    dialect: Dialect,
    size: int | None = None,
) -> Iterator[list[tuple[Any, ...]]]:
    """Cut keys into lists that each fit into one statement.

    Args:
        model: The model.
        names: The fields of the key.
        keys: The keys.
        dialect: The dialect of the database.
        size: How many keys a statement takes; left out, as many as a SELECT.
    """
    most = longest_key_list(model, names, dialect) if size is None else size
    return fitting(keys, most, dialect, tuple)


def longest_key_list(model: type[Any], names: Sequence[str], dialect: Dialect) -> int:
    """Return how many keys one SELECT takes."""
    if len(names) > 1:
        return COMPOSITE_KEYS_PER_QUERY
    return longest_list(getattr(model, names[0]), dialect) or sys.maxsize
