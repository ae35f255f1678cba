"""An immutable description of a query, without a session; it builds the SELECT statements."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Dialect,
    Select,
    bindparam,
    func,
    select,
)
from sqlalchemy.orm import load_only
from sqlalchemy.sql.base import ExecutableOption

from sqlmodel_crud_utils._core.cached_reads import Caching, Form, Question, ways_of
from sqlmodel_crud_utils._core.filters.json import compared
from sqlmodel_crud_utils._core.memoizing import Store
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility, here
from sqlmodel_crud_utils._core.queries.conditions import Condition
from sqlmodel_crud_utils._core.queries.keys import among_keys
from sqlmodel_crud_utils._core.queries.loading import Loading
from sqlmodel_crud_utils._core.queries.ordering import Term, key_terms, sorted_by
from sqlmodel_crud_utils._core.sqlalchemy_internals import strategies_in
from sqlmodel_crud_utils._core.visibility.hiding import hide, hide_anywhere, of_caller
from sqlmodel_crud_utils._core.visibility.soft_delete import deleted
from sqlmodel_crud_utils.exceptions import ValidationError

Prepared = tuple[Select[Any], dict[str, Any] | None]
"""A SELECT, and the parameters to run it with."""


class Lock(NamedTuple):
    """How a query locks the rows it returns."""

    nowait: bool = False
    skip_locked: bool = False


class Query(NamedTuple):
    """The parts of a query.

    Attributes:
        model: The model of the rows.
        dialect: The dialect of the database that is asked.
        conditions: What the rows must be.
        lookups: The filters among the conditions, to be named in an error.
        order: What the rows are sorted by.
        size: How many rows there may be at most.
        start: How many rows are left out first.
        distinct: Whether equal results are given once.
        loading: How related rows are loaded, relationship by relationship.
        options: Other options for SQLAlchemy.
        fields: The fields that are loaded; none means all.
        values: The fields that are returned instead of rows; none means rows.
        asked: Which rows are visible, including related ones, as the caller says.
        only_deleted: Whether they must be soft-deleted.
        lock: How the rows are locked.
        caching: Whether it may be answered from the cache.
    """

    model: type[Any]
    dialect: Dialect
    conditions: tuple[Condition, ...] = ()
    lookups: Mapping[str, Any] = MappingProxyType({})
    order: tuple[Term, ...] = ()
    size: Any = None
    start: Any = None
    distinct: bool = False
    loading: Loading = Loading()
    options: tuple[ExecutableOption, ...] = ()
    fields: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    asked: Visibility = USUAL
    only_deleted: bool = False
    lock: Lock | None = None
    caching: Caching | None = None

    @property
    def visibility(self) -> Visibility:
        """Which rows the query can see if it runs now."""
        return here(self.asked)

    @property
    def loads_related(self) -> bool:
        """Whether the query may load related rows."""
        return bool(self.loading.ways or self.options)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The sort terms of the rows, completed by the primary key."""
        return key_terms(self.model, self.order)

    def prepared(self, kind: Hashable, build: Callable[[Query], Select[Any]]) -> Prepared:
        """Return one of the query's SELECTs, and the parameters to run it with.

        It is built once for all queries that differ only in values, if the values can be separated:
        building it, and looking it up in SQLAlchemy's cache, takes most of the time.

        Args:
            kind: A key for the function and for whatever it depends on beside the query.
            build: Makes the SELECT; called with this query, or with one that has parameters in
                place of values.
        """
        shapes = tuple(condition.template for condition in self.conditions)
        order = self.order_key()
        if None in shapes or self.options or order is None:
            return build(self), None
        key = (
            kind,
            self.model,
            self.dialect.name,
            shapes,
            order,
            self.size is None,
            self.start is None,
            self.distinct,
            self.loading.key,
            self.fields,
            self.values,
            self.visibility,
            self.only_deleted,
            self.lock,
        )
        return _templates.get(key, lambda: build(self._with_parameters())), self._parameters()

    def question(self, prepared: Prepared, form: Form = "rows") -> Question | None:
        """Return the question of a SELECT to the cache, or None if only the database may answer."""
        if self.lock is not None or self.options or self.loading.fields:
            return None
        return Question(
            self.model,
            *prepared,
            loading=ways_of(self.loading.ways),
            visibility=self.visibility,
            ttl=None if self.caching is None else self.caching.ttl,
            form=form,
        )

    def _with_parameters(self) -> Query:
        conditions = tuple(
            condition.template.condition(self.model, self.dialect, f"where_{number}")
            for number, condition in enumerate(self.conditions)
            if condition.template is not None
        )
        return self._replace(
            conditions=conditions,
            lookups={},
            size=None if self.size is None else number_parameter("size"),
            start=None if self.start is None else number_parameter("start"),
        )

    def _parameters(self) -> dict[str, Any]:
        found = {
            f"where_{number}_{place}": value
            for number, condition in enumerate(self.conditions)
            for place, value in enumerate(condition.values)
        }
        if self.size is not None:
            found["size"] = self.size
        if self.start is not None:
            found["start"] = self.start
        return found

    def results(self, *more: ColumnElement[Any]) -> Select[Any]:
        """Return the SELECT of the values or the rows, with additional columns."""
        return self.columns(*more) if self.values else self.rows(*more)

    def rows(self, *more: ColumnElement[Any]) -> Select[Any]:
        """Return the SELECT of the rows, with additional columns if any are given."""
        # Each row has its own key, so DISTINCT would have no effect.
        statement = self._limited(self._sorted(self._from(select(self.model, *more)), self.terms))
        options = [*self.loading.options(self.visibility), *self.options]
        if self.fields:
            options.append(load_only(*(getattr(self.model, name) for name in self.fields)))
        if options:
            statement = statement.options(*options)
        if self.options:
            statement = of_caller(statement)
        if self.lock is not None:
            # Locked rows replace what the session holds of them.
            statement = statement.with_for_update(
                nowait=self.lock.nowait, skip_locked=self.lock.skip_locked, of=self.model
            ).execution_options(populate_existing=True)
        return statement

    def rows_with_total(self) -> Select[Any]:
        """Return the SELECT of the rows, each with the total number of matching rows."""
        total = self.total().correlate(None).scalar_subquery()
        return self.rows(total.label("total"))

    def rows_with_keys(self, keys: Sequence[tuple[Any, ...]]) -> Select[Any]:
        """Return the SELECT of the complete rows with these keys, and their related rows.

        The query's other conditions, its order and its limits are ignored.
        """
        plain = Query(
            self.model,
            self.dialect,
            loading=self.loading,
            options=self.options,
            asked=self.asked,
            only_deleted=self.only_deleted,
        )
        names = facts_of(self.model).key
        return plain.rows().where(among_keys(self.model, names, keys, self.dialect))

    def columns(self, *more: ColumnElement[Any]) -> Select[Any]:
        """Return the SELECT of the values, with additional columns if any are given.

        Raises:
            ValidationError: Distinct results are sorted by something that is not part of them.
        """
        if self.distinct:
            self._check_sorted()
        columns = [getattr(self.model, name) for name in self.values]
        if self.distinct:
            columns = [compared(column).label(column.key) for column in columns]
        statement = self._from(_select(*columns, *more))
        terms = self.order if self.distinct else self.terms
        statement = self._limited(self._sorted(statement, terms))
        return statement.distinct() if self.distinct else statement

    def total(self) -> Select[Any]:
        """Return the SELECT of the number of matching rows."""
        return self.aggregate(func.count())

    def aggregate(self, *functions: ColumnElement[Any]) -> Select[Any]:
        """Return the SELECT of aggregates over all matching rows."""
        return self._from(_select(*functions).select_from(self.model))

    def first_key(self) -> Select[Any]:
        """Return a SELECT that has a result if any row matches."""
        return self.keys().limit(1)

    def keys(self) -> Select[Any]:
        """Return the SELECT of the keys of all matching rows."""
        return self._from(_select(*facts_of(self.model).key_attributes))

    def criteria(self, *, foreign: bool) -> list[ColumnElement[bool]]:
        """Return the conditions as SQL: either the caller's own expressions, or the filters."""
        return [
            condition.build(self.visibility)
            for condition in self.conditions
            if condition.foreign == foreign
        ]

    def order_key(self) -> tuple[Hashable, ...] | None:
        """Return a key of the order, or None if it sorts by more than fields."""
        if not all(term.name for term in self.order):
            return None
        return tuple((term.name, term.descending, term.nulls_first) for term in self.order)

    def _check_sorted(self) -> None:
        for term in self.order:
            if term.name not in self.values:
                raise ValidationError(
                    "distinct results can only be sorted by their own values "
                    f"({', '.join(self.values)}), not by {term.name or 'an expression'}",
                    field="order_by",
                )

    def _from(self, statement: Select[Any]) -> Select[Any]:
        """Add the conditions that select the matching rows."""
        foreign = self.criteria(foreign=True)
        statement = statement.where(*foreign)
        leave_out = hide_anywhere if foreign else hide
        statement = leave_out(statement, self.visibility, self.model)
        if self.only_deleted:
            statement = statement.where(deleted(self.model))
        return statement.where(*self.criteria(foreign=False))

    def _sorted(self, statement: Select[Any], terms: tuple[Term, ...]) -> Select[Any]:
        return sorted_by(statement, terms, self.dialect, self.visibility)

    def _limited(self, statement: Select[Any]) -> Select[Any]:
        if self.size is not None:
            statement = statement.limit(self.size)
        return statement if self.start is None else statement.offset(self.start)


def loads_with_queries(query: Query) -> bool:
    """Return whether loading the rows may take more queries."""
    facts = facts_of(query.model)
    by_mapping = facts.loads_eagerly or facts.loads_subclasses
    return by_mapping or query.loading.selects or bool(query.options)


def loads_all_at_once(query: Query) -> bool:
    """Return whether the mapping or options load related rows in a way that a cursor cannot.

    SQLAlchemy needs all rows of the query for it, and refuses to read them in batches.
    """
    ways = query.loading.ways
    otherwise = {path[0].key for path, way in ways.items() if way != "joined"}
    return bool(facts_of(query.model).loaded_at_once - otherwise) or any(
        way == "subquery" or (way == "joined" and any(each.uselist for each in related))
        for way, related in strategies_in(query.options)
    )


def number_parameter(name: str) -> BindParameter[int]:
    """Return a parameter for a limit or an offset."""
    # SQLAlchemy's own ones are 32 bits wide, which is too small for distant pages.
    return bindparam(name, type_=BigInteger())


_templates: Store[Hashable, Select[Any]] = Store()


def _select(*columns: Any) -> Select[Any]:
    # Type checkers count the columns of a SELECT, up to a limit.
    statement: Any = select(*columns)
    found: Select[Any] = statement
    return found
