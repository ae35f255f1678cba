"""Engines and sessions that many new rows are flushed with, as they have ways of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import insert_data_rows
from tests.databases import Database, prepare
from tests.models import Hero
from tests.recording import recorded

pytestmark = pytest.mark.shortcuts

# From this number on they are written without a flush elsewhere.
MANY = 100


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine; psycopg's on PostgreSQL, whose COPY is not asyncpg's."""
    url = make_url(database.async_url)
    if database.name == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = create_async_engine(url)
    prepare(engine)
    yield engine
    await engine.dispose()
    database.clear()


def heroes() -> list[Hero]:
    """Return new heroes."""
    return [Hero(name=f"h{n}", secret_name="?") for n in range(MANY)]


@pytest.mark.databases("postgresql")
async def test_another_driver(engine: AsyncEngine) -> None:
    """The rows are inserted, and get their keys."""
    rows = heroes()
    async with AsyncSession(engine) as session:
        with recorded(engine) as words:
            assert (await insert_data_rows(rows, session))[0]
    assert set(words) == {"INSERT", "COMMIT"}
    assert all(row.id for row in rows)


class Counting(Session):
    """A session that does something extra at each flush."""

    flushed = 0

    def flush(self, objects: Any = None) -> None:
        """Count the new rows."""
        self.flushed += len(self.new)
        super().flush(objects)


async def test_a_session_with_a_flush_of_its_own(engine: AsyncEngine) -> None:
    """It gets all of the rows."""
    async with AsyncSession(engine, sync_session_class=Counting) as session:
        assert (await insert_data_rows(heroes(), session))[0]
        assert isinstance(session.sync_session, Counting)
        assert session.sync_session.flushed == MANY
