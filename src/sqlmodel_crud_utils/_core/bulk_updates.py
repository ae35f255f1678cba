"""What a set-based update or deletion writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Delete, Integer, Update, delete, select, tuple_, update

from sqlmodel_crud_utils._core.models import column_names, mapper_of, primary_key_names
from sqlmodel_crud_utils._core.payload import changes_for
from sqlmodel_crud_utils._core.stamps import update_stamps
from sqlmodel_crud_utils._core.versions import version_name
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError


def bulk_changes_for(model: type[Any], data: Any) -> dict[str, Any]:
    """Return what is written into many rows, validated as for one.

    Raises:
        UnknownFieldError: A name that is no column of the model.
        ValidationError: A value that its field does not take, or a column that is not for all
            rows alike: the primary key, or the version, which counts by itself.
    """
    mapper_of(model)
    changes = changes_for(model, data)
    for name in changes:
        if name not in column_names(model):
            raise UnknownFieldError(model, name, column_names(model), what="column")
        if name in primary_key_names(model) or name == version_name(model):
            raise ValidationError(
                f"{name} cannot be the same in many rows of {model.__name__}; leave it out",
                field=name,
                value=changes[name],
            )
    return changes


def update_of(
    model: type[Any], changes: dict[str, Any], criteria: Sequence[ColumnElement[bool]]
) -> Update:
    """Return the UPDATE of rows, with the stamps that every update leaves and a new version."""
    values = changes | update_stamps(model, changes)
    name = version_name(model)
    if name is not None and name not in values:
        values |= _next_version(model, name)
    return update(model).where(*criteria).values({getattr(model, k): v for k, v in values.items()})


def _next_version(model: type[Any], name: str) -> dict[str, Any]:
    mapper = mapper_of(model)
    generator = mapper.version_id_generator
    if not callable(generator):  # the database counts by itself
        return {}
    attribute = getattr(model, name)
    return {name: attribute + 1 if isinstance(attribute.type, Integer) else generator(None)}


def delete_of(model: type[Any], criteria: Sequence[ColumnElement[bool]]) -> Delete:
    """Return the DELETE of rows."""
    return delete(model).where(*criteria)


def link_deletes_of(model: type[Any], criteria: Sequence[ColumnElement[bool]]) -> list[Delete]:
    """Return the DELETEs of what the model's many-to-many relationships keep for these rows."""
    statements = []
    for relationship in mapper_of(model).relationships:
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
