"""One batch of an upsert: the statements that write it, and those that read it back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Dialect, Select, func

from sqlmodel_crud_utils._async._running.refusals import Refusal, in_savepoint
from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._core.models.policies import here
from sqlmodel_crud_utils._core.queries.keys import by_key_list, longest_key_list
from sqlmodel_crud_utils._core.returned_rows import fetched, states_of
from sqlmodel_crud_utils._core.visibility.soft_delete import WITH_DELETED
from sqlmodel_crud_utils._core.writes.targets import Target
from sqlmodel_crud_utils._core.writes.upsert_rows import (
    Action,
    Batch,
    Entry,
    matched,
    not_read_back,
    unique_values,
)
from sqlmodel_crud_utils._core.writes.upsert_statements import (
    insert_statement,
    on_conflict,
    update_statement,
    upsert_statement,
)
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    execute_writing,
    run_on_connection,
    sync_session,
)
from sqlmodel_crud_utils._session.changes import REPORTED
from sqlmodel_crud_utils._session.databases import COUNTING, skipped, start_counting
from sqlmodel_crud_utils._session.sqlalchemy_internals import register_altered
from sqlmodel_crud_utils._shortcuts.driver_rows import (
    Route,
    driver_insert,
    execute_rows,
    from_arrays,
    route_of,
)

# These are Core statements; the model only tells the session which database to use.
_PLAIN_INSERT = {**REPORTED, "dml_strategy": "raw"}
_PLAIN_UPDATE = {**REPORTED, "dml_strategy": "core_only", "synchronize_session": False}
# From this number of rows on, writing them at once saves more than it costs.
_MANY = 100
_FRESH = {"populate_existing": True}


async def split_existing(
    session: AsyncSession, batch: Batch, dialect: Dialect, *, locking: bool
) -> tuple[dict[Entry, Any], Batch]:
    """Return the existing rows, and the part of the batch that is left to write.

    If locking, others can neither change nor delete the existing rows any more.

    If others may insert a row after the search, missing rows are inserted right away: one that
    exists by then was inserted by others, and is updated like the existing ones.
    """
    features = features_of(dialect)
    there = await _there(session, batch, dialect, locking=locking)
    if batch.action is not Action.UPSERT or features.locks_gaps or features.single_writer:
        return there, batch
    while missing := [entry for entry in batch.entries if entry not in there]:
        savepoint = await session.begin_nested()
        if await _inserted_or_skipped(session, batch.part(missing), dialect) == len(missing):
            await savepoint.commit()
            return there, batch.part(list(there))
        await savepoint.rollback()
        before, there = there, await _there(session, batch, dialect, locking=locking)
        if len(there) <= len(before):  # the rest is invisible: rows of other tenants
            break
    return there, batch


async def _inserted_or_skipped(session: AsyncSession, batch: Batch, dialect: Dialect) -> int:
    """Insert the rows whose keys do not exist; return how many were inserted."""
    target = batch.target
    statement = on_conflict(target, target.model, (), dialect)
    returning = statement.returning(*target.table.primary_key.columns)
    result = await execute_writing(
        session, returning, batch.insert_parameters(), execution_options=_PLAIN_INSERT
    )
    return len(result.all())


async def write_batch(
    session: AsyncSession, batch: Batch, dialect: Dialect, *, counting: bool
) -> int:
    """Write rows; if counting, return how many of them existed."""
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
    """Insert or update rows; if counting, return how many of them existed."""
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
    """Write many rows in the fastest way of their database; return whether they were written.

    They are not if the database refuses them: the usual statement then raises the right error.
    """
    target, features = batch.target, features_of(dialect)
    if features.has_arrays:
        statement = on_conflict(target, target.model, batch.names, dialect)
        statement = from_arrays(target, statement, batch.shape(), dialect)
        return statement is not None and await _executed(session, target.model, statement)
    if (
        not features.quick_many
        or await run_on_connection(
            session, lambda connection: route_of(sync_session(session), connection), target.model
        )
        is not Route.DRIVER
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
        get_logger().debug(
            f"the shortcut failed, so rows are upserted one by one: {type(outcome.error).__name__}"
        )
        return False
    return True


async def _update(session: AsyncSession, batch: Batch, dialect: Dialect) -> None:
    """Update the existing rows.

    Databases refuse an incomplete row before they check whether it exists, so these rows are not
    upserted. A missing one is, to raise that error.
    """
    statement = update_statement(batch.target, batch.names)
    if statement is not None:
        parameters = batch.update_parameters()
        await execute_writing(session, statement, parameters, execution_options=_PLAIN_UPDATE)
    target = batch.target
    found = await _found_by(session, target, target.key, batch.entries, dialect)
    for entry in batch.entries:
        if entry not in found:
            await _upsert(session, batch.part([entry]), dialect)


async def read_back(session: AsyncSession, batch: Batch, dialect: Dialect) -> dict[Entry, Any]:
    """Return the rows that were written; raise an error if one is not found."""
    found = await _there(session, batch, dialect)
    for entry in batch.entries:
        if entry not in found:
            raise not_read_back(batch.target, entry)
    return found


async def _there(
    session: AsyncSession, batch: Batch, dialect: Dialect, *, locking: bool = False
) -> dict[Entry, Any]:
    """Return the existing rows of a batch, with the database's current values."""
    target = batch.target
    # MySQL updates a row with any equal unique key.
    any_key = features_of(dialect).conflict == "ON DUPLICATE KEY"
    found: dict[Entry, Any] = {}
    for names in (target.key, *(target.other_keys if any_key else ())):
        missing = [entry for entry in batch.entries if entry not in found]
        found |= await _found_by(session, target, names, missing, dialect, locking=locking)
    return found


async def _found_by(
    session: AsyncSession,
    target: Target,
    names: tuple[str, ...],
    entries: Sequence[Entry],
    dialect: Dialect,
    *,
    locking: bool = False,
) -> dict[Entry, Any]:
    """Return the rows that match a unique key of the entries."""
    keys = unique_values(target, names, entries)
    criteria = target.criteria if set(names) == set(target.key) else ()
    rows: list[Any] = []
    for chunk in chunked(keys.values(), longest_key_list(target.model, names, dialect)):
        statement = by_key_list(target.model, names, chunk, dialect, here(WITH_DELETED))
        statement = statement.where(*criteria)
        if locking:
            statement = statement.with_for_update(of=target.table)
        rows += await _fetch(session, statement, dialect)
    found = matched(names, keys, rows)
    missing = [entry for entry in keys if entry not in found]
    if not rows or not missing:
        return found
    # Keys may be equal in the database but not in Python: collations may ignore case or padding.
    if len(keys) == 1:
        return {missing[0]: rows[0]}
    # One query for each key would mean one for each new row.
    middle = len(missing) // 2
    for part in [missing] if found else [missing[:middle], missing[middle:]]:
        found |= await _found_by(session, target, names, part, dialect, locking=locking)
    return found


async def _fetch(session: AsyncSession, statement: Select[Any], dialect: Dialect) -> list[Any]:
    if features_of(dialect).keeps_snapshot:
        # A transaction sees others' rows as of its first query, unless it locks them; rows written
        # here are locked already.
        statement = statement.with_for_update(read=True)
    rows = fetched(await execute_writing(session, statement, execution_options=_FRESH))
    # As after a flush, the rollback of a savepoint expires them.
    register_altered(sync_session(session), states_of(rows))
    return rows
