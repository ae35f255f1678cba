"""Many new rows written past the unit of work, where that comes to the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.orm import Session as PlainSession

from sqlmodel_crud_utils._core.errors import is_database_error
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._runtime_async import (
    DRIVERS,
    AsyncSession,
    copy_rows,
    dialect_of,
    run_on_connection,
    sync_session,
)
from sqlmodel_crud_utils._session.blocks import begin_immediate
from sqlmodel_crud_utils._session.driver_rows import Way, driver_copy, way_of
from sqlmodel_crud_utils._session.quick_flush import NewRows, insert_rows, new_rows_of, take_keys


async def add_and_flush(session: AsyncSession, rows: Sequence[Any]) -> None:
    """Add new rows to the session and write them, quickly where nobody can tell the difference."""
    if not await _written(session, rows):
        session.add_all(rows)
        await session.flush()


async def _written(session: AsyncSession, rows: Sequence[Any]) -> bool:
    """Write rows without a flush, all or none of them; False where they need one.

    What the database refuses is left to the flush as well: it says what is wrong.
    """
    plain = sync_session(session)
    dialect = dialect_of(session, type(rows[0]))
    new = new_rows_of(plain, rows, dialect, DRIVERS)
    if new is None or not await run_on_connection(session, partial(_begin, plain), new.model):
        return False
    try:
        async with session.begin_nested() as savepoint:
            written = await _write(session, new, dialect)
            if written is None:
                await savepoint.rollback()
    except Exception as error:
        if not is_database_error(error):
            raise
        kind = type(error).__name__
        get_logger().debug(f"rows are flushed that could not be written at once: {kind}")
        return False
    if written is None:
        return False
    written.attach(plain)
    return True


def _begin(session: PlainSession, connection: Connection) -> bool:
    begin_immediate(connection)
    return way_of(session, connection) is Way.DRIVER


async def _write(session: AsyncSession, new: NewRows, dialect: Dialect) -> NewRows | None:
    if dialect.name == "sqlite":
        return await run_on_connection(session, partial(insert_rows, new, dialect), new.model)
    keyed = await run_on_connection(session, partial(take_keys, new), new.model)
    copied = None if keyed is None else driver_copy(new.target, keyed.shape, dialect)
    if copied is None:
        return None
    await copy_rows(session, new.model, new.target.table, *copied)
    return keyed
