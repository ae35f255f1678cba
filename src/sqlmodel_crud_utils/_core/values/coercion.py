"""Converts a caller's value to the column's Python type: for an integer column, "5" becomes 5."""

from __future__ import annotations

from collections.abc import Sequence, Set as AbstractSet
from decimal import Decimal
from types import NoneType
from typing import Any

from sqlalchemy import (
    ClauseElement,
)
from sqlalchemy.orm import InstrumentedAttribute

from sqlmodel_crud_utils._core.values.columns import (
    Kept,
    Size,
    kept_by,
    rule_of,
    size_of,
    stored_as_is,
)
from sqlmodel_crud_utils._core.values.readers import MisfitError
from sqlmodel_crud_utils.exceptions import ValidationError


def coerce(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    """Return a caller's value as one of the column's Python type, to compare the column with.

    None stays None. What a column without a plain Python type takes (arrays, types of one
    database) is left as it is. Of the types of the user's own, which decide themselves what they
    take, only strings are converted.

    Raises:
        ValidationError: If the value can't be one of the column's type.

    Example:
        >>> coerce(Hero.age, "5")
        5
    """
    return _read(attribute, value, None)


def _read(attribute: InstrumentedAttribute[Any], value: Any, size: Size | None) -> Any:
    rule = rule_of(attribute.property.columns[0].type)
    if value is None or rule is None:
        return value
    try:
        return rule.convert(value)
    except MisfitError as misfit:
        reason = str(misfit)
    # The errors that the standard library and dateutil raise for unreadable values.
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
        reason = _described(value)
    expected = rule.expected if size is None else size.expected or rule.expected
    raise _refusal(attribute, f"must be {expected}; got {reason}", value)


def storable(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    """Return a caller's value as one that the column can store.

    Raises:
        ValidationError: If the value can't be one of the column's type, or is too long or too
            large for the column.

    Example:
        >>> storable(Hero.age, "5")
        5
    """
    size = size_of(attribute.property.columns[0].type)
    made = _read(attribute, value, size)
    if size is not None and made is not None and not size.check.one(made):
        raise _refusal(attribute, size.words, value)
    return made


def is_coerced(
    attribute: InstrumentedAttribute[Any], values: Sequence[Any], kinds: AbstractSet[type[Any]]
) -> bool:
    """Return whether `coerce` would return each value unchanged, by a quick check.

    False also stands for "perhaps not".

    Args:
        attribute: The column.
        values: A caller's values.
        kinds: Their types.

    Example:
        >>> is_coerced(Hero.age, [5, None], {int, NoneType})
        True
    """
    return _are_kept(kept_by(attribute.property.columns[0].type), values, kinds)


def is_storable(
    attribute: InstrumentedAttribute[Any], values: Sequence[Any], kinds: AbstractSet[type[Any]]
) -> bool:
    """Return whether `storable` would return each value unchanged, by a quick check.

    False also stands for "perhaps not".

    Args:
        attribute: The column.
        values: A caller's values.
        kinds: Their types.

    Example:
        >>> is_storable(Hero.age, [5, None], {int, NoneType})
        True
    """
    return _are_kept(stored_as_is(attribute.property.columns[0].type), values, kinds)


def _are_kept(kept: Kept | None, values: Sequence[Any], kinds: AbstractSet[type[Any]]) -> bool:
    if kept is None:
        return kinds <= {NoneType}
    if kept.kind is not object and not kinds <= {kept.kind, NoneType}:
        return False
    if kept.check is None:
        return True
    given = [value for value in values if value is not None] if NoneType in kinds else values
    return not given or kept.check.many(given)


def _refusal(attribute: InstrumentedAttribute[Any], words: str, value: Any) -> ValidationError:
    model, name = attribute.parent.mapper.class_.__name__, attribute.key
    return ValidationError(f"{model}.{name} {words}", name, value)


def _described(value: Any) -> str:
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    # Values of other types are wrong, whatever they hold.
    unfit = " that is not one" if isinstance(value, str | int | float | Decimal) else ""
    return f"{article} {kind}{unfit}"


def is_sql(value: Any) -> bool:
    """Return whether a value is an SQL expression, which the database evaluates."""
    return hasattr(value, "__clause_element__") or isinstance(value, ClauseElement)


def describe(attribute: InstrumentedAttribute[Any]) -> str:
    """Describe what a column takes, for an error message."""
    rule = rule_of(attribute.property.columns[0].type)
    return "values of its own type" if rule is None else rule.expected
