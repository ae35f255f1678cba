"""Rows that are inserted, or updated where they are there already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from sqlalchemy import Dialect, Select, select

from sqlmodel_crud_utils._async._running.operations import Write, insist
from sqlmodel_crud_utils._core.chunks import check_chunk_size, chunked, rows_per_chunk
from sqlmodel_crud_utils._core.errors.translation import is_database_error
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._core.queries.keys import by_key_list, longest_key_list
from sqlmodel_crud_utils._core.rows import fetched, states_of
from sqlmodel_crud_utils._core.visibility.soft_delete import WITH_DELETED
from sqlmodel_crud_utils._core.writes.targets import (
    Names,
    Target,
    check_dialect,
    check_key,
    is_mysql,
    target_of,
)
from sqlmodel_crud_utils._core.writes.upsert_rows import (
    Action,
    Batch,
    Entry,
    batches,
    equal_to,
    matched,
    not_read_back,
    payload_of,
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
from sqlmodel_crud_utils._session.blocks import block_of
from sqlmodel_crud_utils._session.changes import TOLD, Change, Need, Operation, happened, need_of
from sqlmodel_crud_utils._shortcuts.driver_rows import (
    Way,
    driver_insert,
    execute_rows,
    from_arrays,
    way_of,
)

__all__ = ["bulk_upsert_mappings"]

T = TypeVar("T")

# The statements are the Core's; the model in them only tells the session which database to use.
_PLAIN_INSERT = {**TOLD, "dml_strategy": "raw"}
_PLAIN_UPDATE = {**TOLD, "dml_strategy": "core_only", "synchronize_session": False}
# From here on, what it costs to write rows at once is less than what it saves.
_MANY = 100
_FRESH = {"populate_existing": True}


async def bulk_upsert_mappings(
    payload: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_fields: Names = None,
    *,
    update_columns: Names = None,
    chunk_size: int | None = None,
    raise_on_error: bool | None = None,
) -> tuple[Literal[True], list[T]]:
    """Insert rows, and update those that are already there, as one transaction.

    The outcome is that of writing the rows one after the other, with a few statements for all of
    them. A row may give any of the model's fields:

    - A field that it does not give keeps its value in a row that is there, and gets its default in
      a new one. A row that gives too little for a new one can only update.
    - `updated_at` and other columns with an `onupdate` are set, and the version of a
      `VersionMixin` is counted up, when a row that is there is written to.
    - None for a field that cannot be NULL and has a default counts as not given.
    - The primary key of a row that is there is never changed.
    - A row without a value for an autoincrement key is inserted.
    - Where the payload has a key twice, the later row wins, field by field; both places of the
      result hold the same object.

    Hooks are not run. A soft-deleted row with the same key is updated as it is and returned; it
    stays deleted unless the payload says otherwise. By a key of `unique_when_visible` only rows
    that are not deleted are found.

    On MySQL and MariaDB a row is updated when it is equal in any unique key of the table, not
    just in `pk_fields`; the other databases refuse such a row.

    Outside a `transaction()` block everything is committed, and a failure rolls the session back;
    inside, a failure dooms the block, or with `raise_on_error=False` undoes just this call.

    Args:
        payload: The rows, from any iterable: mappings, or Pydantic objects, of which the fields
            that were set are written. Values are coerced to the columns' types. All rows are
            checked before the first is written.
        session_inst: The session to write with. What is pending in it is flushed first.
        model: The table model.
        pk_fields: The fields of the unique key that tells whether a row is there; left out, it is
            "id" where that is a key, else the model's primary key.
        update_columns: The fields that may change in a row that is there; left out, all that a
            row of the payload gives. With an empty list such rows are left alone.
        chunk_size: How many rows are written with one statement; left out, as many as the
            database takes parameters for.
        raise_on_error: Whether a refusal by the database arrives as an error of this library; left
            out, it does inside a block, and outside SQLAlchemy's own error is raised.

    Returns:
        True, and the rows in the order of the payload, one for each of its rows, with the values
        that the database has now.

    Raises:
        ValidationError: A value of a wrong type, a row without its key, `pk_fields` that are no
            unique key. Nothing is written.
        UnknownFieldError: A name that is no field of the model. Nothing is written.
        ConstraintViolationError: A row breaks a constraint (see `raise_on_error`).
        QueryExecutionError: A row is not there after it was written (a trigger, a row policy).

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
    target = target_of(model, pk_fields, update_columns)
    dialect = dialect_of(session, model)
    check_dialect(dialect)
    check_key(target, dialect)
    wanted = payload_of(target, payload)
    if not wanted.places:
        return True, []
    columns = len(target.table.columns)
    size = rows_per_chunk(dialect, columns, chunk_size, extra_binds=columns)

    async def work() -> Sequence[T]:
        # Also where autoflush is off: rows that are read back fresh would lose pending changes.
        await session.flush()
        found: dict[Entry, T] = {}
        for batch in batches(target, wanted.entries, size):
            found.update(await _write(session, batch, dialect))
        return [found[entry] for entry in wanted.places]

    rows = await insist(Write(session, model, "bulk_upsert_mappings", raise_on_error), work)
    return True, list(rows)


