"""The session of a request whose connection dies before its end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from sqlmodel_crud_utils.aio import create_pooled_engine, get_rows, get_session, pool_status
from tests._runtime_async import AsyncSession, execute, first_of, sync_engine
from tests.databases import Database
from tests.models import Hero

BACKEND = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}
KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}


async def kill(session: AsyncSession, database: Database) -> None:
    """Let the server end the connection of a session."""
    found = first_of(await execute(session, text(BACKEND[database.name])))
    killer = create_engine(database.sync_url)
    with killer.connect() as connection:
        connection.execute(text(KILL[database.name].format(found)))
    killer.dispose()


@pytest.mark.databases("postgresql", "mysql")
async def test_a_connection_that_died_after_the_answer_is_let_go(database: Database):
    """The failed close is not the request's failure, and the next one gets a live connection."""
    engine = create_pooled_engine(database.async_url, pool_size=1, max_overflow=0, pool_timeout=1)
    open_session = asynccontextmanager(get_session(engine))
    for _ in range(3):
        async with open_session() as session:
            assert await get_rows(session, Hero) == (False, [])
            await kill(session, database)
        assert pool_status(engine)["checked_out"] == 0
    await engine.dispose()


async def test_a_rollback_that_fails_at_the_close_lets_go_of_the_connection(database: Database):
    """For any driver error, even if SQLAlchemy does not recognize the loss."""
    engine = create_pooled_engine(database.async_url)
    failing = True

    @event.listens_for(sync_engine(engine), "rollback")
    def fail(_connection: Any) -> None:
        if failing:
            raise OperationalError("ROLLBACK", None, Exception("another operation is in progress"))

    open_session = asynccontextmanager(get_session(engine))
    async with open_session() as session:
        assert await get_rows(session, Hero) == (False, [])
    assert pool_status(engine)["checked_out"] == 0
    with pytest.raises(ZeroDivisionError):
        async with open_session() as session:
            assert await get_rows(session, Hero) == (False, [])
            raise ZeroDivisionError
    assert pool_status(engine)["checked_out"] == 0
    with pytest.raises(DBAPIError):
        async with open_session() as session:
            await execute(session, text("SELECT nothing FROM nowhere"))
    failing = False
    async with open_session() as session:
        assert await get_rows(session, Hero) == (False, [])
    await engine.dispose()
