"""Concurrent checkouts of connections."""

from __future__ import annotations

from typing import Any

from sqlmodel import select

from benchmarks._async.case import Case
from benchmarks._runtime_async import AsyncEngine, AsyncSession, library, make_engine, together
from benchmarks.models import Sizes

TIMES = 4
SETTINGS: dict[str, Any] = {"pool_size": 5, "max_overflow": 10}


class Checkout(Case):
    """Many callers each open a session and run a query, a few times, with a small pool."""

    engines: tuple[AsyncEngine, AsyncEngine] | None = None

    async def prepare(self, session: AsyncSession) -> tuple[AsyncEngine, AsyncEngine]:
        if self.engines is None:
            connection = await session.connection()
            url = connection.engine.url.render_as_string(hide_password=False)
            pooled = library.create_pooled_engine(url, **SETTINGS)
            self.engines = pooled, make_engine(url, **SETTINGS)
        return self.engines

    async def library(self, _: AsyncSession, engines: tuple[AsyncEngine, AsyncEngine]) -> Any:
        new_session = library.session_factory(engines[0])

        async def work() -> int:
            total = 0
            for _ in range(TIMES):
                async with new_session() as session:
                    total += (await session.exec(select(1))).one()
            return total

        return await together(work, self.count), library.pool_status(engines[0])["checked_out"]

    async def by_hand(self, _: AsyncSession, engines: tuple[AsyncEngine, AsyncEngine]) -> Any:
        async def work() -> int:
            total = 0
            for _ in range(TIMES):
                async with AsyncSession(engines[1]) as session:
                    total += (await session.exec(select(1))).one()
            return total

        return await together(work, self.count), library.pool_status(engines[1])["checked_out"]

    async def finish(self) -> None:
        for engine in self.engines or ():
            await engine.dispose()
        self.engines = None


def cases(sizes: Sizes) -> list[Checkout]:
    """Return the cases of this group."""
    return [Checkout("200 checkouts by 50 callers at once", sizes, 50)]
