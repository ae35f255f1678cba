"""Read rows: one by its key, lists, lists of keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, overload

from sqlalchemy import Dialect, Executable

from sqlmodel_crud_utils._async._running.cached import answered
from sqlmodel_crud_utils._async._running.fetching import fetch, fetch_first, find
from sqlmodel_crud_utils._async._running.operations import Read
from sqlmodel_crud_utils._core.cached_reads import Caching, Question
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.conditions import matches
from sqlmodel_crud_utils._core.queries.keys import (
    by_key_list,
    key_chunks,
    key_list,
    key_names,
)
from sqlmodel_crud_utils._core.queries.loading import RelationshipNames, loading_for
from sqlmodel_crud_utils._core.queries.query import Query
from sqlmodel_crud_utils._core.queries.select_statements import (
    DEFAULT_PAGE,
    DEFAULT_PAGE_SIZE,
    check_page,
    paginated,
    refined,
    require_query,
    sort_terms,
    text_match,
)
from sqlmodel_crud_utils._core.returned_rows import RowList
from sqlmodel_crud_utils._core.visibility.soft_delete import visibility_with
from sqlmodel_crud_utils._runtime_async import AnySession, dialect_of, require_session
from sqlmodel_crud_utils.exceptions import RecordNotFoundError

__all__ = ["get_result_from_query", "get_row", "get_rows", "get_rows_within_id_list"]

T = TypeVar("T")


async def get_result_from_query(
    query: Executable, session: AnySession, *, include_deleted: bool = False
) -> Any:
    """Return the one row of a query, the first if there are several, or None.

    Args:
        query: A `select()` or `text()`. A query for one model or column returns its value, a query
            for several returns a row. A `text()` runs unchanged, so it also returns soft-deleted
            rows.
        session: The session to query with.
        include_deleted: Whether soft-deleted rows count.

    Returns:
        The row, the first of several rows, or None.

    Raises:
        ValidationError: Something that is not a query, or the session is not one of this API.
        DatabaseConnectionError: The database cannot be reached.
        QueryExecutionError: The database refused the query.

    Example:
        >>> _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        >>> found = await get_result_from_query(select(Hero).where(Hero.name == "Rusty"), session)
        >>> found.secret_name
        'Tommy'
    """
    statement = require_query(query)
    found = require_session(session)
    async with Read(found, None, "get_result_from_query"):
        return await fetch_first(found, statement, visibility_with(include_deleted=include_deleted))


@overload
async def get_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[T],
    selectin: bool = False,
    select_in_keys: RelationshipNames = None,
    lazy: bool = False,
    lazy_load_keys: RelationshipNames = None,
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: Literal[True],
    include_deleted: bool = False,
    use_cache: bool = False,
) -> tuple[Literal[True], T]: ...


@overload
async def get_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[T],
    selectin: bool = False,
    select_in_keys: RelationshipNames = None,
    lazy: bool = False,
    lazy_load_keys: RelationshipNames = None,
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: bool | None = None,
    include_deleted: bool = False,
    use_cache: bool = False,
) -> tuple[Literal[True], T] | tuple[Literal[False], None]: ...


async def get_row(
    id_str: Any,
    session_inst: AnySession,
    model: type[T],
    selectin: bool = False,
    select_in_keys: RelationshipNames = None,
    lazy: bool = False,
    lazy_load_keys: RelationshipNames = None,
    pk_field: str | Sequence[str] | None = None,
    *,
    raise_on_error: bool | None = None,
    include_deleted: bool = False,
    use_cache: bool = False,
) -> tuple[Literal[True], T] | tuple[Literal[False], None]:
    """Return one row by its key.

    Args:
        id_str: The key, coerced to the column's type ("5" finds 5, a UUID may be a string). A
            composite key is a tuple in column order.
        session_inst: The session to query with.
        model: The table model.
        selectin: Whether to load the relationships in `select_in_keys` with the row.
        select_in_keys: Names of relationships, nested ones as "team.city".
        lazy: Whether to leave the relationships in `lazy_load_keys` unloaded.
        lazy_load_keys: Names of relationships.
        pk_field: The key's column. The default is "id" if the model has it, otherwise the primary
            key.
        raise_on_error: Whether a missing row raises.
        include_deleted: Whether a soft-deleted row counts.
        use_cache: Whether the row may come from the cache that `ext.cache.configure_cache` sets up.
            Do not change such a row; see the guide.

    Returns:
        `(True, row)`, or `(False, None)` when there is no such row.

    Raises:
        RecordNotFoundError: There is no such row, with `raise_on_error=True`.
        MultipleRecordsError: Several rows have that key.
        ValidationError: An unknown field or relationship, or a key of a wrong type.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        >>> found, row = await get_row(str(hero.id), session, Hero)
        >>> row.name
        'Rusty'
        >>> await get_row(999, session, Hero)
        (False, None)
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    loading = loading_for(model, selectin, select_in_keys, lazy, lazy_load_keys)
    async with Read(session, facts, "get_row") as read:
        row = await find(
            read,
            id_str,
            pk_field,
            loading=loading,
            visibility=visibility_with(include_deleted=include_deleted),
            caching=Caching() if use_cache else None,
        )
        read.rows = 0 if row is None else 1
        if row is not None:
            return True, row
        if raise_on_error:
            raise RecordNotFoundError(model, id_str, key_names(facts, pk_field, id_str))
        return False, None


