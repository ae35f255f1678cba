"""The isolation level of a transaction, and whether it is read-only; set when it begins."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._session.databases import has_begun, is_shared
from sqlmodel_crud_utils._session.sqlalchemy_internals import record_of
from sqlmodel_crud_utils.exceptions import ValidationError

_LEVELS = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


class Modes(NamedTuple):
    """The modes of a transaction; by default the engine's."""

    isolation_level: str | None = None
    read_only: bool = False

    def __bool__(self) -> bool:
        return self.isolation_level is not None or self.read_only


USUAL = Modes()


def modes_for(isolation_level: Any, read_only: Any) -> Modes:
    """Check the modes that a caller asked for."""
    if isolation_level is not None and isolation_level not in _LEVELS:
        raise ValidationError(f"must be one of: {', '.join(_LEVELS)}", field="isolation_level")
    if not isinstance(read_only, bool):
        raise ValidationError("must be True or False", field="read_only")
    return Modes(isolation_level, read_only)


def begin_in(connection: Connection, modes: Modes) -> None:
    """Set the modes of the transaction that a connection begins.

    `SET TRANSACTION` applies to this transaction only. SQLAlchemy's option would set the level on
    the connection, with round trips before and after.
    """
    if features_of(connection.dialect).has_pragmas:
        # Its transactions are always serializable, the strictest level.
        if modes.read_only:
            _begin_reading(connection)
        return
    wanted = []
    if modes.isolation_level is not None:
        wanted.append(f"ISOLATION LEVEL {modes.isolation_level}")
    if modes.read_only:
        wanted.append("READ ONLY")
    connection.exec_driver_sql(f"SET TRANSACTION {', '.join(wanted)}")


def _begin_reading(connection: Connection) -> None:
    """Begin a transaction of SQLite that takes no write lock."""
    if not is_shared(connection):
        record_of(connection).finalize_callback.append(_allow_writes)
        connection.exec_driver_sql("PRAGMA query_only = ON")
    if not has_begun(connection):
        connection.exec_driver_sql("BEGIN")


def _allow_writes(dbapi_connection: Any) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA query_only = OFF")
    cursor.close()
