"""The stamps of an UPDATE that is sent without knowing whether it changes the row.

A row that stays as it is must not say that it was changed. So each stamp is written under the
condition that one of the new values is another one than the row has.
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

# Types whose values are equal in the database where they are equal in Python.
_COMPARED = frozenset(
    {
        *(BigInteger, Integer, SmallInteger, Numeric, Float, Boolean, Date, DateTime, UTCDateTime),
        *(AutoString, String, Text, Enum, Uuid),
    }
)


@cached
def can_stamp(facts: Facts, names: tuple[str, ...]) -> bool:
    """Return whether an UPDATE of these fields can set the stamps under that condition."""
    return all(map(_is_known_before, facts.columns.values())) and all(
        _compares(facts.columns[name]) for name in names
    )


def _is_known_before(column: Column[Any]) -> bool:
    """Return whether a stamp, if there is one, depends on nothing but the moment."""
    default = column.onupdate
    if default is None:
        return not column.server_onupdate
    return isinstance(default, ColumnDefault) and (
        not default.is_callable or _takes_nothing(default.arg)
    )


def _takes_nothing(function: Any) -> bool:
    try:
        # SQLAlchemy wraps functions that take nothing into one that takes its context.
        return not signature(function).parameters
    except ValueError:  # some that are written in C
        return False


def _compares(column: Column[Any]) -> bool:
    kind: Any = column.type
    # A collation may take two texts for equal that are not, and a variant may have one.
    is_exact = getattr(kind, "collation", None) is None and not variants_of(kind)
    return type(kind) in _COMPARED and is_exact


def stamps(
    facts: Facts, new: Mapping[str, ColumnElement[Any]], prefix: str
) -> dict[Column[Any], ColumnElement[Any]]:
    """Return what the stamped columns are set to, where an UPDATE sets others.

    Args:
        facts: What the model is.
        new: The new values by fields, as the UPDATE sets them.
        prefix: What the names of the parameters of `stamp_values` begin with.
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
    """Return the stamps of this moment, but those that the database works out."""
    found = on_update_values(facts, changes)
    return {name: value for name, value in found.items() if not isinstance(value, ColumnElement)}
