"""The values that a caller writes into a row: names are checked, values converted."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, cast, get_args, get_origin
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    PydanticUserError,
    TypeAdapter,
    ValidationError as PydanticError,
    WrapValidator,
)
from sqlalchemy.orm import InstrumentedAttribute

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.values.coercion import is_sql, is_storable, storable
from sqlmodel_crud_utils._core.values.columns import is_json
from sqlmodel_crud_utils._core.values.expressions import require_assignable
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

# Pydantic accepts every value of these types if they are declared without constraints.
_PLAIN = frozenset((int, str, float, bool, bytes, date, datetime, time, timedelta, UUID, NoneType))
# Settings of a model's configuration that do not change how such values are validated.
_NEUTRAL = frozenset(
    (
        "alias_generator",
        "arbitrary_types_allowed",
        "extra",
        "from_attributes",
        "populate_by_name",
        "read_from_attributes",
        "registry",
        "table",
        "title",
        "use_attribute_docstrings",
        "validate_by_alias",
        "validate_by_name",
    )
)
# Validators that see a value before its type does.
_READERS = (BeforeValidator, PlainValidator, WrapValidator)
_MARKERS = {
    "after": AfterValidator,
    "before": BeforeValidator,
    "plain": PlainValidator,
    "wrap": WrapValidator,
}


def changes_for(facts: Facts, data: Any) -> dict[str, Any]:
    """Return the validated changes of an update; of an object, only the fields that were set.

    Raises:
        UnknownFieldError: A name that is not a field of the model.
        ValidationError: A value that its field does not take, or data of a wrong kind.
    """
    return {name: _valid(facts, name, value) for name, value in given_fields(data).items()}


def changes_of_hooks(
    facts: Facts, changes: Mapping[str, Any], made: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the changes as hooks modified them, with new values validated.

    The others were validated already, and a validator may change what it is given (a hash of a
    password, say).
    """
    return {
        name: value if name in changes and changes[name] is value else _valid(facts, name, value)
        for name, value in given_fields(made).items()
    }


def values_for(facts: Facts, given: Any) -> dict[str, Any]:
    """Return the values of a new row, coerced to the columns' types."""
    if not isinstance(given, Mapping):
        raise ValidationError(
            f"the values of a new row are a mapping, not {type(given).__name__}",
            field="create_method_kwargs",
        )
    return {name: _stored(facts, name, value) for name, value in given.items()}


