"""Observers of the async API may await before they admit a call, and see cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.databases import Database, prepare
from tests.hook_models import Event
from tests.observing import Call, LimitError, Observer, observing, recorded_calls


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session on empty tables."""
    engine = create_async_engine(database.async_url)
    prepare(engine)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()
    database.clear()


class Waiting(Observer):
    """Awaits before it admits calls and rows; counts what it admits."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.passed = 0

    async def admit(self, call: Call) -> None:
        """Wait, and refuse some calls."""
        await asyncio.sleep(0)
        if call.name == self.refused:
            raise LimitError

    async def admit_rows(self, call: Call, rows: int) -> None:
        """Wait, and count."""
        assert call.kind == "write"
        await asyncio.sleep(0)
        self.passed += rows


async def test_it_is_waited_for(session: AsyncSession) -> None:
    """An exception that it raises later refuses the call as well."""
    limit = Waiting("get_rows")
    with observing(limit):
        assert await aio.bulk_insert_rows([{"text": "a"}, {"text": "b"}], session, Event) == 2
        with pytest.raises(LimitError):
            await aio.get_rows(session, Event)
    assert limit.passed == 2


def test_the_sync_api_does_not_wait(database: Database) -> None:
    """There a coroutine would never run: it is refused."""
    engine = sync.create_pooled_engine(database.sync_url)
    refused = pytest.raises(ValidationError, match="async ones belong to")
    with sync.session_factory(engine)() as session, observing(Waiting()), refused:
        sync.get_rows(session, Event)
    engine.dispose()


async def test_a_cancelled_call(session: AsyncSession) -> None:
    """It ends once, as cancelled, also while an observer waits; the session can be used."""
    forever = asyncio.Event()

    class Stuck(Observer):
        async def admit(self, _call: Call) -> None:
            await forever.wait()

    with recorded_calls() as recording:
        with observing(Stuck()):
            task = asyncio.create_task(aio.get_rows(session, Event))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert isinstance(recording.only.error, asyncio.CancelledError)
    assert await aio.get_rows(session, Event) == (False, [])
