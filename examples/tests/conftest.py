"""What the tests of the service begin with: its own database, in a transaction that is undone."""

from collections.abc import AsyncIterator

import pytest
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fastapi_app.database import create_tables, engine, reading, writing
from fastapi_app.main import app
from sqlmodel_crud_utils.ext.fastapi import session_dependency


@pytest.fixture(scope="session")
async def async_crud_engine() -> AsyncIterator[AsyncEngine]:
    """The engine of the service, with its tables."""
    await create_tables()
    yield engine
    await engine.dispose()


@pytest.fixture
async def client(
    async_crud_session_factory: async_sessionmaker[AsyncSession],
) -> AsyncIterator[AsyncClient]:
    """A client of the service, whose routes work in the transaction of the test."""
    app.dependency_overrides = {
        writing: session_dependency(async_crud_session_factory),
        reading: session_dependency(async_crud_session_factory, read_only=True),
    }
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://heroes") as client:
        yield client
    app.dependency_overrides = {}
