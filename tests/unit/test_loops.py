"""The queue of a pool for several event loops, at moments that a pool seldom meets."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from sqlalchemy.util import greenlet_spawn

from sqlmodel_crud_utils._loops import LoopQueue


async def test_who_is_woken_and_cancelled_wakes_the_next() -> None:
    """Or a connection would rest while somebody waits for it."""
    queue, entry = LoopQueue(1), entry_without_connection()
    first, second = (asyncio.ensure_future(greenlet_spawn(queue.get)) for _ in range(2))
    await asyncio.sleep(0.01)
    queue.put(entry)
    first.cancel()
    assert await second is entry


async def test_who_is_cancelled_before_a_thread_wakes_it_leaves_that_to_the_next() -> None:
    """The connection came from the loop of another thread."""
    queue, entry = LoopQueue(1), entry_without_connection()
    first, second = (asyncio.ensure_future(greenlet_spawn(queue.get)) for _ in range(2))
    await asyncio.sleep(0.01)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(queue.put, entry).result()
    first.cancel()
    assert await second is entry


def entry_without_connection() -> Any:
    """What a pool keeps before its connection is made."""
    return SimpleNamespace(dbapi_connection=None, info={})
