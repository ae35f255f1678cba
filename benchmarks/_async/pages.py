"""Keyset pages near the beginning and near the end of a large table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import tuple_
from sqlmodel import col, select

from benchmarks._async.case import Case
from benchmarks._runtime_async import AsyncSession, library
from benchmarks.models import Reading, Sizes

SIZE = 50


class KeysetPage(Case):
    """The page after the row with the number `count`."""

    cursor: str | None = None

    async def prepare(self, session: AsyncSession) -> str | None:
        if self.cursor is None:
            query = library.QueryBuilder(session, Reading).where(id__gte=self.count)
            self.cursor = (await query.order_by("rank").keyset(1)).next_cursor
        return self.cursor

    async def library(self, session: AsyncSession, cursor: str) -> Any:
        query = library.QueryBuilder(session, Reading).order_by("rank")
        page = await query.keyset(SIZE, after=cursor)
        return page.items, page.next_cursor is not None

    async def by_hand(self, session: AsyncSession, _: str) -> Any:
        key = tuple_(col(Reading.rank), col(Reading.id))
        statement = select(Reading).where(key > (self.count // 10, self.count))
        ordered = statement.order_by(col(Reading.rank), col(Reading.id)).limit(SIZE + 1)
        rows = (await session.exec(ordered)).all()
        return rows[:SIZE], len(rows) > SIZE


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases of this group."""
    return [
        KeysetPage("keyset page at depth 10", sizes, 10),
        KeysetPage("keyset page at depth 300,000", sizes, sizes.depth),
    ]
