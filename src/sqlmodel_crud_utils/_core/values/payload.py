"""What a caller wants to write into a row: checked names, values of the columns' types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime, time, timedelta
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError as PydanticError
from pydantic.fields import FieldInfo

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.models.mapping import (
    column_names,
    primary_key_names,
    relationship_attribute,
    relationship_names,
)
from sqlmodel_crud_utils._core.values.coercion import coerce
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

# Pydantic takes every value of these types where they are declared without constraints.
_PLAIN = frozenset((int, str, float, bool, bytes, date, datetime, time, timedelta, UUID, NoneType))


def changes_for(model: type[Any], data: Any) -> dict[str, Any]:
    """Return what an update writes, validated; of an object only the fields that were set.

    Raises:
        UnknownFieldError: A name that is no field of the model.
        ValidationError: A value that its field does not take, or data of a wrong kind.
    """
    return {name: _valid(model, name, value) for name, value in _given(data).items()}


def values_for(model: type[Any], given: Any) -> dict[str, Any]:
    """Return the values of a new row, coerced to the columns' types."""
    if not isinstance(given, Mapping):
        raise ValidationError(
            f"the values of a new row are a mapping, not {type(given).__name__}",
            field="create_method_kwargs",
        )
    return {name: _coerced(model, name, value) for name, value in given.items()}


def without_key(row: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes without the primary key, which must be the row's own where it is given."""
    names = primary_key_names(type(row))
    for name in names:
        if name in changes and changes[name] != getattr(row, name):
            raise ValidationError(
                f"the primary key of {type(row).__name__} cannot be changed by an update; "
                "leave it out, or write a new row and delete this one",
                field=name,
                value=changes[name],
            )
    return {name: value for name, value in changes.items() if name not in names}


def _given(data: Any) -> Mapping[str, Any]:
    if isinstance(data, BaseModel):
        return {name: getattr(data, name) for name in sorted(data.model_fields_set)}
    if isinstance(data, Mapping):
        return data
    raise ValidationError(
        f"data must be a mapping or a Pydantic object, not {type(data).__name__}", field="data"
    )


def _valid(model: type[Any], name: str, value: Any) -> Any:
    coerced = _coerced(model, name, value)
    adapter = _field_adapter(model, name)
    if adapter is not None:
        try:
            adapter.validate_python(coerced)
        except PydanticError as error:
            raise refused_by(error, name, value) from error
    return coerced


def refused_by(error: PydanticError, name: str, value: Any) -> ValidationError:
    """Return the library's error for a value that its field does not take."""
    # Pydantic's own text quotes the value.
    reasons = "; ".join(str(detail["msg"]) for detail in error.errors(include_input=False))
    return ValidationError(reasons, field=name, value=value)


def _coerced(model: type[Any], name: str, value: Any) -> Any:
    if name in column_names(model):
        return coerce(getattr(model, name), value)
    if name in relationship_names(model):
        return _related(model, name, value)
    raise UnknownFieldError(model, name, (*column_names(model), *relationship_names(model)))


def _related(model: type[Any], name: str, value: Any) -> Any:
    relationship = relationship_attribute(model, name).property
    target = relationship.mapper.class_
    if relationship.uselist:
        # What a collection is made of, SQLAlchemy knows.
        rows = value.values() if isinstance(value, Mapping) else value
        fits = isinstance(rows, Collection) and all(isinstance(row, target) for row in rows)
        expected = f"a list of {target.__name__} rows"
    else:
        fits = value is None or isinstance(value, target)
        expected = f"a {target.__name__} row or None"
    if not fits:
        raise ValidationError(
            f"{model.__name__}.{name} takes {expected}, not {type(value).__name__}", field=name
        )
    return value


@cached
def _field_adapter(model: type[Any], name: str) -> TypeAdapter[Any] | None:
    """Return what validates a field as the model declares it; relationships have none."""
    declared = _declared_type(model, name)
    return None if declared is None else TypeAdapter(declared)


@cached
def list_adapter(model: type[Any], name: str) -> TypeAdapter[Any] | None:
    """Return what validates many values of a field at once, which is a lot quicker."""
    declared = _declared_type(model, name)
    many: Any = GenericAlias(list, (declared,))
    return None if declared is None else TypeAdapter(many)


@cached
def trusted_types(model: type[Any], name: str) -> frozenset[type[Any]]:
    """Return the types whose values a field takes without a further look.

    A value of the very type that the field declares needs no validation.
    """
    declared = _declared_type(model, name)
    kinds = get_args(declared) if get_origin(declared) in {Union, UnionType} else (declared,)
    plain = all(isinstance(kind, type) and kind in _PLAIN for kind in kinds)
    return frozenset(kinds) if plain else frozenset()


def _declared_type(model: type[Any], name: str) -> Any:
    fields: Mapping[str, FieldInfo] = getattr(model, "model_fields", {})
    field = fields.get(name)
    if field is None or field.annotation is None:
        return None
    declared: Any = field.annotation
    for constraint in field.metadata:
        declared = Annotated[declared, constraint]
    return declared
