"""The functions for one session and one model, without tuples: they return a row, or raise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

from sqlmodel_crud_utils._async.bulk_by_keys import bulk_update_rows, delete_rows_within_id_list
from sqlmodel_crud_utils._async.bulk_inserts import bulk_insert_rows
from sqlmodel_crud_utils._async.get_or_create import found_or_created
from sqlmodel_crud_utils._async.query_builder import AsyncQueryBuilder
from sqlmodel_crud_utils._async.reads import get_row, get_rows_within_id_list
from sqlmodel_crud_utils._async.soft_deletes import restore_row
from sqlmodel_crud_utils._async.upserts import bulk_upsert_mappings
from sqlmodel_crud_utils._async.writes import delete_row, update_row, write_row
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.progress import Report
from sqlmodel_crud_utils._core.queries.builder import Criterion
from sqlmodel_crud_utils._core.values.payload import changes_for, values_for
from sqlmodel_crud_utils._runtime_async import AnySession, require_session
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.pagination import CursorPage, Page
from sqlmodel_crud_utils.results import UpsertCounts

__all__ = ["AsyncRepository"]

T = TypeVar("T")


class AsyncRepository(Generic[T]):
    """The rows of one model, read and written with one session.

    Each method returns its result, or raises. It calls the library's functions with
    `raise_on_error=True`: outside a `transaction()` block, a write commits the session, or rolls it
    back after a failure; inside a block, nothing is committed.

    A statement that the database refuses raises a `QueryExecutionError`; a database that cannot be
    reached, a `DatabaseConnectionError`; a mistake in a call, a `ValidationError`.

    Args:
        session: The session to work with.
        model: The table model.

    Attributes:
        session: The session.
        model: The table model.

    Raises:
        ValidationError: The session is not one of this API, or the model is not a table model.

    Example:
        >>> heroes = AsyncRepository(session, Hero)
        >>> hero = await heroes.create(name="Rusty", secret_name="Tommy", age=48)
        >>> (await heroes.get(hero.id)).name
        'Rusty'
        >>> [each.name for each in await heroes.where(age__gte=18).order_by("-age").all()]
        ['Rusty']
    """

    def __init__(self, session: AnySession, model: type[T]) -> None:
        require_session(session)
        facts_of(model)
        self.session = session
        self.model = model

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.model.__name__}>"

    # --- one row ---------------------------------------------------------------------------------

    @overload
    async def create(self, row: T, /) -> T: ...
    @overload
    async def create(self, /, **values: Any) -> T: ...
    async def create(self, /, *row: T, **values: Any) -> T:
        """Create a row; return it.

        The model's create hooks run.

        Args:
            row: A new instance of the model.
            values: The field values of a new row, instead of `row`.

        Raises:
            ConstraintViolationError: A constraint is broken.
            UnknownFieldError: A name that is not a field of the model.
            ValidationError: A row and values together; an instance of another model; a value that
                its field does not accept.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> (await heroes.create(name="Ann", secret_name="?")).id
            1
            >>> (await heroes.create(Hero(name="Bob", secret_name="?"))).id
            2
        """
        if len(row) > 1 or (row and values):
            raise ValidationError("create() takes one row, or the values of one", field="row")
        new = row[0] if row else self.model(**values_for(facts_of(self.model), values))
        if not isinstance(new, self.model):
            raise ValidationError(
                f"the row must be a {self.model.__name__}, not {type(new).__name__}; "
                f"to make one from other data, call {self.model.__name__}.model_validate(data)",
                field="row",
            )
        return (await write_row(new, self.session, raise_on_error=True))[1]

    @overload
    async def get(
        self, key: Any, /, *, include_deleted: bool = False, use_cache: bool = False
    ) -> T: ...
    @overload
    async def get(
        self, /, *, include_deleted: bool = False, use_cache: bool = False, **unique: Any
    ) -> T: ...
    async def get(
        self, /, *key: Any, include_deleted: bool = False, use_cache: bool = False, **unique: Any
    ) -> T:
        """Return the row with this key, or the one that matches these filters.

        Args:
            key: The primary key; a composite one is a tuple in column order.
            include_deleted: Whether a soft-deleted row counts.
            use_cache: Whether the row may come from the cache. Do not change such a row.
            unique: Filters instead of a key, as for `where`: `email="ann@example.com"`.

        Raises:
            RecordNotFoundError: There is no such row.
            MultipleRecordsError: Several rows match.
            UnknownFieldError: A filter on an unknown field.
            ValidationError: A key and filters together, or neither; a value of a wrong type.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> hero = await heroes.create(name="Rusty", secret_name="Tommy")
            >>> await heroes.get(hero.id) is await heroes.get(name="Rusty")
            True
            >>> await heroes.get(99)
            Traceback (most recent call last):
            sqlmodel_crud_utils.exceptions.RecordNotFoundError: Hero with id=99 not found
        """
        if not key:
            query = self._matching("get", unique, include_deleted=include_deleted)
            return await (query.cached() if use_cache else query).one()
        _, row = await get_row(
            _only("get", key, unique),
            self.session,
            self.model,
            raise_on_error=True,
            include_deleted=include_deleted,
            use_cache=use_cache,
        )
        return row

    @overload
    async def get_or_none(self, key: Any, /, *, include_deleted: bool = False) -> T | None: ...
    @overload
    async def get_or_none(self, /, *, include_deleted: bool = False, **unique: Any) -> T | None: ...
    async def get_or_none(
        self, /, *key: Any, include_deleted: bool = False, **unique: Any
    ) -> T | None:
        """Return the row with this key, or the one that matches these filters; else None.

        Args:
            key: The primary key; a composite one is a tuple in column order.
            include_deleted: Whether a soft-deleted row counts.
            unique: Filters instead of a key, as for `where`: `email="ann@example.com"`.

        Raises:
            MultipleRecordsError: Several rows match.
            UnknownFieldError: A filter on an unknown field.
            ValidationError: A key and filters together, or neither; a value of a wrong type.

        Example:
            >>> await AsyncRepository(session, Hero).get_or_none(99) is None
            True
        """
        if not key:
            found = self._matching("get_or_none", unique, include_deleted=include_deleted)
            return await found.one_or_none()
        _, row = await get_row(
            _only("get_or_none", key, unique),
            self.session,
            self.model,
            include_deleted=include_deleted,
        )
        return row

    async def update(
        self,
        key: Any,
        data: Any,
        *,
        expected_version: int | None = None,
        include_deleted: bool = False,
    ) -> T:
        """Update the row with this key; return it.

        The model's update hooks run. The primary key is never changed.

        Args:
            key: The primary key; a composite one is a tuple in column order.
            data: A mapping, or a Pydantic or SQLModel object. Of an object, only the fields that
                were set are written, so a PATCH resets nothing. The values of a mapping may be SQL,
                such as `Product.stock - 1`.
            expected_version: The `version` that the caller has seen. Needs `VersionMixin`.
            include_deleted: Whether a soft-deleted row may be updated.

        Raises:
            RecordNotFoundError: There is no such row.
            ConflictError: The row has changed since it was read.
            ConstraintViolationError: A constraint is broken.
            UnknownFieldError: A name that is not a field of the model.
            ValidationError: A value that its field does not accept, another primary key.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> hero = await heroes.create(name="Rusty", secret_name="Tommy", age=48)
            >>> (await heroes.update(hero.id, {"age": Hero.age + 1})).age
            49
        """
        _, row = await update_row(
            key,
            data,
            self.session,
            self.model,
            raise_on_error=True,
            expected_version=expected_version,
            include_deleted=include_deleted,
        )
        return row

    async def delete(
        self,
        key: Any,
        *,
        soft: bool | None = None,
        deleted_by: str | None = None,
        expected_version: int | None = None,
    ) -> None:
        """Delete the row with this key; a row of a model with `SoftDeleteMixin` is marked instead.

        The model's delete hooks run.

        Args:
            key: The primary key; a composite one is a tuple in column order.
            soft: Whether to mark the row as deleted instead of removing it; by default, if the
                model has the mixin. False removes the row even if it is already marked.
            deleted_by: Who deletes the row, recorded if it is marked. The default is whoever
                `acting_as` names.
            expected_version: The `version` that the caller has seen. Needs `VersionMixin`.

        Raises:
            RecordNotFoundError: There is no such row.
            ConflictError: The row has changed since it was read.
            ConstraintViolationError: Other rows refer to the row.
            ValidationError: A soft deletion of a model without the mixin, a key of a wrong type.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> hero = await heroes.create(name="Rusty", secret_name="Tommy")
            >>> await heroes.delete(hero.id)
            >>> await heroes.count()
            0
        """
        await delete_row(
            key,
            self.session,
            self.model,
            soft=soft,
            deleted_by=deleted_by,
            raise_on_error=True,
            expected_version=expected_version,
        )

    async def restore(self, key: Any) -> T:
        """Restore a soft-deleted row; return it.

        This is an update, so the model's update hooks run.

        Args:
            key: The primary key; a composite one is a tuple in column order.

        Raises:
            RecordNotFoundError: There is no such deleted row.
            ConstraintViolationError: Another row has taken its unique value.
            ConflictError: The row has changed since it was read.
            ValidationError: A model without `SoftDeleteMixin`, a key of a wrong type.

        Example:
            >>> letters = AsyncRepository(session, Letter)
            >>> letter = await letters.create(text="Hello")
            >>> await letters.delete(letter.id)
            >>> (await letters.restore(letter.id)).is_deleted
            False
        """
        _, row = await restore_row(key, self.session, self.model, raise_on_error=True)
        return row

    async def get_or_create(
        self, defaults: Mapping[str, Any] | None = None, **unique: Any
    ) -> tuple[T, bool]:
        """Return the row with these values; create it if it does not exist.

        Two callers that create the same unique row at the same time both get that one row, and the
        transaction of the slower one stays usable. Hooks run only if a row is created.

        Args:
            defaults: Further values for a new row; they override the values searched for.
            unique: The values to search for, by field or to-one relationship. Write a field called
                `defaults` as `defaults__eq`.

        Returns:
            The row, and whether it was created.

        Raises:
            MultipleRecordsError: Several rows have these values.
            ConstraintViolationError: The new row breaks a constraint; if a soft-deleted row holds
                its unique value, the message says so.
            UnknownFieldError: A name that is not a field of the model.
            ValidationError: A value that its field does not accept; no value to search for.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> hero, created = await heroes.get_or_create({"secret_name": "Tommy"}, name="Rusty")
            >>> hero, created_again = await heroes.get_or_create(name="Rusty")
            >>> hero.secret_name, created, created_again
            ('Tommy', True, False)
        """
        _require("get_or_create", unique)
        row, existed = await found_or_created(
            require_session(self.session), self.model, unique, defaults, single=True
        )
        return row, not existed

    async def update_or_create(
        self, defaults: Mapping[str, Any] | None = None, **unique: Any
    ) -> tuple[T, bool]:
        """Update the row with these values; create it if it does not exist.

        Callers that do this at the same time wait for each other, and all of them get the same row.
        The model's create or update hooks run.

        Args:
            defaults: The values to write. A new row also gets the values searched for.
            unique: The values to search for, by field or to-one relationship. Write a field called
                `defaults` as `defaults__eq`.

        Returns:
            The row, and whether it was created.

        Raises:
            MultipleRecordsError: Several rows have these values.
            RecordNotFoundError: Another caller deletes the row at the same moment, and the session
                has begun its transaction before this call, in a block or with a read. Otherwise the
                row is created again.
            QueryExecutionError: The database refused a statement. On MySQL that includes a deadlock
                with other callers if the session has begun its transaction before this call, in a
                block or with a read; otherwise the call is repeated.
            ConstraintViolationError: A constraint is broken.
            UnknownFieldError: A name that is not a field of the model.
            ValidationError: A value that its field does not accept; no value to search for.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> values = {"secret_name": "Tommy", "age": 48}
            >>> hero, created = await heroes.update_or_create(values, name="Rusty")
            >>> hero, created_again = await heroes.update_or_create({"age": 49}, name="Rusty")
            >>> hero.age, created, created_again
            (49, True, False)
        """
        _require("update_or_create", unique)
        changes = changes_for(facts_of(self.model), defaults or {})
        row, existed = await found_or_created(
            require_session(self.session),
            self.model,
            unique,
            changes,
            single=True,
            changes=changes,
            name="update_or_create",
        )
        return row, not existed

    # --- many rows -------------------------------------------------------------------------------

    async def get_many(
        self, keys: Iterable[Any], *, include_deleted: bool = False, use_cache: bool = False
    ) -> list[T]:
        """Return the rows whose key is in a list of any length, in no particular order.

        Args:
            keys: Primary keys; composite ones are tuples. Keys without a row are ignored.
            include_deleted: Whether soft-deleted rows count.
            use_cache: Whether the rows may come from the cache. Do not change such rows.

        Raises:
            ValidationError: A key of a wrong type, or a string in place of a list.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> hero = await heroes.create(name="Rusty", secret_name="Tommy")
            >>> [each.name for each in await heroes.get_many([hero.id, 99])]
            ['Rusty']
        """
        _, rows = await get_rows_within_id_list(
            keys, self.session, self.model, include_deleted=include_deleted, use_cache=use_cache
        )
        return rows

    async def update_many(
        self,
        keys: Iterable[Any],
        data: Any,
        *,
        chunk_size: int | None = None,
        progress: bool | Report | None = None,
    ) -> int:
        """Write the same values into all rows whose key is in a list; return how many were found.

        The rows are written with set-based statements, or one by one if the model has hooks.

        Args:
            keys: Primary keys; composite ones are tuples. Keys without a row are ignored.
            data: A mapping, or a Pydantic or SQLModel object. Of an object, only the fields that
                were set are written. The values of a mapping may be SQL.
            chunk_size: How many keys go into one statement. The default is as many as the database
                allows.
            progress: True for a progress bar (needs the extra `progress`), or a function that is
                called after each chunk with the number of keys done and the total.

        Raises:
            ConstraintViolationError: A constraint is broken. No row is updated.
            ConflictError: Somebody else changed a row while its hooks ran.
            UnknownFieldError: A name that is not a column of the model.
            ValidationError: A value that its field does not accept, a key of a wrong type.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> hero = await heroes.create(name="Rusty", secret_name="Tommy")
            >>> await heroes.update_many([hero.id, 99], {"age": 48})
            1
        """
        _, count = await bulk_update_rows(
            keys, data, self.session, self.model, chunk_size=chunk_size, progress=progress
        )
        return count

    async def delete_many(
        self,
        keys: Iterable[Any],
        *,
        soft: bool | None = None,
        deleted_by: str | None = None,
        chunk_size: int | None = None,
        progress: bool | Report | None = None,
    ) -> int:
        """Delete all rows whose key is in a list; return how many were found.

        Rows of a model with `SoftDeleteMixin` are marked instead. The rows are deleted with
        set-based statements, or one by one if the model has hooks.

        Args:
            keys: Primary keys; composite ones are tuples. Keys without a row are ignored.
            soft: Whether to mark the rows as deleted instead of removing them; by default, if the
                model has the mixin. False removes them.
            deleted_by: Who deletes the rows, recorded if they are marked. The default is whoever
                `acting_as` names.
            chunk_size: How many keys go into one statement. The default is as many as the database
                allows.
            progress: True for a progress bar (needs the extra `progress`), or a function that is
                called after each chunk with the number of keys done and the total.

        Raises:
            ConstraintViolationError: Other rows refer to a row. No row is deleted.
            ValidationError: A soft deletion of a model without the mixin, a key of a wrong type.

        Example:
            >>> heroes = AsyncRepository(session, Hero)
            >>> hero = await heroes.create(name="Rusty", secret_name="Tommy")
            >>> await heroes.delete_many([hero.id, 99])
            1
        """
        _, count = await delete_rows_within_id_list(
            keys,
            self.session,
            self.model,
            chunk_size=chunk_size,
            soft=soft,
            deleted_by=deleted_by,
            progress=progress,
        )
        return count

    async def insert_many(
        self,
        rows: Iterable[Any],
        *,
        on_conflict: Literal["raise", "ignore"] = "raise",
        method: Literal["auto", "insert", "copy"] = "auto",
        chunk_size: int | None = None,
        progress: bool | Report | None = None,
    ) -> int:
        """Insert many rows at the speed of the driver; return how many were inserted.

        Either all rows are inserted, or none. Hooks do not run.

        Args:
            rows: Any iterable of mappings, new instances of the model, or Pydantic objects. Of an
                object, only the fields that were set are written.
            on_conflict: "ignore" skips each row that has the same unique key as another.
            method: "insert", or "copy" for PostgreSQL's binary COPY; "auto" takes the faster one.
            chunk_size: How many rows are checked and written at once. The default is 10,000, or
                fewer if the database's limit of parameters requires it.
            progress: True for a progress bar (needs the extra `progress`), or a function that is
                called after each chunk with the number of rows done and the total, which is None if
                unknown.

        Raises:
            BulkOperationError: The database refused a row; `indexes` has its place in the input.
            ConstraintViolationError: The database refused a row, and which one cannot be
                determined.
            UnknownFieldError: A name that is not a column of the model.
            ValidationError: A value that its field does not accept.

        Example:
            >>> rows = ({"name": f"hero {i}", "secret_name": "?"} for i in range(1000))
            >>> await AsyncRepository(session, Hero).insert_many(rows)
            1000
        """
        return await bulk_insert_rows(
            rows,
            self.session,
            self.model,
            chunk_size=chunk_size,
            method=method,
            progress=progress,
            on_conflict=on_conflict,
        )

    async def upsert_many(
        self,
        rows: Iterable[Any],
        unique_fields: str | Sequence[str] | None = None,
        *,
        update_fields: str | Sequence[str] | None = None,
        chunk_size: int | None = None,
        progress: bool | Report | None = None,
    ) -> UpsertCounts:
        """Insert rows, and update those that already exist; return how many of each.

        Either all rows are written, or none. Hooks do not run.

        Args:
            rows: Any iterable of mappings or Pydantic objects. Of an object, only the fields that
                were set are written.
            unique_fields: The fields of the unique key by which existing rows are found. The
                default is the primary key.
            update_fields: The fields that may change in an existing row. The default is all fields
                that its row sets. With an empty list, existing rows are left alone.
            chunk_size: How many rows go into one statement. The default is as many as the database
                allows.
            progress: True for a progress bar (needs the extra `progress`), or a function that is
                called while rows are written, with the number of rows done and the total, which is
                None if unknown.

        Raises:
            ConstraintViolationError: A row breaks a constraint.
            UnknownFieldError: A name that is not a field of the model.
            ValidationError: A value of a wrong type, a row without its key, `unique_fields` that
                are not a unique key.

        Example:
            >>> rows = [{"name": "Rusty", "secret_name": "?"}, {"name": "Nova", "secret_name": "?"}]
            >>> heroes = AsyncRepository(session, Hero)
            >>> await heroes.upsert_many(rows, "name")
            UpsertCounts(created=2, updated=0)
        """
        _, counts = await bulk_upsert_mappings(
            rows,
            self.session,
            self.model,
            unique_fields,
            update_columns=update_fields,
            chunk_size=chunk_size,
            raise_on_error=True,
            progress=progress,
            return_rows=False,
        )
        return counts

    # --- queries: delegated to the query builder -------------------------------------------------

    @property
    def query(self) -> AsyncQueryBuilder[T]:
        """A query builder for all rows, for anything that has no method here."""
        return AsyncQueryBuilder(self.session, self.model)

    def where(self, /, *expressions: Criterion, **lookups: Any) -> AsyncQueryBuilder[T]:
        """Return the query for the rows that meet all of these conditions.

        Args:
            expressions: SQLAlchemy expressions on the model, such as `Hero.age > 30`.
            lookups: Filters, such as `age__gt=30` or `team__name="x"`.

        Raises:
            UnknownFieldError: A filter on an unknown field or relationship.
            ValidationError: An unknown lookup, or one that doesn't fit; a value of a wrong type.

        Example:
            >>> await AsyncRepository(session, Hero).where(age__gte=18).exists()
            False
        """
        return self.query.where(*expressions, **lookups)

    def exclude(self, /, **lookups: Any) -> AsyncQueryBuilder[T]:
        """Return the query for the rows that do not meet all of these filters.

        Args:
            lookups: Filters as for `where`.

        Raises:
            UnknownFieldError: A filter on an unknown field or relationship.
            ValidationError: An unknown lookup, or one that doesn't fit; a value of a wrong type.

        Example:
            >>> await AsyncRepository(session, Hero).exclude(name="Rusty").all()
            []
        """
        return self.query.exclude(**lookups)

    def any_of(self, /, *alternatives: Mapping[str, Any] | Criterion) -> AsyncQueryBuilder[T]:
        """Return the query for the rows that meet at least one of several alternatives.

        Args:
            alternatives: Dicts of filters, all of which a row must meet; and expressions.

        Raises:
            UnknownFieldError: A filter on an unknown field or relationship.
            ValidationError: No alternative, or an empty one; any mistake that `where` refuses.

        Example:
            >>> await AsyncRepository(session, Hero).any_of({"age": None}, {"age__lt": 18}).all()
            []
        """
        return self.query.any_of(*alternatives)

    def order_by(self, /, *terms: Any, desc: bool = False) -> AsyncQueryBuilder[T]:
        """Return the query for all rows in this order.

        Args:
            terms: Names of fields, also of related rows, such as "team__name", with "-" in front
                for descending order; and expressions.
            desc: Whether all terms of this call sort in descending order.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A relationship, or a path through one that may have several rows.

        Example:
            >>> await AsyncRepository(session, Hero).order_by("-age", "name").first() is None
            True
        """
        return self.query.order_by(*terms, desc=desc)

    def selectin(self, /, *names: str, include_deleted: bool = False) -> AsyncQueryBuilder[T]:
        """Return the query for all rows that loads these relationships, each with one more query.

        Args:
            names: Names of relationships, nested ones as "team.city" or "team__city".
            include_deleted: Whether these relationships load soft-deleted rows too; of a nested
                one, only the last does.

        Raises:
            UnknownFieldError: A name that is not a relationship.

        Example:
            >>> await AsyncRepository(session, Hero).selectin("team", "tags").all()
            []
        """
        return self.query.selectin(*names, include_deleted=include_deleted)

    def joined(self, /, *names: str, include_deleted: bool = False) -> AsyncQueryBuilder[T]:
        """Return the query for all rows that loads these relationships in the same query.

        Args:
            names: Names of relationships, nested ones as "team.city" or "team__city".
            include_deleted: Whether these relationships load soft-deleted rows too; of a nested
                one, only the last does.

        Raises:
            UnknownFieldError: A name that is not a relationship.

        Example:
            >>> await AsyncRepository(session, Hero).joined("team").where(age__gte=18).all()
            []
        """
        return self.query.joined(*names, include_deleted=include_deleted)

    def with_deleted(self) -> AsyncQueryBuilder[T]:
        """Return the query for all rows, including soft-deleted ones.

        Example:
            >>> await AsyncRepository(session, Letter).with_deleted().count()
            0
        """
        return self.query.with_deleted()

    def only_deleted(self) -> AsyncQueryBuilder[T]:
        """Return the query for the soft-deleted rows.

        Raises:
            ValidationError: A model without `SoftDeleteMixin`.

        Example:
            >>> await AsyncRepository(session, Letter).only_deleted().count()
            0
        """
        return self.query.only_deleted()

    async def all(self) -> list[T]:
        """Return all rows.

        Example:
            >>> await AsyncRepository(session, Hero).all()
            []
        """
        return await self.query.all()

    async def count(self) -> int:
        """Return how many rows there are.

        Example:
            >>> await AsyncRepository(session, Hero).count()
            0
        """
        return await self.query.count()

    async def paginate(self, page: int = 1, size: int = 50, *, max_size: int = 1_000) -> Page[T]:
        """Return one page of the rows, and the total number of rows.

        Args:
            page: The number of the page, from 1. A page past the end is empty.
            size: The number of rows per page.
            max_size: The largest size that is allowed.

        Raises:
            ValidationError: A page or size below 1, a size beyond `max_size`.

        Example:
            >>> (await AsyncRepository(session, Hero).paginate()).total
            0
        """
        return await self.query.paginate(page, size, max_size=max_size)

    async def keyset(
        self, size: int, after: str | None = None, *, max_size: int = 1_000
    ) -> CursorPage[T]:
        """Return the rows after a cursor, and the cursor for the next page.

        Args:
            size: How many rows the page has.
            after: The `next_cursor` of the page before. Without it, the first page is returned.
            max_size: The largest size that is allowed.

        Raises:
            ValidationError: A size below 1 or beyond `max_size`; a damaged cursor.

        Example:
            >>> (await AsyncRepository(session, Hero).keyset(50)).next_cursor is None
            True
        """
        return await self.query.keyset(size, after, max_size=max_size)

    # --- execution -------------------------------------------------------------------------------

    def _matching(
        self, method: str, unique: Mapping[str, Any], *, include_deleted: bool
    ) -> AsyncQueryBuilder[T]:
        _require(method, unique)
        query = self.query.with_deleted() if include_deleted else self.query
        return query.where(**unique)


def _only(method: str, key: Sequence[Any], unique: Mapping[str, Any]) -> Any:
    if len(key) > 1 or unique:
        raise ValidationError(
            f"{method}() takes one key (a tuple for a composite one), or filters without a key",
            field="key",
        )
    return key[0]


def _require(method: str, unique: Mapping[str, Any]) -> None:
    if not unique:
        raise ValidationError(f"{method}() needs something to search for", field="unique")
