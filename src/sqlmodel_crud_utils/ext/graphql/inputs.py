"""Convert GraphQL inputs to filters."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from graphql import Undefined

from sqlmodel_crud_utils._core.filters.lookups import asks_for_null
from sqlmodel_crud_utils._core.filters.paths import Path, path_of
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.graphql.selections import snake_case

__all__ = ["lookups"]

# A client's expression may run for hours, and an invalid one is a database error.
_REFUSED = frozenset(("regex",))
# Each level is a relationship or a lookup; clients must not exhaust Python's stack.
_DEEPEST = 50


def lookups(given: Any, model: type[Any], *, allow: Collection[str]) -> dict[str, Any]:
    """Return the filters of a GraphQL input, for a query builder's `where`.

    The fields of an input are filters (`name`, `age__gte`) or nested inputs: `{team: {name: "x"}}`
    is `team__name`, and `{age: {gte: 18}}` is `age__gte`. Fields that the client did not give are
    left out; null matches rows without a value.

    Args:
        given: The input: a Strawberry object or a mapping; None means no filters.
        model: The model of the rows.
        allow: The fields that clients may filter by: a plain name, such as "name" or "team__name",
            allows every lookup but `regex`; a name with a lookup, such as "age__gte", allows only
            that one.

    Raises:
        UnknownFieldError: A name in `allow` that is not a field.
        ValidationError: A filter that is not allowed; the message names no other filters. Something
            that is not an input, or one that is nested too deeply.

    Example:
        >>> given = {"name__startswith": "R", "team": {"city": None}}
        >>> lookups(given, Hero, allow={"name", "team__city"})
        {'name__startswith': 'R', 'team__city': None}
    """
    allowed = _allowed(model, allow)
    found: dict[str, Any] = {}
    for text, value in _flat(given, ()):
        path = _path(model, text)
        if path is None or not _is_allowed(path, allowed):
            raise ValidationError("this is not a filter here; leave it out", field=text)
        if path.name in _facts_at(model, path).relationships:
            _check_null(model, path, text, value)
        found["__".join((*path.relationships, path.name, path.lookup)).removesuffix("__eq")] = value
    return found


def _allowed(model: type[Any], allow: Collection[str]) -> frozenset[Path | tuple[str, ...]]:
    """Return the allowed fields as tuples of names, and those with a lookup as paths."""
    if isinstance(allow, str):
        raise ValidationError("allow takes a set of names, not a str", field="allow")
    found: set[Path | tuple[str, ...]] = set()
    for name in allow:
        path = path_of(model, name)
        field = (*path.relationships, path.name)
        is_field = path.lookup == "eq" and "__".join(field) == name.replace(".", "__")
        if path.lookup in _REFUSED:
            raise ValidationError(f"clients cannot filter with {path.lookup}", field="allow")
        found.add(field if is_field else path)
    return frozenset(found)


def _is_allowed(path: Path, allowed: frozenset[Path | tuple[str, ...]]) -> bool:
    if path.lookup in _REFUSED:
        return False
    return path in allowed or (*path.relationships, path.name) in allowed


def _flat(given: Any, prefix: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if len(prefix) > _DEEPEST:
        raise ValidationError("this input is nested too deeply", field=prefix[0])
    for name, value in _items(given):
        if _is_left_out(value):
            continue
        path = (*prefix, name)
        if isinstance(value, Mapping) or _is_input(value):
            yield from _flat(value, path)
        else:
            yield "__".join(path), value


def _items(given: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(given, Mapping):
        yield from given.items()
    elif _is_input(given):
        yield from ((each.name, getattr(given, each.name)) for each in fields(given))
    elif given is not None and not _is_left_out(given):
        raise ValidationError(
            f"takes an input of GraphQL or a mapping, not {type(given).__name__}", field="given"
        )


def _is_input(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _is_left_out(value: Any) -> bool:
    # Strawberry's UNSET, recognized without importing Strawberry.
    return value is Undefined or type(value).__name__ == "UnsetType"


def _path(model: type[Any], text: str) -> Path | None:
    """Return the path for a name, which may be in camel case, or None."""
    for name in dict.fromkeys((text, snake_case(text))):
        try:
            return path_of(model, name)
        except ValidationError:
            continue
    return None


def _facts_at(model: type[Any], path: Path) -> Any:
    for name in path.relationships:
        model = facts_of(model).relationships[name].mapper.class_
    return facts_of(model)


def _check_null(model: type[Any], path: Path, text: str, value: Any) -> None:
    """Refuse to compare a relationship with a value; a query's error would name all fields."""
    attribute = _facts_at(model, path).relationship(path.name)
    if asks_for_null(attribute, path.lookup, value) is None:
        raise ValidationError("takes null alone, or is_null", field=text)
