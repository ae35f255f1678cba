"""Compare the two sides of a case: alternately, in one process, by their medians."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median, quantiles
from typing import Any

from benchmarks._async import bulk, hooks, pages, pool, reads, soft_deletes, streams, writes
from benchmarks._async.case import Case, Side, refill
from benchmarks._runtime_async import (
    API,
    AsyncEngine,
    AsyncSession,
    make_engine,
    make_pooled_engine,
    plain_engine,
)
from benchmarks.databases import Database
from benchmarks.models import Sizes, core_table
from benchmarks.results import Effort, Result, comparable, counted, difference

GROUPS: dict[str, Callable[[Sizes], Iterable[Case]]] = {
    "reads": reads.cases,
    "writes": writes.cases,
    "soft deletes": soft_deletes.cases,
    "bulk": bulk.cases,
    "pages": pages.cases,
    "streams": streams.cases,
    "hooks": hooks.cases,
    "pool": pool.cases,
}
Clock = Callable[[], float]
Engines = Mapping[Side, AsyncEngine]
SIDES: tuple[Side, Side] = ("library", "by hand")


async def run(
    database: Database,
    sizes: Sizes,
    effort: Effort,
    wanted: Callable[[str], bool],
    report: Callable[[Result], None],
) -> None:
    """Measure the selected cases.

    Args:
        database: The database.
        sizes: The numbers of rows.
        effort: How long a case is measured.
        wanted: Returns whether a case is selected, by its name with that of its group.
        report: Called with each result.
    """
    engines = make_engines(database.urls[API])
    for group, cases in GROUPS.items():
        for case in cases(sizes):
            if wanted(f"{group}: {case.name}"):
                statements = await check(case, engines)
                rounds = await measure(case, engines, effort)
                place = {"group": group, "database": database.kind, "api": API}
                report(summary(rounds, statements, operation=case.name, **place))
                await case.finish()
    await dispose(engines)


def make_engines(url: str) -> Engines:
    """Return the engine of each side: one created by the library, and a plain one."""
    return {"library": make_pooled_engine(url), "by hand": make_engine(url)}


async def dispose(engines: Engines) -> None:
    """Close the connections of both sides."""
    for engine in engines.values():
        await engine.dispose()


async def check(case: Case, engines: Engines) -> tuple[int, int] | None:
    """Compare the results of both sides; return how many statements each has sent.

    Return None for cases that use other engines.
    """
    outcomes, counts = [], []
    for side, engine in engines.items():
        async with AsyncSession(engine) as session:
            if case.writes_to is not None:
                await refill(session, case.writes_to, case.sizes.rows)
            case.restart()
            argument = await case.prepare(session)
            before = await stored(session, case)
        with counted(plain_engine(engine)) as statements:
            _, returned = await call(case, side, engine, argument)
        async with AsyncSession(engine) as session:
            after = await stored(session, case)
        outcomes.append(comparable(returned, before, after))
        counts.append(len(statements))
    if found := difference(*outcomes):
        raise AssertionError(f"{case.name}: library and work by hand differ{found}")
    return (counts[0], counts[1]) if any(counts) else None


async def stored(session: AsyncSession, case: Case) -> list[Any] | None:
    """Return the rows of the table that the case writes to, if any."""
    if case.writes_to is None:
        return None
    connection = await session.connection()
    table = core_table(case.writes_to)
    result = await connection.execute(table.select().order_by(table.c.name))
    return [dict(row) for row in result.mappings()]


async def measure(case: Case, engines: Engines, effort: Effort) -> list[tuple[float, float]]:
    """Return the seconds of both sides for each round."""
    if case.writes_to is not None:
        async with AsyncSession(engines["by hand"]) as session:
            await refill(session, case.writes_to, case.sizes.rows)
    case.restart()
    # The check has warmed up slow cases; quick ones run for a while longer.
    start = time.perf_counter()
    rounds: list[tuple[float, float]] = []
    clock = time.process_time if effort.cpu else time.perf_counter
    warm = False
    while len(rounds) < effort.fewest_rounds or time.perf_counter() < start + effort.seconds:
        rounds.append(await one_round(case, engines, clock, swapped=len(rounds) % 2 == 1))
        if not warm and time.perf_counter() > start + effort.seconds / 10:
            warm = True
            if len(rounds) > 1:
                rounds.clear()
    return rounds


async def one_round(
    case: Case, engines: Engines, clock: Clock, *, swapped: bool
) -> tuple[float, float]:
    """Return the seconds of the two sides."""
    taken: dict[Side, float] = {}
    for side in reversed(SIDES) if swapped else SIDES:
        async with AsyncSession(engines[side]) as session:
            argument = await case.prepare(session)
        taken[side], _ = await call(case, side, engines[side], argument, clock)
    return taken["library"], taken["by hand"]


async def call(
    case: Case, side: Side, engine: AsyncEngine, argument: Any, clock: Clock = time.perf_counter
) -> tuple[float, Any]:
    """Return the seconds of a call in a new session, and its result."""
    work = case.library if side == "library" else case.by_hand
    with case.around(side):
        gc.disable()
        start = clock()
        async with AsyncSession(engine, expire_on_commit=False) as session:
            returned = await work(session, argument)
        taken = clock() - start
        gc.enable()
    return taken, returned


def summary(
    rounds: list[tuple[float, float]], statements: tuple[int, int] | None, **place: str
) -> Result:
    """Return the medians of the rounds; the ratio is the median of the rounds' ratios."""
    ratios = [ours / theirs for ours, theirs in rounds]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return Result(
        **place,
        unit="ms",
        library=1000 * median(ours for ours, _ in rounds),
        by_hand=1000 * median(theirs for _, theirs in rounds),
        ratio=middle,
        low=low,
        high=high,
        rounds=len(rounds),
        statements=statements,
    )
