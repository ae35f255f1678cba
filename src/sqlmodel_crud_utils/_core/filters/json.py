"""Comparison of JSON values, which not every JSON type of PostgreSQL and MySQL supports."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from sqlmodel_crud_utils._core.parameters import plain_type
from sqlmodel_crud_utils._core.values.coercion import is_sql


class ComparableJSON(FunctionElement[Any]):
    """A JSON type that the database can compare."""

    name = "comparable_json"
    inherit_cache = True

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.type = value.type


@compiles(ComparableJSON)
def _as_it_is(element: ComparableJSON, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(ComparableJSON, "postgresql")
def _as_jsonb(element: ComparableJSON, compiler: SQLCompiler, **options: Any) -> str:
    # There JSONB has an equality operator, JSON has not.
    value = _as_it_is(element, compiler, **options)
    return f"CAST({value} AS JSONB)"


@compiles(ComparableJSON, "mysql")
def _as_json(element: ComparableJSON, compiler: SQLCompiler, **options: Any) -> str:
    # MySQL never finds text equal to its JSON. MariaDB stores JSON as text.
    value = _as_it_is(element, compiler, **options)
    dialect: Any = compiler.dialect
    return value if dialect.is_mariadb else f"CAST({value} AS JSON)"


def compared(attribute: InstrumentedAttribute[Any]) -> Any:
    """Return a column in the form that `operand` values are compared with."""
    return ComparableJSON(attribute) if holds_json(attribute) else attribute


def operand(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    """Return a value, or SQL, in the form that `compared` columns are compared with."""
    if value is None or not holds_json(attribute):
        return value
    type_ = attribute.property.columns[0].type
    if is_sql(value):
        return ComparableJSON(value)
    return ComparableJSON(literal(value, type_))


def holds_json(attribute: InstrumentedAttribute[Any]) -> bool:
    """Return whether the values of a column are stored as JSON."""
    columns = getattr(attribute.property, "columns", None)
    return columns is not None and isinstance(plain_type(columns[0].type), JSON)
