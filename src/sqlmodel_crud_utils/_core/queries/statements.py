"""The SELECT statements of the reads: by key, filtered, sorted, in pages."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Dialect,
    Executable,
    Select,
    TextClause,
    bindparam,
    inspect,
    select,
)
from sqlalchemy.orm import FromStatement, InstrumentedAttribute
from sqlalchemy.sql.base import ExecutableOption

from sqlmodel_crud_utils._core.caching import Store, cached
from sqlmodel_crud_utils._core.filters.paths import compared_values, where_clauses, with_parameters
from sqlmodel_crud_utils._core.models.mapping import column_attribute, primary_key_names
from sqlmodel_crud_utils._core.visibility.hiding import hide_deleted, hide_deleted_anywhere
from sqlmodel_crud_utils.exceptions import ValidationError


class DefaultInt(int):
    """A default that can be told from the same number passed by the caller."""


_LARGEST_OFFSET = 2**63 - 1

DEFAULT_PAGE = DefaultInt(1)
DEFAULT_PAGE_SIZE = DefaultInt(100)


# --- by key --------------------------------------------------------------------------------------


# --- filtered ------------------------------------------------------------------------------------


def everything(model: type[Any], stmnt: Any, *, include_deleted: bool) -> Executable:
    """Return the SELECT that a list starts from: the caller's own, or that of all rows."""
    if stmnt is None:
        return _all_rows(model, include_deleted)
    statement = require_select(stmnt)
    return statement if include_deleted else hide_deleted_anywhere(statement, model)


@cached
def _all_rows(model: type[Any], include_deleted: bool) -> Select[Any]:
    statement = select(model)
    return statement if include_deleted else hide_deleted(statement, model)


def equal_to(model: type[Any], values: Mapping[str, Any]) -> Select[Any]:
    """Return the SELECT of the rows that have these values in their fields and relationships."""
    criteria = [getattr(model, name) == value for name, value in values.items()]
    return _all_rows(model, True).where(*criteria)


Prepared = tuple[Executable, dict[str, Any]]
"""A statement that was made before, and the parameters to run it with."""


def listed(
    model: type[Any],
    filters: Mapping[str, Any],
    sort: tuple[str | None, bool],
    page: tuple[int, int],
    dialect: Dialect,
    *,
    include_deleted: bool,
) -> Prepared | None:
    """Return the SELECT of one page of the rows that match all filters, where these compare only.

    It is made once for all values: to make it takes longer than to run it.

    Args:
        model: The table model.
        filters: The filters.
        sort: The field to sort by, and whether the other way round.
        page: The number of the page and its size.
        dialect: The dialect of the database that runs it.
        include_deleted: Whether soft-deleted rows count.
    """
    values = compared_values(model, filters)
    if values is None:
        return None

    def build() -> Executable:
        parameters = with_parameters(model, filters, "where")
        clauses = where_clauses(model, parameters, dialect, include_deleted=include_deleted)
        terms = sort_terms(model, *sort)
        statement = _all_rows(model, include_deleted).where(*clauses).order_by(*terms)
        statement = statement.order_by(*_key_terms(statement))
        return statement.limit(number_parameter("size")).offset(number_parameter("start"))

    key = (model, tuple(filters), sort, dialect.name, include_deleted)
    number, size = page
    pages = {"size": int(size), "start": (number - 1) * size}
    return _listed.get(key, build), pages | _parameters(values)


def first_equal(
    model: type[Any], values: Mapping[str, Any], *, include_deleted: bool
) -> tuple[Select[Any], dict[str, Any]]:
    """Return the SELECT of a row that has these values, and its parameters.

    Where all of them are plainly compared, it is made once for all values.
    """
    compared = compared_values(model, values)
    if compared is None:
        return _first_equal(model, values, include_deleted), {}

    def build() -> Select[Any]:
        return _first_equal(model, with_parameters(model, values, "where"), include_deleted)

    key = (model, tuple(values), include_deleted)
    return _firsts.get(key, build), _parameters(compared)


def _first_equal(model: type[Any], values: Mapping[str, Any], include_deleted: bool) -> Select[Any]:
    statement = equal_to(model, values).limit(1)
    return statement if include_deleted else hide_deleted(statement, model)


def _parameters(values: Sequence[Any]) -> dict[str, Any]:
    return {f"where_{place}": value for place, value in enumerate(values)}


def number_parameter(name: str) -> BindParameter[int]:
    """Return a parameter for a limit or an offset."""
    # SQLAlchemy's own ones are 32 bits wide, and a page may be far behind.
    return bindparam(name, type_=BigInteger())


_listed: Store[Hashable, Executable] = Store()
_firsts: Store[Hashable, Select[Any]] = Store()


