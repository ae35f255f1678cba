"""One row: found or created, even if another caller creates it at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Select, literal
from sqlalchemy.exc import IntegrityError

from sqlmodel_crud_utils._async._running.fetching import fetch
from sqlmodel_crud_utils._async._running.hook_calls import hooks_of
from sqlmodel_crud_utils._async._running.operations import (
    Write,
    run_or_raise,
    searching,
    translated,
)
from sqlmodel_crud_utils._async._running.row_writes import change, insert
from sqlmodel_crud_utils._async._running.settling import reading_to_write
from sqlmodel_crud_utils._async._running.shortcuts import inserted_at_once
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.errors.driver_errors import is_lost_race
from sqlmodel_crud_utils._core.errors.retry_delays import Retries
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility, here
from sqlmodel_crud_utils._core.queries.loading import NO_LOADING, Loading, loading_for
from sqlmodel_crud_utils._core.queries.select_statements import (
    equal_to,
    first_equal,
    searched_values,
)
from sqlmodel_crud_utils._core.returned_rows import first_of
from sqlmodel_crud_utils._core.values.payload import values_for, without_key
from sqlmodel_crud_utils._core.visibility.soft_delete import (
    deleted,
    is_soft_delete,
    visibility_with,
)
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    dialect_of,
    execute_writing,
    pause,
    require_session,
    run_on_connection,
    sync_session,
)
from sqlmodel_crud_utils._session import commit_callbacks
from sqlmodel_crud_utils._session.databases import begin_immediate, lift_snapshot, restore_snapshot
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    MultipleRecordsError,
    QueryExecutionError,
    RecordNotFoundError,
)

__all__ = ["get_one_or_create"]

T = TypeVar("T")

_NAME = "get_one_or_create"
_ATTEMPTS = 5


async def get_one_or_create(
    session_inst: AnySession,
    model: type[T],
    create_method_kwargs: Mapping[str, Any] | None = None,
    selectin: bool = False,
    select_in_key: str | None = None,
    *,
    raise_on_error: bool | None = None,  # noqa: ARG001 - taken for symmetry
    include_deleted: bool = False,
    **kwargs: Any,
) -> tuple[T, bool]:
    """Return the row with these values; create it if it does not exist.

    Two callers that create the same unique row at the same time both get that one row, and the
    transaction of the slower one stays usable. Hooks run only if a row is created.

    Outside a `transaction()` block, creating a row commits the session, and a failure rolls it
    back, along with everything else pending in it. Inside a block, nothing is committed.

    Args:
        session_inst: The session to work with.
        model: The table model.
        create_method_kwargs: Further values for a new row; they override the values searched for.
        selectin: Whether to load the relationship `select_in_key` with the row.
        select_in_key: The name of a relationship, a nested one as "team.city".
        raise_on_error: Accepted for symmetry; a failure always raises.
        include_deleted: Whether a soft-deleted row counts as found.
        kwargs: The values to search for, by field or to-one relationship. If a field has the same
            name as a parameter of this function, add the lookup: `model__eq="T"`.

    Returns:
        The row, and whether it already existed. If several rows match, the first one.

    Raises:
        ConstraintViolationError: The new row breaks a constraint; if a soft-deleted row holds its
            unique value, the message says so. Then restore that row with `restore_row`, get it with
            `include_deleted=True`, or declare the value with `unique_when_not_deleted`, so that
            values of deleted rows can be reused.
        UnknownFieldError: A name that is not a field of the model.
        ValidationError: A value that its field does not accept.
        QueryExecutionError: The database refused a statement. On MySQL that includes a deadlock
            with other callers if the session has begun its transaction before this call, in a block
            or with a read; otherwise the call is repeated.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> hero, existed = await get_one_or_create(
        ...     session, Hero, {"secret_name": "Tommy"}, name="Rusty"
        ... )
        >>> existed
        False
        >>> hero, existed = await get_one_or_create(session, Hero, name="Rusty")
        >>> hero.secret_name, existed
        ('Tommy', True)
    """
    session = require_session(session_inst)
    loading = loading_for(model, selectin, select_in_key, False, None)
    visibility = visibility_with(include_deleted=include_deleted)
    return await found_or_created(
        session,
        model,
        kwargs,
        create_method_kwargs,
        loading=loading,
        visibility=visibility,
    )


async def found_or_created(
    session: AsyncSession,
    model: type[T],
    searched: Mapping[str, Any],
    further: Mapping[str, Any] | None,
    *,
    loading: Loading = NO_LOADING,
    visibility: Visibility = USUAL,
    single: bool = False,
    changes: Mapping[str, Any] | None = None,
    name: str = _NAME,
) -> tuple[T, bool]:
    """Return the row with these values, created if necessary, and whether it existed.

    Args:
        session: The session to work with.
        model: The table model.
        searched: The values to search for.
        further: Further values of a new row.
        loading: How related rows are loaded.
        visibility: Which rows are searched.
        single: Whether several matching rows are an error.
        changes: The values to write to an existing row; None leaves it alone.
        name: The public function that was called.
    """
    facts = facts_of(model)
    wanted = values_for(facts, searched_values(model, searched))
    values = {**wanted, **values_for(facts, further or {})}
    search = _Search(session, facts, wanted, loading, here(visibility), single)
    hooks = hooks_of(model, "create")
    async with Write(session, facts, name, raise_on_error=True, hooks=hooks) as write:
        # On MySQL, callers that wait for the same row deadlock if its creator rolls back.
        async with translated(session, model, name):
            retries = Retries(_ATTEMPTS if _is_alone(session, model) else 1)
        while True:
            try:
                row, existed = await _first_or_created(write, search, values)
                if existed and changes is not None:
                    await _update(write, row, changes)
                return row, existed
            except (QueryExecutionError, RecordNotFoundError) as failure:
                again = _may_succeed_again(failure)
                seconds = retries.next_pause("race") if again else None
                if seconds is None:
                    raise
            write.attempts = retries.made
            await pause(seconds)


def _may_succeed_again(failure: QueryExecutionError | RecordNotFoundError) -> bool:
    # If the row that was found is deleted before its update, it can be created.
    return isinstance(failure, RecordNotFoundError) or is_lost_race(failure.original_error)


async def _update(write: Write, row: Any, changes: Mapping[str, Any]) -> None:
    """Update the row that was found, even if others have changed it meanwhile."""
    session, facts = write.session, facts_of(type(row))
    hooks = hooks_of(facts.model, "update")
    write = replace(write, facts=facts, hooks=hooks)
    key = {each: getattr(row, each) for each in facts.key}

    async def work() -> Sequence[Any]:
        await session.flush()
        await run_on_connection(session, begin_immediate, facts.model)
        locking = equal_to(facts.model, key).with_for_update()
        found = await execute_writing(
            session, locking, execution_options={"populate_existing": True}
        )
        if first_of(found) is None:
            raise RecordNotFoundError(facts.model, tuple(key.values()), tuple(key))
        await change(write, row, without_key(facts, row, changes))
        return [row]

    await run_or_raise(write, work)


def _is_alone(session: AsyncSession, model: type[Any]) -> bool:
    """Return whether a rollback would undo nothing else, and expire no more than a commit."""
    plain = sync_session(session)
    return not (
        plain.in_transaction()
        or plain.new
        or plain.dirty
        or plain.deleted
        or commit_callbacks.has_waiting(plain)
        or (plain.identity_map and not plain.expire_on_commit)
        or isinstance(plain.get_bind(model), Connection)
    )


async def _first_or_created(
    write: Write, search: _Search, values: Mapping[str, Any]
) -> tuple[Any, bool]:
    async with searching(write):
        row = await search.first()
    write.rows = 1
    if row is not None:
        return row, True
    return await _create_or_find(write, search, values)


class _Search(NamedTuple):
    """A search for one row."""

    session: AsyncSession
    facts: Facts
    wanted: Mapping[str, Any]
    loading: Loading
    visibility: Visibility
    single: bool

    async def first(self, *, as_of_now: bool = False) -> Any:
        """Return the first matching row or None; `as_of_now` reads past the transaction's snapshot.

        Raises:
            MultipleRecordsError: There are several, and `single` forbids that.
        """
        statement, parameters = first_equal(self.facts.model, self.wanted, self.visibility)
        if options := self.loading.options():
            statement = statement.options(*options)
        if self.single:
            statement = statement.limit(2)
        if as_of_now:
            statement = past_snapshot(self.session, self.facts, statement)
        rows = await fetch(
            self.session,
            self.facts.model,
            statement,
            parameters,
            eagerly=bool(options),
            reaches_twice=self.loading.reaches_twice,
            visibility=self.visibility,
        )
        if len(rows) > 1:
            raise MultipleRecordsError(self.facts.model, len(rows), self.wanted)
        return rows[0] if rows else None


def past_snapshot(session: AsyncSession, facts: Facts, statement: Select[Any]) -> Select[Any]:
    """Make a SELECT in a transaction see what others have committed meanwhile.

    On MySQL, a transaction sees what was committed before its first query, except in locking reads.
    """
    features = features_of(dialect_of(session, facts))
    if not (features.keeps_snapshot and session.in_transaction()):
        return statement
    return statement.with_for_update(read=True)


async def _create_or_find(
    write: Write, search: _Search, values: Mapping[str, Any]
) -> tuple[Any, bool]:
    """Create the row; if another caller was faster, return theirs."""
    existed = False

    async def work() -> Sequence[Any]:
        nonlocal existed
        if not write.hooks and values.keys().isdisjoint(write.facts.relationships):
            row = write.model(**values)
            inserted = await inserted_at_once(write.session, write.facts, row, skip_existing=True)
            if inserted is False:
                row = await _first_as_of_now(search)
                existed = row is not None
            if inserted or existed:
                return [row]
        try:
            row = await _insert_alone(write, values)
        except IntegrityError:
            row = await _first_as_of_now(search)
            if row is None:
                raise
            existed = True
        return [row]

    try:
        rows = await run_or_raise(write, work)
    except ConstraintViolationError as refusal:
        if not await _is_held_by_deleted(search, values, refusal):
            raise
        raise ConstraintViolationError(
            f"a soft-deleted {search.facts.model.__name__} row holds the unique value; restore it "
            "with restore_row, get it with include_deleted=True, or declare the value with "
            "unique_when_not_deleted, so that values of deleted rows can be reused",
            kind="unique",
            constraint=refusal.constraint,
            columns=refusal.columns,
        ) from refusal.__cause__
    return rows[0], existed


async def _first_as_of_now(search: _Search) -> Any:
    """Return the row that another caller has just committed, or None."""
    was_on = await run_on_connection(search.session, lift_snapshot)
    try:
        async with reading_to_write(search.session):
            return await search.first(as_of_now=True)
    finally:
        if was_on:
            await run_on_connection(search.session, restore_snapshot)


async def _insert_alone(write: Write, values: Mapping[str, Any]) -> Any:
    """Insert a row in a savepoint, so that a refusal undoes only this row."""
    await run_on_connection(write.session, begin_immediate, write.model)
    async with write.session.begin_nested():
        return await insert(write.session, write.facts, write.model(**values), write.hooks)


async def _is_held_by_deleted(
    search: _Search,
    values: Mapping[str, Any],
    refusal: ConstraintViolationError,
) -> bool:
    """Return whether a soft-deleted row holds the unique value of the refused row."""
    session, facts = search.session, search.facts
    if refusal.kind != "unique" or not is_soft_delete(facts):
        return False
    names = facts.names_of(refusal.columns)
    known = {name: values[name] for name in names if name in values}
    all_known = known and len(known) == len(refusal.columns)
    same = equal_to(facts.model, known if all_known else search.wanted)
    statement = past_snapshot(session, facts, same.where(deleted(facts.model)).limit(1))
    async with translated(session, facts.model, _NAME):
        found = await execute_writing(session, statement.with_only_columns(literal(1)))
        return first_of(found) is not None
