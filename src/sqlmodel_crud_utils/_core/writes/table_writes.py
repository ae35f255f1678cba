"""The tables that a caller's statement writes to, wherever it names them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import Delete, FromClause, Insert, Join, Update

from sqlmodel_crud_utils._core.sqlalchemy_internals import (
    ordered_columns_of,
    prefixes_of,
    source_of,
    tables_in,
    values_of,
)
from sqlmodel_crud_utils._core.visibility.hidden_tables import elements_of, unaliased

WriteKind = Literal["create", "update", "delete"]

_KINDS: Mapping[str, WriteKind] = {"insert": "create", "update": "update", "delete": "delete"}


class TableWrite(NamedTuple):
    """A table that a statement writes to, and how."""

    table: FromClause
    kind: WriteKind


def table_writes(statement: Any) -> list[TableWrite]:
    """Return what an INSERT, UPDATE or DELETE writes to, in its CTEs too.

    A SELECT gives none. Only its CTEs could write, and searching them would slow down every read.
    """
    source = source_of(statement)
    if not isinstance(source, Insert | Update | Delete):
        return []
    return list(dict.fromkeys(write for part in elements_of(source) for write in _writes_of(part)))


def is_plain(statement: Any, tables: Collection[FromClause]) -> bool:
    """Return whether a statement does nothing but write to one of these tables."""
    return (
        isinstance(statement, Insert | Update | Delete)
        and statement.table in tables
        and len(table_writes(statement)) == 1
        and not any("REPLACE" in prefix for prefix in prefixes_of(statement))
    )


def _writes_of(part: Any) -> Iterator[TableWrite]:
    if isinstance(part, Insert | Update | Delete):
        kind = _KINDS[part.__visit_name__]
        yield from (TableWrite(table, kind) for table in _targets(part.table))
    if isinstance(part, Update):
        # MySQL can update several tables at once.
        columns = (*values_of(part), *ordered_columns_of(part))
        tables = (getattr(column, "table", None) for column in columns)
        yield from (TableWrite(unaliased(each), "update") for each in tables if each is not None)


def _targets(table: Any) -> list[Any]:
    """Return the table that a statement writes to, or all of a JOIN."""
    tables = tables_in(table) if isinstance(table, Join) else [table]
    return [unaliased(each) for each in tables if not isinstance(each, Join)]
