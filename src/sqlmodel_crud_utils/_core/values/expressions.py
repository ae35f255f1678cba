"""Checks that a caller's SQL expression is about the rows that it is used for."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from sqlalchemy import Alias, FromClause, Table

from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.sqlalchemy_internals import tables_in
from sqlmodel_crud_utils.exceptions import ValidationError


def require_own(model: type[Any], expression: Any, field: str) -> None:
    """Refuse an expression on another table, which would be multiplied with the model's rows.

    Args:
        model: The model that is queried.
        expression: What the caller gave.
        field: What it was given for.
    """
    other = _other_table(expression, facts_of(model).mapper.tables)
    if other is not None:
        raise ValidationError(
            f"an expression on {other} says nothing about rows of {model.__name__}; "
            "filter by a path such as team__name, or with any(), has() or a subquery",
            field=field,
        )


def require_assignable(facts: Facts, name: str, expression: Any) -> None:
    """Refuse a value on another table than the field's: the UPDATE would take any row of it.

    Args:
        facts: The model that is updated.
        name: The field that is assigned to.
        expression: What the caller gave.
    """
    other = _other_table(expression, (facts.columns[name].table,))
    if other is not None:
        raise ValidationError(
            f"the new value of {facts.model.__name__}.{name} is read from {other}, another table, "
            "without saying from which row; give a subquery: "
            "select(...).where(...).scalar_subquery()",
            field=name,
        )


def _other_table(expression: Any, own: Container[FromClause]) -> str | None:
    """Return the name of a table that an expression reads and that is not among these."""
    element = getattr(expression, "__clause_element__", lambda: expression)()
    for table in tables_in(element):
        is_table = isinstance(table.element if isinstance(table, Alias) else table, Table)
        if is_table and table not in own:
            return str(getattr(table, "name", "another table"))
    return None
