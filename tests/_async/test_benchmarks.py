"""The benchmarks still run, and compare like with like: each case once, with few rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from benchmarks._async.case import Case
from benchmarks._async.comparing import GROUPS, Engines, check, dispose, make_engines, measure
from benchmarks._runtime_async import API, AsyncSession
from benchmarks.databases import provide
from benchmarks.models import Hero, Sizes
from benchmarks.results import Effort

SIZES = Sizes(rows=100, many=40, lots=60, stream=90, depth=100)
CASES = [case for cases in GROUPS.values() for case in cases(SIZES)]


@pytest.fixture(scope="module")
async def bench_engines() -> AsyncIterator[Engines]:
    """The two engines of a small database of the benchmarks."""
    with provide("sqlite", SIZES) as database:
        engines = make_engines(database.urls[API])
        yield engines
        await dispose(engines)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_both_sides_of_a_case_do_the_same(case: Case, bench_engines: Engines) -> None:
    """They return the same and leave the same rows, or `check` raises; then they are timed."""
    await check(case, bench_engines)
    rounds = await measure(case, bench_engines, Effort(seconds=0, fewest_rounds=1))
    await case.finish()
    assert all(seconds > 0 for seconds in rounds[0])


class Different(Case):
    """Its sides leave different rows."""

    writes_to = Hero

    async def prepare(self, _session: AsyncSession) -> Hero:
        return Hero(name="new", secret_name="?")

    async def library(self, session: AsyncSession, hero: Hero) -> Any:
        session.add(hero)
        await session.commit()

    async def by_hand(self, session: AsyncSession, hero: Hero) -> Any:
        hero.age = 5
        session.add(hero)
        await session.commit()


async def test_a_case_whose_sides_differ_is_refused(bench_engines: Engines) -> None:
    """A comparison of different work would be worth nothing."""
    with pytest.raises(AssertionError, match=r"differ\[1\]\[100\]\['age'\]: None and 5"):
        await check(Different("different", SIZES), bench_engines)
