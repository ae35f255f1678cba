"""What a case is."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import Any, Literal

from sqlalchemy import text

from benchmarks._runtime_async import AsyncSession
from benchmarks.models import Sizes, Table, refilling

Side = Literal["library", "by hand"]


class Case:
    """One operation, with the library and by hand.

    Both get the same argument and an `AsyncSession` of their own, return the same, and leave the
    same rows in the table. Only the two are timed.

    Attributes:
        writes_to: The table that the case changes; it is filled again before the case.
        name: What the tables call it.
        count: How many rows it is about, or how often something is done.
        sizes: How many rows there are.
    """

    writes_to: type[Table] | None = None

    def __init__(self, name: str, sizes: Sizes, count: int = 0) -> None:
        self.name = name
        self.sizes = sizes
        self.count = count
        self.restart()

    def restart(self) -> None:
        """Let the arguments that `prepare` makes up begin from the first one."""
        self.numbers = itertools.count(1)
        self.random = Random(0)

    async def prepare(self, _session: AsyncSession) -> Any:
        """Make ready for a call, and return its argument."""
        return None

    async def library(self, session: AsyncSession, argument: Any, /) -> Any:
        """Do it with the library."""
        raise NotImplementedError

    async def by_hand(self, session: AsyncSession, argument: Any, /) -> Any:
        """Do it with SQLAlchemy, as in a service without the library."""
        raise NotImplementedError

    def around(self, _side: Side) -> AbstractContextManager[Any]:
        """Return what a call runs in."""
        return nullcontext()

    async def finish(self) -> None:
        """Close what `prepare` has opened."""


async def refill(session: AsyncSession, model: type[Table], count: int) -> None:
    """Leave just the rows 1 to `count` in a table."""
    connection = await session.connection()
    for statement in refilling(model, count, connection.dialect.name):
        await connection.execute(text(statement))
    await session.commit()
