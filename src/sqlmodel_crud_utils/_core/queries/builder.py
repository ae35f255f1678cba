"""The half of the query builder that composes queries; the other half runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import ColumnExpressionArgument, Dialect, Select
from sqlalchemy.sql.base import ExecutableOption

from sqlmodel_crud_utils._core.cached_reads import Caching, check_ttl
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries import conditions, ordering
from sqlmodel_crud_utils._core.queries.keyset import check_sortable
from sqlmodel_crud_utils._core.queries.loading import Strategy, field_path, relationship_paths
from sqlmodel_crud_utils._core.queries.query import (
    Lock,
    Query,
    loads_with_queries,
)
from sqlmodel_crud_utils._core.visibility.soft_delete import WITH_DELETED, is_soft_delete
from sqlmodel_crud_utils.exceptions import ValidationError

T = TypeVar("T")

_LARGEST = 2**63 - 1

Criterion = ColumnExpressionArgument[bool] | bool
"""An expression such as `Hero.age > 30`; type checkers take it for a bool."""


class QueryShape(Generic[T]):
    """The part of the query builder that needs no I/O, shared by both APIs."""

    _query: Query

    def __init__(self, session: Any, model: type[T], dialect: Dialect) -> None:
        self._session = session
        self._query = Query(model, dialect)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._query.model.__name__}>"

    def where(self, /, *expressions: Criterion, **lookups: Any) -> Self:
        """Keep the rows that meet all of these conditions, in addition to earlier ones.

        Args:
            expressions: SQLAlchemy expressions on the model, such as `Hero.age > 30`.
            lookups: Filters, such as `age__gt=30` or `team__name="x"`.

        Raises:
            UnknownFieldError: A filter on an unknown field or relationship.
            ValidationError: An unknown lookup, or one that doesn't fit; a value of a wrong type;
                something that is not an expression on the model.

        Example:
            >>> older = QueryBuilder(session, Hero).where(Hero.age > 30, team__name="Owls")
        """
        found = [conditions.meets(self._query.model, each) for each in expressions]
        if lookups:
            found.append(conditions.matches(self._query.model, lookups, self._query.dialect))
        return self._with(
            conditions=(*self._query.conditions, *found),
            lookups={**self._query.lookups, **lookups},
        )

    def exclude(self, /, **lookups: Any) -> Self:
        """Leave out the rows that meet all of these filters.

        A row whose value is NULL does not meet a filter, so it stays: `exclude(team__name="x")`
        keeps rows without a team.

        Args:
            lookups: Filters as for `where`. Without any, nothing is left out.

        Raises:
            UnknownFieldError: A filter on an unknown field or relationship.
            ValidationError: An unknown lookup, or one that doesn't fit; a value of a wrong type.

        Example:
            >>> others = QueryBuilder(session, Hero).exclude(name="Rusty")
        """
        if not lookups:
            return self
        found = conditions.differs(self._query.model, lookups, self._query.dialect)
        return self._with(conditions=(*self._query.conditions, found))

    def any_of(self, /, *alternatives: Mapping[str, Any] | Criterion) -> Self:
        """Keep the rows that meet at least one of several alternatives.

        Args:
            alternatives: Dicts of filters, all of which a row must meet; and expressions.

        Raises:
            UnknownFieldError: A filter on an unknown field or relationship.
            ValidationError: No alternative, or an empty one; any mistake that `where` refuses.

        Example:
            >>> some = QueryBuilder(session, Hero).any_of(
            ...     {"age": None}, {"age__lt": 18}, Hero.id == 1
            ... )
        """
        found = conditions.any_of(self._query.model, alternatives, self._query.dialect)
        return self._with(conditions=(*self._query.conditions, found))

    def order_by(self, /, *terms: Any, desc: bool = False) -> Self:
        """Sort the rows; later calls add criteria that break ties.

        NULLs come last, on every database and in both directions, except for an expression with
        `nulls_first()`. The primary key breaks the last ties. To sort by fields of related rows,
        these are joined; a related row that is missing or soft-deleted counts as NULL.

        Args:
            terms: Names of fields, also of related rows, such as "team__name", with "-" in front
                for descending order; and expressions.
            desc: Whether all terms of this call sort in descending order.

        Raises:
            UnknownFieldError: A name that is not a field.
            ValidationError: A relationship, or a path through one that may have several rows; "-"
                and `desc` together; something that is neither a name nor an expression.

        Example:
            >>> oldest_first = QueryBuilder(session, Hero).order_by("-age", "team__name")
        """
        found = [ordering.term_of(self._query.model, term, desc=desc) for term in terms]
        return self._with(order=(*self._query.order, *found))

    def limit(self, count: int) -> Self:
        """Return this many rows at most.

        Args:
            count: The number of rows, 0 or more.

        Raises:
            ValidationError: A number below 0.

        Example:
            >>> ten = QueryBuilder(session, Hero).limit(10)
        """
        return self._with(size=whole("limit", count))

    def offset(self, count: int) -> Self:
        """Skip this many rows at the beginning.

        Args:
            count: The number of rows, 0 or more.

        Raises:
            ValidationError: A number below 0.

        Example:
            >>> later = QueryBuilder(session, Hero).order_by("name").offset(10)
        """
        return self._with(start=whole("offset", count))

    def distinct(self) -> Self:
        """Return equal results once.

        It matters for `values` and `scalars` only, as no two rows are equal.

        Example:
            >>> ages = QueryBuilder(session, Hero).distinct()
        """
        return self._with(distinct=True)

    def selectin(self, /, *names: str, include_deleted: bool = False) -> Self:
        """Load relationships with the rows, each with one more query.

        Args:
            names: Names of relationships, nested ones as "team.city" or "team__city".
            include_deleted: Whether these relationships load soft-deleted rows too; of a nested
                one, only the last does.

        Raises:
            UnknownFieldError: A name that is not a relationship.

        Example:
            >>> with_teams = QueryBuilder(session, Hero).selectin("team", "team__heroes")
        """
        return self._loading("selectin", names, include_deleted=include_deleted)

    def joined(self, /, *names: str, include_deleted: bool = False) -> Self:
        """Load relationships with the rows, in the same query.

        Each row is returned once, and `limit` counts rows, even where a relationship has many.

        Args:
            names: Names of relationships, nested ones as "team.city" or "team__city".
            include_deleted: Whether these relationships load soft-deleted rows too; of a nested
                one, only the last does. That relationship is then loaded with one more query.

        Raises:
            UnknownFieldError: A name that is not a relationship.

        Example:
            >>> with_teams = QueryBuilder(session, Hero).joined("team")
        """
        return self._loading("joined", names, include_deleted=include_deleted)

    def load_only(self, /, *names: str) -> Self:
        """Load only these fields of the rows, and their key; the other fields cannot be read.

        A field of a related row, such as "team__name", loads that row too, with `selectin` unless
        you call `joined`, and its other fields cannot be read.

        Args:
            names: Names of fields.

        Raises:
            UnknownFieldError: A name that is not a field.

        Example:
            >>> names = QueryBuilder(session, Hero).load_only("name")
        """
        fields, loading = dict.fromkeys(self._query.fields), self._query.loading
        for name in names:
            path, field = field_path(self._query.model, name)
            if path:
                loading = loading.only(path, field)
            else:
                fields[field] = None
        return self._with(fields=tuple(fields), loading=loading)

    def with_deleted(self) -> Self:
        """Include soft-deleted rows, also related ones.

        Example:
            >>> all_letters = QueryBuilder(session, Letter).with_deleted()
        """
        return self._with(asked=WITH_DELETED, only_deleted=False)

    def only_deleted(self) -> Self:
        """Keep only soft-deleted rows; related rows are included whether deleted or not.

        Raises:
            ValidationError: A model without `SoftDeleteMixin`.

        Example:
            >>> deleted = QueryBuilder(session, Letter).only_deleted()
        """
        model = self._query.model
        if not is_soft_delete(facts_of(model)):
            raise ValidationError(
                f"rows of {model.__name__} cannot be soft-deleted; inherit SoftDeleteMixin",
                field="only_deleted",
            )
        return self._with(asked=WITH_DELETED, only_deleted=True)

    def cached(self, ttl: float | None = None) -> Self:
        """Let the answer come from the cache that `ext.cache.configure_cache` sets up.

        This applies to rows, values, counts and pages. With `for_update()` or `options()`, and for
        `stream()`, the database answers. Do not change cached rows: a flush refuses the changes.

        Args:
            ttl: For how many seconds the answer may be kept. The default is the configured time.

        Raises:
            ValidationError: A number of seconds that is not above 0.

        Example:
            >>> grown = QueryBuilder(session, Hero).where(age__gte=18).cached(ttl=30)
        """
        return self._with(caching=Caching(None if ttl is None else check_ttl(ttl)))

    def for_update(self, *, nowait: bool = False, skip_locked: bool = False) -> Self:
        """Lock the rows until the transaction ends, and read them as they are now.

        SQLite has no row locks and does not need them: a `transaction()` block is the only writer.

        Args:
            nowait: Whether a row that another transaction has locked raises an error at once.
            skip_locked: Whether a row that another transaction has locked is left out.

        Raises:
            ValidationError: Both flags together.

        Example:
            >>> waiting = QueryBuilder(session, Hero).where(age=None).for_update(skip_locked=True)
        """
        if nowait and skip_locked:
            raise ValidationError(
                "for_update() takes nowait or skip_locked, not both", field="for_update"
            )
        return self._with(lock=Lock(nowait, skip_locked))

    def options(self, /, *options: ExecutableOption) -> Self:
        """Add SQLAlchemy options, such as `defer(Hero.age)`.

        Args:
            options: Anything that SQLAlchemy's `Select.options` accepts.

        Raises:
            ValidationError: Something that is not an option.

        Example:
            >>> from sqlalchemy.orm import defer
            >>> lean = QueryBuilder(session, Hero).options(defer(Hero.age))
        """
        for option in options:
            if not isinstance(option, ExecutableOption):
                raise ValidationError(
                    f"options are SQLAlchemy's, such as selectinload(...), "
                    f"not {type(option).__name__}",
                    field="options",
                )
        return self._with(options=(*self._query.options, *options))

    def statement(self) -> Select[Any]:
        """Return the SELECT of the rows.

        Example:
            >>> statement = QueryBuilder(session, Hero).where(age=30).statement()
        """
        return self._query.rows()

    def sql(self) -> str:
        """Return the SQL of the query in readable form, with each parameter on a line of its own.

        Example:
            >>> print(QueryBuilder(session, Hero).where(name="Ann").sql().splitlines()[-1])
            -- name_1 = 'Ann'
        """
        return readable(self._query.rows(), self._query.dialect)

    def _with(self, **changes: Any) -> Self:
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__, _query=self._query._replace(**changes))
        return changed

    def _loading(self, way: Strategy, names: tuple[str, ...], *, include_deleted: bool) -> Self:
        paths = relationship_paths(self._query.model, names, way)
        loading = self._query.loading.adding(way, paths)
        if include_deleted:
            loading = loading.revealing(paths)
        return self._with(loading=loading)

    def _of_values(self, fields: tuple[str, ...]) -> Query:
        """Return the query of these fields' values, of all fields if none is given."""
        names = tuple(dict.fromkeys(self._fields(fields)))
        return self._query._replace(values=names or tuple(facts_of(self._query.model).columns))

    def _fields(self, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            facts_of(self._query.model).attribute(name)
        return names


def query_of(builder: QueryShape[Any]) -> Query:
    """Return a builder's query."""
    return builder._query


def session_of(builder: QueryShape[Any]) -> Any:
    """Return the session that a builder queries with."""
    return builder._session


def whole(name: str, value: Any, *, least: int = 0, most: int | None = None) -> int:
    """Return a whole number as it is; anything else is a `ValidationError`.

    Args:
        name: The parameter that it is for.
        value: What the caller gave.
        least: The lowest that it may be.
        most: The highest that it may be; left out, the highest that databases count to.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValidationError(
            f"{name} must be a whole number of {least} or more", field=name, value=value
        )
    if value > (_LARGEST if most is None else most):
        limit = "what a database can count" if most is None else f"{most}, the max_size"
        raise ValidationError(f"{name} is beyond {limit}", field=name, value=value)
    return value


def require_unlimited(query: Query, method: str) -> None:
    """Refuse a limit or an offset where they would have no meaning."""
    if query.size is not None or query.start is not None:
        raise ValidationError(
            f"{method}() cannot be combined with limit() or offset(); leave them out",
            field="limit" if query.start is None else "offset",
        )


def check_streamable(query: Query) -> None:
    """Refuse related rows that cannot be loaded for one batch at a time."""
    if query.loading.joins_many:
        raise ValidationError(
            "rows cannot be streamed where joined() repeats them; "
            "load a to-many relationship with selectin() instead",
            field="joined",
        )
    if features_of(query.dialect).one_result_at_a_time and loads_with_queries(query):
        check_sortable(query.terms, "stream")


def check_streamable_values(query: Query) -> None:
    """Refuse a query that cannot be read in batches."""
    if query.distinct:
        raise ValidationError(
            "stream_values() cannot be combined with distinct(); read them with values()",
            field="distinct",
        )


def readable(statement: Select[Any], dialect: Dialect) -> str:
    """Return the SQL of a statement, and below it a line for each of its parameters.

    Example:
        >>> from sqlalchemy.dialects import sqlite
        >>> print(readable(select(Team.id).where(Team.city == "Oslo"), sqlite.dialect()))
        SELECT team.id
        FROM team
        WHERE team.city = ?
        -- city_1 = 'Oslo'
    """
    compiled: Any = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    parameters = compiled.construct_params(escape_names=False)
    names = compiled.positiontup if compiled.positional else list(parameters)
    lines = [line.rstrip() for line in str(compiled).splitlines()]
    shown = (f"{name} = {parameters[name]!r}".replace("\n", " ") for name in names)
    return "\n".join([*filter(None, lines), *(f"-- {line}" for line in shown)])