async def _write(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Write rows, return them, and tell those who asked which are new."""
    need = need_of(batch.target.model)
    there = await _read_back(session, batch, dialect) if need >= Need.KEYS else {}
    found = await _written_by(session, batch, dialect)
    if need:
        for change in _changes(batch, found, there):
            happened(sync_session(session), change)
    return found


def _changes(
    batch: Batch, found: Mapping[Entry, Any], there: Mapping[Entry, Any]
) -> Iterator[Change]:
    new = [row for entry, row in found.items() if entry not in there]
    old = [row for entry, row in found.items() if entry in there]
    operations: Mapping[Operation, list[Any]] = {"create": new, "update": old}
    for operation, rows in operations.items():
        if rows:
            keys = [tuple(state.identity or ()) for state in states_of(rows)]
            values = [{name: getattr(row, name) for name in batch.target.columns} for row in rows]
            yield Change(batch.target.model, operation, keys, values)


async def _written_by(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    if batch.action is Action.UPDATE:
        return await _update(session, batch, dialect)
    if batch.action is Action.INSERT:
        await _insert(session, batch, dialect)
    else:
        await _upsert(session, batch, dialect)
    return await _written(session, batch, dialect)


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


async def _upsert(session: AsyncSession, batch: Batch, dialect: Dialect) -> None:
    if len(batch.entries) >= _MANY and await _upserted_at_once(session, batch, dialect):
        return
    statement, parameters = upsert_statement(
        batch.target, batch.names, batch.insert_parameters(), dialect
    )
    await execute_writing(session, statement, parameters, execution_options=_PLAIN_INSERT)


async def _upserted_at_once(session: AsyncSession, batch: Batch, dialect: Dialect) -> bool:
    """Write many rows the quick way of their database; False if they are left to the usual one.

    That is also where the database refuses them: the usual way says what is wrong.
    """
    target = batch.target
    if dialect.name == "postgresql":
        statement = on_conflict(target, target.model, batch.names, dialect)
        statement = from_arrays(target, statement, batch.shape(), dialect)
        return statement is not None and await _executed(session, statement)
    if (
        dialect.name != "sqlite"
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


async def _executed(session: AsyncSession, statement: Any) -> bool:
    try:
        async with session.begin_nested():
            await execute_writing(session, statement, execution_options=_PLAIN_INSERT)
    except Exception as error:
        if not is_database_error(error):
            raise
        get_logger().debug(f"rows are upserted one by one: {type(error).__name__}")
        return False
    return True


async def _update(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Update the rows that are there.

    Databases refuse an incomplete row before they look whether it is there already, so these rows
    are not upserted. One that is not there is, to meet that refusal.
    """
    statement = update_statement(batch.target, batch.names)
    if statement is not None:
        parameters = batch.update_parameters()
        await execute_writing(session, statement, parameters, execution_options=_PLAIN_UPDATE)
    found = await _read_back(session, batch, dialect)
    for entry in batch.entries:
        if entry not in found:
            alone = Batch(batch.target, batch.names, [entry])
            await _upsert(session, alone, dialect)
            found.update(await _written(session, alone, dialect))
    return found


async def _written(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Return the rows that were written, which have to be there."""
    found = await _read_back(session, batch, dialect)
    for entry in batch.entries:
        if entry not in found:
            found[entry] = await _find_elsewhere(session, batch.target, entry, dialect)
    return found


async def _read_back(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Return the rows that are there, with the values that the database has now."""
    target = batch.target
    keys = [entry.key for entry in batch.entries if entry.key is not None]
    rows: list[Any] = []
    for chunk in chunked(keys, longest_key_list(target.model, target.key, dialect)):
        statement = by_key_list(target.model, target.key, chunk, dialect, WITH_DELETED)
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
    """Return the row that MySQL updated because another unique key was equal."""
    for names in target.other_keys if is_mysql(dialect) else ():
        row = await _find(session, target, names, entry, dialect)
        if row is not None:
            return row
    error = not_read_back(target, entry)
    block = block_of(sync_session(session))
    if block is not None:
        block.doom(error)
    raise error


async def _find(
    session: AsyncSession, target: Target, names: Sequence[str], entry: Entry, dialect: Dialect
) -> Any:
    """Return the row that the database itself finds by a unique key of the entry."""
    criteria = equal_to(target, names, entry)
    if criteria is None:
        return None
    rows = await _fetch(session, select(target.model).where(*criteria), dialect)
    return rows[0] if rows else None


async def _fetch(session: AsyncSession, statement: Select[Any], dialect: Dialect) -> list[Any]:
    if is_mysql(dialect):
        # A transaction sees the rows of others as they were at its first query, unless it locks
        # them; what was written here is locked already.
        statement = statement.with_for_update(read=True)
    rows = fetched(await execute_writing(session, statement, execution_options=_FRESH))
    # As after a flush: the rollback of a savepoint expires them, and they are read anew.
    sync_session(session)._register_altered(states_of(rows))
    return rows
