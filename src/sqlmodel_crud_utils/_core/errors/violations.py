"""Which constraint was violated: the driver's information, completed from the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    inspect,
)
from sqlalchemy.orm import Mapper
from sqlalchemy.schema import ColumnCollectionConstraint

from sqlmodel_crud_utils._core.errors.driver_errors import DriverError
from sqlmodel_crud_utils._core.errors.mysql_keys import key_names
from sqlmodel_crud_utils._core.models.unique import MARKER
from sqlmodel_crud_utils.exceptions import ConstraintKind, ConstraintViolationError

__all__ = ["as_reference", "constraint_violation"]

_Declared = ColumnCollectionConstraint | Index


def constraint_violation(
    driver: DriverError, statement: str, model: type[Any] | None
) -> ConstraintViolationError:
    """Return the error for a violated constraint, with its kind, name and columns.

    Args:
        driver: The driver's information.
        statement: The statement that failed; empty if a commit did.
        model: The model that was worked on. The failing table may be another one of its
            metadata, as a flush writes everything that waits in the session.
    """
    broken = _broken(driver, statement, model)
    name = f" (constraint {broken.name!r})" if broken.name else ""
    is_own = broken.table is not None and broken.table is _table_of(model)
    return ConstraintViolationError(
        f"{driver.reason or _wording(broken)}{name}",
        field=_field(model, broken) if is_own and not broken.referenced else None,
        kind=broken.kind,
        constraint=broken.name,
        columns=broken.columns,
    )


def as_reference(driver: DriverError, statement: str, model: type[Any] | None) -> DriverError:
    """Return the violation that a database would report for a row that others refer to.

    The unit of work clears the references before it deletes the row, and meets a column that may
    not be null.
    """
    table = _find_table(model, driver.table or _written_table(statement))
    is_insert = statement.lstrip()[:6].upper() == "INSERT"
    if table is None or driver.problem != "not_null" or is_insert:
        return driver
    for foreign_key in table.foreign_key_constraints:
        names = tuple(column.name for column in foreign_key.columns)
        if set(driver.columns) & set(names):
            return driver._replace(
                problem="foreign_key", table=table.name, columns=names, referenced=True
            )
    return driver


class _Broken(NamedTuple):
    kind: ConstraintKind | None
    name: str | None
    columns: tuple[str, ...]
    table: Table | None
    subject: str
    referenced: bool | None


def _broken(driver: DriverError, statement: str, model: type[Any] | None) -> _Broken:
    kind = None if driver.problem == "constraint" else cast("ConstraintKind", driver.problem)
    table_name = driver.table or _written_table(statement)
    table = _find_table(model, table_name)
    referenced = _is_referenced(driver, statement) if kind == "foreign_key" else False
    declared = _find_declared(table, kind, driver, statement)
    columns = _columns(driver, declared, table, referenced=referenced)
    return _Broken(
        kind,
        _constraint_name(driver, declared),
        # The caller did not write the generated column of `unique_when_not_deleted`.
        tuple(name for name in columns if name != MARKER),
        table,
        _subject(model, table, table_name),
        referenced,
    )


# --- tables

_WRITE = (
    r"(?is)\s*(?:INSERT\b.*?\bINTO|REPLACE\s+INTO|UPDATE|DELETE\s+FROM)\s+"
    r"(?:[`\"\[]?\w+[`\"\]]?\.)?[`\"\[]?(\w+)"
)


def _written_table(statement: str) -> str | None:
    match = re.match(_WRITE, statement)
    return match.group(1) if match else None


def _table_of(model: type[Any] | None) -> Table | None:
    table = getattr(model, "__table__", None)
    return table if isinstance(table, Table) else None


def _find_table(model: type[Any] | None, name: str | None) -> Table | None:
    own = _table_of(model)
    if own is None or name is None or own.name == name:
        return own
    return next((table for table in own.metadata.tables.values() if table.name == name), None)


def _subject(model: type[Any] | None, table: Table | None, table_name: str | None) -> str:
    if model is not None and table is not None and table is _table_of(model):
        return model.__name__
    return table_name or ""


# --- constraints


def _find_declared(
    table: Table | None, kind: ConstraintKind | None, driver: DriverError, statement: str
) -> _Declared | None:
    """Find the constraint by its name, by its columns, or because it is the only one."""
    if table is None or kind is None:
        return None
    declared = list(_declared(table, kind))
    for constraint in declared:
        if driver.constraint is not None and driver.constraint in _names(table, constraint):
            return constraint
    for constraint in declared:
        if driver.columns and _column_names(table, constraint) == driver.columns:
            return constraint
    numbered = [each for each in declared if _may_be_numbered(driver.constraint, table, each)]
    if len(numbered) == 1:
        return numbered[0]
    # SQLite does not say which foreign key it was.
    is_told = driver.constraint is not None or driver.columns or kind != "foreign_key"
    is_insert = statement.lstrip()[:6].upper() == "INSERT"
    return declared[0] if is_insert and not is_told and len(declared) == 1 else None


def _declared(table: Table, kind: ConstraintKind) -> Iterator[_Declared]:
    if kind == "unique":
        yield from (index for index in table.indexes if index.unique)
    of_columns = (constraint for column in table.columns for constraint in column.constraints)
    for constraint in (*table.constraints, *of_columns):
        if isinstance(constraint, ColumnCollectionConstraint) and _kind_of(constraint) == kind:
            yield constraint


def _kind_of(constraint: ColumnCollectionConstraint) -> ConstraintKind:
    match constraint:
        case PrimaryKeyConstraint() | UniqueConstraint():
            return "unique"
        case ForeignKeyConstraint():
            return "foreign_key"
        case CheckConstraint():
            return "check"
        case _:
            return "exclusion"


def _names(table: Table, constraint: _Declared) -> set[str]:
    """Return the constraint's name, or the names that databases generate for it."""
    if isinstance(constraint.name, str):
        return {str(constraint.name)}
    columns = _column_names(table, constraint)
    joined = "_".join((table.name, *columns))
    match constraint:
        case PrimaryKeyConstraint():
            return {"PRIMARY", f"{table.name}_pkey"}
        case UniqueConstraint():
            # The last one is the name in `NAMING_CONVENTION` of `ext.alembic`, which programs that
            # do not migrate do not know.
            return {f"{joined}_key", key_names(table).get(constraint, ""), f"uq_{joined}"}
        case ForeignKeyConstraint():
            return {f"{joined}_fkey"}
        case CheckConstraint():
            # PostgreSQL names it after its column if there is only one; SQLite reports its text.
            name = joined if len(columns) == 1 else table.name
            return {f"{name}_check", str(constraint.sqltext)}
        case _:
            return {f"{joined}_excl"}


