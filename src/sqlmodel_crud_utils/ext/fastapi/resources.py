"""A model as clients see it: keys in URLs, fields in bodies, ETags, links to pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import NoneType
from typing import Any, Literal, get_args
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from sqlmodel_crud_utils._core.filters.paths import path_of
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.queries.conditions import meets
from sqlmodel_crud_utils._core.visibility.soft_delete import is_soft_delete
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.pagination import CursorPage, Page

Restriction = Any
"""Filters as a mapping, or an expression; None for no restriction."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A model, and the parts of it that responses show.

    Attributes:
        facts: The facts of the model.
        public: The model of its rows in responses.
        to_one: The to-one relationships that `public` shows, nested ones as paths.
        to_many: The to-many relationships, and those nested in them.
    """

    facts: Facts
    public: type[BaseModel]
    to_one: tuple[str, ...]
    to_many: tuple[str, ...]

    @property
    def model(self) -> type[Any]:
        """The model."""
        return self.facts.model

    @property
    def shows_related(self) -> bool:
        """Whether responses show related rows."""
        return bool(self.to_one or self.to_many)

    def key_of(self, row: Any) -> tuple[Any, ...]:
        """Return the primary key of a row."""
        return tuple(getattr(row, name) for name in self.facts.key)

    def tag_of(self, row: Any) -> str | None:
        """Return the ETag of a row, or None if its model has no versions.

        With related rows, it is a hash of the response, because they have versions of their own.
        """
        if self.facts.version is None:
            return None
        if not self.shows_related:
            return f'"{getattr(row, self.facts.version)}"'
        shown = self.public.model_validate(row, from_attributes=True).model_dump_json()
        return f'"{sha256(shown.encode()).hexdigest()[:32]}"'

    def where_it_is(self, request: Request, row: Any) -> str:
        """Return the URL path of a new row."""
        # In the format in which paths are parsed: an Enum's value, an ISO 8601 duration.
        segments = (str(to_jsonable_python(value)) for value in self.key_of(row))
        key = "/".join(quote(segment, safe="") for segment in segments)
        return f"{request.url.path.rstrip('/')}/{key}"


def resource_of(model: type[Any], public: type[BaseModel]) -> Resource:
    """Return the resource of a model."""
    facts = facts_of(model)
    _require_readable(facts, public)
    paths = list(_paths(facts, public, "", several=False))
    return Resource(
        facts,
        public,
        to_one=tuple(path for path, several in paths if not several),
        to_many=tuple(path for path, several in paths if several),
    )


def _paths(
    facts: Facts, public: type[BaseModel], prefix: str, *, several: bool
) -> Iterator[tuple[str, bool]]:
    """Yield the relationships that a public model shows, and whether they lead to many rows."""
    for name, field in public.model_fields.items():
        relationship = facts.relationships.get(name)
        if relationship is None:
            continue
        many = several or bool(relationship.uselist)
        yield f"{prefix}{name}", many
        related = facts_of(relationship.mapper.class_)
        if not relationship.uselist:
            _require_optional(public, name, related)
        for shown in models_in(field.annotation):
            _require_readable(related, shown)
            yield from _paths(related, shown, f"{prefix}{name}__", several=many)


def _require_readable(facts: Facts, public: type[BaseModel]) -> None:
    """Refuse a field that no row can fill, because each response would be a server error."""
    if public.__pydantic_decorators__.model_validators:
        return  # they may fill the field
    config = public.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    for name, field in public.model_fields.items():
        if not field.is_required() or isinstance(field.validation_alias, AliasChoices | AliasPath):
            continue
        read = called_in_body(name, field)
        if not hasattr(facts.model, read) and not (by_name and hasattr(facts.model, name)):
            raise ValidationError(
                f"{public.__name__}.{name} cannot be filled, as {facts.model.__name__} has no "
                f"{read!r}; to rename a field in the answer use serialization_alias",
                field="public",
            )


def _require_optional(public: type[BaseModel], name: str, related: Facts) -> None:
    """Refuse a field that requires a related row which may be soft-deleted, and so be hidden."""
    annotation: Any = public.model_fields[name].annotation
    if is_soft_delete(related) and NoneType not in get_args(annotation):
        raise ValidationError(
            f"{public.__name__}.{name} must allow None, because a {related.model.__name__} may be "
            "soft-deleted",
            field="public",
        )


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the Pydantic models in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


# --- which rows a request may see ----------------------------------------------------------------


def check_restriction(model: type[Any], found: Restriction) -> None:
    """Refuse an invalid restriction, which is the program's fault and not the client's.

    Raises:
        TypeError: The restriction is neither filters nor an expression, or names an unknown field.
    """
    if found is None:
        raise TypeError("restrict returned None; return {} for a request that may see all rows")
    try:
        if isinstance(found, Mapping):
            for name in found:
                path_of(model, name)
        else:
            meets(model, found)
    except ValidationError as error:
        raise TypeError(f"restrict returned what cannot restrict rows: {error}") from error


# --- bodies --------------------------------------------------------------------------------------


def values_of(facts: Facts, data: BaseModel, restriction: Restriction = None) -> dict[str, Any]:
    """Return the values of a new row: those that were sent, and defaults other than None.

    A field that was not sent, and whose value a restriction fixes, gets that value.
    """
    values = {
        name: value
        for name, value in data.model_dump(include=_declared(data)).items()
        if name in data.model_fields_set or value is not None
    }
    fixed = _fixed(facts, restriction)
    return values | {name: fixed[name] for name in fixed if name not in data.model_fields_set}


def changes_of(data: BaseModel) -> dict[str, Any]:
    """Return the values that were sent."""
    return data.model_dump(include=_declared(data), exclude_unset=True)


def _declared(data: BaseModel) -> set[str]:
    # Neither computed fields nor extra ones.
    return set(type(data).model_fields)


def _fixed(facts: Facts, restriction: Restriction) -> dict[str, Any]:
    """Return the values that a restriction fixes."""
    given = restriction if isinstance(restriction, Mapping) else {}
    paths = {path_of(facts.model, name): value for name, value in given.items()}
    return {
        path.name: value
        for path, value in paths.items()
        if path.lookup == "eq" and not path.relationships and path.name in facts.columns
    }


def outside(
    facts: Facts, restriction: Restriction, data: BaseModel, place: Sequence[int]
) -> Exception:
    """Return the error for a row that the restriction would exclude."""
    sent = [name for name in _fixed(facts, restriction) if name in data.model_fields_set]
    names = [called_in_body(name, type(data).model_fields[name]) for name in sent]
    where = ("body", *place, *names) if len(names) == 1 else ("body", *place)
    reason = "it would be outside what you may write"
    return RequestValidationError([{"type": "value_error", "loc": where, "msg": reason}])


def called_in_body(name: str, field: FieldInfo) -> str:
    """Return the name of a field in a body."""
    return field.validation_alias if isinstance(field.validation_alias, str) else name


# --- preconditions -------------------------------------------------------------------------------

_TAG = re.compile(r'(W/)?("[^"]*")')


def tags_sent(request: Request, name: Literal["if-match", "if-none-match"]) -> str | None:
    """Return the tags in a header, which may have several lines; None without the header."""
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


def is_among(tag: str, header: str, *, weakly: bool = False) -> bool:
    """Return whether a tag is in the header If-Match or If-None-Match.

    Args:
        tag: The strong tag of the current row.
        header: The client's header.
        weakly: Whether weak tags count.
    """
    if header.strip() == "*":
        return True
    return any(each == tag and (weakly or not weak) for weak, each in _TAG.findall(header))


# --- pages ---------------------------------------------------------------------------------------


def page_links(request: Request, page: Page[Any] | CursorPage[Any]) -> str | None:
    """Return the header `Link` of a page, with the previous and the next one.

    Args:
        request: The request for the page.
        page: The page that is its answer.

    Returns:
        The value of the header, or None where there is no other page.

    Example:
        >>> from fastapi import Request
        >>> scope = {"type": "http", "path": "/heroes", "query_string": b"size=2&page=2"}
        >>> request = Request({**scope, "method": "GET", "headers": []})
        >>> page_links(request, Page(items=["c", "d"], total=4, page=2, size=2))
        '</heroes?size=2&page=1>; rel="prev"'
    """
    others: dict[str, tuple[str, Any]] = {}
    if isinstance(page, CursorPage):
        if page.next_cursor is not None:
            others["next"] = ("after", page.next_cursor)
    else:
        if page.has_previous and page.pages:
            others["prev"] = ("page", min(page.page - 1, page.pages))
        if page.has_next:
            others["next"] = ("page", page.page + 1)
    links = (f'<{_with(request, *other)}>; rel="{name}"' for name, other in others.items())
    return ", ".join(links) or None


def _with(request: Request, name: str, value: Any) -> str:
    kept = [(key, each) for key, each in request.query_params.multi_items() if key != name]
    return f"{quote(request.url.path)}?{urlencode([*kept, (name, value)])}"
