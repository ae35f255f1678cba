"""`IN` for lists of any length: one parameter if the database can take a list as one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    Dialect,
    Integer,
    SmallInteger,
    any_,
    bindparam,
    case,
    false,
    func,
    literal,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.filters.json import compared, holds_json, operand
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.parameters import array_of, exact
from sqlmodel_crud_utils._core.values.columns import python_type

# SQLite allows 32,766 parameters; the statement has others too.
_SQLITE_PLAIN_LIMIT = 30_000
# The types whose values survive a round trip through SQLite's JSON; float is not one of them.
_EXACT_IN_JSON = frozenset((int, str, bool))


def in_list(
    attribute: InstrumentedAttribute[Any], values: Sequence[Any], dialect: Dialect
) -> ColumnElement[bool]:
    """Return the criterion that a column's value is among `values`, however many these are.

    PostgreSQL gets an array and SQLite a JSON text, each as one parameter, so that the statement
    stays the same for lists of every length. MySQL, and types whose values don't survive the way
    through JSON, get an ordinary `IN`: there the parameters of one statement are the limit
    (SQLite: 32,766 floats or decimals). `not_()` gives the contrary, as SQL has it: NULL is
    neither among the values nor not.

    Args:
        attribute: The column.
        values: Values of the column's Python type, coerced already, without None.
        dialect: The dialect of the database that runs the statement.
    """
    if not values:
        return false()
    if holds_json(attribute):
        found: ColumnElement[bool] = compared(attribute).in_(
            [operand(attribute, value) for value in values]
        )
        return found
    type_: TypeEngine[Any] = attribute.property.columns[0].type
    if features_of(dialect).has_arrays and goes_into_array(type_):
        # The array's type binds each element like a single value.
        array = array_of(_compared_as(type_, values))
        return attribute == any_(bindparam(None, list(values), type_=array, unique=True))
    if features_of(dialect).has_json_each and _is_bound_bare(type_):
        return _in_json(attribute, values, type_, dialect)
    return attribute.in_(values)


def longest_list(attribute: InstrumentedAttribute[Any], dialect: Dialect) -> int | None:
    """Return how many values `in_list` takes on this database, or None if any number."""
    type_ = attribute.property.columns[0].type
    in_one_text = python_type(type_) in {int, str, bool, bytes, UUID} and _is_bound_bare(type_)
    return _SQLITE_PLAIN_LIMIT if features_of(dialect).has_json_each and not in_one_text else None


def comparable(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    """Return a value of the column's type in a form that compares with the column.

    PostgreSQL's drivers refuse a number that is too large for a column, and round one that has
    more decimals, though the comparison has an answer: no row is equal to it, and every row is
    below it or above. SQLAlchemy writes True and False into the statement, and then has no order
    for them.
    """
    type_ = attribute.property.columns[0].type
    if isinstance(value, bool):
        return literal(value, type_)
    wider = _compared_as(type_, (value,))
    return value if wider is type_ else literal(value, wider)


def _compared_as(type_: TypeEngine[Any], values: Sequence[Any]) -> TypeEngine[Any]:
    """Return the type that holds all of the values unchanged."""
    return BigInteger() if is_beyond(type_, values) else exact(type_)


def is_beyond(type_: TypeEngine[Any], values: Sequence[Any]) -> bool:
    """Return whether numbers are out of the range of PostgreSQL's type."""
    if not isinstance(type_, Integer) or isinstance(type_, BigInteger):
        return False
    half = 2**15 if isinstance(type_, SmallInteger) else 2**31
    return isinstance(values[0], int) and not -half <= min(values) <= max(values) < half


def _in_json(
    attribute: InstrumentedAttribute[Any],
    values: Sequence[Any],
    type_: TypeEngine[Any],
    dialect: Dialect,
) -> ColumnElement[bool]:
    processor = type_.dialect_impl(dialect).bind_processor(dialect)
    bound = [processor(value) for value in values] if processor else list(values)
    kinds = set(map(type, bound))
    if kinds <= _EXACT_IN_JSON:
        text = json.dumps(bound, ensure_ascii=False)
        if "\\u0000" not in text:  # SQLite's JSON ends a text there.
            return attribute.in_(_elements(text))
    if len(bound) > _SQLITE_PLAIN_LIMIT and kinds <= {bytes, memoryview}:
        # Only for long lists, because this uses no index. The hex() of NULL is "".
        digits = case((attribute.is_not(None), func.hex(attribute)))
        return digits.in_(_elements(json.dumps([value.hex().upper() for value in bound])))
    return attribute.in_(values)


def _elements(text: str) -> Any:
    return select(func.json_each(literal(text)).table_valued("value").c.value)


@cached
def goes_into_array(type_: TypeEngine[Any]) -> bool:
    """Return whether an array of this type can be one parameter on PostgreSQL."""
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    return _is_bound_bare(type_) and not isinstance(impl, ARRAY | JSON | NullType)


@cached
def _is_bound_bare(type_: TypeEngine[Any]) -> bool:
    """Return whether the type adds no SQL around its parameters."""
    return type_.bind_expression(bindparam("value", type_=NullType())) is None
