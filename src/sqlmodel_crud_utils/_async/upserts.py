"""Rows that are inserted, or updated where they are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, overload

from sqlalchemy import Dialect, Select, func, select
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._async._running.changes import announce, happened
from sqlmodel_crud_utils._async._running.chunks import all_or_none, check_report, tell
from sqlmodel_crud_utils._async._running.operations import Write, insist
from sqlmodel_crud_utils._async._running.refusals import Refusal, in_savepoint
from sqlmodel_crud_utils._core.chunks import check_chunk_size, chunked, rows_per_chunk
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.errors.driver_errors import breaks_row_policy
from sqlmodel_crud_utils._core.errors.translation import is_database_error, translate
from sqlmodel_crud_utils._core.logs import get_logger, log_failure
from sqlmodel_crud_utils._core.models.policies import here
from sqlmodel_crud_utils._core.progress import Report, progress_to
from sqlmodel_crud_utils._core.queries.keys import by_key_list, longest_key_list
from sqlmodel_crud_utils._core.rows import fetched, states_of
from sqlmodel_crud_utils._core.visibility.soft_delete import WITH_DELETED
from sqlmodel_crud_utils._core.writes.inserts import total_of
from sqlmodel_crud_utils._core.writes.targets import (
    ColumnNames,
    Target,
    check_dialect,
    check_key,
    target_of,
)
from sqlmodel_crud_utils._core.writes.upsert_rows import (
    Action,
    Batch,
    Entry,
    Payload,
    Tally,
    batches,
    check_payload,
    has_unique_values,
    matched,
    not_read_back,
    payload_of,
    payloads_of,
    placed,
)
from sqlmodel_crud_utils._core.writes.upserts import (
    insert_statement,
    on_conflict,
    update_statement,
    upsert_statement,
)
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    dialect_of,
    execute_writing,
    require_session,
    run_on_connection,
    sync_session,
)
from sqlmodel_crud_utils._session.changes import TOLD, Change, Need, WriteKind, need_of
from sqlmodel_crud_utils._session.databases import (
    COUNTING,
    begin_immediate,
    skipped,
    start_counting,
)
from sqlmodel_crud_utils._session.held_rows import holds
from sqlmodel_crud_utils._session.sqlalchemy_internals import register_altered
from sqlmodel_crud_utils._session.transactions import has_nothing_to_lose
from sqlmodel_crud_utils._shortcuts.driver_rows import (
    Way,
    driver_insert,
    execute_rows,
    from_arrays,
    way_of,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    SQLModelCRUDError,
    ValidationError,
)
from sqlmodel_crud_utils.results import UpsertCounts

__all__ = ["UpsertCounts", "bulk_upsert_mappings"]

T = TypeVar("T")

# The statements are the Core's; the model in them only tells the session which database to use.
_PLAIN_INSERT = {**TOLD, "dml_strategy": "raw"}
_PLAIN_UPDATE = {**TOLD, "dml_strategy": "core_only", "synchronize_session": False}
# From here on, what it costs to write rows at once is less than what it saves.
_MANY = 100
_FRESH = {"populate_existing": True}


@overload
async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: Literal[True] = True,
) -> tuple[Literal[True], list[T]]: ...


@overload
async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[Any],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: Literal[False],
) -> tuple[Literal[True], UpsertCounts]: ...


@overload
async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: bool,
) -> tuple[Literal[True], list[T] | UpsertCounts]: ...


async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_fields: ColumnNames = None,
    *,
    update_columns: ColumnNames = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
    progress: bool | Report | None = None,
    return_rows: bool = True,
) -> tuple[Literal[True], list[T] | UpsertCounts]:
    """Insert rows, and update those that are already there, as one transaction.

    The outcome is that of writing the rows one after the other, with a few statements for all of
    them. A row may give any of the model's fields:

    - A field that it does not give keeps its value in an existing row, and gets its default in
      a new one. A row that gives too little for a new one can only update.
    - `updated_at` and other columns with an `onupdate` are set, and the version of a
      `VersionMixin` is counted up, when an existing row is written to.
    - None for a field that cannot be NULL and has a default counts as not given.
    - The primary key of an existing row is never changed.
    - A row without a value for an autoincrement key is inserted.
    - Where the payload has a key twice, the later row wins, field by field; both places of the
      result hold the same object.

    Hooks are not run. A soft-deleted row with the same key is updated as it is and returned; it
    stays deleted unless the payload says otherwise. By a key of `unique_when_not_deleted` only rows
    that are not deleted are found.

    On MySQL and MariaDB a row is updated when it is equal in any unique key of the table, not
    just in `pk_fields`; the other databases refuse such a row.

    Outside a `transaction()` block everything is committed, and a failure rolls the session back;
    inside, a failure dooms the block, or with `raise_on_error=False` undoes just this call.
    A row that is refused is named by its place in the payload, counted from 0.

    Args:
        payload: The rows, from any iterable: mappings, or Pydantic objects, of which the fields
            that were set are written. Values are coerced to the columns' types. All rows are
            checked before the first is written, if the rows are returned.
        session_inst: The session to write with. What is pending in it is flushed first.
        model: The table model.
        pk_fields: The fields of the unique key that tells whether a row is there; left out, it is
            "id" where that is a key, else the model's primary key.
        update_columns: The fields that may change in an existing row; left out, all that a
            row of the payload gives. With an empty list such rows are left alone.
        chunk_size: How many rows are written with one statement; left out, as many as the
            database takes parameters for.
        raise_on_error: Whether a refusal by the database arrives as an error of this library; left
            out, it does inside a block, and outside SQLAlchemy's own error is raised.
        progress: True for a progress bar (the extra `progress`), or a function that is called
            while rows are written, with the number of rows that are done and that of all rows, or
            None where it cannot be told.
        return_rows: Whether the rows are returned. Without, a generator of any length takes no
            more memory than a chunk of it.

    Returns:
        True, and the rows in the order of the payload, one for each of its rows, with the values
        that the database has now. With `return_rows=False` True, and how many rows were created
        and updated; a key that comes twice counts once.

    Raises:
        ValidationError: A value of a wrong type, a row without its key, `pk_fields` that are no
            unique key. Nothing is written.
        UnknownFieldError: A name that is not a field of the model. Nothing is written.
        ConstraintViolationError: A row breaks a constraint (see `raise_on_error`).
        QueryExecutionError: A row is missing after it was written (a trigger, a row policy).

    Example:
        >>> rows = [{"name": "Rusty", "secret_name": "Tommy"}, {"name": "Nova", "secret_name": "?"}]
        >>> _, heroes = await bulk_upsert_mappings(rows, session, Hero, ["name"])
        >>> _, again = await bulk_upsert_mappings(
        ...     [{"name": "Nova", "age": 31}], session, Hero, ["name"]
        ... )
        >>> again[0] is heroes[1], again[0].secret_name, again[0].age
        (True, '?', 31)
    """
    session = require_session(session_inst)
    check_chunk_size(chunk_size)
    check_report(progress)
    check_payload(payload)
    target = target_of(model, pk_fields, update_columns)
    dialect = dialect_of(session, target.facts)
    check_dialect(dialect)
    check_key(target, dialect)
    columns = len(target.table.columns)
    size = rows_per_chunk(dialect, columns, chunk_size, extra_binds=columns)
    async with Write(session, target.facts, "bulk_upsert_mappings", raise_on_error) as write:
        write.batch = total_of(payload)
        if not return_rows:
            tally = Tally()
            counting = _Upsertion(write, target, dialect, size, tally)
            return True, await counting.counted(payload, progress, tally)
        wanted = payload_of(target, payload)
        if not wanted.places:
            return True, []
        found = await _Upsertion(write, target, dialect, size, None).returned(wanted, progress)
        return True, [found[entry] for entry in wanted.places]


class _Upsertion(NamedTuple):
    """An upsert under way.

    Attributes:
        write: How it runs.
        target: What is written to.
        dialect: The dialect of the database.
        size: How many rows one statement writes.
        tally: What counts the rows, if they are not to be returned.
    """

    write: Write
    target: Target
    dialect: Dialect
    size: int
    tally: Tally | None
    careful: bool = True
    """Whether each batch has a savepoint, which lets a row that is refused be found."""

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
                # Savepoints cost too much to have them for this only. Once more, with them.
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
            # Also where autoflush is off: rows that are read back fresh would lose pending changes.
            await session.flush()
            with all_or_none(session), progress_to(progress, name, total) as report:
                found = await work(report)
            return list(found.values())

        await insist(self.write, whole)
        return found

    async def _all(
        self, payloads: Iterable[Payload], total: int | None, report: Report | None
    ) -> Mapping[Entry, Any]:
        """Write all rows, and return them if they are wanted."""
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
                await tell(report, done, total)
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
        # The savepoint is what lets the failing row be found afterwards.
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
        """Write a batch in ever smaller parts, up to the row that the database refuses."""
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
        """Raise the error of a row with its place in the payload, as the caller wants errors."""
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
        """Return what is wrong with a row, None where it is not a row's fault."""
        if not is_database_error(error) or isinstance(error, SQLModelCRUDError):
            return None
        failure = translate(error, self.write.model)
        return failure if isinstance(failure, ValidationError) else None

    async def _attempt(self, batch: Batch) -> Mapping[Entry, Any]:
        """Write rows; count them and tell those who asked, or return them."""
        session, model = self.write.session, self.write.model
        need = need_of(model)
        returns = self.tally is None or bool(need) or holds(sync_session(session), model)
        # Rows of other tenants are left alone, which has to be noticed.
        returns = returns or self.target.is_shared
        there: dict[Entry, Any] = {}
        rest = batch
        if need >= Need.KEYS:
            there, rest = await _told_apart(session, batch, self.dialect)
        if need >= Need.BEFORE:
            await announce(session, model, list(map(_key_of, there.values())))
        count = await _written_by(session, rest, self.dialect, counting=self.tally is not None)
        found = await _written(session, batch, self.dialect) if returns else {}
        if need:
            for change in _changes(batch, found, there):
                await happened(session, change)
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


