"""Query parameters of URLs: their names, types and descriptions, for filters, sorting and pages."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator
from sqlalchemy import Enum as EnumType
from sqlalchemy.orm import InstrumentedAttribute

from sqlmodel_crud_utils._core.filters.lookups import lookups_of
from sqlmodel_crud_utils._core.filters.paths import path_of
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keyset import check_sortable
from sqlmodel_crud_utils._core.queries.ordering import term_of
from sqlmodel_crud_utils._core.values.coercion import coerce
from sqlmodel_crud_utils._core.values.columns import python_type
from sqlmodel_crud_utils.exceptions import ValidationError

_PLAIN_TYPES = (bool, int, float, Decimal, str, UUID, datetime, date, time, timedelta)
# Types that Python compares like every database; texts depend on a collation.
_ORDERED_TYPES = (int, float, Decimal, datetime, date, time, timedelta)
_LISTS = frozenset(("in", "not_in", "between"))
_AS_LIST = "Separate values with commas, and quote a value that has one; or repeat the parameter."
_LAST_PAGE = 10**9
_LONGEST_SEARCH = 200
_MOST_ALTERNATIVES = 20
_LONGEST = timedelta(days=700_000)  # SQLite and MySQL count from 1970, back to at least the year 1


class QueryParam(NamedTuple):
    """A parameter of a query string.

    Attributes:
        name: Its name, which is that of the filter too.
        type: What it holds, for Pydantic.
        description: What it does, for the documentation.
        default: What it is where it is left out.
        is_list: Whether it may be repeated.
    """

    name: str
    type: Any
    description: str
    default: Any = None
    is_list: bool = False


def filter_param(model: type[Any], name: str) -> QueryParam:
    """Return the parameter for a filter.

    Raises:
        UnknownFieldError: A filter on an unknown field or relationship.
        ValidationError: A lookup that is unknown or doesn't fit, or that must not be offered to
            clients; a field whose values can't be written in a query string.

    Example:
        >>> filter_param(Hero, "age__gte").description
        '`age` is at least this.'
    """
    path = path_of(model, name)
    target = model
    for step in path.relationships:
        target = facts_of(target).relationships[step].mapper.class_
    subject = f"`{'.'.join((*path.relationships, path.name))}`"
    if path.name in facts_of(target).relationships:
        return _about_relationship(target, name, path.name, path.lookup, subject)
    attribute = getattr(target, path.name)
    _check_lookup(attribute, path.lookup)
    words = _WORDS[path.lookup].format(subject)
    if path.lookup in _LISTS:
        words += f" {_AS_LIST}"
    field = getattr(target, "model_fields", {}).get(path.name)
    about = f" {field.description}" if field is not None and field.description else ""
    return QueryParam(
        name,
        _type_for(attribute, path.lookup),
        f"{words}{about}",
        is_list=path.lookup in _LISTS,
    )


def sort_param(model: type[Any], names: Sequence[str], *, by_cursor: bool) -> QueryParam:
    """Return the parameter that sorts by some of these fields, in either direction.

    Raises:
        UnknownFieldError: A name that is not a field.
        ValidationError: A name with a sign, a relationship, or a field that cursors can't follow.
    """
    for name in names:
        if name.startswith("-"):
            raise ValidationError(
                f"sort takes names without a sign, {name[1:]!r} for both directions", "sort"
            )
        term = term_of(model, name, desc=False)
        if by_cursor:
            check_sortable([term], "keyset")
    choices = tuple(sign + name for name in names for sign in ("", "-"))
    listed = Annotated[list[Literal[choices]], BeforeValidator(_split)]  # type: ignore[valid-type]
    return QueryParam(
        "sort",
        _unless_blank(listed, ()),
        "Fields to sort by, with `-` in front for descending order; "
        "separate several with commas, or repeat the parameter.",
        default=(),
        is_list=True,
    )


def search_param(model: type[Any], names: Sequence[str]) -> QueryParam:
    """Return the parameter that searches several texts at once.

    Raises:
        UnknownFieldError: A name that is not a field.
        ValidationError: A field that does not hold text.
    """
    for name in names:
        filter_param(model, f"{name}__icontains")
    text = Annotated[str, Field(max_length=_LONGEST_SEARCH), AfterValidator(_without_nul)]
    subjects = ", ".join(f"`{name.replace('__', '.')}`" for name in names)
    words = f"Each of these words is in one of {subjects}, ignoring case."
    return QueryParam("q", _unless_blank(text, None), words)


def alternatives_param() -> QueryParam:
    """Return the parameter for alternatives: rows have to meet one of several sets of filters."""
    listed = Annotated[list[str], Field(max_length=_MOST_ALTERNATIVES)]
    words = (
        "Filters of which all must be met, as a query string of their own: `any=age__lt%3D18`. "
        "Repeat it: a row must meet one of them."
    )
    return QueryParam("any", _unless_blank(listed, ()), words, default=(), is_list=True)


def page_params(*, by_cursor: bool, size: int, max_size: int) -> tuple[QueryParam, QueryParam]:
    """Return the parameters that say which page, and how large."""
    if by_cursor:
        cursor = _unless_blank(str, None)
        which = QueryParam("after", cursor, "The `next_cursor` of the previous page.")
    else:
        number = _unless_blank(Annotated[int, Field(ge=1, le=_LAST_PAGE)], 1)
        which = QueryParam("page", number, "The number of the page, from 1.", default=1)
    rows = _unless_blank(Annotated[int, Field(ge=1, le=max_size)], size)
    return which, QueryParam("size", rows, "The number of rows per page.", default=size)


def _about_relationship(
    model: type[Any], name: str, relationship: str, lookup: str, subject: str
) -> QueryParam:
    if lookup != "is_null":
        raise ValidationError(
            f"{model.__name__}.{relationship} is a relationship; allow {name}__is_null, "
            f"or a field of it, such as {name}__id",
            "allow",
        )
    return QueryParam(name, _unless_blank(bool, None), _WORDS["is_null"].format(subject))


def _check_lookup(attribute: InstrumentedAttribute[Any], lookup: str) -> None:
    # A client's regular expression may run for hours, and an invalid one is a database error.
    lookups = [each for each in lookups_of(attribute) if each != "regex"]
    if lookup not in lookups:
        raise ValidationError(
            f"{attribute.class_.__name__}.{attribute.key} can't be filtered with {lookup} by a "
            f"client; the lookups for it are {', '.join(lookups)}",
            "allow",
        )


def _type_for(attribute: InstrumentedAttribute[Any], lookup: str) -> Any:
    if lookup == "is_null":
        return _unless_blank(bool, None)
    plain = _plain_type(attribute)
    check = partial(_fitting, attribute)
    if lookup not in _LISTS:
        single: Any = Annotated[plain, AfterValidator(check)]
        return single if plain is str else _unless_blank(single, None)
    size = [Field(min_length=2, max_length=2)] if lookup == "between" else []
    is_ordered = lookup == "between" and plain in _ORDERED_TYPES
    order = [AfterValidator(_in_order)] if is_ordered else []
    several: Callable[[list[Any]], list[Any]] = lambda values: [check(each) for each in values]  # noqa: E731
    listed = Annotated[
        list[plain],  # type: ignore[valid-type]
        BeforeValidator(_split),
        *size,
        AfterValidator(several),
        *order,
    ]
    return _unless_blank(listed, None)


def _unless_blank(type_: Any, default: Any) -> Any:
    """Return the type of a parameter whose empty value counts as missing."""

    def read(value: Any, validate: Callable[[Any], Any]) -> Any:
        lines = value if isinstance(value, list) else [value]
        return validate(value) if any(line != "" for line in lines) else default

    return Annotated[type_, WrapValidator(read)]


def _in_order(bounds: list[Any]) -> list[Any]:
    low, high = bounds
    if low > high:
        raise ValueError("the first value must not be greater than the second")
    return bounds


def key_type(attribute: InstrumentedAttribute[Any]) -> Any:
    """Return the Pydantic type of a key in a path."""
    return Annotated[_plain_type(attribute), AfterValidator(partial(_fitting, attribute))]


def _plain_type(attribute: InstrumentedAttribute[Any]) -> Any:
    column_type = attribute.property.columns[0].type
    found = python_type(column_type)
    if isinstance(column_type, EnumType) and column_type.enum_class is None:
        return Literal[tuple(column_type.enums)]
    if found in _PLAIN_TYPES or issubclass(found, Enum):
        return found
    raise ValidationError(
        f"{attribute.class_.__name__}.{attribute.key} holds values that no query string can; "
        f"only {attribute.key}__is_null can be allowed",
        "allow",
    )


def _fitting(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    """Return a value converted to the column's type, in the form that filters take."""
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)  # a column without a time zone drops it again
    # Not every database can compare with these.
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a number must be finite")
    if isinstance(value, timedelta) and abs(value) > _LONGEST:
        raise ValueError("a duration must be shorter")
    try:
        return coerce(attribute, value)
    except ValidationError as error:
        # Clients see the text, and don't know Python's classes.
        raise ValueError(re.sub(_OF_A_FIELD, "", str(error))) from error


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must be a string without a NUL character")
    return text