async def get_rows(  # noqa: PLR0913 - parameters of v0.1.0, and the switches of all reads
    session_inst: AnySession,
    model: type[T],
    selectin: bool = False,
    select_in_keys: RelationshipNames = None,
    lazy: bool = False,
    lazy_load_keys: RelationshipNames = None,
    page_size: int = DEFAULT_PAGE_SIZE,
    page: int = DEFAULT_PAGE,
    text_field: str | None = None,
    stmnt: Any = None,
    *,
    raise_on_error: bool | None = None,  # noqa: ARG001 - taken for symmetry
    include_deleted: bool = False,
    use_cache: bool = False,
    **filters: Any,
) -> tuple[bool, list[T]]:
    """Return one page of the rows that match all filters.

    A filter is `field=value` or `field__lookup=value`; fields of related rows are reached as
    `team__name="x"`. The lookups are eq, ne, gt, gte, lt, lte, in, not_in, between, like, not_like,
    ilike, iexact, contains, icontains, startswith, istartswith, endswith, iendswith, is_null and
    regex. If a field has the same name as a parameter of this function, add the lookup:
    `page__eq=3`. `sort_field="name"` sorts by a field, `sort_field="team__name"` by a field of a
    related row; `sort_desc=True` reverses the order. NULLs come last in both directions. The
    primary key breaks ties, so that no row is on two pages.

    Args:
        session_inst: The session to query with.
        model: The table model.
        selectin: Whether to load the relationships in `select_in_keys` with the rows.
        select_in_keys: Names of relationships, nested ones as "team.city".
        lazy: Whether to leave the relationships in `lazy_load_keys` unloaded.
        lazy_load_keys: Names of relationships.
        page_size: The number of rows per page, 1 or more.
        page: The number of the page, from 1.
        text_field: A field to search for words. Pass the words as a filter with the field's name.
            PostgreSQL uses its full-text search, other databases `icontains`.
        stmnt: A `select()` of your own. The filters are added to it. Its result is paged only if
            you pass `page` or `page_size`.
        raise_on_error: Accepted for symmetry; an empty result never raises.
        include_deleted: Whether soft-deleted rows count.
        use_cache: Whether the rows may come from the cache that `ext.cache.configure_cache` sets
            up; the rows of a `stmnt` never do.
        filters: The filters, and `sort_field` and `sort_desc`.

    Returns:
        Whether any row was found, and the rows.

    Raises:
        ValidationError: An unknown field or lookup, a value of a wrong type, a page below 1.
        DatabaseConnectionError: The database cannot be reached.
        QueryExecutionError: The database refused the query.

    Example:
        >>> heroes = [Hero(name=f"Hero {n}", secret_name="?", age=30 + n) for n in range(5)]
        >>> _ = await insert_data_rows(heroes, session)
        >>> found, rows = await get_rows(session, Hero, age__gte=32, sort_field="age", page_size=2)
        >>> [row.age for row in rows]
        [32, 33]
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    check_page(page, page_size)
    joins = stmnt is not None
    query = _filtered(model, dialect_of(session, facts), text_field, filters, joins=joins)._replace(
        size=int(page_size),
        start=(page - 1) * page_size,
        loading=loading_for(model, selectin, select_in_keys, lazy, lazy_load_keys),
        asked=visibility_with(include_deleted=include_deleted),
    )
    statement: Executable
    question = None
    if stmnt is None:
        statement, parameters = query.prepared("rows", Query.rows)
        question = query.question((statement, parameters)) if use_cache else None
    else:
        statement, parameters = refined(stmnt, query), None
        if page is not DEFAULT_PAGE or page_size is not DEFAULT_PAGE_SIZE:
            statement = paginated(statement, page, page_size)
    eagerly = query.loads_related or stmnt is not None
    async with Read(session, facts, "get_rows") as read:

        async def work() -> list[Any]:
            return await fetch(
                session,
                model,
                statement,
                parameters,
                eagerly=eagerly,
                reaches_twice=query.loading.reaches_twice,
                visibility=query.visibility,
            )

        rows = await answered(read, question, work)
        read.rows = len(rows)
        return bool(rows), rows


def _filtered(
    model: type[Any],
    dialect: Dialect,
    text_field: str | None,
    filters: dict[str, Any],
    *,
    joins: bool,
) -> Query:
    """Return the query for v0.1.0's filters, which include the sort options."""
    sort_field, sort_desc = filters.pop("sort_field", None), filters.pop("sort_desc", False)
    conditions = text_match(model, text_field, filters, dialect)
    if filters:
        conditions = (*conditions, matches(model, filters, dialect, joins=joins))
    order = sort_terms(model, sort_field, bool(sort_desc))
    return Query(model, dialect, conditions=conditions, order=order)


