"""Requests that are cancelled from outside: nothing stays written, and no connection in use."""

import asyncio
import time
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.ext.fastapi import session_dependency
from tests.databases import Database
from tests.models import Hero
from tests.servers import served


class Deadline:
    """A middleware that cancels requests in a hurry, as `asyncio.timeout` does."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(0.3 if scope.get("query_string") == b"hurry" else None):
                await self.app(scope, receive, send)
        except TimeoutError:
            await PlainTextResponse("too late", 504)(scope, receive, send)


@pytest.fixture
def app() -> FastAPI:
    """An application with a deadline for the requests that ask for one."""
    app = FastAPI()
    app.add_middleware(Deadline)
    return app


@pytest.fixture
def async_engine(database: Database) -> Iterator[AsyncEngine]:
    """An engine of the async API on empty tables."""
    yield aio.create_pooled_engine(database.async_url)
    database.clear()


def test_a_cancelled_route_is_rolled_back(
    app: FastAPI, async_engine: AsyncEngine, database: Database
) -> None:
    """A route that is cut off after its write leaves no row, and its connection in the pool."""
    request_session = Annotated[AsyncSession, Depends(session_dependency(async_engine))]

    @app.post("/heroes")
    async def create(session: request_session) -> None:
        await aio.write_row(Hero(name="Rusty", secret_name="?"), session)
        await asyncio.sleep(60)

    with served(app, async_engine) as client:
        assert client.post("/heroes?hurry").status_code == 504
        assert aio.pool_status(async_engine)["checked_out"] == 0
    engine = sync.create_pooled_engine(database.sync_url)
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Hero)) == 0
    engine.dispose()


def test_a_request_that_is_cancelled_while_it_waits_takes_no_connection(
    app: FastAPI, database: Database
) -> None:
    """A thread that gets its connection after the cancellation returns it."""
    engine = sync.create_pooled_engine(database.sync_url, pool_size=1, max_overflow=0)
    request_session = Annotated[Session, Depends(session_dependency(engine))]
    ran = []

    @app.post("/heroes")
    def create(session: request_session) -> None:
        ran.append(session)

    with served(app, engine) as client:
        with engine.connect():
            assert client.post("/heroes?hurry").status_code == 504
        deadline = time.monotonic() + 10
        while sync.pool_status(engine)["checked_out"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sync.pool_status(engine)["checked_out"] == 0
        # The one connection there is serves the next request.
        assert client.post("/heroes").status_code == 200
    assert len(ran) == 1
