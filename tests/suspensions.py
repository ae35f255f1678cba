"""Cancel a coroutine at its first suspension, its second, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Suspensions:
    """Runs a coroutine and cancels its task at chosen suspensions.

    Args:
        work: The coroutine to run.
        at: The numbers of the suspensions, from 1, at which to cancel the task.
    """

    def __init__(self, work: Coroutine[Any, Any, None], at: set[int]) -> None:
        self._work = work
        self._at = at
        self.count = 0
        self.cancelled = 0

    async def run(self) -> None:
        """Return a coroutine for a task that runs the work."""
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
            except BaseException as thrown:  # noqa: BLE001 - passed to the work
                error = thrown


async def run(work: Coroutine[Any, Any, None], *at: int) -> tuple[bool, int]:
    """Run work in a task; return whether it was cancelled, and how often it was suspended."""
    driver = Suspensions(work, set(at))

    try:
        await asyncio.create_task(driver.run())
    except asyncio.CancelledError:
        return True, driver.count
    return False, driver.count
