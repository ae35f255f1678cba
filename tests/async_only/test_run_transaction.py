"""`run_transaction` that is cancelled between two attempts."""

from __future__ import annotations

import asyncio
import random
from itertools import count

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_rows,
    pool_status,
    run_transaction,
    session_factory,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConflictError
from tests.databases import Database
from tests.models import Hero
from tests.suspensions import run


async def test_cancelled_in_the_pause(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at once: the pause is not waited for, and no attempt follows."""
    engine = create_pooled_engine(database.async_url)
    new_session = session_factory(engine)
    paused = asyncio.Event()
    runs = count(1)

    def draw(_low: float, _high: float) -> float:
        paused.set()
        return 3600.0

    async def work(session: AsyncSession) -> None:
        next(runs)
        await write_row(Hero(name="Rusty", secret_name="?"), session)
        raise ConflictError(Hero)

    monkeypatch.setattr(random, "uniform", draw)
    running = asyncio.create_task(run_transaction(new_session, work))
    await paused.wait()
    while pool_status(engine)["checked_out"]:  # noqa: ASYNC110 - the pool has no event
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert next(runs) == 2
    async with new_session() as session:
        assert await get_rows(session, Hero) == (False, [])
    await engine.dispose()


@pytest.mark.databases("sqlite")
async def test_cancelled_at_each_suspension(database: Database) -> None:
    """All of it is written or nothing, and no connection stays out."""
    engine = create_pooled_engine(database.async_url, 1, 0)
    new_session = session_factory(engine)

    async def attempts() -> None:
        runs = count(1)

        async def work(session: AsyncSession) -> None:
            await write_row(Hero(name="Rusty", secret_name="?"), session)
            if next(runs) == 1:
                raise ConflictError(Hero)

        await run_transaction(new_session, work)

    for suspension in count(1):
        cancelled, _ = await run(attempts(), suspension)
        assert pool_status(engine)["checked_out"] == 0
        async with new_session() as session:
            _, rows = await get_rows(session, Hero)
        if rows:
            break
        assert cancelled
    await engine.dispose()
    database.clear()
