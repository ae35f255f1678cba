"""Insert many new rows: all together, or one by one if that fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar, overload

from sqlmodel_crud_utils._async._running.block_levels import block
from sqlmodel_crud_utils._async._running.chunked_writes import all_or_none
from sqlmodel_crud_utils._async._running.hook_calls import HookFailedError, hooks_of
from sqlmodel_crud_utils._async._running.operations import (
    Write,
    is_mistake,
    keep_loaded,
    outcome_of,
    translated,
)
from sqlmodel_crud_utils._async._running.refusals import Refusal, in_savepoint
from sqlmodel_crud_utils._async._running.row_writes import facts_for, insert
from sqlmodel_crud_utils._async._running.settling import load_expired
from sqlmodel_crud_utils._async._running.shortcuts import add_and_flush
from sqlmodel_crud_utils._core.errors.translation import ends_transaction
from sqlmodel_crud_utils._core.logs import log_failure
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.returned_rows import (
    InsertOutcome,
    Snapshot,
    restore,
    snapshot,
    states_of,
)
from sqlmodel_crud_utils._core.values.written import check_rows, of_row
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    require_session,
    sync_session,
)
from sqlmodel_crud_utils._session.blocks import block_of
from sqlmodel_crud_utils._session.pending_rows import SetApart, taking_back_keys
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    DatabaseConnectionError,
    SQLModelCRUDError,
    TenantError,
    ValidationError,
)

__all__ = ["InsertOutcome", "insert_data_rows"]

T = TypeVar("T")

_NAME = "insert_data_rows"


@overload
async def insert_data_rows(
    data_rows: Iterable[T], session_inst: AnySession, *, raise_on_error: Literal[True]
) -> tuple[Literal[True], list[T]]: ...


@overload
async def insert_data_rows(
    data_rows: Iterable[T], session_inst: AnySession, *, raise_on_error: bool | None = None
) -> tuple[bool, list[T] | InsertOutcome]: ...


async def insert_data_rows(
    data_rows: Iterable[T], session_inst: AnySession, *, raise_on_error: bool | None = None
) -> tuple[bool, list[T] | InsertOutcome]:
    """Insert many rows.

    The rows are inserted together. If the database refuses that, each row is tried by itself and
    the good ones are kept. If failures raise (see `raise_on_error`), it is all or nothing. If a
    model has create hooks, each row is inserted by itself from the start, so that no hook runs
    twice; an exception from a hook undoes everything and propagates unchanged. A constraint that is
    checked only by the commit then undoes all rows.

    Outside a `transaction()` block, the call commits the session; a failure rolls it back, along
    with everything else pending in it. Inside a block, nothing is committed.

    Args:
        data_rows: Instances of table models, from any iterable.
        session_inst: The session to write with.
        raise_on_error: Whether a refusal by the database raises, so that no row is kept; by
            default, only inside a block. False inside a block undoes just the rows that failed.

    Returns:
        `(True, rows)`. After a failure, whether any row was inserted, and
        `{"success": [...], "failed": [...]}`.

    Raises:
        BulkOperationError: Rows were refused (see `raise_on_error`); the error has the index of
            each.
        ValidationError: An item is not an instance of a table model, or belongs to another session.
            Nothing is written.
        DatabaseConnectionError: The database cannot be reached, or the connection was lost. This
            raises whatever `raise_on_error` says, as no row is to blame. Rows that were already
            inserted by themselves stay.

    Example:
        >>> heroes = [Hero(name=name, secret_name="?") for name in ("Rusty", "Nova")]
        >>> inserted, rows = await insert_data_rows(heroes, session)
        >>> [row.id for row in rows]
        [1, 2]
        >>> more = [Hero(name=name, secret_name="?") for name in ("Nova", "Sid")]
        >>> any_inserted, outcome = await insert_data_rows(more, session)
        >>> [row.name for row in outcome["success"]], [row.name for row in outcome["failed"]]
        (['Sid'], ['Nova'])
    """
    session = require_session(session_inst)
    rows = _listed(data_rows, session)
    if not rows:
        return True, rows
    async with Write(session, facts_of(type(rows[0])), _NAME, raise_on_error) as write:
        write.batch = len(rows)
        if any(hooks_of(model, "create") for model in {type(row) for row in rows}):
            return await _insert_with_hooks(write, rows)
        if not write.strict:
            return await _insert_what_can_be(write, rows)
        await _insert_together(write, rows)
        return True, rows


def _listed(data_rows: Any, session: AsyncSession) -> list[Any]:
    if isinstance(data_rows, str | bytes) or not isinstance(data_rows, Iterable):
        raise ValidationError(
            f"data_rows must be a list of rows, not {type(data_rows).__name__}", field="data_rows"
        )
    rows = list(data_rows)
    for row in rows:
        facts_for(session, row)
    if not any(hooks_of(model, "create") for model in set(map(type, rows))):
        check_rows(rows)  # hooks may change them first
    return rows


async def _insert_what_can_be(write: Write, rows: list[T]) -> tuple[bool, list[T] | InsertOutcome]:
    session = write.session
    failure = await _refusal_of(write, rows)
    if failure is None:
        return True, rows
    outcome = InsertOutcome(success=[], failed=[])
    failures: list[tuple[int, SQLModelCRUDError]] = []
    loaded: Snapshot = []
    _raise_unless_of_a_row(session, failure)
    for index, row in enumerate(rows):
        failure = await _refusal_of(write, [row])
        if failure is None:
            outcome["success"].append(row)
            loaded += snapshot(states_of([row]))
        else:
            _raise_unless_of_a_row(session, failure)
            outcome["failed"].append(row)
            failures.append((index, failure))
    if failures:
        write.error = BulkOperationError(len(rows), len(failures), failures)
        log_failure(_NAME, write.model, write.error)
    # Later commits and rollbacks have expired the rows.
    restore(loaded)
    return bool(outcome["success"]), outcome


def _raise_unless_of_a_row(session: AsyncSession, failure: SQLModelCRUDError) -> None:
    """Raise a failure that no row caused, so that good rows are not reported as failed.

    Outside a block, a lost race only affects its own row, because each row has a transaction.
    """
    inside = block_of(sync_session(session)) is not None
    if isinstance(failure, DatabaseConnectionError) or (inside and ends_transaction(failure)):
        raise failure from getattr(failure, "original_error", None)


async def _refusal_of(write: Write, rows: list[Any]) -> SQLModelCRUDError | None:
    async def work() -> Sequence[Any]:
        await add_and_flush(write.session, rows)
        await write.written(len(rows))
        return rows

    part = replace(write, facts=facts_of(type(rows[0])), raise_on_error=False, adding=rows)
    outcome = await outcome_of(part, work)
    return outcome if isinstance(outcome, SQLModelCRUDError) else None


async def _insert_with_hooks(
    write: Write, rows: list[Any]
) -> tuple[bool, list[Any] | InsertOutcome]:
    """Insert each row alone from the start, so that no row's hooks run twice."""
    session, strict = write.session, write.strict
    own = block(session, wrap_errors=False, translates=False)
    try:
        with taking_back_keys(rows), SetApart(rows) as apart:
            async with translated(session, write.model, _NAME), own:
                outcome = await _insert_one_by_one(write, rows, apart, strict=strict)
    except HookFailedError as failed:
        hook_error = failed.error
    except BulkOperationError as failure:
        _doom(session, failure)
        raise
    except ConstraintViolationError as failure:  # checked by the commit, which blames no row
        if strict:
            raise
        write.error = failure
        log_failure(_NAME, write.model, failure)
        return False, InsertOutcome(success=[], failed=rows)
    else:
        return (
            (bool(outcome["success"]), outcome) if outcome["failed"] else (True, outcome["success"])
        )
    raise hook_error


