"""What a table model consists of: its columns, its key, its relationships."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Table, inspect
from sqlalchemy.orm import InstrumentedAttribute, Mapper

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError


def mapper_of(model: type[Any]) -> Mapper[Any]:
    """Return the mapper of a table model; anything else is a `ValidationError`."""
    # What is no class may be unhashable, an instance of a model for example.
    mapper = _mapper(model) if isinstance(model, type) else None
    if mapper is None:
        raise ValidationError(
            f"{_describe(model)} is not a table model; "
            "pass a SQLModel class that is declared with table=True",
            field="model",
        )
    return mapper


@cached
def _mapper(model: type[Any]) -> Mapper[Any] | None:
    mapper = inspect(model, raiseerr=False)
    return mapper if isinstance(mapper, Mapper) else None


@cached
def column_names(model: type[Any]) -> tuple[str, ...]:
    """Return the names of the model's column attributes, in the order of declaration."""
    return tuple(mapper_of(model).column_attrs.keys())


@cached
def written_names(model: type[Any]) -> frozenset[str]:
    """Return the names of the attributes that a statement can write.

    Not among them are expressions that a query works out (`column_property`, `query_expression`),
    and columns that the database computes.
    """
    return frozenset(
        attribute.key
        for attribute in mapper_of(model).column_attrs
        if isinstance(column := attribute.columns[0], Column) and column.computed is None
    )


@cached
def queried_names(model: type[Any]) -> frozenset[str]:
    """Return the names of the attributes that hold something only where a query asks for it."""
    expression = (("query_expression", True),)
    attributes = mapper_of(model).column_attrs
    return frozenset(each.key for each in attributes if each.strategy_key == expression)


def check_written(model: type[Any], name: str, value: Any) -> None:
    """Refuse a column attribute that no statement can write."""
    if name not in written_names(model):
        raise ValidationError(
            f"{model.__name__}.{name} is computed by the database; leave it out", name, value
        )


@cached
def relationship_names(model: type[Any]) -> tuple[str, ...]:
    """Return the names of the model's relationships."""
    return tuple(mapper_of(model).relationships.keys())


@cached
def primary_key_names(model: type[Any]) -> tuple[str, ...]:
    """Return the attribute names of the primary key, in the order of its columns."""
    mapper = mapper_of(model)
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def fields_of(model: type[Any], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the attributes for columns of the model's table."""
    attributes = mapper_of(model).column_attrs
    return tuple(each.key for each in attributes if each.columns[0].name in columns)


def column_attribute(model: type[Any], name: str) -> InstrumentedAttribute[Any]:
    """Return a column attribute by name; an unknown name is an `UnknownFieldError`."""
    if name not in column_names(model):
        raise UnknownFieldError(model, name, column_names(model))
    attribute: InstrumentedAttribute[Any] = getattr(model, name)
    return attribute


def relationship_attribute(model: type[Any], name: str) -> InstrumentedAttribute[Any]:
    """Return a relationship attribute by name; an unknown name is an `UnknownFieldError`."""
    if name not in relationship_names(model):
        raise UnknownFieldError(model, name, relationship_names(model), what="relationship")
    attribute: InstrumentedAttribute[Any] = getattr(model, name)
    return attribute


def primary_key(model: type[Any]) -> tuple[InstrumentedAttribute[Any], ...]:
    """Return the attributes of the primary key, in the order of its columns."""
    return tuple(getattr(model, name) for name in primary_key_names(model))


def _describe(model: Any) -> str:
    return model.__name__ if isinstance(model, type) else repr(type(model).__name__)


def is_one_table(model: type[Any]) -> bool:
    """Tell whether one statement can write to the model's rows."""
    mapper = mapper_of(model)
    return isinstance(mapper.local_table, Table) and mapper.persist_selectable is mapper.local_table
