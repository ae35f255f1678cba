"""Server defaults of the mixins' columns, for rows that are inserted without the ORM.

Each default is written the way the database reports it, so that Alembic finds no difference.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from sqlmodel_crud_utils._core.values.datetimes import UTCDateTime


class UTCNow(ColumnElement[datetime]):
    """The database's own clock, in UTC."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(UTCNow)
def _standard_clock(_element: UTCNow, _compiler: SQLCompiler, **_: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(UTCNow, "sqlite")
def _sqlite_clock(_element: UTCNow, _compiler: SQLCompiler, **_: Any) -> str:
    # SQLite's clock has milliseconds; SQLAlchemy reads and sorts six digits.
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


@compiles(UTCNow, "mysql", "mariadb")
def _mysql_clock(_element: UTCNow, _compiler: SQLCompiler, **_: Any) -> str:
    # CURRENT_TIMESTAMP is local time there.
    return "(utc_timestamp(6))"


class No(ColumnElement[bool]):
    """The SQL literal for false."""

    type = Boolean()
    inherit_cache = True


@compiles(No)
def _standard_no(_element: No, _compiler: SQLCompiler, **_: Any) -> str:
    return "false"


@compiles(No, "sqlite", "mysql", "mariadb")
def _numeric_no(_element: No, _compiler: SQLCompiler, **_: Any) -> str:
    return "0"
