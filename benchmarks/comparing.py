"""How two ways to the same result are compared: in turn, in one process, by their medians."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

Work = Callable[[AsyncSession], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """One operation, with the library and by hand.

    Attributes:
        name: What the table calls it.
        library: The call of the library.
        by_hand: The same result with SQLAlchemy.
        rounds: How often both are run.
        setup: What is run before each, and not measured.
    """

    name: str
    library: Work
    by_hand: Work
    rounds: int = 400
    setup: Work | None = None


async def compare(case: Case, engine: AsyncEngine, share: float) -> tuple[float, float]:
    """Return the median seconds of the library and of the work by hand, a session for each call."""
    times: tuple[list[float], list[float]] = ([], [])
    rounds = max(3, int(case.rounds * share))
    warm_up = max(1, rounds // 10)
    gc.collect()
    gc.disable()
    for number in range(rounds + warm_up):
        sides = (0, 1) if number % 2 else (1, 0)
        for side in sides:
            taken = await _timed(case, (case.library, case.by_hand)[side], engine)
            if number >= warm_up:
                times[side].append(taken)
    gc.enable()
    return median(times[0]), median(times[1])


async def _timed(case: Case, work: Work, engine: AsyncEngine) -> float:
    if case.setup is not None:
        async with AsyncSession(engine) as session:
            await case.setup(session)
    start = time.perf_counter()
    async with AsyncSession(engine, expire_on_commit=False) as session:
        await work(session)
    return time.perf_counter() - start


async def table(title: str, cases: Sequence[Case], engine: AsyncEngine, share: float) -> None:
    """Run the cases and print a table."""
    print(f"\n{title:<34}{'library':>12}{'by hand':>12}{'ratio':>8}")
    for case in cases:
        ours, theirs = await compare(case, engine, share)
        print(f"{case.name:<34}{ours * 1e3:>9.3f} ms{theirs * 1e3:>9.3f} ms{ours / theirs:>8.2f}")
