"""asyncpg's special error for a connection that its server is about to end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import get_rows, write_row
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError
from tests.databases import Database
from tests.models import Hero

pytestmark = pytest.mark.databases("postgresql")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A plain engine."""
    engine = create_async_engine(database.async_url)
    yield engine
    await engine.dispose()
    database.clear()


@pytest.mark.parametrize("reads", [False, True])
async def test_an_end_that_is_read_by_half(engine: AsyncEngine, reads: bool) -> None:
    """The connection is lost: the error says so, and the pool discards it."""
    discarded: list[Any] = []

    def ends(*_: Any) -> None:
        raise asyncpg.InternalClientError(
            "cannot switch to state 15; another operation (2) is in progress"
        )

    event.listen(engine.sync_engine.pool, "invalidate", lambda *args: discarded.append(args))
    async with AsyncSession(engine) as session:
        await get_rows(session, Hero)  # the first connection asks for the server's version
        event.listen(engine.sync_engine, "do_execute", ends)
        with pytest.raises(DatabaseConnectionError):
            if reads:
                await get_rows(session, Hero)
            else:
                await write_row(Hero(name="Nova", secret_name="?"), session, raise_on_error=True)
        event.remove(engine.sync_engine, "do_execute", ends)
        assert len(discarded) == 1
        await session.rollback()  # a read leaves it to the caller
        assert (await write_row(Hero(name="Max", secret_name="?"), session))[0]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
