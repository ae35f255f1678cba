"""Routes for the rows of a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from importlib import import_module
from inspect import Parameter, Signature, signature
from traceback import walk_tb
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from sqlmodel import SQLModel
from starlette.exceptions import HTTPException

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.params import key_type
from sqlmodel_crud_utils._core.visibility.soft_delete import require_soft_delete
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.fastapi.errors import error_responses
from sqlmodel_crud_utils.ext.fastapi.filters import filter_params
from sqlmodel_crud_utils.ext.fastapi.resources import Resource, check_restriction, resource_of
from sqlmodel_crud_utils.pagination import CursorPage, Page

__all__ = ["crud_router"]

Operation = Literal["list", "get", "create", "update", "delete", "restore", "bulk"]
Dependencies = Sequence[Any] | Mapping[Operation, Sequence[Any]]

_SIZE = 50
_MOST_ROWS = 1_000


class _Endpoint(NamedTuple):
    """The HTTP endpoint of an operation."""

    method: str
    path: str
    status: int
    errors: tuple[int, ...]
    takes: tuple[str, ...]


_ENDPOINTS: dict[Operation, _Endpoint] = {
    "list": _Endpoint("GET", "", 200, (), ("request", "response", "params")),
    "get": _Endpoint("GET", "{key}", 200, (404,), ("request", "response")),
    "create": _Endpoint("POST", "", 201, (409,), ("request", "response", "data")),
    "update": _Endpoint("PATCH", "{key}", 200, (404, 409, 412), ("request", "response", "data")),
    "delete": _Endpoint("DELETE", "{key}", 204, (404, 409, 412), ("request",)),
    "restore": _Endpoint("POST", "{key}/restore", 200, (404, 409), ("response",)),
    "bulk": _Endpoint("POST", "/bulk", 201, (409,), ("data",)),
}
_OF_EVERY_ROUTE = (429, 503)
_ON_DEMAND = ("restore", "bulk")


def crud_router(  # noqa: PLR0913 - each of them has a name
    model: type[SQLModel],
    session: Callable[..., Any],
    *,
    public: type[BaseModel],
    create: type[BaseModel] | None = None,
    update: type[BaseModel] | None = None,
    filters: Iterable[str] = (),
    sort: Iterable[str] = (),
    search: Iterable[str] = (),
    alternatives: bool = False,
    pagination: Literal["number", "cursor"] = "number",
    size: int | None = None,
    max_size: int = 100,
    operations: Iterable[Operation] | None = None,
    dependencies: Dependencies = (),
    restrict: Callable[..., Any] | None = None,
    reading: Callable[..., Any] | None = None,
    is_async: bool | None = None,
) -> APIRouter:
    """Return a router with routes that list, read, create, update and delete rows of a model.

    | operation | route | answers |
    |---|---|---|
    | list | `GET /` | a `Page` or `CursorPage`; the header `Link` has the adjacent pages |
    | get | `GET /{key}` | the row |
    | create | `POST /` | 201 and the row; the header `Location` says where it is |
    | update | `PATCH /{key}` | the row; fields that were not sent stay unchanged |
    | delete | `DELETE /{key}` | 204; the row is marked if the model has `SoftDeleteMixin` |
    | restore | `POST /{key}/restore` | the row; on demand |
    | bulk | `POST /bulk` | 201 and the rows, all or none; on demand |

    A composite key has one path segment for each column. With `VersionMixin`, a response with one
    row has an `ETag`; `If-Match` on update and delete, and `If-None-Match` on get, are honoured.
    Each request is one transaction. Call `install_error_handlers` so that errors get their status.

    Args:
        model: The table model.
        session: The dependency that provides the session: one from `session_dependency`, or any
            that yields a `Session` or an `AsyncSession`.
        public: The model of a row in responses. Fields that it lacks are never sent; relationships
            that it has are loaded.
        create: The model of the body that creates a row. Without it, the router has no create
            route.
        update: The model of the body that updates a row. Without it, the router has no update
            route.
        filters: The filters that clients may use, as `allow` of `filter_params`.
        sort: The fields that clients may sort by.
        search: The fields that `q` searches.
        alternatives: Whether clients may use `any`, for rows that meet at least one of several sets
            of filters.
        pagination: "number" for pages with a total, "cursor" for pages that stay correct while rows
            change.
        size: How many rows a page has if the client doesn't say. The default is 50, or `max_size`
            if that is lower.
        max_size: The largest page that clients may ask for.
        operations: Which routes the router has. The default is all except restore and bulk.
        dependencies: More dependencies, as in `APIRouter`; or a mapping of operations to such
            lists.
        restrict: A dependency that returns filters or an expression for the rows that this request
            may see. Any other row is a 404, and a written row must match too.
        reading: The session dependency of the routes that only read. The default is `session`.
        is_async: Whether the session is an `AsyncSession`. By default, the return type of `session`
            decides.

    Returns:
        The router. Pass it to `include_router` with a prefix.

    Raises:
        ValidationError: A table model as `create` or `update`, or a field of theirs that the model
            does not have; a field of `public` that no row can fill, or a required related row in it
            that may be soft-deleted; an unknown operation, or one without its model; a dependency
            whose session type cannot be determined; anything that `filter_params` refuses.

    Example:
        >>> from fastapi import FastAPI
        >>> from fastapi.testclient import TestClient
        >>> from sqlmodel_crud_utils.ext.fastapi import session_dependency
        >>> from sqlmodel_crud_utils.sync import create_pooled_engine
        >>> memory = create_pooled_engine("sqlite://")
        >>> Hero.metadata.create_all(memory)
        >>> class HeroCreate(SQLModel):
        ...     name: str
        ...     secret_name: str
        >>> class HeroPublic(SQLModel):
        ...     id: int
        ...     name: str
        >>> heroes = crud_router(
        ...     Hero, session_dependency(memory), public=HeroPublic, create=HeroCreate
        ... )
        >>> app = FastAPI()
        >>> app.include_router(heroes, prefix="/heroes")
        >>> client = TestClient(app)
        >>> client.post("/heroes", json={"name": "Rusty", "secret_name": "?"}).json()
        {'id': 1, 'name': 'Rusty'}
        >>> memory.dispose()
    """
    _require_class("public", public)
    resource = resource_of(model, public)
    bodies: dict[str, Any] = {"create": create, "update": update, "bulk": create}
    for argument in ("create", "update"):
        _check_body(model, argument, bodies[argument])
    chosen = _chosen(operations, bodies)
    if "restore" in chosen:
        require_soft_delete(facts_of(model), "operations")
    if create is not None:
        bodies["bulk"] = Annotated[list[create], Field(max_length=_MOST_ROWS)]  # type: ignore[valid-type]
    params = filter_params(
        model,
        allow=filters,
        sort=sort,
        search=search,
        alternatives=alternatives,
        pages=pagination,
        size=min(_SIZE, max_size) if size is None else size,
        max_size=max_size,
    )
    for_all, for_one = _dependencies(dependencies)
    router = APIRouter(
        route_class=_Route, dependencies=for_all, generate_unique_id_function=_operation_id
    )
    page: Any = Page if pagination == "number" else CursorPage
    answers = {"list": page[public], "bulk": list[public], "delete": None}  # type: ignore[valid-type]
    twin = _twin(_sessions_of(session) if is_async is None else is_async)
    run = twin.Operations(resource)
    keys = {f"key_{place}": name for place, name in enumerate(resource.facts.key)}
    for name in chosen:
        endpoint = _ENDPOINTS[name]
        own = keys if "{key}" in endpoint.path else {}
        depends = {
            "session": reading or session if endpoint.method == "GET" else session,
            "params": params if name == "list" else None,
            "restriction": _restriction_of(restrict, resource),
        }
        shape = _shape(resource, endpoint, bodies.get(name), depends, own)
        filters_of_key = {parameter: f"{field}__eq" for parameter, field in own.items()}
        router.add_api_route(
            endpoint.path.replace("{key}", _key_path(resource)),
            twin.endpoint(getattr(run, name), shape, filters_of_key),
            methods=[endpoint.method],
            name=name,
            status_code=endpoint.status,
            response_model=answers.get(name, public),
            responses=_responses(endpoint, name, has_version=resource.facts.version is not None),
            summary=f"{name.capitalize()} {model.__name__}",
            description=str(getattr(run, name).__doc__).splitlines()[0],
            dependencies=for_one.get(name, ()),
        )
    return router


# --- the caller's arguments ----------------------------------------------------------------------


def _require_class(argument: str, given: Any) -> None:
    if not (isinstance(given, type) and issubclass(given, BaseModel)):
        raise ValidationError(f"must be a Pydantic model, not {given!r}", field=argument)


def _check_body(model: type[Any], argument: str, body: type[BaseModel] | None) -> None:
    if body is None:
        return
    _require_class(argument, body)
    if hasattr(body, "__table__"):
        raise ValidationError(
            f"{body.__name__} is a table model, which validates nothing; "
            "use a class with only the fields that clients may send",
            field=argument,
        )
    facts = facts_of(model)
    unknown = [name for name in body.model_fields if name not in facts.written]
    if unknown:
        raise ValidationError(
            f"{body.__name__}.{unknown[0]} is not a column of {model.__name__}", field=argument
        )


def _chosen(operations: Iterable[Any] | None, bodies: Mapping[str, Any]) -> list[Operation]:
    if operations is None:
        return [
            name
            for name in _ENDPOINTS
            if name not in _ON_DEMAND and (name not in bodies or bodies[name] is not None)
        ]
    chosen = list(operations)
    for name in chosen:
        if name not in _ENDPOINTS:
            known = ", ".join(_ENDPOINTS)
            raise ValidationError(f"{name!r} is not an operation; use: {known}", "operations")
        if name in bodies and bodies[name] is None:
            needed = "update" if name == "update" else "create"
            raise ValidationError(f"{name!r} needs a model: {needed}=...", "operations")
    return chosen


def _dependencies(given: Dependencies) -> tuple[Sequence[Any], Mapping[Any, Sequence[Any]]]:
    if not isinstance(given, Mapping):
        return given, {}
    if unknown := [name for name in given if name not in _ENDPOINTS]:
        raise ValidationError(f"{unknown[0]!r} is not an operation", "dependencies")
    return (), given


def _sessions_of(dependency: Callable[..., Any]) -> bool:
    """Return whether a dependency's return type is an `AsyncSession`."""
    returns = str(signature(dependency).return_annotation)
    if "Session" not in returns:
        raise ValidationError(
            "the return type of the dependency does not say which session it yields; "
            "pass is_async=True or is_async=False",
            field="session",
        )
    return "AsyncSession" in returns


