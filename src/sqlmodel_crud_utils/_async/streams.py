"""Rows that are read from the database as they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, Generic, Self, TypeVar

from sqlmodel_crud_utils._async.operations import translated
from sqlmodel_crud_utils._async.queries import remember
from sqlmodel_crud_utils._core.leftovers import loaded_anew
from sqlmodel_crud_utils._core.open_streams import abandon, finished, opened
from sqlmodel_crud_utils._core.query import Query
from sqlmodel_crud_utils._runtime_async import AsyncSession, open_stream, run_sync, sync_session

T = TypeVar("T")


class RowStream(Generic[T]):
    """The rows of a query, one after the other, with a batch of them in memory.

    A loop over it may be left early: the cursor is closed when its connection is used next, or
    goes back to the pool.
    """

    def __init__(self, session: AsyncSession, query: Query, batch_size: int) -> None:
        self._session = session
        self._query = query
        self._batch_size = batch_size
        self._batch: deque[T] = deque()
        self._result: Any = None
        self._connection: Any = None
        self._batches: Iterator[Any] = iter(())
        self._begun = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._batch:
            async with translated(self._query.model, "stream"):
                await self._read()
        if not self._batch:
            raise StopAsyncIteration
        return self._batch.popleft()

    def __del__(self) -> None:
        if self._result is not None:
            abandon(self._connection, self._result)

    async def _read(self) -> None:
        if not self._begun:
            await self._begin()
        query, plain = self._query, sync_session(self._session)
        with loaded_anew(plain, query.model, eagerly=query.loads_related):
            rows = await run_sync(self._session, partial(next, self._batches, ()))
        remember(self._session, rows, query.model, include_deleted=query.include_deleted)
        self._batch.extend(rows)
        if not rows and self._result is not None:
            finished(self._connection, self._result)
            self._result = None

    async def _begin(self) -> None:
        self._begun = True
        self._connection, self._result = await open_stream(
            self._session, self._query.model, self._query.rows(), self._batch_size
        )
        opened(self._connection, self._result)
        self._batches = self._result.scalars().partitions()