def without_key(facts: Facts, row: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes without the primary key; a given key must be the row's own."""
    for name in facts.key:
        if name in changes and changes[name] != getattr(row, name):
            raise ValidationError(
                f"the primary key of {facts.model.__name__} cannot be changed by an update; "
                "leave it out, or write a new row and delete this one",
                field=name,
                value=changes[name],
            )
    return {name: value for name, value in changes.items() if name not in facts.key}


def given_fields(data: Any) -> Mapping[str, Any]:
    """Return the fields of a mapping, or those of an object that were set."""
    if isinstance(data, BaseModel):
        return {name: getattr(data, name) for name in sorted(data.model_fields_set)}
    if isinstance(data, Mapping):
        return data
    raise ValidationError(
        f"data must be a mapping or a Pydantic object, not {type(data).__name__}", field="data"
    )


def _valid(facts: Facts, name: str, value: Any) -> Any:
    if name in facts.relationships:
        return _related(facts, name, value)
    attribute = _written(facts, name, value)
    if is_sql(value):
        require_assignable(facts, name, value)
        return value
    return valid_values(attribute, [value])[0]


def valid_values(attribute: InstrumentedAttribute[Any], values: Sequence[Any]) -> Sequence[Any]:
    """Return a column's values, validated by its field and converted to its type.

    Raises:
        ValidationError: The field, or the column, does not take one of them.
    """
    model, name = attribute.parent.mapper.class_, attribute.key
    rules = _rules(model, name)
    if rules is not None and rules.reads_first:
        with suppress(PydanticError):
            return rules.stored(attribute, values, rules.adapter.validate_python(list(values)))
    kinds = set(map(type, values))
    if not is_storable(attribute, values, kinds):
        values = [storable(attribute, value) for value in values]
        kinds = set(map(type, values))
    if rules is None or kinds <= rules.trusted:
        return values
    try:
        found = rules.adapter.validate_python(list(values))
    except PydanticError as error:
        place = error.errors(include_input=False, include_url=False)[0]["loc"][0]
        raise refused_by(error, name, values[cast("int", place)]) from None
    return rules.stored(attribute, values, found)


def refused_by(error: PydanticError, name: str, value: Any) -> ValidationError:
    """Return the library's error for a value that its field refuses."""
    # Pydantic's own text quotes the value.
    reasons = "; ".join(str(detail["msg"]) for detail in error.errors(include_input=False))
    return ValidationError(reasons, field=name, value=value)


def _stored(facts: Facts, name: str, value: Any) -> Any:
    if name in facts.relationships:
        return _related(facts, name, value)
    return storable(_written(facts, name, value), value)


def _written(facts: Facts, name: str, value: Any) -> InstrumentedAttribute[Any]:
    if name not in facts.columns:
        raise UnknownFieldError(facts.model, name, (*facts.columns, *facts.relationships))
    facts.check_written(name, value)
    return facts.attributes[name]


def _related(facts: Facts, name: str, value: Any) -> Any:
    relationship = facts.relationships[name]
    target = relationship.mapper.class_
    if relationship.uselist:
        # SQLAlchemy knows how to read the items of a collection.
        rows = value.values() if isinstance(value, Mapping) else value
        fits = isinstance(rows, Collection) and all(isinstance(row, target) for row in rows)
        expected = f"a list of {target.__name__} rows"
    else:
        fits = value is None or isinstance(value, target)
        expected = f"a {target.__name__} row or None"
    if not fits:
        raise ValidationError(
            f"{facts.model.__name__}.{name} takes {expected}, not {type(value).__name__}",
            field=name,
        )
    return value


class _Rules(NamedTuple):
    """How a model validates the values of one of its fields.

    Attributes:
        adapter: Validates many values at once.
        trusted: The types whose values need no validation.
        reads_first: Whether the field converts a caller's value before the column's type does.
    """

    adapter: TypeAdapter[Any]
    trusted: frozenset[type[Any]]
    reads_first: bool

    def stored(
        self, attribute: InstrumentedAttribute[Any], given: Sequence[Any], found: Sequence[Any]
    ) -> Sequence[Any]:
        """Return the values that Pydantic returned, in the form that the column stores."""
        if list(given) == found:
            found = given
        elif is_json(attribute.property.columns[0].type):
            plain = self.adapter.dump_python(found, mode="json", warnings=False)
            # The engine's own serializer may be able to write a value that Pydantic left unchanged.
            found = [
                old if old == new else made
                for old, new, made in zip(given, found, plain, strict=True)
            ]
        if is_storable(attribute, found, set(map(type, found))):
            return found
        return [_readable(attribute, *each) for each in zip(given, found, strict=True)]


def _readable(attribute: InstrumentedAttribute[Any], given: Any, found: Any) -> Any:
    try:
        return storable(attribute, found)
    except ValidationError:
        # A field may convert a value to something that the column cannot hold, as `Json` does.
        return storable(attribute, given)


@cached
def _rules(model: type[Any], name: str) -> _Rules | None:
    """Return how a model validates a field, or None if only the column's type does."""
    declared = _declared_type(model, name)
    if declared is None:
        return None
    config = cast("ConfigDict", dict(model.model_config))
    many: Any = GenericAlias(list, (declared,))
    try:
        adapter = TypeAdapter(many, config=config)
    except (PydanticUserError, NameError):  # the annotation names a class that is not defined yet
        return None
    trusted = _trusted_types(declared) if _NEUTRAL.issuperset(config) else frozenset()
    type_ = getattr(model, name).property.columns[0].type
    return _Rules(adapter, trusted, reads_first=is_json(type_) or _has_reader(declared))


def _has_reader(declared: Any) -> bool:
    """Return whether a validator sees a value before its type does."""
    own = declared.__metadata__ if get_origin(declared) is Annotated else ()
    return any(isinstance(each, _READERS) for each in own) or any(
        map(_has_reader, get_args(declared))
    )


def _trusted_types(declared: Any) -> frozenset[type[Any]]:
    """Return the types whose values need no validation: the field declares just them."""
    kinds = get_args(declared) if get_origin(declared) in {Union, UnionType} else (declared,)
    plain = all(isinstance(kind, type) and kind in _PLAIN for kind in kinds)
    return frozenset(kinds) if plain else frozenset()


def _declared_type(model: type[Any], name: str) -> Any:
    if not issubclass(model, BaseModel) or name not in model.model_fields:
        return None
    if not model.__pydantic_complete__:  # the annotation names a class that was defined later
        model.model_rebuild(raise_errors=False)
    field = model.model_fields[name]
    if field.annotation is None:
        return None
    declared: Any = field.annotation
    # SQLModel keeps options of the column there, which Pydantic ignores.
    constraints = [each for each in field.metadata if not _is_sqlmodels(each)]
    for constraint in (*constraints, *_field_validators(model, name)):
        declared = Annotated[declared, constraint]
    return declared


def _is_sqlmodels(metadata: Any) -> bool:
    return type(metadata).__module__.partition(".")[0] == "sqlmodel"


def _field_validators(model: type[BaseModel], name: str) -> Iterator[Any]:
    """Yield the model's own validators of a field, without those that look at other fields."""
    for validator in model.__pydantic_decorators__.field_validators.values():
        mode, names = validator.info.mode, validator.info.fields
        takes = len(inspect.signature(validator.func).parameters)
        if (name in names or "*" in names) and takes == (2 if mode == "wrap" else 1):
            yield _MARKERS[mode](validator.func)
