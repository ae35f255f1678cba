"""One transaction per request of a FastAPI service: committed before the response leaves."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, event
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Session as PlainSession, select

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_row,
    on_commit,
    pool_status,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.fastapi import install_error_handlers, session_dependency
from tests._runtime_async import AsyncEngine, AsyncSession, sync_engine
from tests.databases import Database, prepare
from tests.models import DeferredChild, Hero
from tests.servers import served


class Service:
    """An application with its own engine, and a separate connection."""

    def __init__(self, engine: AsyncEngine, beside: Any) -> None:
        self.app = FastAPI()
        install_error_handlers(self.app)
        self.engine = engine
        self.beside = beside
        self.session = Annotated[AsyncSession, Depends(session_dependency(engine))]
        self.told: list[str] = []
        self._stack = ExitStack()

    def start(self) -> httpx2.Client:
        """Serve the application until the test ends."""
        return self._stack.enter_context(served(self.app, self.engine))

    def stop(self) -> None:
        """Stop serving."""
        self._stack.close()

    def names(self) -> list[str]:
        """The names of the heroes that are committed."""
        with PlainSession(self.beside) as session:
            return sorted(session.exec(select(Hero.name)))


@pytest.fixture
def make_service(database: Database) -> Iterator[Callable[..., Service]]:
    """A function that makes services on empty tables."""
    made: list[Service] = []
    beside = create_engine(database.sync_url)

    def make(**pool: Any) -> Service:
        engine = create_pooled_engine(database.async_url, **pool)
        made.append(Service(engine, beside))
        return made[-1]

    yield make
    for service in made:
        service.stop()
    beside.dispose()
    database.clear()


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """A service with a usual pool."""
    return make_service()


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


def add_create_route(service: Service) -> None:
    """Let the service write a hero."""

    @service.app.post("/heroes/{name}", status_code=201)
    async def create(name: str, session: service.session) -> Hero:  # type: ignore[name-defined]
        _, row = await write_row(hero(name), session)
        on_commit(session, lambda: service.told.append(name))
        return row


# --- success -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [None, "function", "request"])
def test_the_commit_is_done_before_the_response_leaves(service: Service, scope: Any) -> None:
    """A client that has its answer finds the row, however long the commit takes."""
    dependency = service.session.__metadata__[0].dependency
    service.session = Annotated[AsyncSession, Depends(dependency, scope=scope)]
    add_create_route(service)
    client = service.start()

    @event.listens_for(sync_engine(service.engine), "commit")
    def slow(_connection: Any) -> None:
        time.sleep(0.3)

    answer = client.post("/heroes/Rusty")
    assert (answer.status_code, service.names()) == (201, ["Rusty"])
    assert answer.json()["id"] is not None


def test_callbacks_run_after_the_commit(service: Service) -> None:
    """Callbacks run after the commit and before the response, and not after a rollback."""
    seen: list[list[str]] = []

    @service.app.post("/heroes/{name}")
    async def create(name: str, session: service.session) -> None:  # type: ignore[name-defined]
        await write_row(hero(name), session)
        on_commit(session, lambda: seen.append(service.names()))
        if name == "Nobody":
            raise HTTPException(418)

    client = service.start()
    client.post("/heroes/Rusty")
    assert seen == [["Rusty"]]
    client.post("/heroes/Nobody")
    assert seen == [["Rusty"]]


def test_a_request_has_one_session(service: Service) -> None:
    """The route and what it depends on work in one transaction."""

    async def rusty(session: service.session) -> Hero:  # type: ignore[name-defined]
        _, row = await write_row(hero("Rusty"), session)
        return row

    @service.app.post("/heroes")
    async def rename(
        row: Annotated[Hero, Depends(rusty)],
        session: service.session,  # type: ignore[name-defined]
    ) -> bool:
        await update_row(row.id, {"name": "Rosty"}, session, Hero)
        return row in session

    assert service.start().post("/heroes").json() is True
    assert service.names() == ["Rosty"]


def test_it_can_be_replaced(service: Service) -> None:
    """Tests override the dependency with one of their own."""
    add_create_route(service)
    dependency = service.session.__metadata__[0].dependency
    service.app.dependency_overrides[dependency] = lambda: None
    answer = service.start().post("/heroes/Rusty")
    assert answer.status_code == 422  # None is no session


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [(HTTPException(418), 418), (KeyError("nothing"), 500), (ValidationError("no"), 422)],
    ids=["http", "bug", "library"],
)
def test_an_exception_rolls_back(service: Service, error: Exception, status: int) -> None:
    """Any exception of the route undoes its writes, and is answered unchanged."""

    @service.app.post("/heroes")
    async def create(session: service.session) -> None:  # type: ignore[name-defined]
        await write_row(hero("Rusty"), session)
        raise error

    client = service.start()
    assert client.post("/heroes").status_code == status
    assert service.names() == []
    assert pool_status(service.engine)["checked_out"] == 0


def test_an_error_status_that_is_returned_is_committed(service: Service) -> None:
    """Only exceptions roll back."""

    @service.app.post("/heroes", status_code=400)
    async def create(session: service.session) -> None:  # type: ignore[name-defined]
        await write_row(hero("Rusty"), session)

    assert service.start().post("/heroes").status_code == 400
    assert service.names() == ["Rusty"]


def test_a_request_that_fastapi_refuses_writes_nothing(service: Service) -> None:
    """Dependencies may have run when a parameter turns out to be wrong."""

    async def write(session: service.session) -> None:  # type: ignore[name-defined]
        await write_row(hero("Rusty"), session)

    @service.app.post("/heroes", dependencies=[Depends(write)])
    async def create(age: int) -> int:
        return age

    assert service.start().post("/heroes?age=x").status_code == 422
    assert service.names() == []


def test_a_flush_that_fails_at_the_end_is_answered(service: Service) -> None:
    """Rows that are only written at the commit are refused there: the client gets the error."""

    @service.app.post("/heroes/{name}", status_code=201)
    async def create(name: str, session: service.session) -> None:  # type: ignore[name-defined]
        session.add(hero(name))

    client = service.start()
    assert client.post("/heroes/Rusty").status_code == 201
    answer = client.post("/heroes/Rusty")
    assert answer.status_code == 409
    [detail] = answer.json()["detail"]
    assert (detail["type"], detail["loc"][0]) == ("unique", "path")
    assert service.names() == ["Rusty"]


@pytest.mark.databases("sqlite", "postgresql")
def test_a_commit_that_the_database_refuses_is_answered(service: Service) -> None:
    """A constraint checked at the COMMIT results in a status like any other."""
    prepare(service.engine)

    @service.app.post("/children", status_code=201)
    async def create(session: service.session) -> None:  # type: ignore[name-defined]
        await write_row(DeferredChild(parent_id=77), session)
        await write_row(hero("Rusty"), session)

    assert service.start().post("/children").status_code == 409
    assert service.names() == []


# --- after the request ---------------------------------------------------------------------------


def test_nothing_is_written_after_the_commit(service: Service) -> None:
    """A background task cannot write with the request's session, because nothing would commit."""

    async def late(session: AsyncSession) -> None:
        try:
            session.add(hero("Later"))
            await session.flush()
        except InvalidRequestError:
            service.told.append("refused")

    @service.app.post("/heroes")
    async def create(
        session: service.session,  # type: ignore[name-defined]
        tasks: BackgroundTasks,
    ) -> None:
        await write_row(hero("Rusty"), session)
        tasks.add_task(late, session)

    service.start().post("/heroes")
    service.stop()
    assert service.names() == ["Rusty"]
    assert service.told == ["refused"]