def _twin(is_async: bool) -> Any:
    # Imported here, so that neither API loads the other.
    tree = "_async" if is_async else "_sync"
    return import_module(f"sqlmodel_crud_utils.ext.fastapi.{tree}.route_operations")


def _restriction_of(
    restrict: Callable[..., Any] | None, resource: Resource
) -> Callable[..., Any] | None:
    """Return a dependency that checks the restriction that `restrict` returns."""
    if restrict is None:
        return None

    depends = Depends(restrict)

    async def restriction(found: Any = depends) -> Any:
        check_restriction(resource.model, found)
        return found

    return restriction


# --- declarations for FastAPI --------------------------------------------------------------------


def _key_path(resource: Resource) -> str:
    return "".join(f"/{{{name}}}" for name in resource.facts.key)


def _shape(
    resource: Resource,
    endpoint: _Endpoint,
    body: Any,
    depends: Mapping[str, Callable[..., Any] | None],
    keys: Mapping[str, str],
) -> Signature:
    """Return the parameters of a route."""
    types: dict[str, Any] = {"request": Request, "response": Response, "data": body}
    taken = {name: types[name] for name in endpoint.takes if name in types}
    for name, dependency in depends.items():
        if dependency is not None:
            taken[name] = Annotated[Any, Depends(dependency)]
    for parameter, name in keys.items():
        type_ = key_type(resource.facts.attributes[name])
        taken[parameter] = Annotated[type_, Path(alias=name)]
    return Signature(
        [
            Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation)
            for name, annotation in taken.items()
        ]
    )


