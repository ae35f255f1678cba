"""Keyset pagination: the criterion for the rows that come after the last one of a page.

The criterion compares the row's sort values exactly as the driver returned them, without the
column's type, so they still mean the same row later. The database compares them, with the collation
that it sorts by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    BindParameter,
    ColumnElement,
    Dialect,
    Select,
    and_,
    bindparam,
    false,
    or_,
    tuple_,
    type_coerce,
)
from sqlalchemy.types import NullType

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.queries.ordering import Term, sortable
from sqlmodel_crud_utils._core.queries.query import Prepared, Query
from sqlmodel_crud_utils.exceptions import ValidationError


def key_columns(terms: Sequence[Term], dialect: Dialect) -> list[ColumnElement[Any]]:
    """Return the columns that a page selects besides the rows: their sort values."""
    return [_bare(term, dialect).label(f"sort_key_{i}") for i, term in enumerate(terms)]


def rows_from(query: Query, values: Sequence[Any] | None) -> Select[Any]:
    """Return the SELECT of the rows that follow after the one with these values.

    Beside each row it has the values that rows are sorted by. Without values it begins where the
    query does.
    """
    terms, dialect = query.terms, query.dialect
    if values is None:
        return query.results(*key_columns(terms, dialect))
    rest = query._replace(start=None).results(*key_columns(terms, dialect))
    return rest.where(rows_after(terms, values, dialect))


def prepared_from(query: Query, values: Sequence[Any] | None) -> Prepared:
    """Return `rows_from` with the parameters to run it with."""
    if values is None:
        return query.prepared("first page", lambda each: rows_from(each, None))
    given = {f"after_{i}": value for i, value in enumerate(values) if value is not None}
    bound = [
        None if value is None else bindparam(f"after_{i}", type_=NullType())
        for i, value in enumerate(values)
    ]
    kind = ("page", tuple(given))
    statement, parameters = query.prepared(kind, lambda each: rows_from(each, bound))
    return statement, {**(parameters or {}), **given}


def rows_after(
    terms: Sequence[Term], values: Sequence[Any], dialect: Dialect
) -> ColumnElement[bool]:
    """Return the criterion for the rows that come after the one with these values.

    It is `a > 1 OR (a = 1 AND (b > 2 OR (b = 2 AND …)))`, with the directions and the place of
    the NULLs of each term; or `(a, b) > (1, 2)` where that says the same, as an index leads to
    the very row then, however many are equal in the first term.
    """
    if _compares_as_row(terms, dialect):
        row = tuple_(*(_bare(term, dialect) for term in terms))
        bounds = tuple_(*map(_bound, values))
        return row < bounds if terms[0].descending else row > bounds
    *earlier, (last, value) = zip(terms, values, strict=True)
    found = _after(last, value, dialect)
    for term, value in reversed(earlier):
        found = or_(_after(term, value, dialect), and_(_equal(term, value, dialect), found))
    first, value = terms[0], values[0]
    if earlier and not first.nullable:
        # Redundant, but databases can look it up in an index.
        column, bound = _bare(first, dialect), _bound(value)
        found = and_(column <= bound if first.descending else column >= bound, found)
    return found


def _compares_as_row(terms: Sequence[Term], dialect: Dialect) -> bool:
    directions = {term.descending for term in terms}
    without_nulls = not any(term.nullable for term in terms)
    # MySQL does not use an index for that.
    return (
        len(terms) > 1
        and len(directions) == 1
        and without_nulls
        and features_of(dialect).seeks_rows
    )


def _after(term: Term, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    if value is None:
        return term.expression.is_not(None) if term.nulls_first else false()
    column, bound = _bare(term, dialect), _bound(value)
    after: ColumnElement[bool] = column < bound if term.descending else column > bound
    if term.nullable and not term.nulls_first:
        after = or_(after, term.expression.is_(None))
    return after


def _equal(term: Term, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    if value is None:
        return term.expression.is_(None)
    return _bare(term, dialect) == _bound(value)


def _bare(term: Term, dialect: Dialect) -> ColumnElement[Any]:
    return type_coerce(sortable(term.expression, dialect), NullType())


def _bound(value: Any) -> ColumnElement[Any]:
    if isinstance(value, BindParameter):
        return value
    return bindparam(None, value, type_=NullType(), unique=True)


def check_sortable(terms: Sequence[Term], method: str) -> None:
    """Refuse an order by values that databases have no comparison for."""
    for term in terms:
        if isinstance(term.expression.type, JSON):
            raise ValidationError(
                f"{method}() can't continue after a JSON value; sort by a field other than "
                f"{term.name or 'this one'}",
                field="order_by",
            )
