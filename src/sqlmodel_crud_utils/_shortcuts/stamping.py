"""The stamps of an UPDATE that may not change the row.

A row that does not change must keep its stamps, such as `updated_at`. So each stamp is set only if
one of the new values differs from the row's.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnDefault,
    ColumnElement,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    or_,
)
from sqlmodel import AutoString

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.mixins import UTCDateTime
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.sqlalchemy_internals import variants_of
from sqlmodel_crud_utils._core.values.on_update import on_update_values

# Types whose values are equal in the database if they are equal in Python.
_COMPARED = frozenset(
    {
        *(BigInteger, Integer, SmallInteger, Numeric, Float, Boolean, Date, DateTime, UTCDateTime),
        *(AutoString, String, Text, Enum, Uuid),
    }
)


@cached
def can_stamp(facts: Facts, names: tuple[str, ...]) -> bool:
    """Return whether an UPDATE of these fields can set the stamps conditionally."""
    return all(map(_is_known_before, facts.columns.values())) and all(
        _compares(facts.columns[name]) for name in names
    )


def _is_known_before(column: Column[Any]) -> bool:
    """Return whether a column's stamp, if any, depends only on the current time."""
    default = column.onupdate
    if default is None:
        return not column.server_onupdate
    return isinstance(default, ColumnDefault) and (
        not default.is_callable or _takes_nothing(default.arg)
    )


def _takes_nothing(function: Any) -> bool:
    try:
        # SQLAlchemy wraps functions without parameters in one that takes the context.
        return not signature(function).parameters
    except ValueError:  # some functions in C have no signature
        return False


def _compares(column: Column[Any]) -> bool:
    kind: Any = column.type
    # A collation may treat different texts as equal, and a variant may have a collation.
    is_exact = getattr(kind, "collation", None) is None and not variants_of(kind)
    return type(kind) in _COMPARED and is_exact


def stamps(
    facts: Facts, new: Mapping[str, ColumnElement[Any]], prefix: str
) -> dict[Column[Any], ColumnElement[Any]]:
    """Return the values of the stamped columns in an UPDATE of other columns.

    Args:
        facts: The facts of the model.
        new: The UPDATE's new values by field.
        prefix: The prefix of the names of `stamp_values`' parameters.
    """
    columns = facts.columns
    is_changed = or_(*(columns[name].is_distinct_from(value) for name, value in new.items()))
    return {
        columns[name]: case((is_changed, _stamp(name, columns[name], prefix)), else_=columns[name])
        for name in facts.updated_always
        if name not in new
    }


def _stamp(name: str, column: Column[Any], prefix: str) -> Any:
    default: Any = column.onupdate
    if default.is_clause_element:
        return default.arg
    return bindparam(f"{prefix}{name}", type_=column.type)


def stamp_values(facts: Facts, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the current stamps, except those that the database computes."""
    found = on_update_values(facts, changes)
    return {name: value for name, value in found.items() if not isinstance(value, ColumnElement)}
