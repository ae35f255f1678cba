"""Details of errors for clients: the place in the request, the kind of error, and the reason."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConflictError,
    ConstraintViolationError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.ext.fastapi.resources import called_in_body, models_in


class Detail(BaseModel):
    """One error, in the format of FastAPI's own errors."""

    type: str
    loc: list[str | int]
    msg: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The names that a client has sent, which errors may mention.

    Attributes:
        body: The body, if it is JSON.
        row: The place of the failed row, if the body is a list.
        aliases: The names of fields in the body, if they differ from the fields' own names.
        path: The parameters of the path.
        query: The parameters of the query string.
        header: The headers.
    """

    body: Any = None
    row: int | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    path: Collection[str] = ()
    query: Collection[str] = ()
    header: Collection[str] = field(default_factory=tuple)

    def place_of(self, name: str | None) -> list[str | int] | None:
        """Return where the client sent a name, or None."""
        body = self.body
        if self.row is not None and isinstance(body, list) and self.row < len(body):
            body = body[self.row]
        if name is None:
            return None
        for known in (name, self.aliases.get(name)):
            if known is not None and isinstance(body, Mapping) and known in body:
                return [*self.whole(), known]
        for where in ("path", "query"):
            if name in getattr(self, where):
                return [where, name]
        return None

    def whole(self) -> list[str | int]:
        """Return the place of the request as a whole."""
        if self.body is None and self.path:
            return ["path"]
        return ["body"] if self.row is None else ["body", self.row]


def sent_with(request: Request) -> Sent:
    """Return the names that came with a request."""
    # FastAPI has read the body by now, if the route takes one; it cannot be read a second time.
    body = getattr(request, "_json", None)
    return Sent(
        body=body,
        aliases=dict(_aliases_of(request.scope.get("route"))),
        path=request.path_params,
        query=request.query_params,
        header=request.headers,
    )


def _aliases_of(route: Any) -> Iterator[tuple[str, str]]:
    body = getattr(route, "body_field", None)
    for model in models_in(body.field_info.annotation) if body is not None else ():
        yield from ((name, called_in_body(name, each)) for name, each in model.model_fields.items())


def details_of(error: Exception, sent: Sent) -> list[dict[str, Any]]:
    """Return the details of an error, without names that the client did not send.

    Args:
        error: A `ConflictError`, a `ValidationError`, or a `BulkOperationError` of such.
        sent: The names that the client sent.
    """
    match error:
        case BulkOperationError():
            return list(_of_rows(error.errors, sent))
        case ConflictError():
            place = sent.place_of("version") or sent.whole()
            return [_detail("version", place, "it has changed since it was read")]
        case ConstraintViolationError():
            return [_of_constraint(error, sent)]
        case UnknownFieldError():
            place = sent.place_of(error.field) or sent.whole()
            return [_detail("extra_forbidden", place, "Extra inputs are not permitted")]
    return [_of_value(error, sent)]


def _of_rows(errors: Iterable[Any], sent: Sent) -> Iterable[dict[str, Any]]:
    for each in errors:
        index, reason = each if isinstance(each, tuple) else (None, each)
        if isinstance(reason, ConflictError | ValidationError):
            yield from details_of(reason, replace(sent, row=index))


def _of_constraint(error: ConstraintViolationError, sent: Sent) -> dict[str, Any]:
    places = [place for name in error.columns if (place := sent.place_of(name))]
    names = " and ".join(str(place[-1]) for place in places)
    told = _REASONS if names else _REASONS_WITHOUT_NAMES
    reason = told.get(error.kind or "", "it conflicts with existing data").format(names)
    place = places[0] if len(places) == 1 else sent.whole()
    return _detail(error.kind or "conflict", place, reason)


_REASONS = {
    "unique": "another one has this {}",
    "foreign_key": "nothing exists with this {}",
    "not_null": "{} is required",
    "check": "{} violates a rule",
    "exclusion": "this {} overlaps another one",
}
_REASONS_WITHOUT_NAMES = {
    "unique": "it already exists",
    "foreign_key": "it refers to something that does not exist, or others refer to it",
    "not_null": "a required value is missing",
    "check": "it violates a rule",
    "exclusion": "it overlaps another one",
}


def _of_value(error: Any, sent: Sent) -> dict[str, Any]:
    _, _, reason = str(error).partition(": ")
    if found := re.match(r"row (\d+): ", reason):
        sent, reason = replace(sent, row=int(found[1])), reason[found.end() :]
    place = sent.place_of(error.field)
    if place is None:
        return _detail("value_error", sent.whole(), "the request contains invalid data")
    known = re.fullmatch(_FOR_CLIENTS, reason)
    return _detail("value_error", place, known[1] if known else "this value is invalid")


# The library's messages name the class, as in "Hero.age must be ...", and may end with advice for
# programmers; Pydantic's do neither. Other messages may reveal anything, and are not passed on.
_FOR_CLIENTS = (
    r"(?:\w+\.\w+ )?((?:must|takes|[A-Z][a-z]+(?: input)? should) [^\n]*?)"
    r"(?:; use [^\n]*)?"
)


def _detail(kind: str, place: Sequence[str | int], reason: str) -> dict[str, Any]:
    return {"type": kind, "loc": list(place), "msg": reason}
