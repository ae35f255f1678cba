"""Checks that a caller's SQL expression is about the queried model."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Alias, ColumnElement, Table

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.sqlalchemy_internals import tables_in
from sqlmodel_crud_utils.exceptions import ValidationError


def require_own(model: type[Any], expression: ColumnElement[Any], field: str) -> None:
    """Refuse an expression on another table, which would be multiplied with the model's rows.

    Args:
        model: The model that is queried.
        expression: What the caller gave.
        field: What it was given for.
    """
    own = set(facts_of(model).mapper.tables)
    for table in tables_in(expression):
        is_table = isinstance(table.element if isinstance(table, Alias) else table, Table)
        if is_table and table not in own:
            name = getattr(table, "name", "another table")
            raise ValidationError(
                f"an expression on {name} says nothing about rows of {model.__name__}; "
                "filter by a path such as team__name, or with any(), has() or a subquery",
                field=field,
            )
