"""Streams: rows that are fetched in batches while a loop iterates over them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Generic, Self, TypeVar

from sqlalchemy.orm import SessionTransaction

from sqlmodel_crud_utils._async._running.fetching import fetch, remember
from sqlmodel_crud_utils._async._running.operations import Read, translated
from sqlmodel_crud_utils._core import observers
from sqlmodel_crud_utils._core.chunks import COMPOSITE_KEYS_PER_QUERY, chunked
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keyset import check_sortable, key_columns, prepared_from
from sqlmodel_crud_utils._core.queries.query import (
    Query,
    loads_all_at_once,
    loads_with_queries,
)
from sqlmodel_crud_utils._core.returned_rows import as_dicts, column_rows
from sqlmodel_crud_utils._runtime_async import AsyncSession, open_stream, run_sync, sync_session
from sqlmodel_crud_utils._session import kept_rows
from sqlmodel_crud_utils._session.engine_events import close_streams
from sqlmodel_crud_utils._session.leftovers import reloading_relationships
from sqlmodel_crud_utils._session.open_streams import (
    abandon,
    finished,
    opened,
    transaction_ended,
)
from sqlmodel_crud_utils._session.sole_use import sole_use
from sqlmodel_crud_utils._session.tenant_of_session import serve_model

T = TypeVar("T")


class RowStream(Generic[T]):
    """The rows of a query, one by one, with only a batch of them in memory.

    You can leave a loop over it early: the cursor is closed when the connection is used next, or
    returns to the pool. `aclose` closes it at once.
    """

    def __init__(self, session: AsyncSession, query: Query, batch_size: int) -> None:
        self._session = session
        self._plain = sync_session(session)
        self._query = query
        self._batch_size = batch_size
        self._batch: deque[T] = deque()
        self._reader: _Cursor | _Chunks | None = None
        self._transaction: SessionTransaction | None = None
        self._is_over = False
        name = "stream_values" if query.values else "stream"
        self._operation = Read(session, facts_of(query.model), name)
        self._operation.is_stream = True

    def __del__(self) -> None:
        observers.end(self._operation)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._transaction is not self._plain.get_transaction():
            self._check_transaction()
        if not self._batch:
            if self._is_over:
                raise StopAsyncIteration
            await self._next_batch()
        if not self._batch:
            raise StopAsyncIteration
        return self._batch.popleft()

    async def aclose(self) -> None:
        """Close the cursor; the stream returns no further rows.

        Example:
            >>> from contextlib import aclosing
            >>> _ = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
            >>> async with aclosing(AsyncQueryBuilder(session, Hero).stream()) as heroes:
            ...     async for hero in heroes:
            ...         break
        """
        reader, self._reader = self._reader, None
        self._batch.clear()
        self._is_over = True
        try:
            if isinstance(reader, _Cursor):
                await reader.close()
        finally:
            observers.end(self._operation)

    async def _next_batch(self) -> None:
        operation = self._operation
        try:
            with sole_use(self._plain):
                serve_model(self._plain, self._query.model)
                if self._reader is None and observers.registered:
                    await operation.begin()
                with observers.at_work(operation):
                    async with translated(self._session, self._query.model, operation.name):
                        await self._read()
        except BaseException as error:
            observers.end(operation, error)
            raise
        operation.rows = len(self._batch) + (operation.rows or 0)
        if self._is_over:
            observers.end(operation)

    def _check_transaction(self) -> None:
        # After the end of the transaction, its rows have expired and its cursor is closed.
        if self._reader is not None and (self._batch or not self._is_over):
            raise transaction_ended()

    async def _read(self) -> None:
        if self._reader is None:
            self._reader = self._new_reader()
        elif isinstance(self._reader, _Cursor) and self._reader.is_closed:
            self._reader = self._reader.rest()
        rows = await self._reader.read(self._batch_size)
        self._transaction = self._plain.get_transaction()
        self._batch.extend(rows)
        self._is_over = len(rows) < self._batch_size

    def _new_reader(self) -> _Cursor | _Chunks:
        query = self._query
        if query.values:
            return _Cursor(self._session, query)
        may_need_more = loads_with_queries(query) or kept_rows.has_any(self._plain)
        in_the_way = may_need_more and features_of(query.dialect).one_result_at_a_time
        if in_the_way or loads_all_at_once(query):
            return _Chunks(self._session, query)
        return _Cursor(self._session, query)


class _Cursor:
    """Reads batches with a database cursor."""

    def __init__(self, session: AsyncSession, query: Query) -> None:
        self._session = session
        self._query = query
        self._resumes = features_of(query.dialect).one_result_at_a_time
        self._connection: Any = None
        self._result: Any = None
        self._batches: Iterator[Any] = iter(())
        self._last: Any = None
        self._count = 0

    def __del__(self) -> None:
        if self._result is not None:
            abandon(self._connection, self._result)

    @property
    def is_closed(self) -> bool:
        """Whether the cursor was closed because another statement needed the connection."""
        return self._result is not None and self._result.closed

    def rest(self) -> _Chunks:
        """Return a reader of the remaining rows."""
        after = None if self._last is None else _sort_values(self._query, self._last)
        return _Chunks(self._session, self._query, after, self._count)

    async def close(self) -> None:
        """Close the cursor if it is open."""
        result, self._result = self._result, None
        if result is not None:
            finished(self._connection, result)
            await run_sync(self._session, result.close)

    async def read(self, size: int) -> Sequence[Any]:
        """Return the next rows; fewer than `size` means the end."""
        if self._result is None:
            await self._open(size)
        query, plain = self._query, sync_session(self._session)
        with reloading_relationships(plain, query.model, eagerly=query.loads_related):
            found: list[Any] = await run_sync(self._session, partial(next, self._batches, []))
        self._count += len(found)
        if len(found) < size:
            await self.close()
        else:
            self._last = found[-1]
        rows = _results(query, found) if self._resumes or query.values else found
        if query.values:
            return rows
        await self._renew(rows)
        remember(self._session, rows, query.model, visibility=query.visibility)
        return rows

    async def _open(self, size: int) -> None:
        query = self._query
        more = key_columns(query.terms, query.dialect) if self._resumes else ()
        self._connection, self._result = await open_stream(
            self._session, query.model, query.results(*more), size
        )
        close_streams(self._connection.engine)
        opened(self._connection, self._result)
        if query.values:
            self._batches = column_rows(self._result).partitions(size)
        else:
            rows = self._result if self._resumes else self._result.scalars()
            self._batches = rows.partitions()

    async def _renew(self, rows: Sequence[Any]) -> None:
        """Refresh the rows that stayed loaded after a commit."""
        kept = kept_rows.keys_among(sync_session(self._session), rows)
        for keys in chunked(kept, COMPOSITE_KEYS_PER_QUERY):
            await fetch(
                self._session,
                self._query.model,
                self._query.rows_with_keys(keys),
                eagerly=self._query.loads_related,
                reaches_twice=self._query.loading.reaches_twice,
                visibility=self._query.visibility,
            )


class _Chunks:
    """Reads each batch with a query that continues after the last row."""

    def __init__(
        self,
        session: AsyncSession,
        query: Query,
        after: Sequence[Any] | None = None,
        count: int = 0,
    ) -> None:
        check_sortable(query.terms, "stream")
        self._session = session
        self._query = query
        self._after = after
        self._count = count

    async def read(self, size: int) -> Sequence[Any]:
        """Return the next rows; fewer than `size` means the end."""
        query, limit = self._query, self._query.size
        part = query._replace(size=size if limit is None else min(size, limit - self._count))
        statement, parameters = prepared_from(part, self._after)
        found = await fetch(
            self._session,
            query.model,
            statement,
            parameters,
            eagerly=query.loads_related,
            reaches_twice=query.loading.reaches_twice,
            visibility=query.visibility,
        )
        self._count += len(found)
        if found:
            self._after = _sort_values(query, found[-1])
        return _results(query, found)


def _results(query: Query, found: Sequence[Any]) -> list[Any]:
    """Return rows or dicts without their sort values."""
    return as_dicts(query.values, found) if query.values else [row[0] for row in found]


def _sort_values(query: Query, row: Any) -> tuple[Any, ...]:
    return tuple(row)[len(query.values) or 1 :]
