"""Shared and separate state of event loops, in rare situations."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from sqlalchemy.util import greenlet_spawn

from sqlmodel_crud_utils._loops import LoopQueue, PerLoop


async def test_who_is_woken_and_cancelled_wakes_the_next() -> None:
    """Otherwise a connection would be idle while a task waits for it."""
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
    """Return a pool entry without a connection."""
    return SimpleNamespace(dbapi_connection=None, info={})


def test_closing_in_one_loop_leaves_the_clients_of_others() -> None:
    """Each event loop closes its own connections."""
    clients = PerLoop(object)

    async def take() -> object:
        return clients.take()

    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        first, second = [loop.run_until_complete(here(clients)) for loop in loops]
        assert loops[0].run_until_complete(take()) is first
        assert loops[1].run_until_complete(here(clients)) is second
    finally:
        for loop in loops:
            loop.close()


async def here(clients: PerLoop[Any]) -> object:
    """Return the client of this loop."""
    return clients.here()
