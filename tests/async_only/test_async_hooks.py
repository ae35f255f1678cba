"""Hooks with `async def` methods, which only the async API can run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils import aio
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests.databases import Database
from tests.hook_models import AsyncRecorder, Recorder, Task, hooked


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A pool of two connections, so that one that is not given back is missed."""
    engine = create_async_engine(database.async_url, pool_size=2, max_overflow=0, pool_timeout=5)
    yield engine
    await engine.dispose()
    database.clear()


async def titles(engine: AsyncEngine) -> list[str]:
    """Return the committed titles."""
    async with AsyncSession(engine) as session:
        return list((await session.exec(select(Task.title))).all())


@pytest.mark.parametrize("inside", [False, True])
async def test_both_kinds_run_in_order(engine: AsyncEngine, inside: bool) -> None:
    """Plain and async hooks alike, base classes first."""
    calls: list[str] = []
    async with AsyncSession(engine) as session:

        async def work() -> None:
            _, task = await aio.write_row(Task(title="a"), session, raise_on_error=True)
            await aio.update_row(task.id, {"title": "b"}, session, Task)
            await aio.delete_row(task.id, session, Task)

        with (
            registered_hook(Task, Recorder("plain", calls)),
            registered_hook(SQLModel, AsyncRecorder("async", calls)),
        ):
            if inside:
                async with aio.transaction(session):
                    await work()
            else:
                await work()
    assert calls == [
        f"{kind} {call}"
        for call in (
            "before_create a",
            "after_create a",
            "before_update a {'title': 'b'}",
            "after_update b",
            "before_delete b",
            "after_delete b",
        )
        for kind in ("async", "plain")
    ]


async def test_async_hooks_replace_rows_and_data(engine: AsyncEngine) -> None:
    """Their awaited results count."""

    async def before_create(_: Task) -> Task:
        await asyncio.sleep(0)
        return Task(title="other")

    async def before_update(_: Task, data: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"title": data["title"] * 2}

    hooks = {"before_create": before_create, "before_update": before_update}
    async with AsyncSession(engine) as session:
        with hooked(Task, **hooks):
            _, task = await aio.write_row(Task(title="a"), session, raise_on_error=True)
            assert task.title == "other"
            _, task = await aio.update_row(
                task.id, {"title": "b"}, session, Task, raise_on_error=True
            )
    assert await titles(engine) == ["bb"]


async def test_any_callable_that_returns_a_coroutine(engine: AsyncEngine) -> None:
    """It is awaited too."""
    seen: list[str] = []

    async def note(task: Task) -> None:
        seen.append(task.title)

    async with AsyncSession(engine) as session:
        with hooked(Task, after_create=partial(note)):
            await aio.write_row(Task(title="a"), session)
    assert seen == ["a"]


@pytest.mark.parametrize("method", ["before_create", "after_create"])
async def test_a_cancellation_in_a_hook(engine: AsyncEngine, method: str) -> None:
    """Nothing is written, the session can be used, and no connection is kept."""
    reached = asyncio.Event()

    async def wait(_: Task) -> None:
        reached.set()
        await asyncio.sleep(60)

    async with AsyncSession(engine) as session:
        with hooked(Task, **{method: wait}):
            writing = asyncio.create_task(aio.write_row(Task(title="a"), session))
            await reached.wait()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        assert aio.pool_status(engine)["checked_out"] == 0
        await aio.write_row(Task(title="b"), session)
    assert await titles(engine) == ["b"]


async def test_hooks_of_many_tasks(engine: AsyncEngine) -> None:
    """Each call belongs to its own task and session."""

    async def before_create(task: Task) -> None:
        await asyncio.sleep(0)
        if task.title.endswith("3"):
            raise ValueError(task.title)

    async def write(number: int) -> Any:
        async with AsyncSession(engine) as session:
            return await aio.write_row(Task(title=f"task {number}"), session)

    with hooked(Task, before_create=before_create):
        results = await asyncio.gather(*(write(n) for n in range(20)), return_exceptions=True)
    assert [str(each) for each in results if isinstance(each, ValueError)] == ["task 3", "task 13"]
    assert len(await titles(engine)) == 18


async def test_an_async_hook_that_returns_something_else(engine: AsyncEngine) -> None:
    """It is refused and named, as a plain one is."""

    class Careless:
        async def before_create(self, task: Task) -> str:
            return task.title

    async with AsyncSession(engine) as session:
        with (
            registered_hook(Task, Careless()),  # type: ignore[arg-type]
            pytest.raises(ValidationError, match=r"Careless\.before_create returned str"),
        ):
            await aio.write_row(Task(title="a"), session)
    assert await titles(engine) == []
