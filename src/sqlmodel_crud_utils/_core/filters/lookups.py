"""The lookups of the filter language: what comes after the last `__` of `age__gt`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Dialect,
    Enum as EnumType,
    String,
    cast as sql_cast,
    literal,
    not_,
    or_,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.expression import SelectBase
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.filters import json
from sqlmodel_crud_utils._core.filters.lists import comparable, in_list, is_beyond
from sqlmodel_crud_utils._core.filters.text import (
    like_ignoring_case,
    regex_criterion,
    text_criterion,
)
from sqlmodel_crud_utils._core.parameters import is_rounded
from sqlmodel_crud_utils._core.values.coercion import coerce, describe, is_sql
from sqlmodel_crud_utils._core.values.readers import as_bool
from sqlmodel_crud_utils.exceptions import ValidationError

_Attribute = InstrumentedAttribute[Any]
_Builder = Callable[[_Attribute, Any, Dialect], ColumnElement[bool]]


def criterion(
    attribute: _Attribute, lookup: str, value: Any, dialect: Dialect
) -> ColumnElement[bool]:
    """Return the criterion of one filter.

    Args:
        attribute: The column, of a model or of an alias.
        lookup: The name of a lookup, one of `LOOKUPS`.
        value: What the caller gave.
        dialect: The dialect of the database that runs the statement.

    Raises:
        ValidationError: If the lookup doesn't fit the column, or the value doesn't fit both.
    """
    if lookup not in lookups_of(attribute):
        raise ValidationError(
            f"{lookup} searches text, but {_name(attribute)} takes {describe(attribute)}; "
            f"the lookups for it are {', '.join(lookups_of(attribute))}",
            attribute.key,
            value,
        )
    return _BUILDERS[lookup](attribute, value, dialect)


def lookups_of(attribute: _Attribute) -> tuple[str, ...]:
    """Return the lookups that a column can be filtered with."""
    return LOOKUPS if _is_text(attribute) else _FOR_ANY_COLUMN


def compared_value(attribute: _Attribute, lookup: str, value: Any) -> Any:
    """Return the coerced value of a plain comparison, or None for another filter.

    Two filters of the same name are the same SQL if this is not None for both.
    """
    if lookup not in _COMPARISONS or value is None or is_sql(value):
        return None
    found = coerce(attribute, value)
    type_ = attribute.property.columns[0].type
    plain = type_.coerce_compared_value(_COMPARISONS[lookup], found) is type_
    changed = is_beyond(type_, (found,)) or is_rounded(type_, found)
    return found if plain and not changed else None


def asks_for_null(attribute: _Attribute, lookup: str, value: Any) -> bool | None:
    """Return whether a filter matches nothing (True) or everything (False); None: neither."""
    if lookup == "is_null":
        return _truth(attribute, value)
    if value is None:
        return {"eq": True, "ne": False}.get(lookup)
    return None


# --- comparisons ---------------------------------------------------------------------------------


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def _compares(lookup: str) -> _Builder:
    compare = _COMPARISONS[lookup]

    def build(attribute: _Attribute, value: Any, dialect: Dialect) -> ColumnElement[bool]:
        null = asks_for_null(attribute, lookup, value)
        if null is not None:
            return _is_null(attribute, null, dialect)
        other = json.operand(attribute, _operand(attribute, lookup, value))
        criterion: ColumnElement[bool] = compare(json.compared(attribute), other)
        return criterion

    return build


def _between(attribute: _Attribute, value: Any, _dialect: Dialect) -> ColumnElement[bool]:
    bounds = _listed(attribute, "between", value)
    if len(bounds) != 2:
        raise ValidationError(
            f"{_name(attribute)}__between takes two values, the lowest and the highest, "
            f"not {len(bounds)}",
            attribute.key,
            value,
        )
    low, high = (_operand(attribute, "between", bound) for bound in bounds)
    return attribute.between(low, high)


def _in(
    attribute: _Attribute, value: Any, dialect: Dialect, lookup: str = "in"
) -> ColumnElement[bool]:
    if isinstance(value, SelectBase):
        return attribute.in_(value)
    given = _listed(attribute, lookup, value)
    # SQL finds no NULL with IN, and nothing at all with a NOT IN that holds one.
    values = [coerce(attribute, item) for item in given if item is not None]
    return in_list(attribute, values, dialect)


def _not_in(attribute: _Attribute, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    return not_(_in(attribute, value, dialect, "not_in"))


def _is_null(attribute: _Attribute, value: Any, _dialect: Dialect) -> ColumnElement[bool]:
    wanted = _truth(attribute, value)
    null: ColumnElement[bool] = attribute.is_(None)
    type_ = _plain_type(attribute)
    if isinstance(type_, JSON) and not type_.none_as_null:
        # None is stored as JSON's null there, and read as None.
        null = or_(null, sql_cast(attribute, String()) == "null")
    return null if wanted else not_(null)


# --- text ----------------------------------------------------------------------------------------


def _like(attribute: _Attribute, value: Any, _dialect: Dialect) -> ColumnElement[bool]:
    return attribute.like(_like_pattern(attribute, "like", value))


def _not_like(attribute: _Attribute, value: Any, _dialect: Dialect) -> ColumnElement[bool]:
    return attribute.not_like(_like_pattern(attribute, "not_like", value))


def _like_pattern(attribute: _Attribute, lookup: str, value: Any) -> ColumnElement[str]:
    # As plain text: a custom type could not convert a pattern.
    return literal(f"%{_text(attribute, lookup, value)}%", String())


def _ilike(attribute: _Attribute, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    return like_ignoring_case(attribute, f"%{_text(attribute, 'ilike', value)}%", dialect)


def _regex(attribute: _Attribute, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    pattern = _text(attribute, "regex", value)
    # Other databases have their own regular expressions, which Python cannot check.
    if features_of(dialect).regex_in_python:
        _require_pattern(attribute, pattern)
    return regex_criterion(attribute, pattern, dialect)


def _require_pattern(attribute: _Attribute, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        problem = f"{_name(attribute)}__regex: not a regular expression ({error.msg})"
    else:
        return
    raise ValidationError(problem, attribute.key, pattern)


def _finds(
    lookup: str, *, at_start: bool = False, at_end: bool = False, ignore_case: bool = False
) -> _Builder:
    def build(attribute: _Attribute, value: Any, dialect: Dialect) -> ColumnElement[bool]:
        return text_criterion(
            attribute,
            _text(attribute, lookup, value),
            dialect,
            at_start=at_start,
            at_end=at_end,
            ignore_case=ignore_case,
        )

    return build


# --- operands ------------------------------------------------------------------------------------


def _operand(attribute: _Attribute, lookup: str, value: Any) -> Any:
    if is_sql(value):
        return value  # SQL compares with SQL: func.now(), another column
    if value is None:
        raise ValidationError(
            f"{_name(attribute)}__{lookup} needs a value, not None; "
            f"NULLs are found with {attribute.key}__is_null",
            attribute.key,
        )
    return comparable(attribute, coerce(attribute, value))


def _text(attribute: _Attribute, lookup: str, value: Any) -> str:
    text = coerce(attribute, value)
    if not isinstance(text, str):
        raise ValidationError(
            f"{_name(attribute)}__{lookup} takes a string, not {type(value).__name__}",
            attribute.key,
            value,
        )
    return text


def _listed(attribute: _Attribute, lookup: str, value: Any) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ValidationError(
            f"{_name(attribute)}__{lookup} takes a list of values, not {type(value).__name__}",
            attribute.key,
            value,
        )
    return list(value)


def _truth(attribute: _Attribute, value: Any) -> bool:
    try:
        return as_bool(value)
    except ValueError:
        problem = f"{_name(attribute)}__is_null takes True or False"
    raise ValidationError(problem, attribute.key, value)


def _is_text(attribute: _Attribute) -> bool:
    type_ = _plain_type(attribute)
    return isinstance(type_, String) and not isinstance(type_, EnumType)


def _plain_type(attribute: _Attribute) -> TypeEngine[Any]:
    type_: TypeEngine[Any] = attribute.property.columns[0].type
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def _name(attribute: _Attribute) -> str:
    return f"{attribute.parent.mapper.class_.__name__}.{attribute.key}"


_ANY: dict[str, _Builder] = {
    **{lookup: _compares(lookup) for lookup in _COMPARISONS},
    "in": _in,
    "not_in": _not_in,
    "between": _between,
    "is_null": _is_null,
}
_TEXT: dict[str, _Builder] = {
    "like": _like,
    "not_like": _not_like,
    "ilike": _ilike,
    "iexact": _finds("iexact", at_start=True, at_end=True, ignore_case=True),
    "contains": _finds("contains"),
    "icontains": _finds("icontains", ignore_case=True),
    "startswith": _finds("startswith", at_start=True),
    "istartswith": _finds("istartswith", at_start=True, ignore_case=True),
    "endswith": _finds("endswith", at_end=True),
    "iendswith": _finds("iendswith", at_end=True, ignore_case=True),
    "regex": _regex,
}
_BUILDERS = _ANY | _TEXT

LOOKUPS = tuple(_BUILDERS)
_FOR_ANY_COLUMN = tuple(_ANY)