def _responses(
    endpoint: _Endpoint, name: str, *, has_version: bool
) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of the error responses and of the headers."""
    statuses = [status for status in endpoint.errors if status != 412 or has_version]
    described = error_responses(*statuses, *_OF_EVERY_ROUTE)
    headers = {}
    tag = "The version of the row, for If-Match."
    if name == "list":
        headers["Link"] = "Links to the previous and the next page."
    if name == "create":
        headers["Location"] = "The URL of the row."
    if has_version and name in {"get", "create", "update", "restore"}:
        headers["ETag"] = tag
    if has_version and name == "get":
        current = "The client's version is current."
        described[304] = {"description": current, "headers": _headers({"ETag": tag})}
    described[endpoint.status] = {"headers": _headers(headers)}
    return described


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in described.items()
    }


def _operation_id(route: APIRoute) -> str:
    segments = [each for each in route.path.split("/") if each and not each.startswith("{")]
    if segments and segments[-1] == route.name:
        segments.pop()
    return "_".join([route.name, *segments]).replace("-", "_")


class _Route(APIRoute):
    """A route that answers unreadable bodies like invalid ones."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise RequestValidationError(_encodable(error.errors())) from None
            except HTTPException as error:
                if error.status_code != 400 or error.__cause__ is None:
                    raise
                unreadable = {"type": "json_invalid", "loc": ("body",), "msg": "JSON decode error"}
                raise RequestValidationError([unreadable]) from error
            except OverflowError as error:
                if not _is_of_body(error):
                    raise
                beyond = {"type": "value_error", "loc": ("body",), "msg": "a value is out of range"}
                raise RequestValidationError([beyond]) from error

        return handler


def _is_of_body(error: Exception) -> bool:
    """Return whether Pydantic raised the error for a body, as it does for overflowing durations."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_code.co_name == "request_body_to_args" for frame in frames)


def _encodable(errors: Sequence[Any]) -> list[Any]:
    """Remove input that cannot be sent back from errors, such as lone surrogates or NaN."""
    return [
        each if _is_encodable(each) else {name: each[name] for name in _KEPT} for each in errors
    ]


_KEPT = ("type", "loc", "msg")


def _is_encodable(error: Mapping[str, Any]) -> bool:
    try:
        json.dumps(jsonable_encoder(error), ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True
