"""The SELECT statements of the reads: by key, filtered, sorted, in pages."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Dialect,
    Executable,
    Select,
    TextClause,
    inspect,
    select,
)
from sqlalchemy.orm import FromStatement, InstrumentedAttribute

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.filters.json import compared, operand
from sqlmodel_crud_utils._core.filters.paths import compared_values, with_parameters
from sqlmodel_crud_utils._core.memoizing import Store
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import Visibility
from sqlmodel_crud_utils._core.queries.conditions import Condition, matches, meets
from sqlmodel_crud_utils._core.queries.ordering import Term, sorted_by, term_of
from sqlmodel_crud_utils._core.queries.query import Query
from sqlmodel_crud_utils._core.sqlalchemy_internals import merges_rows, window_of
from sqlmodel_crud_utils._core.visibility.hiding import hide, hide_anywhere
from sqlmodel_crud_utils.exceptions import ValidationError


class DefaultInt(int):
    """A default value that is distinguishable from the same number passed by a caller."""


_LARGEST_OFFSET = 2**63 - 1

DEFAULT_PAGE = DefaultInt(1)
DEFAULT_PAGE_SIZE = DefaultInt(100)

# A field with one of these names can be filtered only with an explicit lookup.
GET_ROWS_PARAMETERS = frozenset(
    {
        "include_deleted",
        "lazy",
        "lazy_load_keys",
        "model",
        "page",
        "page_size",
        "raise_on_error",
        "select_in_keys",
        "selectin",
        "session_inst",
        "sort_desc",
        "sort_field",
        "stmnt",
        "text_field",
        "use_cache",
    }
)


# --- filtered ------------------------------------------------------------------------------------


def searched_values(model: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values to search for, by field or relationship; `name__eq` counts as `name`.

    Raises:
        ValidationError: A field is given under both names.
    """
    facts = facts_of(model)
    known = {*facts.columns, *facts.relationships}
    found: dict[str, Any] = {}
    for name, value in given.items():
        plain = name.removesuffix("__eq")
        field = plain if name not in known and plain in known else name
        if field in found:
            raise ValidationError(f"{model.__name__}.{field} is given twice", field)
        found[field] = value
    return found


def equal_to(model: type[Any], values: Mapping[str, Any]) -> Select[Any]:
    """Return the SELECT of the rows that have these values in their fields and relationships."""
    attributes = {getattr(model, name): value for name, value in values.items()}
    criteria = [compared(each) == operand(each, value) for each, value in attributes.items()]
    return select(model).where(*criteria)


def first_equal(
    model: type[Any], values: Mapping[str, Any], visibility: Visibility
) -> tuple[Select[Any], dict[str, Any]]:
    """Return the SELECT of a row that has these values, and its parameters.

    Where all of them are plainly compared, it is made once for all values.
    """
    compared = compared_values(model, values)
    if compared is None:
        return _first_equal(model, values, visibility), {}

    def build() -> Select[Any]:
        return _first_equal(model, with_parameters(model, values, "where"), visibility)

    key = (model, tuple(values), visibility)
    return _firsts.get(key, build), _parameters(compared)


def _first_equal(
    model: type[Any], values: Mapping[str, Any], visibility: Visibility
) -> Select[Any]:
    return hide(equal_to(model, values).limit(1), visibility, model)


def _parameters(values: Sequence[Any]) -> dict[str, Any]:
    return {f"where_{place}": value for place, value in enumerate(values)}


_firsts: Store[Hashable, Select[Any]] = Store()


def refined(statement: Any, query: Query) -> Executable:
    """Add a query's conditions and order, but not its page, to a caller's own statement."""
    found = hide_anywhere(require_select(statement), query.visibility, query.model)
    clauses = query.criteria(foreign=True) + query.criteria(foreign=False)
    options = query.loading.options(query.visibility)
    if not (clauses or query.order or options):
        return found
    if not isinstance(found, Select):
        raise ValidationError(
            f"filters, sorting and loading need a select(), not {type(found).__name__}",
            field="stmnt",
        )
    found = found.where(*clauses).options(*options)
    return sorted_by(found, query.order, query.dialect, query.visibility)


