"""The criteria of policies for models, aliases and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, inspect

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Policy, Visibility, holding, mappers_of


def visible(entity: Any, visibility: Visibility = USUAL) -> ColumnElement[bool] | None:
    """Return the criterion for the rows of a model that a statement may see.

    Args:
        entity: A table model, or an alias of one.
        visibility: Which policies hold.

    Returns:
        The criterion, or None where no policy holds for the model: all of its rows are visible.
    """
    policies = facts_of(inspect(entity).mapper.class_).policies_in(visibility)
    return and_(*(policy.criterion(entity) for policy in policies)) if policies else None


TableCriterion = Callable[[FromClause], ColumnElement[bool]]
"""Makes the criterion for the rows of a table, or of an alias of it, that are visible."""

TableCriteria = Mapping[FromClause, TableCriterion]
"""Tables of which some rows are hidden, each with its rule."""


@cached
def rules_of(visibility: Visibility) -> TableCriteria:
    """Return the rules for all tables that policies cover."""
    named: dict[FromClause, dict[Policy, Mapping[str, str]]] = {}
    for policy in holding(visibility):
        for mapper in mappers_of(policy):
            columns = {name: mapper.columns[name] for name in policy.fields}
            table, *others = {column.table for column in columns.values()}
            if not others:
                keys = {name: column.key for name, column in columns.items()}
                named.setdefault(table, {})[policy] = keys
    return {table: partial(_criterion, policies) for table, policies in named.items()}


def _criterion(
    policies: Mapping[Policy, Mapping[str, str]], table: FromClause
) -> ColumnElement[bool]:
    return and_(
        *(
            policy.criterion(SimpleNamespace(**{name: table.c[key] for name, key in keys.items()}))
            for policy, keys in policies.items()
        )
    )


def visible_in(table: FromClause | None, visibility: Visibility) -> list[ColumnElement[bool]]:
    """Return the criteria for the rows of a table that a Core statement may see."""
    rule = None if table is None else rules_of(visibility).get(table)
    return [] if table is None or rule is None else [rule(table)]
