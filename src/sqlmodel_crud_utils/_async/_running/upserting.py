"""Run an upsert: in batches, all or none, naming the row that the database refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Dialect
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._async._running.chunked_writes import all_or_none, report_progress
from sqlmodel_crud_utils._async._running.operations import Write, run_or_raise
from sqlmodel_crud_utils._async._running.refusals import Refusal, in_savepoint
from sqlmodel_crud_utils._async._running.reported_changes import announce, report
from sqlmodel_crud_utils._async._running.upserted_batches import (
    read_back,
    split_existing,
    write_batch,
)
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.errors.driver_errors import breaks_row_policy
from sqlmodel_crud_utils._core.errors.translation import is_database_error, translate
from sqlmodel_crud_utils._core.logs import log_failure
from sqlmodel_crud_utils._core.progress import Report, progress_to
from sqlmodel_crud_utils._core.writes.insert_statements import total_of
from sqlmodel_crud_utils._core.writes.table_writes import WriteKind
from sqlmodel_crud_utils._core.writes.targets import Target
from sqlmodel_crud_utils._core.writes.upsert_rows import (
    Batch,
    Entry,
    Payload,
    Tally,
    batches,
    not_read_back,
    payloads_of,
    placed,
)
from sqlmodel_crud_utils._runtime_async import run_on_connection, sync_session
from sqlmodel_crud_utils._session.changes import Change, Need, need_of
from sqlmodel_crud_utils._session.databases import begin_immediate
from sqlmodel_crud_utils._session.held_rows import holds
from sqlmodel_crud_utils._session.transaction_state import has_nothing_to_lose
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    SQLModelCRUDError,
    ValidationError,
)
from sqlmodel_crud_utils.results import UpsertCounts


class Upsertion(NamedTuple):
    """An upsert in progress.

    Attributes:
        write: The write.
        target: The target.
        dialect: The dialect of the database.
        size: How many rows one statement writes.
        tally: The counter of rows; None if they are returned.
    """

    write: Write
    target: Target
    dialect: Dialect
    size: int
    tally: Tally | None
    careful: bool = True
    """Whether each batch runs in a savepoint, so that a refused row can be identified."""

    async def counted(
        self, payload: Iterable[Any], progress: bool | Report | None, tally: Tally
    ) -> UpsertCounts:
        """Write rows a chunk at a time, and count them."""
        payloads, total = payloads_of(self.target, payload, self.size), total_of(payload)

        async def work(report: Report | None) -> Mapping[Entry, Any]:
            return await self._all(payloads, total, report)

        await self._run(work, total, progress)
        return tally.counts()

    async def returned(
        self, payload: Payload, progress: bool | Report | None
    ) -> Mapping[Entry, Any]:
        """Write rows, and return them."""
        session, total = self.write.session, len(payload.places)
        keyless = [entry for entry in payload.entries if entry.key is None]
        alone = not self.write.inside and has_nothing_to_lose(sync_session(session))

        async def work(report: Report | None) -> Mapping[Entry, Any]:
            if alone:
                try:
                    return await self._replace(careful=False)._all([payload], total, report)
                except Exception as error:
                    if self._refusal(error) is None:
                        raise
                # Try again, with savepoints: they cost too much to use them from the start.
                await session.rollback()
                self.write.rows = None
                for entry in keyless:
                    entry.key = None
            return await self._all([payload], total, None if alone else report)

        return await self._run(work, total, progress)

    async def _run(
        self,
        work: Callable[[Report | None], Any],
        total: int | None,
        progress: bool | Report | None,
    ) -> Mapping[Entry, Any]:
        session, name = self.write.session, self.write.model.__name__
        found: Mapping[Entry, Any] = {}

        async def whole() -> Sequence[Any]:
            nonlocal found
            # Even without autoflush: reading rows back would overwrite pending changes.
            await session.flush()
            with all_or_none(session), progress_to(progress, name, total) as report:
                found = await work(report)
            return list(found.values())

        await run_or_raise(self.write, whole)
        return found

    async def _all(
        self, payloads: Iterable[Payload], total: int | None, report: Report | None
    ) -> Mapping[Entry, Any]:
        """Write all rows; return them if they are not just counted."""
        rows: dict[Entry, Any] = {}
        done = 0
        for payload in payloads:
            for batch in batches(self.target, payload.entries, self.size, self.dialect):
                found = await self._write(batch)
                if self.tally is None:
                    rows.update(found)
                count = sum(entry.rows for entry in batch.entries)
                done += count
                await self.write.written(count)
                await report_progress(report, done, total)
        return rows

    async def _write(self, batch: Batch) -> Mapping[Entry, Any]:
        """Write a batch; name the row that the database refuses."""
        if not self.careful:
            return await self._attempt(batch)
        if len(batch.entries) == 1:
            try:
                return await self._attempt(batch)
            except Exception as error:
                self._refuse(error, batch.entries[0])
                raise
        await self._begin()
        # The savepoint allows the search for the refused row afterwards.
        found = await self._tried(batch)
        if not isinstance(found, Refusal):
            return found
        if not found.is_of_rows:
            raise found.error
        return await self._searched(batch)

    async def _tried(self, batch: Batch) -> Mapping[Entry, Any] | Refusal:
        write = self.write
        return await in_savepoint(write.session, write.model, partial(self._attempt, batch))

    async def _begin(self) -> None:
        if features_of(self.dialect).single_writer:
            await run_on_connection(self.write.session, begin_immediate, self.write.model)

    async def _searched(self, batch: Batch) -> Mapping[Entry, Any]:
        """Write a batch by bisection, up to the row that the database refuses."""
        entries, found = batch.entries, dict[Entry, Any]()
        low, high = 0, len(entries)
        while low < len(entries):
            middle = low + max(1, (high - low) // 2)
            part = await self._tried(batch.part(entries[low:middle]))
            if not isinstance(part, Refusal):
                found.update(part)
                low, high = middle, high if middle < high else len(entries)
            elif middle - low > 1 and part.is_of_rows:
                high = middle
            else:
                self._refuse(part.error, entries[low])
                raise part.error
        return found

    def _refuse(self, error: Exception, entry: Entry) -> None:
        """Raise a row's error with its index in the payload, if the caller wants errors raised."""
        if self.target.is_shared and breaks_row_policy(error):
            raise not_read_back(self.target, entry) from error
        failure = self._refusal(error)
        if failure is None:
            return
        if self.write.strict or not isinstance(failure, ConstraintViolationError):
            named = placed(failure, entry.index)
            log_failure(self.write.name, self.write.model, named, "debug")
            raise named from error
        error.add_note(f"row {entry.index} of the payload")

    def _refusal(self, error: Exception) -> ValidationError | None:
        """Return the error as a `ValidationError` about a row, or None if no row is to blame."""
        if not is_database_error(error) or isinstance(error, SQLModelCRUDError):
            return None
        failure = translate(error, self.write.model)
        return failure if isinstance(failure, ValidationError) else None

    async def _attempt(self, batch: Batch) -> Mapping[Entry, Any]:
        """Write rows and report them to subscribers; count or return them."""
        session, model = self.write.session, self.write.model
        need = need_of(model)
        returns = self.tally is None or bool(need) or holds(sync_session(session), model)
        # Rows of other tenants are skipped, which has to be detected.
        returns = returns or self.target.is_shared
        there: dict[Entry, Any] = {}
        rest = batch
        if need >= Need.KEYS:
            await self._begin()
            # Where locks reach beyond rows, those of two upserts could exclude each other.
            locking = need >= Need.BEFORE and not features_of(self.dialect).locks_gaps
            there, rest = await split_existing(session, batch, self.dialect, locking=locking)
        if need >= Need.BEFORE:
            await announce(session, model, list(map(_key_of, there.values())))
        count = await write_batch(session, rest, self.dialect, counting=self.tally is not None)
        found = await read_back(session, batch, self.dialect) if returns else {}
        if need:
            for change in _changes(batch, found, there):
                await report(session, change)
        if self.tally is not None:
            self.tally.add(batch, count)
        return found


def _changes(
    batch: Batch, found: Mapping[Entry, Any], there: Mapping[Entry, Any]
) -> Iterator[Change]:
    new = [row for entry, row in found.items() if entry not in there]
    old = [row for entry, row in found.items() if entry in there]
    operations: Mapping[WriteKind, list[Any]] = {"create": new, "update": old}
    for operation, rows in operations.items():
        if rows:
            keys = list(map(_key_of, rows))
            values = [{name: getattr(row, name) for name in batch.target.columns} for row in rows]
            yield Change(batch.target.model, operation, keys, values)


def _key_of(row: Any) -> tuple[Any, ...]:
    return tuple(instance_state(row).identity or ())