def require_select(statement: Any, parameter: str = "stmnt") -> Executable:
    """Refuse anything but a statement that returns rows."""
    if not getattr(statement, "is_select", False):
        raise ValidationError(
            f"{parameter} must be a select(), not {type(statement).__name__}", field=parameter
        )
    found: Executable = statement
    return found


def require_query(query: Any) -> Executable:
    """Refuse anything but a `select()` or the caller's own SQL."""
    return (
        query if isinstance(query, TextClause | FromStatement) else require_select(query, "query")
    )


def text_match(
    model: type[Any], text_field: str | None, filters: dict[str, Any], dialect: Dialect
) -> tuple[Condition, ...]:
    """Take the words for `text_field` out of the filters and return the condition for them.

    That is full-text search on PostgreSQL, and a search that ignores case elsewhere. As in
    v0.1.0, nothing is searched where no words are given.
    """
    if text_field is None:
        return ()
    attribute = facts_of(model).attribute(text_field)
    if text_field not in filters:
        return ()
    words = filters.pop(text_field)
    if not isinstance(words, str):
        raise ValidationError(
            f"text_field={text_field!r} needs the words to search for as {text_field}=…",
            field=text_field,
        )
    if features_of(dialect).searches_words:
        return (meets(model, attribute.match(words)),)
    return (matches(model, {f"{text_field}__icontains": words}, dialect),)


def sort_terms(model: type[Any], sort_field: str | None, descending: bool) -> tuple[Term, ...]:
    """Return the sort terms for `sort_field` and `sort_desc`."""
    if sort_field is None:
        return ()
    if not isinstance(sort_field, str):
        raise ValidationError(
            f"sort_field is the name of a field, not {type(sort_field).__name__}",
            field="sort_field",
        )
    if sort_field.startswith("-"):
        raise ValidationError(
            f"sort_field is a name without a sign; write sort_field={sort_field[1:]!r}, "
            "sort_desc=True",
            field="sort_field",
        )
    return (term_of(model, sort_field, desc=descending),)


# --- in pages ------------------------------------------------------------------------------------


def paginated(statement: Executable, page: int, page_size: int) -> Executable:
    """Cut one page out of a statement, with the primary keys as the last sort criteria.

    A limit and an offset of the statement's own stay: the pages are cut out of what they leave.
    """
    if not isinstance(statement, Select | CompoundSelect):
        raise ValidationError(
            f"only a select() can be paginated, not {type(statement).__name__}",
            field="stmnt",
        )
    if isinstance(statement, Select):
        statement = statement.order_by(*_key_terms(statement))
    start, size = (page - 1) * page_size, int(page_size)
    own, skipped = window_of(statement)
    if own is not None:
        size = max(0, min(size, _number(own) - start))
    return statement.limit(size).offset(start + _number(skipped))


def _key_terms(statement: Select[Any]) -> list[ColumnElement[Any]]:
    """Return the primary keys of a statement's models, if it can be sorted by them."""
    described = statement.column_descriptions
    sources = [item["entity"] for item in described if item["expr"] is item["entity"]]
    if not merges_rows(statement) and all(_is_plain(item) for item in described):
        sources = [item["entity"] for item in described]
    return [
        getattr(entity, name)
        for entity in dict.fromkeys(sources)
        for name in facts_of(inspect(entity).mapper.class_).key
    ]


def _is_plain(item: Any) -> bool:
    """Return whether an item is a model or a plain column, not an aggregate or expression."""
    return item["expr"] is item["entity"] or isinstance(item["expr"], InstrumentedAttribute)


def _number(clause: Any) -> int:
    if clause is None:
        return 0
    number = getattr(clause, "value", None)
    if not isinstance(number, int):
        raise ValidationError(
            "a statement whose limit or offset is not a plain number cannot be paginated; "
            "leave page and page_size out, or the limit",
            field="stmnt",
        )
    return number


def check_page(page: Any, page_size: Any) -> None:
    """Refuse pages and sizes that are not whole numbers of 1 or more."""
    for name, value in (("page", page), ("page_size", page_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValidationError(
                f"{name} must be a whole number of 1 or more", field=name, value=value
            )
    if page * page_size > _LARGEST_OFFSET:
        raise ValidationError(
            "page and page_size together are beyond what a database can count",
            field="page",
        )