def _may_be_numbered(name: str | None, table: Table, constraint: _Declared) -> bool:
    """Return whether MySQL may have generated the name, in a table that was created differently."""
    if name is None or not isinstance(constraint, UniqueConstraint):
        return False
    first = re.escape(_column_names(table, constraint)[0])
    return not isinstance(constraint.name, str) and bool(re.fullmatch(rf"{first}_\d+", name))


def _constraint_name(driver: DriverError, declared: _Declared | None) -> str | None:
    if declared is not None and isinstance(declared.name, str):
        return str(declared.name)
    # SQLite reports the expression of an unnamed check.
    is_expression = driver.problem == "check" and not re.fullmatch(r"\w+", driver.constraint or "")
    return None if is_expression else driver.constraint


# --- columns


def _column_names(table: Table, constraint: _Declared) -> tuple[str, ...]:
    if isinstance(constraint, CheckConstraint):
        return _mentioned(table, str(constraint.sqltext))
    return tuple(column.name for column in constraint.columns)


def _mentioned(table: Table, expression: str) -> tuple[str, ...]:
    words = set(re.findall(r"\w+", expression))
    return tuple(column.name for column in table.columns if column.name in words)


def _columns(
    driver: DriverError,
    declared: _Declared | None,
    table: Table | None,
    *,
    referenced: bool | None,
) -> tuple[str, ...]:
    if table is not None and declared is not None:
        return _column_names(table, declared)
    if table is not None and driver.problem == "check" and not driver.columns:
        return _mentioned(table, driver.constraint or "")
    # Then PostgreSQL reports the columns of the referenced row, not the constraint's.
    is_other_side = referenced is not False and driver.referenced is None
    return () if driver.problem == "foreign_key" and is_other_side else driver.columns


def _field(model: type[Any] | None, broken: _Broken) -> str | None:
    """Return the model's field for the constraint's column, if it has only one."""
    mapper = inspect(model, raiseerr=False)
    if len(broken.columns) != 1 or not isinstance(mapper, Mapper):
        return None
    (name,) = broken.columns
    attributes = (
        attribute.key
        for attribute in mapper.column_attrs
        if any(column.name == name for column in attribute.columns)
    )
    return next(attributes, name)


# --- words


def _is_referenced(driver: DriverError, statement: str) -> bool | None:
    """Return whether other rows refer to the row that was written; None if that is not known."""
    if driver.referenced is not None:
        return driver.referenced
    verb = statement.lstrip()[:6].upper()
    if verb in {"INSERT", "DELETE"}:
        return verb == "DELETE"
    written = _written_table(statement)
    return True if written and driver.table and written != driver.table else None


def _wording(broken: _Broken) -> str:
    columns = ", ".join(broken.columns)
    of_table = f" of {broken.subject}" if broken.subject else ""
    another = f"another {broken.subject} row" if broken.subject else "another row"
    match broken.kind:
        case "unique":
            return f"{another} has the same {columns or 'unique value'}"
        case "foreign_key":
            return _foreign_key_wording(broken, f"{columns}{of_table}" if columns else "")
        case "not_null":
            return f"{columns or 'a required column'}{of_table} must not be null"
        case "check":
            return f"the row violates a check{of_table}"
        case "exclusion":
            return f"the row conflicts with {another}"
        case _:
            return f"the row violates a constraint{of_table}"


def _foreign_key_wording(broken: _Broken, columns: str) -> str:
    if broken.referenced:
        return f"other rows still refer to this one{f', through {columns}' if columns else ''}"
    would = "would refer" if broken.referenced is None else "refers"
    return f"{columns or 'a foreign key'} {would} to a row that does not exist"
