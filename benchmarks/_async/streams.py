"""Streams of rows."""

from __future__ import annotations

from typing import Any

from sqlmodel import col, select

from benchmarks._async.case import Case, Side
from benchmarks._runtime_async import (
    AsyncSession,
    library,
    make_engine,
    make_pooled_engine,
    open_rows,
)
from benchmarks.models import Reading, Sizes

BATCH = 1_000


class Stream(Case):
    async def prepare(self, _session: AsyncSession) -> int:
        return self.count

    async def library(self, session: AsyncSession, last: int) -> Any:
        total = 0
        query = library.QueryBuilder(session, Reading).where(id__lte=last).order_by("id")
        async for reading in query.stream(batch_size=BATCH):
            total += reading.rank
        return total

    async def by_hand(self, session: AsyncSession, last: int) -> Any:
        total = 0
        statement = select(Reading).where(col(Reading.id) <= last).order_by(col(Reading.id))
        statement = statement.execution_options(yield_per=BATCH)
        async for reading in await open_rows(session, statement):
            total += reading.rank
        return total


class StreamValues(Stream):
    """A stream of dicts; by hand, of objects."""

    async def library(self, session: AsyncSession, last: int) -> Any:
        total = 0
        query = library.QueryBuilder(session, Reading).where(id__lte=last).order_by("id")
        async for reading in query.stream_values(batch_size=BATCH):
            total += reading["rank"]
        return total


async def read(url: str, side: Side, rows: int) -> None:
    """Read a stream through a new engine."""
    case = Stream("", Sizes())
    engine = make_pooled_engine(url) if side == "library" else make_engine(url)
    async with AsyncSession(engine) as session:
        await (case.library if side == "library" else case.by_hand)(session, rows)
    await engine.dispose()


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases of this group."""
    return [
        Stream("stream 200k rows", sizes, sizes.stream),
        StreamValues("stream 200k dicts", sizes, sizes.stream),
    ]
