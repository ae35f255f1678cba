"""Run the library's SELECTs: refresh outdated rows, and keep rows loaded after the block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Executable
from sqlalchemy.orm import Session as PlainSession

from sqlmodel_crud_utils._async._running.cached import answered
from sqlmodel_crud_utils._async._running.operations import Write, keep_loaded, searching
from sqlmodel_crud_utils._core.cached_reads import Caching, Question, ways_of
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility, here
from sqlmodel_crud_utils._core.observers import Call
from sqlmodel_crud_utils._core.queries.keys import by_key, key_names, key_parameters
from sqlmodel_crud_utils._core.queries.loading import NO_LOADING, Loading
from sqlmodel_crud_utils._core.returned_rows import fetched, first_of, states_of, with_related
from sqlmodel_crud_utils._core.visibility.hiding import hide_anywhere, hiding_options, models_in
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    dialect_of,
    execute,
    run_sync,
    sync_session,
)
from sqlmodel_crud_utils._session import kept_rows
from sqlmodel_crud_utils._session.autocommit_reads import with_autocommit
from sqlmodel_crud_utils._session.leftovers import (
    reloading_relationships,
    reloads_relationships,
    remember_choice,
)
from sqlmodel_crud_utils._session.sharing import Sharing, shared_read, sharing_of
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_clean
from sqlmodel_crud_utils.exceptions import MultipleRecordsError, RecordNotFoundError


async def fetch(
    session: AsyncSession,
    model: type[Any],
    statement: Executable,
    parameters: Mapping[str, Any] | None = None,
    *,
    eagerly: bool = False,
    reaches_twice: bool = False,
    visibility: Visibility = USUAL,
    refresh: bool = True,
) -> list[Any]:
    """Return all rows of a SELECT.

    Args:
        session: The session to query with.
        model: The model that is read.
        statement: The SELECT, with its criteria for visibility.
        parameters: The values of its parameters.
        eagerly: Whether it loads related rows.
        reaches_twice: Whether a related row can be reached by two paths.
        visibility: Which rows it includes.
        refresh: Whether to refresh rows that stayed loaded after a commit.
    """
    options = await _prepare(session, model, eagerly=eagerly) if refresh else {}
    sharing = sharing_of(sync_session(session))
    # A refreshed row keeps only the relationships that the last path to it loads; a second pass
    # loads only what rows still lack.
    passes = [options, {}] if options and reaches_twice else [options]
    rows: list[Any] = []
    if sharing is not None:
        rows = await _fetch_shared(session, sharing, statement, parameters, passes)
    else:
        with reloading_relationships(sync_session(session), model, eagerly=eagerly):
            for each in passes:
                result = await execute(session, statement, parameters, execution_options=each)
                rows = fetched(result)
    remember(session, rows, model, visibility=visibility)
    return rows


async def _fetch_shared(
    session: AsyncSession,
    sharing: Sharing,
    statement: Executable,
    parameters: Mapping[str, Any] | None,
    passes: Sequence[Mapping[str, bool]],
) -> list[Any]:
    """Return all rows of a shared read; reload relationships that other tasks have loaded."""
    plain = sync_session(session)

    def fetch_all() -> list[Any]:
        rows: list[Any] = []
        with shared_read(sharing):
            for each in passes:
                options = with_autocommit(plain, each)
                rows = fetched(plain.execute(statement, parameters, execution_options=options))
        return rows

    return await run_sync(session, fetch_all)


async def fetch_first(session: AsyncSession, statement: Executable, visibility: Visibility) -> Any:
    """Return the first row of a caller's statement, which may name any models, or None."""
    models = models_in(statement)
    statement = hide_anywhere(statement, visibility, *models)
    options = await _prepare(session, *models, eagerly=True)
    with reloading_relationships(sync_session(session), *models, eagerly=True):
        row = first_of(await execute(session, statement, execution_options=options))
    remember(session, [row], *models, visibility=visibility)
    return row