async def _insert_one_by_one(
    write: Write, rows: list[Any], apart: SetApart, *, strict: bool
) -> InsertOutcome:
    session = write.session
    outcome = InsertOutcome(success=[], failed=[])
    refusals: list[tuple[int, Refusal]] = []

    async def work(row: Any) -> Any:
        apart.put_back(row)
        facts = facts_of(type(row))
        inserted = await insert(session, facts, row, hooks_of(facts.model, "create"))
        await load_expired(session, states_of([inserted]))
        return inserted

    for index, row in enumerate(rows):
        try:
            inserted = await in_savepoint(session, type(row), partial(work, row), adding=[row])
        except TenantError:  # it names no row
            raise
        except ValidationError as refused:
            raise of_row(index, refused) from None
        if isinstance(inserted, Refusal):
            if not strict and is_mistake(inserted.failure):
                raise of_row(index, inserted.failure) from inserted.error
            refusals.append((index, inserted))
            outcome["failed"].append(row)
        else:
            outcome["success"].append(inserted)
    if refusals:
        failures = [(index, refusal.failure) for index, refusal in refusals]
        failed = outcome["failed"]
        failure = BulkOperationError(len(rows), len(failed), failures, failed_records=failed)
        write.error = failure
        log_failure(_NAME, write.model, failure, "debug" if strict else "warning")
        if strict:
            raise failure from refusals[0][1].error
    await write.written(len(outcome["success"]))
    keep_loaded(session, outcome["success"])
    return outcome


async def _insert_together(write: Write, rows: list[Any]) -> None:
    session = write.session
    with taking_back_keys(rows):
        async with translated(session, write.model, _NAME):
            if block_of(sync_session(session)) is not None:
                await _insert_all_or_none(write, rows)
            else:
                async with block(session, wrap_errors=False, translates=False):
                    await _insert_all_or_none(write, rows)


async def _insert_all_or_none(write: Write, rows: list[Any]) -> None:
    session = write.session
    with SetApart(rows) as apart:

        async def work() -> None:
            apart.put_back()
            await add_and_flush(session, rows)
            await load_expired(session, states_of(rows))

        # The savepoint allows the search for the refused rows afterwards.
        refusal = await in_savepoint(session, write.model, work, adding=rows)
    if refusal is not None:
        failure = await _explained(session, rows, refusal)
        log_failure(_NAME, write.model, failure, "debug")
        _doom(session, failure)
        raise failure from refusal.error
    with all_or_none(session):
        await write.written(len(rows))
    keep_loaded(session, rows)


def _doom(session: AsyncSession, failure: SQLModelCRUDError) -> None:
    block = block_of(sync_session(session))
    if block is not None:
        block.doom(failure)


async def _explained(session: AsyncSession, rows: list[Any], refusal: Refusal) -> SQLModelCRUDError:
    """Return an error that names the refused rows, found by inserting and undoing each row."""
    with SetApart(rows) as apart:

        async def work(row: Any) -> None:
            apart.put_back(row)
            session.add(row)
            await session.flush()

        probing = await session.begin_nested()
        tried = [await in_savepoint(session, type(row), partial(work, row)) for row in rows]
        await probing.rollback()
    failures = [(index, each.failure) for index, each in enumerate(tried) if each is not None]
    if not failures:  # each row alone is accepted, or no row is to blame
        return refusal.failure
    return BulkOperationError(
        len(rows),
        len(failures),
        failures,
        failed_records=[rows[index] for index, _ in failures],
    )