@pytest.mark.parametrize("engine", [None, "sqlite://", create_pooled_engine])
def test_it_needs_an_engine(engine: Any) -> None:
    """Something else is refused where the dependency is made, not with the first request."""
    with pytest.raises(ValidationError, match="session_dependency takes an Engine, an"):
        session_dependency(engine)


# --- many at once --------------------------------------------------------------------------------


def test_many_requests_share_few_connections(make_service: Callable[..., Service]) -> None:
    """Requests that wait for a connection or a lock don't keep those from ending that have it."""
    service = make_service(pool_size=2, max_overflow=0, pool_timeout=20)
    add_create_route(service)

    @service.app.get("/heroes/{name}")
    async def read(name: str, session: service.session) -> bool:  # type: ignore[name-defined]
        found, _ = await get_row(name, session, Hero, pk_field="name")
        return found

    client = service.start()

    def write_and_read(number: int) -> tuple[int, bool]:
        status = client.post(f"/heroes/Hero {number}").status_code
        return status, client.get(f"/heroes/Hero {number}").json()

    with ThreadPoolExecutor(60) as threads:
        answers = list(threads.map(write_and_read, range(60)))
    assert answers == [(201, True)] * 60
    assert sorted(service.told) == service.names() == sorted(f"Hero {n}" for n in range(60))
    assert pool_status(service.engine)["checked_out"] == 0