async def _prepare(session: AsyncSession, *models: type[Any], eagerly: bool) -> Mapping[str, bool]:
    """Return execution options that refresh outdated rows; flush first if it would lose changes."""
    plain = sync_session(session)
    kept = kept_rows.has_any(plain)
    if (
        plain.autoflush
        and not is_clean(plain)
        and (kept or reloads_relationships(*models, eagerly=eagerly))
    ):
        await session.flush()
    return {"populate_existing": True} if _refreshes(plain) else {}


def may_find_outdated(write: Write) -> bool:
    """Return whether the search for a row may return an outdated one."""
    plain = sync_session(write.session)
    features = features_of(dialect_of(write.session, write.facts))
    if features.keeps_snapshot and plain.in_transaction():
        return True
    is_refreshed = _refreshes(plain) and _refreshes_kept(write.facts)
    return len(plain.identity_map) > 0 and not is_refreshed


def _refreshes(session: PlainSession) -> bool:
    # With unflushed changes, populate_existing would overwrite them.
    return kept_rows.has_any(session) and not session.dirty


def _refreshes_kept(facts: Facts) -> bool:
    # With a version, the row must stay as the caller has seen it.
    return facts.version is None


def remember(
    session: AsyncSession, rows: Sequence[Any], *models: type[Any], visibility: Visibility
) -> None:
    """Do as `remember_read`, and note that the rows are no longer outdated."""
    plain = sync_session(session)
    if kept_rows.has_any(plain):
        kept_rows.forget(plain, with_related(states_of(rows)))
    remember_read(session, rows, *models, visibility=visibility)


def remember_read(
    session: AsyncSession, rows: Sequence[Any], *models: type[Any], visibility: Visibility
) -> None:
    """Make lazy loads of rows follow the visibility of the read, and keep the rows loaded."""
    if hiding_options(USUAL, *models):
        states = with_related(states_of(rows))
        remember_choice(states, *models, visibility=here(visibility))
    keep_loaded(session, rows, related=True)


async def find(
    call: Call,
    key: Any,
    pk_field: str | Sequence[str] | None = None,
    *,
    loading: Loading = NO_LOADING,
    criteria: Sequence[ColumnElement[bool]] = (),
    visibility: Visibility = USUAL,
    refresh: bool = True,
    caching: Caching | None = None,
) -> Any:
    """Return the row with this key or None; raise a `MultipleRecordsError` for several."""
    session, facts = call.session, call.facts
    names = key_names(facts, pk_field, key)
    parameters = key_parameters(facts, names, key)
    visibility = here(visibility)
    statement = by_key(facts.model, names, visibility)
    if criteria:
        statement = statement.where(*criteria)
    options = loading.options(visibility)
    query = partial(
        fetch,
        session,
        facts.model,
        statement.options(*options) if options else statement,
        parameters,
        eagerly=bool(options),
        reaches_twice=loading.reaches_twice,
        visibility=visibility,
        refresh=refresh,
    )
    question = None
    if caching is not None:
        question = Question(
            facts.model,
            statement,
            parameters,
            key=tuple(parameters.values()) if names == facts.key else None,
            loading=ways_of(loading.ways),
            visibility=visibility,
            ttl=caching.ttl,
        )
    rows = await answered(call, question, query)
    if len(rows) > 1:
        raise MultipleRecordsError(
            facts.model, len(rows), dict(zip(names, parameters.values(), strict=True))
        )
    return rows[0] if rows else None


async def find_for(
    write: Write,
    key: Any,
    pk_field: str | Sequence[str] | None,
    *,
    visibility: Visibility,
    criteria: Sequence[ColumnElement[bool]] = (),
) -> Any:
    """Return the row to write to; if it is missing, raise or return None, as the write says."""
    async with searching(write):
        row = await find(
            write,
            key,
            pk_field,
            criteria=criteria,
            visibility=visibility,
            refresh=_refreshes_kept(write.facts),
        )
    if row is None:
        refuse_missing(write, key, pk_field)
    return row


def refuse_missing(write: Write, key: Any, pk_field: str | Sequence[str] | None) -> None:
    """Raise a `RecordNotFoundError` for a row to be written, if the write is strict."""
    write.rows = 0
    if write.strict:
        raise RecordNotFoundError(write.model, key, key_names(write.facts, pk_field, key))
