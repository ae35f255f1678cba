"""Set-based UPDATE and DELETE statements: one statement for all rows that a query matches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    Alias,
    ColumnElement,
    Delete,
    Integer,
    Update,
    bindparam,
    delete,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql import visitors

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.policies import here
from sqlmodel_crud_utils._core.parameters import prefix_for
from sqlmodel_crud_utils._core.queries.query import Query
from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils._core.values.expressions import require_assignable
from sqlmodel_crud_utils._core.values.on_update import on_update_values
from sqlmodel_crud_utils._core.values.payload import changes_for
from sqlmodel_crud_utils._core.visibility.criteria import visible
from sqlmodel_crud_utils._core.visibility.hiding import hide_anywhere
from sqlmodel_crud_utils._core.visibility.soft_delete import deleted
from sqlmodel_crud_utils._core.visibility.tenancy import check_changes
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

_S = TypeVar("_S", bound=Update | Delete)


def check_target(query: Query, method: str, *, everything: bool) -> None:
    """Refuse a query without conditions, with a limit, or of a model in several tables."""
    name = query.model.__name__
    if not query.conditions and not everything:
        raise ValidationError(
            f"{method}() without any filter would affect all rows of {name}; "
            f"filter with where(), or call {method}(everything=True)",
            field="everything",
        )
    if query.size is not None or query.start is not None:
        raise ValidationError(
            f"{method}() affects all rows that match, so it takes no limit and no offset",
            field="limit" if query.start is None else "offset",
        )
    if not facts_of(query.model).is_one_table:
        raise ValidationError(
            f"rows of {name} are stored in several tables, which {method}() cannot write to; "
            "write to them one by one",
            field="model",
        )


def check_soft_target(query: Query) -> None:
    """Refuse to soft-delete rows that are already deleted."""
    if query.only_deleted:
        raise ValidationError(
            "the rows are already marked as deleted; delete(soft=False) removes them",
            field="soft",
        )


def changes_of(
    model: type[Any], values: Mapping[str, Any] | None, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the validated changes of a set-based update.

    Args:
        model: The model of the rows.
        values: What was given as a mapping.
        more: What was given by name.
    """
    if values is not None and not isinstance(values, Mapping):
        raise ValidationError(
            f"update() takes its values by name or as a mapping, not {type(values).__name__}",
            field="values",
        )
    changes = {**(values or {}), **more}
    if not changes:
        raise ValidationError("update() needs values: update(age=30)", field="values")
    return bulk_changes_for(model, changes)


def criteria_of(query: Query, *, only_visible: bool = False) -> list[ColumnElement[bool]]:
    """Return the criteria of an UPDATE or DELETE.

    Args:
        query: The rows that it is for.
        only_visible: Leave rows alone that are deleted already, whatever the query says.
    """
    criteria = _shown(query, only_visible=only_visible)
    foreign = query.criteria(foreign=True)
    own = query.criteria(foreign=False)
    if not foreign and not _names_itself(query, own):
        return [*criteria, *own]
    # The caller's SQL gets its criteria for deleted rows as in a SELECT. And MySQL accepts the
    # written table in a subquery only if another subquery is around it.
    keys = facts_of(query.model).key_attributes
    rows = query.keys().order_by(None).subquery()
    key = keys[0] if len(keys) == 1 else tuple_(*keys)
    return [*criteria, key.in_(select(*rows.c))]


def _shown(query: Query, *, only_visible: bool) -> list[ColumnElement[bool]]:
    criterion = visible(query.model, here() if only_visible else query.visibility)
    criteria = [] if criterion is None else [criterion]
    return [*criteria, deleted(query.model)] if query.only_deleted else criteria


def _names_itself(query: Query, criteria: Iterable[ColumnElement[bool]]) -> bool:
    table = facts_of(query.model).mapper.local_table
    return not features_of(query.dialect).reads_written_table and any(
        isinstance(element, Alias) and element.element is table
        for criterion in criteria
        for element in visitors.iterate(criterion)
    )


def hidden(query: Query, statement: _S) -> _S:
    """Hide the same rows from the caller's SQL in a statement as from the query."""
    if not query.criteria(foreign=True):
        return statement
    return hide_anywhere(statement, query.visibility, query.model)


def bulk_changes_for(model: type[Any], data: Any) -> dict[str, Any]:
    """Return the changes for many rows, validated as for one; values may be SQL.

    Raises:
        UnknownFieldError: A name that is not a column of the model.
        ValidationError: A value that its field does not take, or a column that is not for all
            rows alike: the primary key, or the version, which counts by itself.
    """
    facts = facts_of(model)
    given = data if isinstance(data, Mapping) else {}
    sql = {name: _element(value) for name, value in given.items() if is_sql(value)}
    plain = {name: value for name, value in given.items() if name not in sql} if sql else data
    changes = changes_for(facts, plain) | sql
    check_changes(model, changes)
    for name in changes:
        if name not in facts.columns:
            raise UnknownFieldError(model, name, facts.columns, what="column")
        if name in facts.key or name == facts.version:
            raise ValidationError(
                f"{name} cannot be the same in many rows of {model.__name__}; leave it out",
                field=name,
                value=changes[name],
            )
    for name, expression in sql.items():
        facts.check_written(name, expression)
        require_assignable(facts, name, expression)
    return changes


def _element(value: Any) -> Any:
    return value.__clause_element__() if hasattr(value, "__clause_element__") else value


def update_of(
    model: type[Any], changes: dict[str, Any], criteria: Sequence[ColumnElement[bool]]
) -> Update:
    """Return the UPDATE of rows, with on-update values and a new version."""
    facts = facts_of(model)
    values = changes | on_update_values(facts, changes)
    name = facts.version
    if name is not None and name not in values:
        values |= _next_version(facts, name)
    return update(model).where(*criteria).values(_assigned(facts, values))


def _assigned(facts: Facts, values: Mapping[str, Any]) -> dict[Any, Any]:
    """Return the assignments of an UPDATE, with parameters that are not named like columns.

    SQLAlchemy would give the parameter of the column `address_1` the same name as that of a
    criterion on `address`.
    """
    prefix = prefix_for(facts.mapper.local_table)
    assigned = {}
    for name, value in values.items():
        attribute = facts.attributes[name]
        assigned[attribute] = (
            value if is_sql(value) else bindparam(f"{prefix}{name}", value, type_=attribute.type)
        )
    return assigned


def _next_version(facts: Facts, name: str) -> dict[str, Any]:
    generator = facts.mapper.version_id_generator
    if not callable(generator):  # the database sets the version
        return {}
    attribute = facts.attributes[name]
    return {name: attribute + 1 if isinstance(attribute.type, Integer) else generator(None)}


def delete_of(model: type[Any], criteria: Sequence[ColumnElement[bool]]) -> Delete:
    """Return the DELETE of rows."""
    return delete(model).where(*criteria)


def link_deletes_of(model: type[Any], criteria: Sequence[ColumnElement[bool]]) -> list[Delete]:
    """Return the DELETEs of the rows' links in many-to-many tables."""
    statements = []
    for relationship in facts_of(model).relationships.values():
        table: Any = relationship.secondary
        if table is not None and not relationship.viewonly:
            pairs = [
                (own, link) for own, link in relationship.synchronize_pairs if link.table is table
            ]
            rows = select(*(own for own, _ in pairs)).select_from(model).where(*criteria)
            links = [link for _, link in pairs]
            criterion = (links[0] if len(links) == 1 else tuple_(*links)).in_(rows)
            statements.append(delete(table).where(criterion))
    return statements
