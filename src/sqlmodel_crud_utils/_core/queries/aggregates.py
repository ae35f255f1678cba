"""Sums, averages and the like: which fields have them, and results alike on every database."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Float, Numeric, func
from sqlalchemy.orm import InstrumentedAttribute

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.values.coercion import describe
from sqlmodel_crud_utils._core.values.columns import python_type
from sqlmodel_crud_utils.exceptions import ValidationError

_NUMBERS = (int, float, Decimal)
_WITHOUT_ORDER = (bool, UUID, bytes, dict, list)


def aggregate(model: type[Any], name: str, field: str) -> ColumnElement[Any]:
    """Return the aggregate of a field as SQL.

    Args:
        model: The model of the field.
        name: "sum", "avg", "min" or "max".
        field: The name of the field.

    Raises:
        UnknownFieldError: A name that is not a field.
        ValidationError: A field that has no such aggregate on every database.
    """
    attribute = facts_of(model).attribute(field)
    if not _fits(name, attribute):
        fitting = [each for each in facts_of(model).columns if _fits(name, getattr(model, each))]
        raise ValidationError(
            f"{name} of {model.__name__}.{field} is not possible: the field takes "
            f"{describe(attribute)}; use one of: {', '.join(fitting) or 'no other field'}",
            field,
        )
    type_ = attribute.property.columns[0].type
    if name == "avg" and not isinstance(type_, Numeric):
        return func.avg(attribute, type_=Float())
    function: Callable[..., ColumnElement[Any]] = getattr(func, name)
    return function(attribute, type_=type_)


def plain(model: type[Any], name: str, field: str, value: Any) -> Any:
    """Return what the database gave as the same Python type everywhere.

    The sum of whole numbers is one, their average is a float; of decimals both are decimals.
    """
    type_ = python_type(facts_of(model).attribute(field).property.columns[0].type)
    if value is None or name not in {"sum", "avg"}:
        return value
    if type_ is Decimal:
        return value if isinstance(value, Decimal) else Decimal(str(value))
    return int(value) if type_ is int and name == "sum" else float(value)


def _fits(name: str, attribute: InstrumentedAttribute[Any]) -> bool:
    type_ = python_type(attribute.property.columns[0].type)
    if name in {"sum", "avg"}:
        return type_ in _NUMBERS
    return type_ not in _WITHOUT_ORDER
