"""The tables that a caller's statement writes to, wherever it names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import AliasedReturnsRows, Delete, FromClause, Insert, Update
from sqlalchemy.orm import FromStatement

from sqlmodel_crud_utils._core.sqlalchemy_internals import ordered_columns_of, values_of
from sqlmodel_crud_utils._core.visibility.hidden_tables import elements_of

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
    source = statement.element if isinstance(statement, FromStatement) else statement
    if not isinstance(source, Insert | Update | Delete):
        return []
    return list(dict.fromkeys(write for part in elements_of(source) for write in _writes_of(part)))


def is_plain(statement: Any) -> bool:
    """Return whether a statement does nothing but write to one table, which it names itself."""
    return (
        isinstance(statement, Insert | Update | Delete)
        and not isinstance(statement.table, AliasedReturnsRows)
        and len(table_writes(statement)) == 1
    )


def _writes_of(part: Any) -> Iterator[TableWrite]:
    if isinstance(part, Insert | Update | Delete):
        yield TableWrite(_unaliased(part.table), _KINDS[part.__visit_name__])
    if isinstance(part, Update):
        # MySQL can update several tables at once.
        for column in (*values_of(part), *ordered_columns_of(part)):
            table = getattr(column, "table", None)
            if table is not None:
                yield TableWrite(_unaliased(table), "update")


def _unaliased(table: Any) -> Any:
    while isinstance(table, AliasedReturnsRows):
        table = table.element
    return table