async def _told_apart(
    session: AsyncSession, batch: Batch, dialect: Dialect
) -> tuple[dict[Entry, Any], Batch]:
    """Return the existing rows, and what is left to be written.

    Where others may insert a row after it was looked for, what is missing is inserted at once: a
    row that exists by then is another one's, and is updated like the others.
    """
    there, features = await _there(session, batch, dialect), features_of(dialect)
    if batch.action is not Action.UPSERT or features.locks_gaps or features.single_writer:
        return there, batch
    while missing := [entry for entry in batch.entries if entry not in there]:
        savepoint = await session.begin_nested()
        if await _inserted_or_skipped(session, batch.part(missing), dialect) == len(missing):
            await savepoint.commit()
            return there, batch.part(list(there))
        await savepoint.rollback()
        before, there = there, await _there(session, batch, dialect)
        if len(there) <= len(before):  # they are in nobody's sight: rows of other tenants
            break
    return there, batch


async def _inserted_or_skipped(session: AsyncSession, batch: Batch, dialect: Dialect) -> int:
    """Insert rows, but for those whose key is there; return how many it were."""
    target = batch.target
    statement = on_conflict(target, target.model, (), dialect)
    returning = statement.returning(*target.table.primary_key.columns)
    result = await execute_writing(
        session, returning, batch.insert_parameters(), execution_options=_PLAIN_INSERT
    )
    return len(result.all())


