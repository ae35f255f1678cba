"""Telemetry of tasks: a cancelled call ends its span once; no task sees the span of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from sqlmodel_crud_utils.aio import get_row, transaction, write_row
from tests.databases import Database, prepare
from tests.hook_models import Event
from tests.suspensions import run
from tests.telemetry import exported


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine on empty tables."""
    engine = create_async_engine(database.async_url)
    prepare(engine)
    yield engine
    await engine.dispose()
    database.clear()


async def test_cancelled_at_every_await(engine: AsyncEngine) -> None:
    """Each span ends once, as "cancelled", and none stays current."""

    async def work() -> None:
        async with AsyncSession(engine) as session, transaction(session):
            await write_row(Event(text="x"), session)
        assert not trace.get_current_span().is_recording()

    at = 0
    cancelled = True
    while cancelled:
        at += 1
        with exported() as telemetry:
            cancelled, _count = await run(work(), at)
        for span in telemetry.spans:
            error = (span.attributes or {}).get("error.type")
            assert error in {None, "cancelled"}
            assert (span.status.status_code is StatusCode.ERROR) == (error is not None)
        names = telemetry.names
        assert len(names) == len(set(names))
        assert set(names) <= {"transaction", "write_row event"}
    assert at > 3
    assert names == ["write_row event", "transaction"]


async def test_tasks_side_by_side(engine: AsyncEngine) -> None:
    """A task started inside a block has its span as a parent; others have not."""

    async def read() -> None:
        async with AsyncSession(engine) as session:
            await get_row(1, session, Event)

    with exported() as telemetry:
        async with AsyncSession(engine) as session, transaction(session):
            await asyncio.gather(read(), read())
        await read()
    parents = [span.parent is not None for span in telemetry.spans if "get_row" in span.name]
    assert parents == [True, True, False]


async def test_a_block_that_ends_in_another_task(engine: AsyncEngine) -> None:
    """As a dependency may: its span ends, and the context of either task is left alone."""
    async with AsyncSession(engine) as session:
        block = transaction(session)
        with exported() as telemetry:
            await asyncio.create_task(block.__aenter__())  # type: ignore[arg-type]
            await asyncio.create_task(block.__aexit__(None, None, None))  # type: ignore[arg-type]
            assert not trace.get_current_span().is_recording()
        assert telemetry.names == ["transaction"]
