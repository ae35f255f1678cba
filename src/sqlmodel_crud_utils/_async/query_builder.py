"""The query builder: queries that are composed step by step, and run on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Delete, Update

from sqlmodel_crud_utils._async._running.cached import answered
from sqlmodel_crud_utils._async._running.chunked_writes import all_or_none
from sqlmodel_crud_utils._async._running.fetching import fetch
from sqlmodel_crud_utils._async._running.operations import Read, Write, run_or_raise
from sqlmodel_crud_utils._async._running.row_writes import soft_for
from sqlmodel_crud_utils._async._running.set_based_writes import write_set
from sqlmodel_crud_utils._async._running.settling import load_expired
from sqlmodel_crud_utils._async.streams import RowStream
from sqlmodel_crud_utils._core.cached_reads import Form, Question
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries import aggregates, keyset
from sqlmodel_crud_utils._core.queries.builder import (
    QueryShape,
    check_streamable,
    check_streamable_values,
    require_unlimited,
    whole,
)
from sqlmodel_crud_utils._core.queries.cursors import PageAfter, cursor_format
from sqlmodel_crud_utils._core.queries.query import Prepared, Query
from sqlmodel_crud_utils._core.returned_rows import as_dicts, column_rows, first_of
from sqlmodel_crud_utils._core.visibility.soft_delete import deleted_values
from sqlmodel_crud_utils._core.writes.updates import (
    changes_of,
    check_soft_target,
    check_target,
    criteria_of,
    delete_of,
    hidden,
    link_deletes_of,
    update_of,
)
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    dialect_of,
    execute,
    require_session,
    run_sync,
    sync_session,
)
from sqlmodel_crud_utils._session.autocommit_reads import with_autocommit
from sqlmodel_crud_utils._session.held_rows import held, synchronization
from sqlmodel_crud_utils.exceptions import (
    MultipleRecordsError,
    RecordNotFoundError,
    ValidationError,
)
from sqlmodel_crud_utils.pagination import CursorPage, Page

__all__ = ["AsyncQueryBuilder", "CursorPage", "Page"]

T = TypeVar("T")

_MAX_SIZE = 1_000


async def page_after(builder: AsyncQueryBuilder[T], size: int, after: str | None) -> PageAfter[T]:
    """Return the rows after a cursor, with a cursor for each; see `keyset`."""
    return await builder._page_after(size, after, PageAfter.all_cursors)


class AsyncQueryBuilder(QueryShape[T]):
    """A query on one model.

    It is immutable: each call returns a new builder, so a partial query can be kept and extended in
    different ways. Nothing is queried until you call a method that returns rows, values or numbers;
    each such call queries again.

    Soft-deleted rows, also related ones, are left out unless you call `with_deleted()` or
    `only_deleted()`. A mistake raises a `ValidationError` in the call that makes it. A query that
    the database refuses raises a `QueryExecutionError`; a database that cannot be reached, a
    `DatabaseConnectionError`.

    Args:
        session: The session to query with.
        model: The table model.

    Raises:
        ValidationError: The session is not one of this API, or the model is not a table model.

    Example:
        >>> heroes = [Hero(name=f"Hero {n}", secret_name="?", age=30 + n) for n in range(5)]
        >>> _ = await insert_data_rows(heroes, session)
        >>> grown = AsyncQueryBuilder(session, Hero).where(age__gte=32)
        >>> [hero.age for hero in await grown.order_by("-age").limit(2).all()]
        [34, 33]
        >>> await grown.count()
        3
    """

    _session: AsyncSession

    def __init__(self, session: AnySession, model: type[T]) -> None:
        opened = require_session(session)
        super().__init__(opened, model, dialect_of(opened, facts_of(model)))

    # --- rows ------------------------------------------------------------------------------------

    async def all(self) -> list[T]:
        """Return all rows.

        Without a limit they may be many; `paginate` and `keyset` return them in pages.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).where(name="nobody").all()
            []
        """
        async with self._read("all") as read:
            return await self._rows(read, self._query)

    async def first(self) -> T | None:
        """Return the first row, or None if nothing matches.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).order_by("name").first() is None
            True
        """
        async with self._read("first") as read:
            rows = await self._at_most(read, 1)
            return rows[0] if rows else None

    async def one(self) -> T:
        """Return the one row that matches.

        Raises:
            RecordNotFoundError: No row matches.
            MultipleRecordsError: Several rows match; its `count` says how many.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).where(name="Rusty").one()
            Traceback (most recent call last):
            sqlmodel_crud_utils.exceptions.RecordNotFoundError: No Hero matches the filters on name
        """
        async with self._read("one") as read:
            row = await self._only(read)
            if row is None:
                raise RecordNotFoundError(self._query.model, dict(self._query.lookups))
            return row

    async def one_or_none(self) -> T | None:
        """Return the one row that matches, or None if none does.

        Raises:
            MultipleRecordsError: Several rows match; its `count` says how many.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).where(name="Rusty").one_or_none()
        """
        async with self._read("one_or_none") as read:
            return await self._only(read)

    async def count(self) -> int:
        """Return how many rows match, ignoring limit and offset.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).count()
            0
        """
        async with self._read("count") as read:
            return await self._total(read)

    async def exists(self) -> bool:
        """Return whether any row matches, ignoring limit and offset.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).where(age__gt=30).exists()
            False
        """
        async with self._read("exists") as read:
            found = await self._value(read, self._query.prepared("key", Query.first_key))
            return found is not None

    def stream(self, batch_size: int = 1_000) -> RowStream[T]:
        """Return all rows one by one, with only a batch of them in memory.

        On PostgreSQL and MySQL, the database keeps a cursor until the last row is read, or until
        the session is used again after the loop was left. Inside the loop the session can be used,
        but not committed or rolled back: if the loop writes, put it into a `transaction()` block.

        MySQL cannot run anything else while a cursor is open. If `selectin` needs further queries,
        or once the session runs one inside the loop, each batch becomes a query of its own that
        continues after the last row; an index that fits the order makes these queries fast. So it
        is on every database where the mapping or `options` join a relationship to many, or load one
        by a subquery.

        Args:
            batch_size: How many rows are read at a time.

        Raises:
            ValidationError: A batch size below 1; a `joined` relationship to many; an order by JSON
                where each batch is a query of its own. The loop raises it if the transaction has
                ended inside it.

        Example:
            >>> _ = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
            >>> async for hero in AsyncQueryBuilder(session, Hero).stream():
            ...     hero.name
            'Rusty'
        """
        whole("batch_size", batch_size, least=1)
        check_streamable(self._query)
        return RowStream(self._session, self._query, batch_size)

    def stream_values(self, *fields: str, batch_size: int = 1_000) -> RowStream[dict[str, Any]]:
        """Return some fields of all rows, one dict per row, with only a batch of them in memory.

        It takes a fraction of the time of `stream`, as no objects are created. The notes there on
        the session and on MySQL apply here too.

        Args:
            fields: Names of fields; without any, all fields.
            batch_size: How many rows are read at a time.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A batch size below 1, or a `distinct` query. The loop raises it if the
                transaction has ended inside it.

        Example:
            >>> _ = await write_row(Hero(name="Rusty", secret_name="Tommy", age=48), session)
            >>> async for hero in AsyncQueryBuilder(session, Hero).stream_values("name", "age"):
            ...     hero
            {'name': 'Rusty', 'age': 48}
        """
        whole("batch_size", batch_size, least=1)
        check_streamable_values(self._query)
        return RowStream(self._session, self._of_values(fields), batch_size)

    # --- values ----------------------------------------------------------------------------------

    async def values(self, *fields: str) -> list[dict[str, Any]]:
        """Return some fields of the rows, one dict per row.

        Args:
            fields: Names of fields; without any, all fields.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A `distinct` query that is sorted by another field.

        Example:
            >>> _ = await write_row(Hero(name="Rusty", secret_name="Tommy", age=48), session)
            >>> await AsyncQueryBuilder(session, Hero).values("name", "age")
            [{'name': 'Rusty', 'age': 48}]
        """
        query = self._of_values(fields)
        return as_dicts(query.values, await self._columns(query, "values"))

    async def scalars(self, field: str) -> list[Any]:
        """Return one field of the rows.

        Args:
            field: The name of the field.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A `distinct` query that is sorted by another field.

        Example:
            >>> _ = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
            >>> await AsyncQueryBuilder(session, Hero).scalars("name")
            ['Rusty']
        """
        rows = await self._columns(self._of_values((field,)), "scalars")
        return [row[0] for row in rows]

    async def sum(self, field: str) -> Any:
        """Return the sum of a field over all matching rows, or None if there is no value.

        Args:
            field: The name of a numeric field.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A field that is not numeric.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).sum("age")
        """
        return await self._aggregate("sum", field)

    async def avg(self, field: str) -> Any:
        """Return the average of a field over all matching rows, or None if there is no value.

        Args:
            field: The name of a numeric field.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A field that is not numeric.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).avg("age")
        """
        return await self._aggregate("avg", field)

    async def min(self, field: str) -> Any:
        """Return the lowest value of a field in all matching rows, or None if there is no value.

        Args:
            field: The name of a field.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A field whose values have no order on every database.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).min("name")
        """
        return await self._aggregate("min", field)

    async def max(self, field: str) -> Any:
        """Return the highest value of a field in all matching rows, or None if there is no value.

        Args:
            field: The name of a field.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A field whose values have no order on every database.

        Example:
            >>> await AsyncQueryBuilder(session, Hero).max("name")
        """
        return await self._aggregate("max", field)

    # --- pages -----------------------------------------------------------------------------------

    async def paginate(
        self, page: int = 1, size: int = 50, *, max_size: int = _MAX_SIZE
    ) -> Page[T]:
        """Return one page of the rows, and the total number of rows.

        The rows are counted only if the total does not follow from the page itself: for a full
        first page, and for later pages, where the count is part of the same query.

        Args:
            page: The number of the page, from 1. A page past the end is empty.
            size: The number of rows per page.
            max_size: The largest size that is allowed.

        Raises:
            ValidationError: A page or size below 1, a size beyond `max_size`, or a query that has
                a limit or an offset of its own.

        Example:
            >>> heroes = [Hero(name=f"Hero {n}", secret_name="?") for n in range(5)]
            >>> _ = await insert_data_rows(heroes, session)
            >>> page = await AsyncQueryBuilder(session, Hero).order_by("name").paginate(2, 2)
            >>> [hero.name for hero in page.items], page.total, page.pages
            (['Hero 2', 'Hero 3'], 5, 3)
        """
        require_unlimited(self._query, "paginate")
        whole("page", page, least=1)
        whole("size", size, least=1, most=whole("max_size", max_size, least=1))
        start = whole("page", (page - 1) * size)
        query = self._query._replace(start=start, size=size)
        async with self._read("paginate") as read:
            if start:
                items, total = await self._later_page(read, query)
            else:
                items = await self._rows(read, query)
                # Rows may have been deleted meanwhile, but those on this page existed.
                total = len(items) if len(items) < size else max(await self._total(read), size)
        return Page(items=items, total=total, page=page, size=size)

    async def _later_page(self, read: Read, query: Query) -> tuple[list[T], int]:
        # The page's own length does not tell the total, so the query counts as well.
        prepared = query.prepared("rows with total", Query.rows_with_total)
        found = await self._fetch(read, prepared)
        total = found[0][-1] if found else min(await self._total(read), query.start)
        return [row[0] for row in found], total

    async def keyset(
        self, size: int | None = None, after: str | None = None, *, max_size: int = _MAX_SIZE
    ) -> CursorPage[T]:
        """Return the rows after a cursor, and the cursor for the next page.

        All pages together hold what `all` returns. If rows are written or deleted between two
        pages, no other row appears twice or goes missing. With an index that fits the order, a late
        page costs as little as an early one.

        A cursor is neither secret nor signed: it holds the values that the rows are sorted by, and
        whoever has it can read or forge it. The values are checked against the columns.

        Args:
            size: How many rows the page has.
            after: The `next_cursor` of the page before. Without it, the first page is returned.
            max_size: The largest size that is allowed.

        Raises:
            ValidationError: A missing size, or one below 1 or beyond `max_size`; a damaged cursor,
                or one of another model or order; a query that has a limit or an offset, or an order
                in which no page can continue.

        Example:
            >>> heroes = [Hero(name=f"Hero {n}", secret_name="?") for n in range(3)]
            >>> _ = await insert_data_rows(heroes, session)
            >>> query = AsyncQueryBuilder(session, Hero).order_by("-name")
            >>> page = await query.keyset(2)
            >>> [hero.name for hero in page.items]
            ['Hero 2', 'Hero 1']
            >>> page = await query.keyset(2, after=page.next_cursor)
            >>> [hero.name for hero in page.items], page.next_cursor
            (['Hero 0'], None)
        """
        if size is None:
            raise ValidationError("keyset() needs the size of a page: keyset(50)", field="size")
        whole("size", size, least=1, most=whole("max_size", max_size, least=1))
        page = await self._page_after(size, after, attrgetter("next_cursor"))
        return CursorPage(items=page.rows, next_cursor=page.next_cursor)

    # --- writing ---------------------------------------------------------------------------------

    async def update(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        everything: bool = False,
        **more: Any,
    ) -> int:
        """Update all rows that match, with one statement; return how many there were.

        `updated_at`, `updated_by` and other columns with an `onupdate` are set, and versions are
        incremented. Objects in the session get the new values. Hooks do not run: if you need them,
        read the rows and use `update_row`.

        Outside a `transaction()` block, the call commits the session, or rolls it back after a
        failure, along with everything else pending in it. Inside a block, nothing is committed, and
        a failure dooms the block.

        Args:
            values: A mapping of fields to values or to SQL expressions such as `Hero.age + 1`. It
                is needed only for a field that is called `everything`.
            everything: Whether a query without any filter may affect all rows.
            more: The same as keyword arguments.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: No filter, a limit or an offset; no value, one that its field does not
                accept, or one for the primary key. Nothing is written.
            ConstraintViolationError: A constraint is broken. No row is updated.

        Example:
            >>> _ = await write_row(Hero(name="Rusty", secret_name="Tommy", age=48), session)
            >>> await AsyncQueryBuilder(session, Hero).where(name="Rusty").update(age=Hero.age + 1)
            1
        """
        query = self._query
        check_target(query, "update", everything=everything)
        changes = changes_of(query.model, values, more)
        criteria = criteria_of(query)
        statement = update_of(query.model, changes, criteria)
        return await self._write("update", [statement], criteria)

    async def delete(
        self,
        soft: bool | None = None,
        *,
        deleted_by: str | None = None,
        everything: bool = False,
    ) -> int:
        """Delete all rows that match, with one statement; return how many there were.

        Rows of a model with `SoftDeleteMixin` are marked instead; rows that are already marked are
        left alone. The links of removed rows in the model's many-to-many relationships are removed
        too, with one statement for each relationship. For other rows that refer to a removed one,
        the `ON DELETE` of their foreign key decides. Objects of deleted rows leave the session.
        Hooks do not run: if you need them, read the rows and use `delete_row`.

        Outside a `transaction()` block, the call commits the session, or rolls it back after a
        failure, along with everything else pending in it. Inside a block, nothing is committed, and
        a failure dooms the block.

        Args:
            soft: Whether to mark the rows as deleted instead of removing them; by default, if the
                model has the mixin. False removes them; use `with_deleted()` or `only_deleted()` to
                reach rows that are already marked.
            deleted_by: Who deletes the rows, recorded if they are marked. The default is whoever
                `acting_as` names.
            everything: Whether a query without any filter may affect all rows.

        Raises:
            ValidationError: No filter, a limit or an offset; a soft deletion of a model without the
                mixin, or of rows that are already marked. Nothing is written.
            ConstraintViolationError: Other rows refer to a row. No row is deleted.

        Example:
            >>> _ = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
            >>> await AsyncQueryBuilder(session, Hero).where(age=None).delete()
            1
        """
        query = self._query
        check_target(query, "delete", everything=everything)
        if soft_for(facts_of(query.model), soft, deleted_by):
            check_soft_target(query)
            criteria = criteria_of(query, only_visible=True)
            statement = update_of(query.model, deleted_values(deleted_by), criteria)
            return await self._write("delete", [statement], criteria)
        criteria = criteria_of(query)
        links = link_deletes_of(query.model, criteria)
        removal = delete_of(query.model, criteria)
        return await self._write("delete", [*links, removal], criteria)

    # --- execution -------------------------------------------------------------------------------

    async def _page_after(
        self, size: int, after: str | None, cursors_of: Callable[[PageAfter[T]], object]
    ) -> PageAfter[T]:
        require_unlimited(self._query, "keyset")
        keyset.check_sortable(self._query.terms, "keyset")
        cursors = cursor_format(self._query)
        values = None if after is None else cursors.read(after)
        query = self._query._replace(size=size + 1)
        prepared = keyset.prepared_from(query, values)

        def page_of(found: Sequence[Any]) -> PageAfter[T]:
            return PageAfter(cursors, found[:size], has_more=len(found) > size)

        async with self._read("keyset") as read:
            found = await self._fetch(read, prepared, lambda rows: cursors_of(page_of(rows)))
            read.rows = min(len(found), size)
        return page_of(found)

    def _read(self, name: str) -> Read:
        return Read(self._session, facts_of(self._query.model), name)

    async def _rows(self, read: Read, query: Query) -> list[T]:
        return await self._fetch(read, query.prepared("rows", Query.rows))

    async def _fetch(
        self,
        read: Read,
        prepared: Prepared,
        check: Callable[[Sequence[Any]], object] | None = None,
    ) -> list[Any]:
        query = self._query
        statement, parameters = prepared
        if query.lock is not None:
            # A locked row is refreshed, which would overwrite unflushed changes.
            await self._session.flush()
        work = partial(
            fetch,
            self._session,
            query.model,
            statement,
            parameters,
            eagerly=query.loads_related,
            reaches_twice=query.loading.reaches_twice,
            visibility=query.visibility,
        )
        question = self._question(prepared)
        if check is not None and question is not None:
            question = question._replace(check=check)
        rows = await answered(read, question, work)
        read.rows = len(rows)
        return rows

    async def _write(
        self,
        name: str,
        statements: Sequence[Update | Delete],
        criteria: Sequence[ColumnElement[bool]],
    ) -> int:
        """Run statements as one write; return how many rows the last one reached."""
        session, facts = self._session, facts_of(self._query.model)
        plain = sync_session(session)
        async with Write(session, facts, name, raise_on_error=True) as write:

            async def work() -> Sequence[Any]:
                await session.flush()
                loaded = held(plain, facts.model)
                for statement in statements[:-1]:
                    await execute(session, hidden(self._query, statement))
                options = synchronization(plain, facts.model)
                last = hidden(self._query, statements[-1])
                with all_or_none(session):
                    await write.written(await write_set(session, facts, last, criteria, options))
                # Load what the database has computed, so that no lazy load is left.
                await load_expired(session, loaded)
                return []

            await run_or_raise(write, work)
            return write.rows or 0

    async def _at_most(self, read: Read, count: int) -> list[T]:
        size = self._query.size
        limit = count if size is None else min(size, count)
        return await self._rows(read, self._query._replace(size=limit))

    async def _only(self, read: Read) -> T | None:
        rows = await self._at_most(read, 2)
        if len(rows) > 1:
            found = await self._total(read) - (self._query.start or 0)
            found = found if self._query.size is None else min(found, self._query.size)
            # A row may have been deleted meanwhile, but there were two.
            raise MultipleRecordsError(self._query.model, max(found, 2), dict(self._query.lookups))
        return rows[0] if rows else None

    async def _total(self, read: Read) -> int:
        total = self._query.prepared("total", Query.total)
        found: int = await self._value(read, total, "count")
        return found

    async def _columns(self, query: Query, name: str) -> Sequence[Any]:
        prepared = query.prepared("columns", Query.columns)
        plain = sync_session(self._session)

        def fetch_all() -> Sequence[Any]:
            options = with_autocommit(plain)
            return column_rows(plain.execute(*prepared, execution_options=options)).all()

        async with self._read(name) as read:
            work = partial(run_sync, self._session, fetch_all)
            rows = await answered(read, self._question(prepared, "tuples"), work)
            read.rows = len(rows)
        return rows

    async def _aggregate(self, name: str, field: str) -> Any:
        model = self._query.model
        function = aggregates.aggregate(model, name, field)
        prepared = self._query.prepared((name, field), lambda query: query.aggregate(function))
        async with self._read(name) as read:
            value = await self._value(read, prepared)
        return aggregates.plain(model, name, field, value)

    async def _value(self, read: Read, prepared: Prepared, form: Form = "value") -> Any:
        async def work() -> list[Any]:
            return [first_of(await execute(self._session, *prepared))]

        [value] = await answered(read, self._question(prepared, form), work)
        return value

    def _question(self, prepared: Prepared, form: Form = "rows") -> Question | None:
        return None if self._query.caching is None else self._query.question(prepared, form)
