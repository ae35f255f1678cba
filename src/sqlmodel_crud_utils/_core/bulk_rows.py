"""The rows of a bulk insert: checked, made plain, and sorted into batches of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError as PydanticError
from sqlalchemy import Enum as EnumType, Uuid, inspect
from sqlalchemy.orm import InstanceState, InstrumentedAttribute
from sqlalchemy.types import TypeDecorator

from sqlmodel_crud_utils._core.coercion import coerce, python_type
from sqlmodel_crud_utils._core.models import relationship_names
from sqlmodel_crud_utils._core.payload import changes_for, row_adapter
from sqlmodel_crud_utils._core.upsert import Target
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

Values = dict[str, Any]

# `coerce` returns each value of these types as it is, and integers of at most 64 bits.
_KEPT = (int, str, float, bool, bytes, UUID)
_LARGEST = 2**63


@dataclass(slots=True)
class NewRow:
    """A row to be inserted.

    Attributes:
        index: Its place in the input.
        values: The values by the names of the fields, coerced and complete.
    """

    index: int
    values: Values


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows that give the same fields, which one statement can write."""

    names: tuple[str, ...]
    rows: list[NewRow]


class RowReader:
    """Reads the rows of a caller: mappings, new instances of the model, Pydantic objects."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._model = target.model
        adapter = row_adapter(target.model)
        self._validator = None if adapter is None else adapter.validator
        self._kept = {
            name: kept
            for name, attribute in target.attributes.items()
            if (kept := _kept_type(attribute)) is not None
        }

    def read(self, index: int, row: Any) -> NewRow:
        """Return a row with its values checked, coerced and completed.

        Raises:
            UnknownFieldError: It gives something that is no column of the model.
            ValidationError: It is no row, or a value is not one that its field takes.
        """
        try:
            values = self._checked(self._given(row))
        except UnknownFieldError as error:
            error.add_note(f"in row {index}")
            raise
        except ValidationError as error:
            reason = str(error).partition(": ")[2]
            raise ValidationError(f"row {index}: {reason}", error.field, error.value) from None
        for name, fill in self._target.fills.items():
            if name not in values:
                values[name] = fill(values)
        return NewRow(index, values)

    def _given(self, row: Any) -> Mapping[str, Any]:
        if type(row) is dict or isinstance(row, Mapping):  # quick for the usual kind
            return row
        state = inspect(row, raiseerr=False)
        if isinstance(state, InstanceState):
            return self._of_instance(row, state)
        if isinstance(row, BaseModel):
            return {name: getattr(row, name) for name in sorted(row.model_fields_set)}
        raise ValidationError(
            f"a mapping or a {self._model.__name__} is needed, not {type(row).__name__}",
            field="rows",
        )

    def _of_instance(self, row: Any, state: InstanceState[Any]) -> Mapping[str, Any]:
        """Return what the ORM would write: None is no value where there is a default."""
        if type(row) is not self._model:
            raise ValidationError(
                f"this is a {type(row).__name__}, not a {self._model.__name__}", field="rows"
            )
        if not state.transient:
            raise ValidationError(
                "it belongs to a session or was read from one; "
                "pass a new instance, or the values as a mapping",
                field="rows",
            )
        loaded = state.dict
        for name in relationship_names(self._model):
            if loaded.get(name):
                raise ValidationError(
                    f"{name} holds related rows, and only columns are written; "
                    "insert those first and give their keys",
                    field=name,
                )
        return {
            name: loaded[name]
            for name in self._target.columns
            if name in loaded and not (loaded[name] is None and name in self._defaulted)
        }

    @cached_property
    def _defaulted(self) -> frozenset[str]:
        return frozenset(
            name
            for name, column in self._target.columns.items()
            if column.default is not None
            or column.server_default is not None
            or column is column.table.autoincrement_column
        )

    def _checked(self, given: Mapping[str, Any]) -> Values:
        values: Values = {}
        attributes, kept = self._target.attributes, self._kept
        for name, value in given.items():
            attribute = attributes.get(name)
            if attribute is None:
                raise UnknownFieldError(self._model, name, attributes)
            kind = type(value)
            is_kept = kind is kept.get(name) and (kind is not int or -_LARGEST <= value < _LARGEST)
            values[name] = value if is_kept else coerce(attribute, value)
        for name in self._target.self_filling:
            if name in values and values[name] is None:
                del values[name]
        if self._validator is not None:
            try:
                self._validator.validate_python(values)
            except PydanticError:
                changes_for(self._model, values)  # it names the field
        return values


def _kept_type(attribute: InstrumentedAttribute[Any]) -> type[Any] | None:
    """Return the type whose values `coerce` leaves as they are, None where it looks closer."""
    type_ = attribute.property.columns[0].type
    impl = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    found = python_type(type_)
    if isinstance(impl, EnumType):
        return impl.enum_class
    if isinstance(impl, Uuid) and not impl.as_uuid:
        return None
    return found if found in _KEPT else None


def levelled(target: Target, rows: Iterable[NewRow]) -> Iterator[Shape]:
    """Sort a chunk of rows into as few shapes as their meaning allows, in their order.

    A column that is NULL in a new row whether it is given or not is given by all of them.
    """
    listed = list(rows)
    given: set[str] = set().union(*(row.values for row in listed))
    fillable = given & target.empty
    for row in listed:
        if len(row.values) < len(given):
            for name in fillable - row.values.keys():
                row.values[name] = None
    shapes = groupby(listed, key=lambda row: row.values.keys())
    for _, group in shapes:
        together = list(group)
        names = tuple(name for name in target.columns if name in together[0].values)
        yield Shape(names, together)
