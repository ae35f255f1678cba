"""The base class of cases."""

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

    Both get the same argument and a separate `AsyncSession`, return the same, and leave the same
    rows in the table. Only these two calls are timed.

    Attributes:
        writes_to: The table that the case changes; it is refilled before the case.
        name: The name in the tables.
        count: The number of rows or repetitions.
        sizes: The numbers of rows in the tables.
    """

    writes_to: type[Table] | None = None

    def __init__(self, name: str, sizes: Sizes, count: int = 0) -> None:
        self.name = name
        self.sizes = sizes
        self.count = count
        self.restart()

    def restart(self) -> None:
        """Restart the sequence of arguments that `prepare` returns."""
        self.numbers = itertools.count(1)
        self.random = Random(0)

    async def prepare(self, _session: AsyncSession) -> Any:
        """Prepare a call, and return its argument."""
        return None

    async def library(self, session: AsyncSession, argument: Any, /) -> Any:
        """Run the operation with the library."""
        raise NotImplementedError

    async def by_hand(self, session: AsyncSession, argument: Any, /) -> Any:
        """Run the operation with SQLAlchemy, as in a service without the library."""
        raise NotImplementedError

    def around(self, _side: Side) -> AbstractContextManager[Any]:
        """Return a context manager for each call."""
        return nullcontext()

    async def finish(self) -> None:
        """Close resources that `prepare` has opened."""


async def refill(session: AsyncSession, model: type[Table], count: int) -> None:
    """Leave only the rows 1 to `count` in a table."""
    connection = await session.connection()
    for statement in refilling(model, count, connection.dialect.name):
        await connection.execute(text(statement))
    await session.commit()