async def _written_by(
    session: AsyncSession, batch: Batch, dialect: Dialect, *, counting: bool
) -> int:
    """Write rows; return how many of them were there, where that is asked for."""
    if not batch.entries:
        return 0
    if batch.action is Action.UPDATE:
        await _update(session, batch, dialect)
        return len(batch.entries)
    if batch.action is Action.UPSERT:
        return await _upsert(session, batch, dialect, counting=counting)
    await _insert(session, batch, dialect)
    return 0


async def _insert(session: AsyncSession, batch: Batch, dialect: Dialect) -> None:
    parameters = batch.insert_parameters()
    if dialect.insert_executemany_returning:
        statement = insert_statement(batch.target, returning=True)
        result = await execute_writing(
            session, statement, parameters, execution_options=_PLAIN_INSERT
        )
        keys = result.all()
    else:
        keys = [await _insert_one(session, batch.target, row) for row in parameters]
    for entry, key in zip(batch.entries, keys, strict=True):
        entry.key = tuple(key)


async def _insert_one(session: AsyncSession, target: Target, row: dict[str, Any]) -> Sequence[Any]:
    statement = insert_statement(target, returning=False)
    result = await execute_writing(session, statement, row, execution_options=_PLAIN_INSERT)
    key: Sequence[Any] = result.inserted_primary_key
    return key


async def _upsert(
    session: AsyncSession, batch: Batch, dialect: Dialect, *, counting: bool = False
) -> int:
    """Insert or update rows; return how many of them were there, where that is asked for."""
    target = batch.target
    if counting and features_of(dialect).conflict == "ON DUPLICATE KEY":
        await run_on_connection(session, start_counting, target.model)
        await _upsert_all(session, batch, dialect, counting=True)
        return await run_on_connection(session, skipped, target.model)
    count = await _count_of(session, batch, dialect) if counting else 0
    if len(batch.entries) < _MANY or not await _upserted_at_once(session, batch, dialect):
        await _upsert_all(session, batch, dialect)
    return count


async def _upsert_all(
    session: AsyncSession, batch: Batch, dialect: Dialect, *, counting: bool = False
) -> None:
    parameters = batch.insert_parameters()
    statement, rows = upsert_statement(
        batch.target, batch.names, parameters, dialect, counting=counting
    )
    options = {**_PLAIN_INSERT, **COUNTING} if counting else _PLAIN_INSERT
    await execute_writing(session, statement, rows, execution_options=options)


async def _count_of(session: AsyncSession, batch: Batch, dialect: Dialect) -> int:
    """Return how many of the rows exist."""
    target, count = batch.target, 0
    keys = [entry.key for entry in batch.entries if entry.key is not None]
    for chunk in chunked(keys, longest_key_list(target.model, target.key, dialect)):
        rows = by_key_list(target.model, target.key, chunk, dialect, here(WITH_DELETED))
        statement = rows.where(*target.criteria).with_only_columns(
            func.count(), maintain_column_froms=True
        )
        count += (await execute_writing(session, statement)).scalar_one()
    return count


