"""How many duplicates a bulk insert has skipped on MySQL: a variable of the connection counts."""

from __future__ import annotations

from sqlalchemy import Connection

from sqlmodel_crud_utils._core.bulk_inserts import SKIPPED


def start_counting(connection: Connection) -> None:
    """Let MySQL count the duplicates from here on."""
    connection.exec_driver_sql(f"SET {SKIPPED} = 0")


def skipped(connection: Connection) -> int:
    """Return how many duplicates MySQL has skipped."""
    return int(connection.exec_driver_sql(f"SELECT {SKIPPED}").scalar_one())