async def get_rows_within_id_list(
    id_str_list: Iterable[Any],
    session_inst: AnySession,
    model: type[T],
    pk_field: str | Sequence[str] | None = None,
    *,
    include_deleted: bool = False,
    use_cache: bool = False,
) -> tuple[bool, RowList[T]]:
    """Return the rows whose key is in a list of any length.

    Args:
        id_str_list: The keys, each coerced to the column's type; composite keys are tuples.
        session_inst: The session to query with.
        model: The table model.
        pk_field: The key's column. The default is "id" if the model has it, otherwise the primary
            key.
        include_deleted: Whether soft-deleted rows count.
        use_cache: Whether the rows may come from the cache that `ext.cache.configure_cache` sets
            up.

    Returns:
        Whether any row was found, and the rows, in no particular order. The list also has a method
        `.all()`, which one API of v0.1.0 required.

    Raises:
        ValidationError: An unknown field, a key of a wrong type, or a string in place of a list.
        DatabaseConnectionError: The database cannot be reached.
        QueryExecutionError: The database refused the query.

    Example:
        >>> _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
        >>> found, rows = await get_rows_within_id_list([hero.id, 999], session, Hero)
        >>> [row.name for row in rows]
        ['Rusty']
    """
    session = require_session(session_inst)
    facts = facts_of(model)
    names, keys = key_list(facts, pk_field, id_str_list)
    dialect = dialect_of(session, facts)
    visibility = visibility_with(include_deleted=include_deleted)
    rows: RowList[T] = RowList()
    async with Read(session, facts, "get_rows_within_id_list") as read:
        read.batch = len(keys)
        for chunk in key_chunks(model, names, keys, dialect):
            statement = by_key_list(model, names, chunk, dialect, visibility)
            query = partial(fetch, session, model, statement, visibility=visibility)
            question = Question(model, statement, visibility=visibility) if use_cache else None
            rows += await answered(read, question, query)
        read.rows = len(rows)
        return bool(rows), rows
