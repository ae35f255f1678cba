"""Bulk inserts, which bypass the unit of work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import Connection, Dialect, Insert

from sqlmodel_crud_utils._async._running.chunked_writes import (
    all_or_none,
    check_report,
    report_progress,
)
from sqlmodel_crud_utils._async._running.operations import Write, run_or_raise
from sqlmodel_crud_utils._async._running.refusals import Refusal, in_savepoint
from sqlmodel_crud_utils._async._running.reported_changes import report
from sqlmodel_crud_utils._async._running.set_based_writes import (
    change_of,
    insert_returning,
    rows_of_keys,
)
from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.logs import get_logger, log_failure
from sqlmodel_crud_utils._core.progress import Report, progress_to
from sqlmodel_crud_utils._core.writes.insert_statements import (
    COPY_FROM,
    check_options,
    chunk_rows,
    insert_into,
    insert_or_skip,
    may_copy,
    total_of,
)
from sqlmodel_crud_utils._core.writes.shapes import RowReader, Shape
from sqlmodel_crud_utils._core.writes.targets import Target, check_skipping, target_of
from sqlmodel_crud_utils._runtime_async import (
    DRIVERS,
    AnySession,
    AsyncSession,
    copy_rows,
    dialect_of,
    execute_writing,
    require_session,
    run_on_connection,
    sync_session,
)
from sqlmodel_crud_utils._session.changes import REPORTED, Change, Need, need_of
from sqlmodel_crud_utils._session.databases import (
    COUNTING,
    begin_immediate,
    skipped,
    start_counting,
)
from sqlmodel_crud_utils._shortcuts.driver_rows import (
    Route,
    driver_copy,
    driver_insert,
    execute_rows,
    route_of,
)
from sqlmodel_crud_utils.exceptions import BulkOperationError, SQLModelCRUDError, ValidationError

__all__ = ["bulk_insert_rows"]

_NAME = "bulk_insert_rows"
# These are Core statements; the model only tells the session which database to use.
_PLAIN = {**REPORTED, "dml_strategy": "raw"}


async def bulk_insert_rows(
    rows: Iterable[Any],
    session_inst: AnySession,
    model: type[Any],
    *,
    chunk_size: int | None = None,
    method: Literal["auto", "insert", "copy"] = "auto",
    progress: bool | Report | None = None,
    on_conflict: Literal["raise", "ignore"] = "raise",
) -> int:
    """Insert many rows at the speed of the driver, as one transaction.

    The rows are read, checked and written in chunks, so a generator of any length takes no more
    memory than one chunk. No objects are created or returned, and instances that you pass stay
    unchanged: they get no keys. Defaults of all kinds are filled in, but hooks do not run, and
    related rows are not written.

    Outside a `transaction()` block, the call commits the session, or rolls it back after a failure,
    along with everything else pending in it. Inside a block, nothing is committed, and a failure
    dooms the block. Whatever fails, no row is kept.

    Args:
        rows: Any iterable of mappings, new instances of the model, or Pydantic objects. Of an
            object, only the fields that were set are written. Values are coerced to the columns'
            types and validated against the types of the model's fields.
        session_inst: The session to write with. Its pending changes are flushed first.
        model: The table model.
        chunk_size: How many rows are checked and written at once. The default is 10,000, or fewer
            if the database's limit of parameters requires it.
        method: "insert", or "copy" for PostgreSQL's binary COPY. "auto" takes the faster of the two
            with the same result: COPY, unless the rows are few or something listens to the
            session's statements. Rows that COPY does not support are always inserted.
        progress: True for a progress bar (needs the extra `progress`), or a function that is called
            after each chunk with the number of rows done and the total, which is None if unknown.
        on_conflict: "ignore" skips each row that has the same unique key as another.

    Returns:
        The number of rows that were inserted.

    Raises:
        BulkOperationError: The database refused a row; `indexes` has its place in the input, and
            `errors` the reason.
        ConstraintViolationError: The database refused a row, and which one cannot be determined.
        QueryExecutionError: Any other refusal by the database.
        UnknownFieldError: A name that is not a column of the model.
        ValidationError: A value that its field does not accept, an instance that belongs to a
            session already, a model that is stored in several tables, `method="copy"` on another
            database or with another driver.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> rows = ({"name": f"hero {i}", "secret_name": "?"} for i in range(1000))
        >>> await bulk_insert_rows(rows, session, Hero)
        1000
        >>> again = [{"name": "hero 999", "secret_name": "?"}, Hero(name="Sid", secret_name="?")]
        >>> await bulk_insert_rows(again, session, Hero, on_conflict="ignore")
        1
    """
    session = require_session(session_inst)
    check_options(chunk_size, method, on_conflict)
    check_report(progress)
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise ValidationError(
            f"rows must be an iterable of rows, not {type(rows).__name__}", field="rows"
        )
    target = target_of(model)
    dialect = dialect_of(session, target.facts)
    insertion = _Insertion(
        session, target, dialect, total_of(rows), method, skipping=on_conflict == "ignore"
    )
    may_copy(dialect, DRIVERS["postgresql"], method)
    if insertion.skipping:
        check_skipping(target, dialect)
    size = chunk_rows(target, dialect, chunk_size)

    async with Write(session, target.facts, _NAME, raise_on_error=True) as write:
        write.batch = insertion.total

        async def work() -> Sequence[Any]:
            await session.flush()
            with (
                all_or_none(session),
                progress_to(progress, model.__name__, insertion.total) as report,
            ):
                await insertion.run(write, rows, size, report)
            return []

        await run_or_raise(write, work)
        return write.rows or 0


@dataclass(slots=True)
class _Insertion:
    """A bulk insert in progress."""

    session: AsyncSession
    target: Target
    dialect: Dialect
    total: int | None
    method: str
    skipping: bool
    route: Route = Route.ORDINARY
    need: Need = Need.NOTHING

    async def run(
        self, write: Write, rows: Iterable[Any], size: int, report: Report | None
    ) -> None:
        """Insert all rows; the write counts them."""
        reader = RowReader(self.target)
        done = 0
        for chunk in chunked(rows, size):
            shapes = reader.read(done, chunk)
            if not done:
                await run_on_connection(self.session, self._begin, self.target.model)
            copied = self._wants_copy(len(chunk)) and await self._copy(shapes)
            await write.written(len(chunk) if copied else await self._write(shapes))
            done += len(chunk)
            await report_progress(report, done, self.total)

    def _begin(self, connection: Connection) -> None:
        begin_immediate(connection)
        self.need = need_of(self.target.model)
        # The driver returns no keys.
        if self.need < Need.KEYS:
            self.route = route_of(sync_session(self.session), connection)

    async def _write(self, shapes: list[Shape]) -> int:
        async def work() -> int:
            return sum([await self._insert(shape) for shape in shapes])

        # The savepoint allows the search for the refused row afterwards.
        inserted = await in_savepoint(self.session, self.target.model, work)
        if not isinstance(inserted, Refusal):
            return inserted
        failure = await self._explained(shapes, inserted)
        log_failure(_NAME, self.target.model, failure, "debug")
        raise failure from inserted.error

    @property
    def _counts_by_itself(self) -> bool:
        """Whether the statement itself counts the rows that it skips, because drivers do not."""
        return features_of(self.dialect).conflict == "ON DUPLICATE KEY"

    async def _insert(self, shape: Shape) -> int:
        if self.need >= Need.KEYS:
            return await self._insert_and_report(shape)
        await self._report_some()
        if not self.skipping:
            await self._execute(shape)
            return shape.size
        if not self._counts_by_itself:
            result = await self._execute(shape)
            count: int = len(result.all()) if result.returns_rows else result.rowcount
            return count
        model = self.target.model
        await run_on_connection(self.session, start_counting, model)
        await self._execute(shape)
        return shape.size - await run_on_connection(self.session, skipped, model)

    async def _report_some(self) -> None:
        if self.need:
            await report(self.session, Change(self.target.model, "create"))

    async def _insert_and_report(self, shape: Shape) -> int:
        facts, names = self.target.facts, tuple(self.target.columns)
        parameters = shape.mappings(self.target.columns[name].key for name in shape.names)
        if self.skipping and self._counts_by_itself:
            keys = [key for row in parameters if (key := await self._insert_or_skip(row))]
            rows = await rows_of_keys(self.session, facts, names, keys)
        else:
            statement = self._statement(facts.model, keyed=True)
            rows = await insert_returning(self.session, facts, statement, parameters, names, _PLAIN)
        if rows:
            await report(self.session, change_of(facts, "create", names, rows))
        return len(rows)

    async def _insert_or_skip(self, row: Mapping[str, Any]) -> Sequence[Any] | None:
        model = self.target.model
        await run_on_connection(self.session, start_counting, model)
        statement = self._statement(model, keyed=True)
        result = await execute_writing(
            self.session, statement, row, execution_options={**_PLAIN, **COUNTING}
        )
        was_there = await run_on_connection(self.session, skipped, model)
        key: Sequence[Any] = result.inserted_primary_key
        return None if was_there else key

    async def _execute(self, shape: Shape) -> Any:
        model, table = self.target.model, self.target.table
        if self.route is Route.DRIVER:
            prepared = driver_insert(self.target, self._statement(table), shape, self.dialect)
            if prepared is not None:
                return await run_on_connection(
                    self.session, partial(execute_rows, *prepared), model
                )
        parameters = shape.mappings(self.target.columns[name].key for name in shape.names)
        counts = self.skipping and self._counts_by_itself
        options = {**_PLAIN, **COUNTING} if counts else _PLAIN
        return await execute_writing(
            self.session, self._statement(model), parameters, execution_options=options
        )

    def _statement(self, entity: Any, *, keyed: bool = False) -> Insert:
        if self.skipping:
            return insert_or_skip(self.target, entity, self.dialect, keyed=keyed)
        return insert_into(entity)

    def _wants_copy(self, count: int) -> bool:
        if self.skipping or not may_copy(self.dialect, DRIVERS["postgresql"], self.method):
            return False
        if self.method == "copy":
            return self.route is not Route.ORDINARY
        return self.route is Route.DRIVER and count >= COPY_FROM

    async def _copy(self, shapes: list[Shape]) -> bool:
        """Write rows with COPY; return whether they were written.

        Refused rows have to be inserted. That succeeds if only COPY is refused (row security, types
        that its driver cannot send), and otherwise identifies the row.
        """
        prepared = [driver_copy(self.target, shape, self.dialect) for shape in shapes]
        copies = [copy for copy in prepared if copy is not None]
        if len(copies) < len(prepared):
            return False

        async def work() -> None:
            await self._report_some()
            for copy in copies:
                await copy_rows(self.session, self.target.model, self.target.table, *copy)

        refusal = await in_savepoint(self.session, self.target.model, work)
        if refusal is not None:
            kind = type(refusal.error).__name__
            get_logger().debug(f"{_NAME} uses INSERT, because COPY failed: {kind}")
            self.method = "insert"
        return refusal is None

    # --- refusals --------------------------------------------------------------------------------

    async def _explained(self, shapes: list[Shape], refusal: Refusal) -> SQLModelCRUDError:
        """Return an error that names the first refused row, after inserting the rows before it."""
        if refusal.is_of_rows:
            for shape in shapes:
                found = await self._search(shape)
                if found is not None:
                    last = shapes[-1]
                    total = last.start + last.size if self.total is None else self.total
                    return BulkOperationError(total, 1, [found])
        return refusal.failure

    async def _search(self, shape: Shape) -> tuple[int, SQLModelCRUDError] | None:
        low, high = 0, shape.size
        while low < high:
            middle = low + max(1, (high - low) // 2)
            work = partial(self._insert, shape.part(low, middle))
            refusal = await in_savepoint(self.session, self.target.model, work)
            if not isinstance(refusal, Refusal):
                low = middle
            elif not refusal.is_of_rows:
                refusal.throw()
            elif middle - low == 1:
                return shape.start + low, refusal.failure
            else:
                high = middle
        return None