_OF_A_FIELD = r"Validation failed for '\w+': (\w+\.\w+ )?"


def _split(lines: Iterable[str]) -> list[str]:
    try:
        return [value for line in csv.reader(lines, strict=True) for value in line]
    except csv.Error as error:
        raise ValueError("not a comma-separated list of values") from error


_WORDS = {
    "eq": "{} equals this.",
    "ne": "{} does not equal this; rows without a value are left out.",
    "gt": "{} is greater than this.",
    "gte": "{} is at least this.",
    "lt": "{} is less than this.",
    "lte": "{} is at most this.",
    "in": "{} is one of these.",
    "not_in": "{} is not one of these; rows without a value are left out.",
    "between": "{} is between these two values, inclusive.",
    "is_null": "true: {} is missing; false: it is set.",
    "like": "{} contains this; `%` stands for any text, `_` for any character.",
    "not_like": "{} does not contain this; `%` stands for any text, `_` for any character.",
    "ilike": "{} contains this, ignoring case; `%` stands for any text, `_` for any character.",
    "iexact": "{} equals this, ignoring case.",
    "contains": "{} contains this.",
    "icontains": "{} contains this, ignoring case.",
    "startswith": "{} begins with this.",
    "istartswith": "{} begins with this, ignoring case.",
    "endswith": "{} ends with this.",
    "iendswith": "{} ends with this, ignoring case.",
}
