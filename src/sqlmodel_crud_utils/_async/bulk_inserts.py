"""Many new rows, written past the ORM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Dialect, Insert

from sqlmodel_crud_utils._async.operations import Write, insist
from sqlmodel_crud_utils._core.blocks import begin_immediate, block_of
from sqlmodel_crud_utils._core.bulk_inserts import (
    check_options,
    chunk_rows,
    insert_of,
    insert_or_skip,
    is_fault_of_a_row,
    parameters_of,
    skipped,
    start_counting,
    total_of,
)
from sqlmodel_crud_utils._core.bulk_rows import NewRow, RowReader, Shape, levelled
from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.errors import is_database_error, translate
from sqlmodel_crud_utils._core.logs import log_failure
from sqlmodel_crud_utils._core.progress import Report, progress_to
from sqlmodel_crud_utils._core.upsert import Target, is_mysql, target_of
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    call_hook,
    dialect_of,
    execute,
    require_callable,
    require_session,
    run_on_connection,
    sync_session,
)
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    SQLModelCRUDError,
    ValidationError,
)

__all__ = ["bulk_insert_rows"]

_NAME = "bulk_insert_rows"
# The statements are the Core's; the model in them only tells the session which database to use.
_PLAIN = {"dml_strategy": "raw"}


async def bulk_insert_rows(
    rows: Iterable[Any],
    session_inst: AnySession,
    model: type[Any],
    *,
    chunk_size: int | None = None,
    method: Literal["auto", "insert"] = "auto",
    progress: bool | Report | None = None,
    on_conflict: Literal["raise", "ignore"] = "raise",
) -> int:
    """Insert many rows at the speed of the driver, as one transaction.

    The rows are read, checked and written in chunks, so that a generator of any length takes no
    more memory than one of them. No objects are made, so none come back, and the instances that
    are given stay as they are, without keys. Defaults of all kinds are filled in, but hooks are
    not run, and related rows are not written.

    Outside a `transaction()` block the session is committed, or rolled back after a failure, with
    everything else that was pending in it. Inside a block nothing is committed, and a failure
    dooms the block: whatever fails, no row is kept.

    Args:
        rows: From any iterable: mappings, new instances of the model, or Pydantic objects, of
            which the fields that were set are written. Values are coerced to the columns' types
            and validated against the types of the model's fields.
        session_inst: The session to write with. What is pending in it is flushed first.
        model: The table model.
        chunk_size: How many rows are checked and written at once; left out, 10,000, or as many as
            the database takes parameters for.
        method: How the rows are written; "auto" takes the fastest way there is.
        progress: True for a progress bar (the extra `progress`), or a function that is called
            after each chunk with the number of rows that are done, and that of all rows, or None
            where it cannot be told.
        on_conflict: "ignore" skips rows that are equal to another one in a unique key.

    Returns:
        The number of rows that were inserted.

    Raises:
        BulkOperationError: The database refused a row; `indexes` tells its place in the input, and
            `errors` the reason.
        ConstraintViolationError: The database refused a row and does not tell which.
        QueryExecutionError: Any other refusal by the database.
        UnknownFieldError: A name that is no column of the model.
        ValidationError: A value that its field does not take, an instance that belongs to a
            session already, a model that is stored in several tables.
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
    check_options(chunk_size, method, on_conflict, progress)
    if callable(progress):
        require_callable(progress, "progress")
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise ValidationError(
            f"rows must be an iterable of rows, not {type(rows).__name__}", field="rows"
        )
    target = target_of(model)
    dialect = dialect_of(session, model)
    insertion = _Insertion(session, target, dialect, total_of(rows), on_conflict == "ignore")
    size = chunk_rows(target, dialect, chunk_size)
    inserted = 0

    async def work() -> Sequence[Any]:
        nonlocal inserted
        await session.flush()
        with progress_to(progress, model.__name__, insertion.total) as report:
            inserted = await insertion.run(rows, size, report)
        return []

    await insist(Write(session, model, _NAME, raise_on_error=True), work)
    return inserted


@dataclass(frozen=True, slots=True)
class _Insertion:
    """A bulk insert under way."""

    session: AsyncSession
    target: Target
    dialect: Dialect
    total: int | None
    skipping: bool

    async def run(self, rows: Iterable[Any], size: int, report: Report | None) -> int:
        """Insert all rows, or doom the block that is under way."""
        try:
            return await self._run(rows, size, report)
        except BaseException as error:
            # Chunks that went well are in the transaction, whoever it is that failed.
            block = block_of(sync_session(self.session))
            if block is not None:
                block.doom(error)
            raise

    async def _run(self, rows: Iterable[Any], size: int, report: Report | None) -> int:
        model = self.target.model
        reader = RowReader(self.target)
        inserted = done = 0
        for chunk in chunked(enumerate(rows), size):
            read = [reader.read(index, row) for index, row in chunk]
            if not done:
                await run_on_connection(self.session, begin_immediate, model)
            inserted += await self._write(read)
            done += len(read)
            if report is not None:
                await call_hook(report, done, self.total)
        return inserted

    async def _write(self, rows: list[NewRow]) -> int:
        try:
            # The savepoint is what lets the failing row be found afterwards.
            async with self.session.begin_nested():
                return await self._insert(rows)
        except Exception as error:
            if not is_database_error(error):
                raise
            log_failure(_NAME, self.target.model, error)
            failure = translate(error, self.target.model)
            if is_fault_of_a_row(error, failure):
                failure = await self._explained(rows, failure)
            raise failure from error

    async def _explained(self, rows: list[NewRow], failure: SQLModelCRUDError) -> SQLModelCRUDError:
        """Return the error that names the first failing row; the rows before it are inserted."""
        low, high = 0, len(rows)
        while low < high:
            middle = low + max(1, (high - low) // 2)
            refusal = await self._refusal_of(rows[low:middle])
            if refusal is None:
                low = middle
            elif middle - low == 1:
                total = rows[-1].index + 1 if self.total is None else self.total
                return BulkOperationError(total, 1, [(rows[low].index, refusal)])
            else:
                high = middle
        return failure

    async def _refusal_of(self, rows: list[NewRow]) -> SQLModelCRUDError | None:
        try:
            async with self.session.begin_nested():
                await self._insert(rows)
        except Exception as error:
            if not is_database_error(error):
                raise
            failure = translate(error, self.target.model)
            if not is_fault_of_a_row(error, failure):
                raise failure from error
            return failure
        return None

    async def _insert(self, rows: list[NewRow]) -> int:
        inserted = 0
        for shape in levelled(self.target, rows):
            if self.skipping:
                inserted += await self._insert_or_skip(shape)
            else:
                statement = insert_of(self.target)
                await self._execute(statement, shape)
                inserted += len(shape.rows)
        return inserted

    async def _insert_or_skip(self, shape: Shape) -> int:
        statement = insert_or_skip(self.target, self.dialect)
        if not is_mysql(self.dialect):
            result = await self._execute(statement, shape)
            count: int = len(result.all()) if result.returns_rows else result.rowcount
            return count
        model = self.target.model
        await run_on_connection(self.session, start_counting, model)
        await self._execute(statement, shape)
        return len(shape.rows) - await run_on_connection(self.session, skipped, model)

    async def _execute(self, statement: Insert, shape: Shape) -> Any:
        parameters = parameters_of(self.target, shape)
        return await execute(self.session, statement, parameters, execution_options=_PLAIN)
