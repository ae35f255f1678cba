"""`session_dependency(engine, read_only=True)`: the session of routes that only read."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from sqlmodel_crud_utils.aio import (
    Repository,
    create_pooled_engine,
    pool_status,
    session_factory,
)
from sqlmodel_crud_utils.ext.fastapi import install_error_handlers, session_dependency
from tests._runtime_async import AsyncEngine, AsyncSession, run_on_connection
from tests.databases import Database
from tests.models import Hero
from tests.servers import served

CLIENTS = 60


@pytest.fixture
def few(database: Database) -> Iterator[AsyncEngine]:
    """An engine with two connections, on empty tables; the server disposes of it."""
    yield create_pooled_engine(database.async_url, pool_size=2, max_overflow=0, pool_timeout=20)
    database.clear()


@pytest.fixture
def app(few: AsyncEngine) -> FastAPI:
    """Routes that read, that write all the same, and that are meant to write."""
    app = FastAPI()
    install_error_handlers(app)
    reading = Annotated[AsyncSession, Depends(session_dependency(few, read_only=True))]
    writing = Annotated[AsyncSession, Depends(session_dependency(few))]

    @app.get("/count")
    async def count(session: reading) -> int:
        return await Repository(session, Hero).count()

    @app.post("/refused")
    async def refused(session: reading) -> None:
        await Repository(session, Hero).create(name="Nova", secret_name="?")

    @app.post("/past")
    async def past(session: reading) -> None:
        session.add(Hero(name="Nova", secret_name="?"))
        await session.flush()

    @app.post("/heroes")
    async def create(session: writing) -> int:
        heroes = Repository(session, Hero)
        number = await heroes.count()
        await heroes.create(name=f"Hero {number}", secret_name="?")
        return await heroes.count()

    return app


def test_nothing_is_written(few: AsyncEngine, app: FastAPI) -> None:
    """The library refuses writes, and the database those that bypass it; others can write."""
    with served(app, few) as client:
        assert client.get("/count").json() == 0
        assert client.post("/refused").status_code == 422
        assert client.post("/past").status_code == 500
        # On the same connections, which are as they were.
        assert [client.post("/heroes").json() for _ in range(4)] == [1, 2, 3, 4]
        assert client.get("/count").json() == 4


def test_many_clients_wait_for_each_other_alone(few: AsyncEngine, app: FastAPI) -> None:
    """Waiting for a connection never blocks a thread that its holder needs."""
    with served(app, few) as client, ThreadPoolExecutor(CLIENTS) as threads:
        answers = list(threads.map(lambda _: client.get("/count").status_code, range(CLIENTS)))
        assert answers == [200] * CLIENTS
        assert pool_status(few)["checked_out"] == 0


def test_a_read_that_is_lost_at_its_commit_may_be_asked_again(
    few: AsyncEngine, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a 503; for a write, the outcome is unknown, so it is a 500."""

    def do_commit(_connection: Any) -> None:
        raise ConnectionResetError

    with served(app, few) as client:
        assert client.post("/heroes").json() == 1
        with monkeypatch.context() as patch:
            patch.setattr(few.dialect, "do_commit", do_commit)
            read, written = client.get("/count"), client.post("/heroes")
        assert (read.status_code, read.headers["retry-after"]) == (503, "1")
        assert (written.status_code, client.get("/count").json()) == (500, 1)


async def test_in_memory_others_go_on_writing() -> None:
    """The one connection there is shared, so it is not set to read only."""
    engine = create_pooled_engine("sqlite://")
    async with session_factory(engine)() as session:
        await run_on_connection(session, Hero.metadata.create_all)
    app = FastAPI()
    reading = Annotated[AsyncSession, Depends(session_dependency(engine, read_only=True))]

    @app.get("/count")
    async def count(session: reading) -> int:
        async with session_factory(engine)() as other:
            await Repository(other, Hero).create(name="Nova", secret_name="?")
        return await Repository(session, Hero).count()

    with served(app, engine) as client:
        assert client.get("/count").json() == 1
