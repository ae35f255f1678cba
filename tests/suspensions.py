"""A coroutine that is cancelled at its first suspension, its second, its third, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Suspensions:
    """Runs a coroutine and cancels its task at chosen suspensions.

    Args:
        work: What is run.
        at: The numbers of the suspensions, from 1, at which the task is cancelled.
    """

    def __init__(self, work: Coroutine[Any, Any, None], at: set[int]) -> None:
        self._work = work
        self._at = at
        self.count = 0
        self.cancelled = 0

    async def run(self) -> None:
        """Run the work, as what a task takes."""
        await self

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._work.send(answer) if error is None else self._work.throw(error)
            except StopIteration:
                return
            self.count += 1
            if self.count in self._at:
                self.cancelled += 1
                asyncio.get_running_loop().call_soon(task.cancel)
            answer = error = None
            try:
                answer = yield waited_for
            except BaseException as thrown:  # noqa: BLE001 - handed on to the work
                error = thrown


async def run(work: Coroutine[Any, Any, None], *at: int) -> tuple[bool, int]:
    """Run work in a task of its own; tell whether it was cancelled, and how often it waited."""
    driver = Suspensions(work, set(at))

    try:
        await asyncio.create_task(driver.run())
    except asyncio.CancelledError:
        return True, driver.count
    return False, driver.count
