"""Fixtures for the behaviour tests: an engine and sessions, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.databases import Database, prepare


@pytest.fixture(scope="session")
async def shared_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """One plain engine for all tests of a database."""
    engine = create_async_engine(database.async_url)
    prepare(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(shared_engine: AsyncEngine, database: Database) -> AsyncIterator[AsyncEngine]:
    """A plain engine on empty tables; the rows that a test leaves are removed after it."""
    yield shared_engine
    database.clear()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session with default settings."""
    async with AsyncSession(engine) as session:
        yield session


@pytest.fixture
async def session_factory(engine: AsyncEngine) -> AsyncIterator[Callable[[], AsyncSession]]:
    """A function that opens another session; all of them are closed after the test."""
    opened: list[AsyncSession] = []

    def open_session() -> AsyncSession:
        opened.append(AsyncSession(engine))
        return opened[-1]

    yield open_session
    for session in opened:
        await session.close()
