"""Finds the column of a value that the column's type, or the driver, refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from traceback import walk_tb
from typing import Any

from sqlalchemy import BinaryExpression, BindParameter, Column
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import TypeEngine

from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.sqlalchemy_internals import json_serializer_of, notes_of

MISFITS = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,  # a JSON value that is nested too deeply
)
"""What Python raises for a value that a type, or a driver, cannot write."""

_PLACE = r"(?s).*?(?:binding parameter |query argument \$)(\d+)\b"
_INSERTED = r"INSERT INTO [^(]+\(([^()]+)\) VALUES"


class _PlainDialect(DefaultDialect):
    """A dialect whose types convert values themselves and leave nothing to a driver."""

    _json_deserializer = None

    def __init__(self, name: str = "default", json_serializer: Any = None) -> None:
        super().__init__()
        self.name = name
        self._json_serializer = json_serializer


def column_at(error: DBAPIError) -> str | None:
    """Return the column of a single-row INSERT, by the position that the driver names."""
    place = re.match(_PLACE, str(error.orig))
    inserted = re.match(_INSERTED, error.statement or "")
    if place is None or inserted is None:
        return None
    names = [name.strip(' "`') for name in inserted.group(1).split(",")]
    parameters: Any = error.params
    return names[int(place.group(1)) - 1] if len(names) == len(parameters) else None


def failing_default(error: BaseException) -> Column[Any] | None:
    """Return the column whose `default` or `onupdate` function raised an error, if one did."""
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_name in _DEFAULTS:
            found: Column[Any] | None = getattr(frame.f_locals["self"], "current_column", None)
            return found
    return None


# The methods of an execution context that call these functions.
_DEFAULTS = frozenset({"_exec_default", "_process_execute_defaults"})


def unwritable_field(error: Exception, model: type[Any]) -> tuple[str, str] | None:
    """Return the model and the field whose column type cannot convert its value.

    Neither drivers nor types say so. The traceback leads to SQLAlchemy's execution context, which
    has the parameters, each with the type of its column.

    Args:
        error: What a type or a driver raised for the value.
        model: The model that was worked on; filters look at others too.
    """
    execution = _execution_of(error)
    if execution is None:
        return _among_given(error, facts_of(model))
    dialect = _PlainDialect(execution.dialect.name, json_serializer_of(execution.dialect))
    for parameter, value in _parameters_of(execution):
        if _is_refused(parameter.type, value, dialect):
            return _compared_with(parameter, execution.compiled) or _owner_of(parameter, model)
    return None


def _among_given(error: Exception, facts: Facts) -> tuple[str, str] | None:
    """Return the first field whose type refuses the parameter named after its column."""
    given: Any = error.params if isinstance(error, StatementError) else None
    rows = [row for row in (given if isinstance(given, list) else [given]) if isinstance(row, dict)]
    dialect = _PlainDialect()
    for name, column in facts.columns.items():
        if any(_is_refused(column.type, row.get(column.key), dialect) for row in rows):
            return facts.model.__name__, name
    return None


def _execution_of(error: BaseException) -> Any:
    for frame, _ in walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            if isinstance(value, ExecutionContext) and getattr(value, "compiled_parameters", None):
                return value
    return None


def _parameters_of(execution: Any) -> Iterator[tuple[BindParameter[Any], Any]]:
    for row in execution.compiled_parameters:
        for name, value in row.items():
            parameter = execution.compiled.binds.get(name)
            if parameter is None:
                continue
            for each in value if parameter.expanding else (value,):
                yield parameter, each


def _is_refused(type_: TypeEngine[Any], value: Any, dialect: DefaultDialect) -> bool:
    convert = type_.dialect_impl(dialect).bind_processor(dialect)
    if convert is None:
        return False
    try:
        convert(value)
    except MISFITS:
        return True
    return False


def _compared_with(parameter: BindParameter[Any], compiled: Any) -> tuple[str, str] | None:
    """Return the model and the field of the column that a filter compares a parameter with."""
    found = None
    for element in iterate(compiled.statement):  # inner elements come later
        if isinstance(element, BinaryExpression):
            parts = [*iterate(element.left), *iterate(element.right)]
            if any(isinstance(each, BindParameter) and each.key == parameter.key for each in parts):
                fields = (_field_in_notes(notes_of(each)) for each in parts)
                found = next(filter(None, fields), found)
    return found


def _field_in_notes(notes: Mapping[str, Any]) -> tuple[str, str] | None:
    entity, name = notes.get("parententity"), notes.get("proxy_key")
    return None if entity is None or name is None else (entity.mapper.class_.__name__, name)


def _owner_of(parameter: BindParameter[Any], model: type[Any]) -> tuple[str, str] | None:
    """Return the model and the field of the column that a parameter takes its type from."""
    related = (each.class_ for each in facts_of(model).mapper.registry.mappers)
    for each in (model, *related):
        field = _field_of(parameter, facts_of(each))
        if field is not None:
            return each.__name__, field
    return None


def _field_of(parameter: BindParameter[Any], facts: Facts) -> str | None:
    found = [name for name, column in facts.columns.items() if column.type is parameter.type]
    if len(found) > 1:  # they share the type; what is written is named after its field or column
        named = parameter.key
        found = [name for name in found if name in named or facts.columns[name].key in named]
    return max(found, key=len, default=None)