async def _upserted_at_once(session: AsyncSession, batch: Batch, dialect: Dialect) -> bool:
    """Write many rows the quick way of their database; False if they are left to the usual one.

    That is also where the database refuses them: the usual way says what is wrong.
    """
    target, features = batch.target, features_of(dialect)
    if features.has_arrays:
        statement = on_conflict(target, target.model, batch.names, dialect)
        statement = from_arrays(target, statement, batch.shape(), dialect)
        return statement is not None and await _executed(session, target.model, statement)
    if (
        not features.quick_many
        or await run_on_connection(
            session, lambda connection: way_of(sync_session(session), connection), target.model
        )
        is not Way.DRIVER
    ):
        return False
    statement = on_conflict(target, target.table, batch.names, dialect)
    prepared = driver_insert(target, statement, batch.shape(), dialect)
    if prepared is not None:
        await run_on_connection(session, partial(execute_rows, *prepared), target.model)
    return prepared is not None


async def _executed(session: AsyncSession, model: type[Any], statement: Any) -> bool:
    execution = partial(execute_writing, session, statement, execution_options=_PLAIN_INSERT)
    outcome = await in_savepoint(session, model, execution)
    if isinstance(outcome, Refusal):
        get_logger().debug(f"rows are upserted one by one: {type(outcome.error).__name__}")
        return False
    return True


async def _update(session: AsyncSession, batch: Batch, dialect: Dialect) -> None:
    """Update the existing rows.

    Databases refuse an incomplete row before they look whether it is there already, so these rows
    are not upserted. A missing one is, to meet that refusal.
    """
    statement = update_statement(batch.target, batch.names)
    if statement is not None:
        parameters = batch.update_parameters()
        await execute_writing(session, statement, parameters, execution_options=_PLAIN_UPDATE)
    found = await _read_back(session, batch, dialect)
    for entry in batch.entries:
        if entry not in found:
            await _upsert(session, batch.part([entry]), dialect)


async def _written(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Return the rows that were written, which have to be there."""
    found = await _read_back(session, batch, dialect)
    for entry in batch.entries:
        if entry not in found:
            row = await _find_elsewhere(session, batch.target, entry, dialect)
            if row is None:
                raise not_read_back(batch.target, entry)
            found[entry] = row
    return found


async def _there(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Return the rows that an upsert finds."""
    found = await _read_back(session, batch, dialect)
    for entry in batch.entries:
        if entry not in found:
            row = await _find_elsewhere(session, batch.target, entry, dialect)
            found.update({entry: row} if row is not None else {})
    return found


async def _read_back(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Return the existing rows, with the values that the database has now."""
    target = batch.target
    keys = [entry.key for entry in batch.entries if entry.key is not None]
    rows: list[Any] = []
    for chunk in chunked(keys, longest_key_list(target.model, target.key, dialect)):
        statement = by_key_list(target.model, target.key, chunk, dialect, here(WITH_DELETED))
        rows += await _fetch(session, statement.where(*target.criteria), dialect)
    found = matched(target, batch.entries, rows)
    if len(found) < len(batch.entries):
        # Equal for the database and not for Python: collations that ignore case, padding, …
        for entry in batch.entries:
            if entry not in found:
                row = await _find(session, target, target.key, entry, dialect)
                found.update({entry: row} if row is not None else {})
    return found


async def _find_elsewhere(
    session: AsyncSession, target: Target, entry: Entry, dialect: Dialect
) -> Any:
    """Return the row that MySQL updates because another unique key is equal, None for none."""
    if features_of(dialect).conflict == "ON DUPLICATE KEY":
        for names in target.other_keys:
            row = await _find(session, target, names, entry, dialect)
            if row is not None:
                return row
    return None


async def _find(
    session: AsyncSession, target: Target, names: Sequence[str], entry: Entry, dialect: Dialect
) -> Any:
    """Return the row that the database itself finds by a unique key of the entry."""
    criteria = has_unique_values(target, names, entry)
    if criteria is None:
        return None
    rows = await _fetch(session, select(target.model).where(*criteria), dialect)
    return rows[0] if rows else None


async def _fetch(session: AsyncSession, statement: Select[Any], dialect: Dialect) -> list[Any]:
    if features_of(dialect).keeps_snapshot:
        # A transaction sees the rows of others as they were at its first query, unless it locks
        # them; what was written here is locked already.
        statement = statement.with_for_update(read=True)
    rows = fetched(await execute_writing(session, statement, execution_options=_FRESH))
    # As after a flush: the rollback of a savepoint expires them, and they are read again.
    register_altered(sync_session(session), states_of(rows))
    return rows