def refined(
    statement: Executable,
    clauses: Sequence[ColumnElement[bool]],
    terms: Sequence[ColumnElement[Any]],
    options: Sequence[ExecutableOption],
) -> Executable:
    """Add criteria, sort terms and loader options to a caller's statement."""
    if not (clauses or terms or options):
        return statement
    if not isinstance(statement, Select):
        raise ValidationError(
            f"filters, sorting and loading need a select(), not {type(statement).__name__}",
            field="stmnt",
        )
    return statement.where(*clauses).order_by(*terms).options(*options)


def require_select(statement: Any, parameter: str = "stmnt") -> Executable:
    """Refuse what returns no rows, or is no statement."""
    if not getattr(statement, "is_select", False):
        raise ValidationError(
            f"{parameter} must be a select(), not {type(statement).__name__}", field=parameter
        )
    found: Executable = statement
    return found


def require_query(query: Any) -> Executable:
    """Refuse what is neither a `select()` nor SQL of the caller's own."""
    return (
        query if isinstance(query, TextClause | FromStatement) else require_select(query, "query")
    )


def text_match(
    model: type[Any], text_field: str | None, filters: dict[str, Any], dialect: Dialect
) -> list[ColumnElement[bool]]:
    """Take the words for `text_field` out of the filters and return the criterion for them.

    That is full-text search on PostgreSQL, and a search that ignores case elsewhere. As in
    v0.1.0, nothing is searched where no words are given.
    """
    if text_field is None:
        return []
    attribute = column_attribute(model, text_field)
    if text_field not in filters:
        return []
    words = filters.pop(text_field)
    if not isinstance(words, str):
        raise ValidationError(
            f"text_field={text_field!r} needs the words to search for as {text_field}=…",
            field=text_field,
        )
    if dialect.name == "postgresql":
        return [attribute.match(words)]
    return where_clauses(model, {f"{text_field}__icontains": words}, dialect)


def sort_terms(
    model: type[Any], sort_field: str | None, descending: bool
) -> list[ColumnElement[Any]]:
    """Return the ORDER BY terms of `sort_field` and `sort_desc`."""
    if sort_field is None:
        return []
    if not isinstance(sort_field, str):
        raise ValidationError(
            f"sort_field is the name of a field, not {type(sort_field).__name__}",
            field="sort_field",
        )
    return [_sort_term(model, sort_field, descending)]


@cached
def _sort_term(model: type[Any], name: str, descending: bool) -> ColumnElement[Any]:
    attribute = column_attribute(model, name)
    return attribute.desc() if descending else attribute.asc()


# --- in pages ------------------------------------------------------------------------------------


def paginated(statement: Executable, page: int, page_size: int) -> Executable:
    """Cut one page out of a statement, with the primary keys as the last sort criteria.

    A limit and an offset of the statement's own stay: the pages are cut out of what they leave.
    """
    if not isinstance(statement, Select | CompoundSelect):
        raise ValidationError(
            f"only a select() can be cut into pages, not {type(statement).__name__}",
            field="stmnt",
        )
    if isinstance(statement, Select):
        statement = statement.order_by(*_key_terms(statement))
    start, size = (page - 1) * page_size, int(page_size)
    own = statement._limit_clause
    if own is not None:
        size = max(0, min(size, _number(own) - start))
    return statement.limit(size).offset(start + _number(statement._offset_clause))


def _key_terms(statement: Select[Any]) -> list[ColumnElement[Any]]:
    """Return the primary keys of what is selected, where the statement can be sorted by them."""
    described = statement.column_descriptions
    sources = [item["entity"] for item in described if item["expr"] is item["entity"]]
    merges = statement._distinct or statement._group_by_clauses
    if not merges and all(_is_plain(item) for item in described):
        sources = [item["entity"] for item in described]
    return [
        getattr(entity, name)
        for entity in dict.fromkeys(sources)
        for name in primary_key_names(inspect(entity).mapper.class_)
    ]


def _is_plain(item: Any) -> bool:
    """Tell a model and its columns from aggregates and other expressions."""
    return item["expr"] is item["entity"] or isinstance(item["expr"], InstrumentedAttribute)


def _number(clause: Any) -> int:
    if clause is None:
        return 0
    number = getattr(clause, "value", None)
    if not isinstance(number, int):
        raise ValidationError(
            "a statement whose limit or offset is no plain number cannot be cut into pages; "
            "leave page and page_size out, or the limit",
            field="stmnt",
        )
    return number


def check_page(page: Any, page_size: Any) -> None:
    """Refuse pages and sizes below 1, and what is no whole number."""
    for name, value in (("page", page), ("page_size", page_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValidationError(
                f"{name} must be a whole number of 1 or more", field=name, value=value
            )
    if page * page_size > _LARGEST_OFFSET:
        raise ValidationError(
            "page and page_size together are beyond what a database can count", field="page"
        )
