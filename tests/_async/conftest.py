"""Fixtures for the behaviour tests: an engine and sessions, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext

import pytest

from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession, make_engine
from tests.databases import Database, prepare


@pytest.fixture(scope="session")
async def shared_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """One plain engine for all tests of a database."""
    engine = make_engine(database.async_url)
    prepare(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
def engine(shared_engine: AsyncEngine, database: Database) -> Iterator[AsyncEngine]:
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


class _Silent:
    def before_create(self, instance: object) -> None:
        """Do nothing."""

    def before_update(self, instance: object, data: object) -> None:
        """Do nothing."""

    def before_delete(self, instance: object) -> None:
        """Do nothing."""


@pytest.fixture(params=[False, True], ids=["no hooks", "silent hooks"])
def _hooks_change_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test twice, the second time with hooks that do nothing."""
    with registered_hook(object, _Silent()) if request.param else nullcontext():
        yield
