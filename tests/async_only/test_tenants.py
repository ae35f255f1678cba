"""The tenant in scope among tasks and threads: what is started inside has it, nobody else."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import get_rows, run_transaction, write_row
from sqlmodel_crud_utils.exceptions import TenantError
from sqlmodel_crud_utils.mixins import all_tenants, current_tenant, tenant_scope
from tests.databases import Database, wait_for_locks
from tests.tenant_models import Spell

# What is in scope is Python's affair, and the same on every database.
pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine."""
    engine = create_async_engine(database.async_url)
    wait_for_locks(engine)
    yield engine
    await engine.dispose()
    database.clear()


async def labels(engine: AsyncEngine) -> list[str]:
    """Return what the task that calls sees, with a session of its own."""
    async with AsyncSession(engine) as session:
        return sorted(row.label for row in (await get_rows(session, Spell))[1])


async def spells(engine: AsyncEngine, *tenants: str) -> None:
    """Write a spell for each tenant."""
    for tenant in tenants:
        with tenant_scope(tenant):
            async with AsyncSession(engine) as session:
                await write_row(Spell(label=f"of {tenant}"), session, raise_on_error=True)


async def test_tasks_side_by_side(engine: AsyncEngine) -> None:
    """Each has its own tenant, whatever the others do between its steps."""
    tenants = [f"t{number}" for number in range(8)]
    await spells(engine, *tenants)

    async def one(tenant: str) -> None:
        with tenant_scope(tenant):
            for _ in range(3):
                assert await labels(engine) == [f"of {tenant}"]
                await asyncio.sleep(0)
                assert current_tenant() == tenant

    await asyncio.gather(*map(one, tenants))
    assert current_tenant() is None


async def test_what_is_started_inside(engine: AsyncEngine) -> None:
    """It keeps the tenant, also when the block is over; what it opens itself stays there."""
    await spells(engine, "a", "b")
    go_on = asyncio.Event()

    async def later() -> list[str]:
        await go_on.wait()
        return await labels(engine)

    async def other() -> list[str]:
        with tenant_scope("b"):
            return await labels(engine)

    with tenant_scope("a"):
        task = asyncio.create_task(later())
        assert await asyncio.create_task(other()) == ["of b"]
        assert await asyncio.to_thread(current_tenant) == "a"
        assert await asyncio.to_thread(lambda: asyncio.run(_current())) == "a"
        assert current_tenant() == "a"
    with tenant_scope("b"):
        go_on.set()
        assert await task == ["of a"]


async def _current() -> Any:
    return current_tenant()


async def test_what_has_none(engine: AsyncEngine) -> None:
    """A bare thread, and a task with a context of its own: both fail, and see no row."""
    await spells(engine, "a")
    seen: list[Any] = []
    empty = contextvars.Context()
    with tenant_scope("a"):
        thread = threading.Thread(target=lambda: seen.append(current_tenant()))
        thread.start()
        await asyncio.to_thread(thread.join)
        with pytest.raises(TenantError, match="no tenant"):
            await asyncio.create_task(labels(engine), context=empty)
    assert seen == [None]


async def test_all_tenants_ends_with_its_task(engine: AsyncEngine) -> None:
    """Concurrent tasks only see their own rows."""
    await spells(engine, "a", "b")
    inside, seen = asyncio.Event(), asyncio.Event()

    async def maintenance() -> list[str]:
        with all_tenants():
            inside.set()
            await seen.wait()
            return await labels(engine)

    task = asyncio.create_task(maintenance())
    await inside.wait()
    with pytest.raises(TenantError):
        await labels(engine)
    with tenant_scope("a"):
        assert await labels(engine) == ["of a"]
    seen.set()
    assert await task == ["of a", "of b"]


async def tenant_of(tenant: str = "") -> AsyncIterator[None]:
    """Let a request serve the tenant that it names, if it does."""
    with tenant_scope(tenant) if tenant else nullcontext():
        yield


async def test_a_request_that_is_cancelled_leaves_none(engine: AsyncEngine) -> None:
    """Neither in the task that waited for it, nor in the next request of the same application."""
    await spells(engine, "a", "b")
    app, reached = FastAPI(), asyncio.Event()

    @app.get("/")
    async def read(_: Annotated[None, Depends(tenant_of)], wait: bool = False) -> list[str]:
        found = await labels(engine)
        if wait:
            reached.set()
            await asyncio.Event().wait()
        return found

    async def asked(query: str) -> tuple[int, bytes]:
        sent: list[Any] = []
        scope: Any = {"type": "http", "method": "GET", "path": "/", "headers": []}
        scope["query_string"] = query.encode()
        request = {"type": "http.request", "body": b"", "more_body": False}

        async def receive() -> Any:
            return request

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]

    request = asyncio.create_task(asked("tenant=a&wait=true"))
    await asyncio.wait_for(reached.wait(), 10)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert current_tenant() is None
    assert await asked("tenant=b") == (200, b'["of b"]')
    with pytest.raises(TenantError):
        await asked("")


async def test_a_cancelled_transaction_of_a_tenant(engine: AsyncEngine) -> None:
    """It writes nothing, and the tenant that the caller named is still the caller's."""
    written = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        await write_row(Spell(label="x"), session)
        written.set()
        await asyncio.Event().wait()

    with tenant_scope("a"):
        task = asyncio.create_task(run_transaction(lambda: AsyncSession(engine), work))
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert current_tenant() == "a"
        assert await labels(engine) == []
