"""The SELECT statements of the reads: by key, filtered, sorted, in pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Dialect,
    Executable,
    Integer,
    Select,
    bindparam,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.base import ExecutableOption
from sqlalchemy.types import TypeEngine

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.coercion import coerce
from sqlmodel_crud_utils._core.filters import where_clauses
from sqlmodel_crud_utils._core.id_lists import in_list
from sqlmodel_crud_utils._core.models import (
    column_attribute,
    key_names,
    mapper_of,
    primary_key,
)
from sqlmodel_crud_utils._core.soft_delete import hide_deleted, hide_deleted_anywhere
from sqlmodel_crud_utils.exceptions import ValidationError


class DefaultInt(int):
    """A default that can be told from the same number passed by the caller."""


_LARGEST_OFFSET = 2**63 - 1

DEFAULT_PAGE = DefaultInt(1)
DEFAULT_PAGE_SIZE = DefaultInt(100)


# --- by key --------------------------------------------------------------------------------------


@cached
def by_key(model: type[Any], names: tuple[str, ...], include_deleted: bool) -> Select[Any]:
    """Return the SELECT of one row; its parameters are `key_0`, `key_1` and so on."""
    attributes = [getattr(model, name) for name in names]
    statement = select(model).where(
        *(
            attribute == bindparam(f"key_{i}", type_=_key_type(attribute))
            for i, attribute in enumerate(attributes)
        )
    )
    return statement if include_deleted else hide_deleted(statement, model)


def _key_type(attribute: InstrumentedAttribute[Any]) -> TypeEngine[Any] | None:
    # PostgreSQL's drivers refuse a number that is too large for the column; it is just not there.
    is_integer = isinstance(attribute.property.columns[0].type, Integer)
    return BigInteger() if is_integer else None


def key_parameters(model: type[Any], names: tuple[str, ...], key: Any) -> dict[str, Any]:
    """Return the parameters of `by_key`, coerced to the types of the key's columns."""
    return {f"key_{i}": value for i, value in enumerate(key_values(model, names, key))}


def key_values(model: type[Any], names: tuple[str, ...], key: Any) -> tuple[Any, ...]:
    """Return the key as a tuple of values, each of its column's type."""
    values = (key,) if len(names) == 1 and not isinstance(key, tuple) else key
    if not isinstance(values, tuple | list) or len(values) != len(names):
        raise ValidationError(
            f"the key of {model.__name__} is ({', '.join(names)}); "
            f"pass {'its value' if len(names) == 1 else f'a tuple of {len(names)} values'}",
            field=", ".join(names),
            value=key,
        )
    return tuple(
        _key_value(getattr(model, name), value) for name, value in zip(names, values, strict=True)
    )


def _key_value(attribute: InstrumentedAttribute[Any], value: Any) -> Any:
    if value is None:
        raise ValidationError(f"a key cannot be None ({attribute})", field=attribute.key)
    return coerce(attribute, value)


def key_list(
    model: type[Any], pk_field: str | Sequence[str] | None, keys: Iterable[Any]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the names of the key's columns, and each key once, as a tuple of values."""
    mapper_of(model)
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise ValidationError(
            f"a list of keys of {model.__name__} is needed, not {type(keys).__name__}",
            field="id_str_list",
        )
    listed = list(keys)
    names = key_names(model, pk_field, listed[0] if listed else None)
    return names, list(dict.fromkeys(key_values(model, names, key) for key in listed))


def by_key_list(
    model: type[Any],
    names: tuple[str, ...],
    keys: Sequence[tuple[Any, ...]],
    dialect: Dialect,
    *,
    include_deleted: bool = False,
) -> Select[Any]:
    """Return the SELECT of all rows whose key is among `keys`."""
    attributes = [getattr(model, name) for name in names]
    if len(attributes) == 1:
        criterion = in_list(attributes[0], [key[0] for key in keys], dialect)
    else:
        criterion = tuple_(*attributes).in_(keys)
    statement = select(model).where(criterion)
    return statement if include_deleted else hide_deleted(statement, model)


# --- filtered ------------------------------------------------------------------------------------


def everything(model: type[Any], stmnt: Any, *, include_deleted: bool) -> Executable:
    """Return the SELECT that a list starts from: the caller's own, or that of all rows."""
    if stmnt is None:
        statement: Executable = select(model)
        return statement if include_deleted else hide_deleted(statement, model)
    statement = require_select(stmnt)
    return statement if include_deleted else hide_deleted_anywhere(statement, model)


def equal_to(model: type[Any], values: Mapping[str, Any]) -> Select[Any]:
    """Return the SELECT of the rows that have these values in their fields and relationships."""
    criteria = [getattr(model, name) == value for name, value in values.items()]
    return select(model).where(*criteria)


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


def require_select(statement: Any) -> Executable:
    """Refuse what returns no rows, or is no statement."""
    if not getattr(statement, "is_select", False) and not getattr(statement, "is_text", False):
        raise ValidationError(
            f"stmnt must be a select(), not {type(statement).__name__}", field="stmnt"
        )
    found: Executable = statement
    return found


def text_match(
    model: type[Any], name: str, value: Any, dialect: Dialect
) -> list[ColumnElement[bool]]:
    """Return full-text search on PostgreSQL, and a search that ignores case elsewhere."""
    attribute = column_attribute(model, name)
    if not isinstance(value, str):
        raise ValidationError(
            f"text_field={name!r} needs the words to search for as {name}=…", field=name
        )
    if dialect.name == "postgresql":
        return [attribute.match(value)]
    return where_clauses(model, {f"{name}__icontains": value}, dialect)


def sort_terms(
    model: type[Any], sort_field: str | None, *, descending: bool
) -> list[ColumnElement[Any]]:
    """Return the ORDER BY terms of `sort_field` and `sort_desc`."""
    if sort_field is None:
        return []
    if not isinstance(sort_field, str):
        raise ValidationError(
            f"sort_field is the name of a field, not {type(sort_field).__name__}",
            field="sort_field",
        )
    attribute = column_attribute(model, sort_field)
    return [attribute.desc() if descending else attribute.asc()]


# --- in pages ------------------------------------------------------------------------------------


def paginated(statement: Executable, model: type[Any], page: int, page_size: int) -> Executable:
    """Cut one page out of a statement, with the primary key as the last sort criterion."""
    if not isinstance(statement, Select | CompoundSelect):
        raise ValidationError(
            f"only a select() can be cut into pages, not {type(statement).__name__}",
            field="stmnt",
        )
    if isinstance(statement, Select) and _selects(statement, model):
        statement = statement.order_by(*primary_key(model))
    return statement.limit(int(page_size)).offset((page - 1) * page_size)


def _selects(statement: Select[Any], model: type[Any]) -> bool:
    described = statement.column_descriptions
    return len(described) == 1 and described[0]["expr"] is model


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
