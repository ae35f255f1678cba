"""The rows of a bulk insert: checked and converted, a column at a time.

If all values of a column have the same type, checks are done once for the column instead of once
for each value. That makes the checks as fast as a driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from types import NoneType
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

from sqlmodel_crud_utils._core.models.tenant_keys import TENANT
from sqlmodel_crud_utils._core.values.payload import given_fields, valid_values
from sqlmodel_crud_utils._core.visibility.tenancy import belongs_to_tenants, check_tenant
from sqlmodel_crud_utils._core.writes.targets import Target
from sqlmodel_crud_utils.exceptions import TenantError, UnknownFieldError, ValidationError

Values = Mapping[str, Any]
ColumnValues = Sequence[Any]


class Shape(NamedTuple):
    """Consecutive rows with the same fields, which one statement can write.

    Attributes:
        start: The place of the first one in the input.
        size: How many they are.
        names: The fields that they give.
        columns: The values of each field.
    """

    start: int
    size: int
    names: tuple[str, ...]
    columns: Sequence[ColumnValues]

    def part(self, low: int, high: int) -> Shape:
        """Return a part of the rows."""
        columns = [column[low:high] for column in self.columns]
        return self._replace(start=self.start + low, size=high - low, columns=columns)

    def mappings(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return the rows as mappings, with other names for the fields."""
        keys = tuple(names)
        if not keys:
            return [{} for _ in range(self.size)]
        return [dict(zip(keys, row, strict=True)) for row in zip(*self.columns, strict=True)]


class RowReader:
    """Reads the caller's rows: mappings, new instances of the model, Pydantic objects."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._model = target.model

    def read(self, start: int, rows: Sequence[Any]) -> list[Shape]:
        """Return rows with their values checked, coerced and completed, in their order.

        Args:
            start: The place of the first row in the input.
            rows: A chunk of the input.

        Raises:
            UnknownFieldError: A row gives something that is not a column of the model.
            ValidationError: It is not a row, or a value is not one that its field takes.
        """
        try:
            return self._read(start, rows)
        except ValidationError as error:
            raise self._refusal(start, rows, error) from None

    def _refusal(self, start: int, rows: Sequence[Any], error: ValidationError) -> ValidationError:
        """Return the error for the first bad row, with its index."""
        index = start
        for index, row in enumerate(rows, start):
            try:
                self._read(index, [row])
            except ValidationError as refused:
                error = refused
                break
        if isinstance(error, UnknownFieldError):
            error.add_note(f"in row {index}")
            return error
        reason = str(error).partition(": ")[2]
        kind = TenantError if isinstance(error, TenantError) else ValidationError
        return kind(f"row {index}: {reason}", error.field, error.value)

    def _read(self, start: int, rows: Sequence[Any]) -> list[Shape]:
        given = [row if type(row) is dict else self._given(row) for row in rows]
        uniform = self._uniform(start, given)
        shapes = self._levelled(start, given) if uniform is None else [uniform]
        return [self._filled(self._checked(shape)) for shape in shapes]

    # --- rows of all kinds -----------------------------------------------------------------------

    def _given(self, row: Any) -> Values:
        if isinstance(row, Mapping):
            return row
        state = inspect(row, raiseerr=False)
        if isinstance(state, InstanceState):
            return self._of_instance(row, state)
        if isinstance(row, BaseModel):
            return given_fields(row)
        raise ValidationError(
            f"a mapping or a {self._model.__name__} is expected, not {type(row).__name__}",
            field="rows",
        )

    def _of_instance(self, row: Any, state: InstanceState[Any]) -> Values:
        """Return what the ORM would write: None does not count as a value if there is a default."""
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
        for name in self._target.facts.relationships:
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

    # --- by columns ------------------------------------------------------------------------------

    def _uniform(self, start: int, rows: list[Values]) -> Shape | None:
        """Return the rows as one shape, or None if they have different fields."""
        names = tuple(rows[0])
        if len(names) < 2 or set(map(len, rows)) != {len(names)}:
            return None
        try:
            columns = list(zip(*map(itemgetter(*names), rows), strict=True))
        except KeyError:
            return None
        for name, column in zip(names, columns, strict=True):
            if name in self._target.self_filling and NoneType in map(type, column):
                return None
        return Shape(start, len(rows), names, columns)

    def _levelled(self, start: int, rows: list[Values]) -> list[Shape]:
        """Group rows into as few shapes as possible, in their order.

        A column that is NULL in a new row, whether it is given as None or omitted, is added to all
        rows.
        """
        self_filling = self._target.self_filling
        complete = [
            {k: v for k, v in row.items() if v is not None or k not in self_filling} for row in rows
        ]
        given: set[str] = set().union(*complete)
        fillable = dict.fromkeys(given & self._target.empty)
        shapes = []
        for _, group in groupby((fillable | row for row in complete), key=lambda row: row.keys()):
            together = list(group)
            names = tuple(together[0])
            columns: list[ColumnValues] = [[row[name] for row in together] for name in names]
            shapes.append(Shape(start, len(together), names, columns))
            start += len(together)
        return shapes

    def _checked(self, shape: Shape) -> Shape:
        columns = list(map(self._column, shape.names, shape.columns))
        shape = shape._replace(columns=columns)
        return self._of_tenant(shape) if belongs_to_tenants(self._model) else shape

    def _of_tenant(self, shape: Shape) -> Shape:
        """Give rows their tenant, and refuse those of another one."""
        given = dict(zip(shape.names, shape.columns, strict=True))
        named = given.get(TENANT, [None] * shape.size)
        given[TENANT] = list(map(check_tenant, named))
        return shape._replace(names=tuple(given), columns=list(given.values()))

    def _column(self, name: str, values: ColumnValues) -> ColumnValues:
        attribute = self._target.attributes.get(name)
        if attribute is None:
            raise UnknownFieldError(self._model, name, self._target.attributes)
        self._target.facts.check_written(name, values[0])
        return valid_values(attribute, values)

    def _filled(self, shape: Shape) -> Shape:
        """Add the defaults that the ORM would fill in."""
        for name, fill in self._target.fills.items():
            if name not in shape.names:
                column = [fill(row) for row in shape.mappings(shape.names)]
                shape = shape._replace(names=(*shape.names, name), columns=[*shape.columns, column])
        return shape
