"""Convert the parameters of a query string to filters, an order and a page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, overload
from urllib.parse import parse_qsl

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, TypeAdapter, ValidationError as PydanticError

from sqlmodel_crud_utils._core.queries.builder import QueryShape, whole
from sqlmodel_crud_utils._core.queries.params import (
    QueryParam,
    alternatives_param,
    filter_param,
    page_params,
    search_param,
    sort_param,
)
from sqlmodel_crud_utils._core.queries.select_statements import GET_ROWS_PARAMETERS
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.pagination import CursorPage, Page

if TYPE_CHECKING:
    from sqlmodel_crud_utils._async.query_builder import AsyncQueryBuilder
    from sqlmodel_crud_utils._sync.query_builder import QueryBuilder

__all__ = ["FilterParams", "filter_params"]

T = TypeVar("T")
_Q = TypeVar("_Q", bound=QueryShape[Any])


@dataclass(frozen=True, slots=True)
class FilterParams:
    """The filters, order and page that a request asks for; `filter_params` creates them.

    Attributes:
        filters: The filters, in the form that `QueryBuilder.where` and `get_rows` accept. If a
            field has the same name as a parameter of `get_rows`, the lookup is added: `page__eq`.
        sort: The names to sort by, with "-" in front for descending order.
        size: The number of rows per page.
        max_size: The largest size allowed.
        page: The number of the page; None if pages use cursors.
        after: The cursor, if the request has one.
        words: The words to search for; each must occur in one of the fields `searched`.
        searched: The fields to search in.
        alternatives: Sets of filters; if there are any, a row must meet at least one set.

    Example:
        >>> params = FilterParams({"age__gte": 18}, ("-age",), size=50, max_size=100)
        >>> params.filters, params.sort
        ({'age__gte': 18}, ('-age',))
    """

    filters: dict[str, Any]
    sort: tuple[str, ...]
    size: int
    max_size: int
    page: int | None = None
    after: str | None = None
    words: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    alternatives: tuple[dict[str, Any], ...] = ()

    def apply(self, query: _Q) -> _Q:
        """Return the query with the filters and the order, without a page.

        Args:
            query: A query builder of either API; its own filters and order stay.

        Example:
            >>> from sqlmodel_crud_utils.sync import QueryBuilder
            >>> params = FilterParams({"age__gte": 18}, ("-age",), size=50, max_size=100)
            >>> params.apply(QueryBuilder(session, Hero)).count()
            0
        """
        query = query.where(**self.filters)
        for word in self.words:
            query = query.any_of(*({f"{name}__icontains": word} for name in self.searched))
        if self.alternatives:
            query = query.any_of(*self.alternatives)
        return query.order_by(*self.sort)

    @overload
    def keyset(self, query: QueryBuilder[T]) -> CursorPage[T]: ...
    @overload
    def keyset(self, query: AsyncQueryBuilder[T]) -> Coroutine[Any, Any, CursorPage[T]]: ...
    def keyset(self, query: Any) -> Any:
        """Return the page after the cursor of the request.

        Args:
            query: A query builder; with one of the async API, await the result.

        Raises:
            ValidationError: A cursor that is damaged or belongs to another order; parameters that
                use page numbers.

        Example:
            >>> from sqlmodel_crud_utils.sync import QueryBuilder
            >>> params = FilterParams({}, ("name",), size=50, max_size=100)
            >>> params.keyset(QueryBuilder(session, Hero))
            CursorPage(items=[], next_cursor=None)
        """
        if self.page is not None:
            raise ValidationError(
                "the parameters have no cursor; call filter_params with pages='cursor'", "pages"
            )
        return self.apply(query).keyset(self.size, self.after, max_size=self.max_size)

    @overload
    def paginate(self, query: QueryBuilder[T]) -> Page[T]: ...
    @overload
    def paginate(self, query: AsyncQueryBuilder[T]) -> Coroutine[Any, Any, Page[T]]: ...
    def paginate(self, query: Any) -> Any:
        """Return the page with the number in the request, and the total number of rows.

        Args:
            query: A query builder; with one of the async API, await the result.

        Raises:
            ValidationError: Parameters that use cursors.

        Example:
            >>> from sqlmodel_crud_utils.sync import QueryBuilder
            >>> params = FilterParams({}, ("name",), size=50, max_size=100, page=1)
            >>> params.paginate(QueryBuilder(session, Hero)).total
            0
        """
        if self.page is None:
            raise ValidationError(
                "the parameters have no page number; call filter_params with pages='number'",
                "pages",
            )
        return self.apply(query).paginate(self.page, self.size, max_size=self.max_size)


def filter_params(
    model: type[Any],
    *,
    allow: Iterable[str],
    sort: Iterable[str] = (),
    search: Iterable[str] = (),
    alternatives: bool = False,
    pages: Literal["cursor", "number"] = "cursor",
    size: int = 50,
    max_size: int = 100,
    ignore: Iterable[str] = (),
) -> Callable[..., Coroutine[Any, Any, FilterParams]]:
    """Return a FastAPI dependency that turns the query parameters of a list into filters.

    Clients may use only the allowed filters. FastAPI checks each value against the type of its
    column, and the OpenAPI page describes each parameter. Separate the values of `in`, `not_in` and
    `between` with commas (and quote a value that contains one), or repeat the parameter. An unknown
    parameter is refused with 422, because a misspelt filter would show rows that nobody asked for;
    so is a repeated parameter that accepts a single value. An empty parameter counts as left out,
    except in a filter on a text field, which then looks for the empty string.

    Besides the filters, the parameters are `size`; `after` (a cursor) or `page`; and `sort`, such
    as `sort=-age,name`, if you allow fields to sort by.

    Args:
        model: The table model of the rows.
        allow: The allowed filters, such as "name", "age__gte", "team__name__icontains" or "id__in":
            those of `QueryBuilder.where`, except `regex`.
        sort: The fields that clients may sort by, in either direction, also fields of related rows.
        search: The fields that the parameter `q` searches: each of its words must occur in one of
            them.
        alternatives: Whether clients may use the parameter `any`, once or repeatedly. Each is a
            query string of allowed filters, such as `any=age__lt%3D18`, and a row must meet at
            least one of them.
        pages: "cursor" for pages that stay correct while rows change (use `FilterParams.keyset`);
            "number" for pages with a total (use `FilterParams.paginate`).
        size: How many rows a page has if the client doesn't say.
        max_size: The largest page that clients may ask for.
        ignore: Other query parameters that are not refused. Those of the route and its dependencies
            are known already.

    Returns:
        A function for `Depends`.

    Raises:
        UnknownFieldError: A name that is neither a field nor a relationship.
        ValidationError: A lookup that is unknown, doesn't fit its field or is not available to
            clients; a field that can't be filtered or sorted by; a filter with the name of another
            parameter; wrong sizes.

    Example:
        >>> from typing import Annotated
        >>> from fastapi import Depends, FastAPI
        >>> from fastapi.testclient import TestClient
        >>> app = FastAPI()
        >>> hero_params = filter_params(Hero, allow=["age__gte", "name__in"], sort=["name", "age"])
        >>> @app.get("/heroes")
        ... def list_heroes(params: Annotated[FilterParams, Depends(hero_params)]) -> dict:
        ...     return params.filters | {"sort": params.sort, "size": params.size}
        >>> client = TestClient(app)
        >>> client.get("/heroes?age__gte=30&name__in=Ann,Bob&sort=-age").json()
        {'age__gte': 30, 'name__in': ['Ann', 'Bob'], 'sort': ['-age'], 'size': 50}
        >>> client.get("/heroes?age_gte=30").status_code, client.get("/heroes?size=101").status_code
        (422, 422)
    """
    whole("size", size, least=1, most=whole("max_size", max_size, least=1))
    if pages not in {"cursor", "number"}:
        raise ValidationError("must be 'cursor' or 'number'", "pages", pages)
    by_cursor = pages == "cursor"
    filters = [filter_param(model, name) for name in _names("allow", allow)]
    sortable = _names("sort", sort)
    searched = tuple(_names("search", search))
    params = [
        *filters,
        *([sort_param(model, sortable, by_cursor=by_cursor)] if sortable else []),
        *([search_param(model, searched)] if searched else []),
        *([alternatives_param()] if alternatives else []),
        *page_params(by_cursor=by_cursor, size=size, max_size=max_size),
    ]
    known = _distinct([*(param.name for param in params), *_names("ignore", ignore)])

    read_alternatives = _alternatives_of(filters)
    singles = [param.name for param in params if not param.is_list]

    async def read(request: Request, **given: Any) -> FilterParams:
        _refuse_unknown(request, known)
        _refuse_repeated(request, singles)
        values = {param.name: given[f"param_{i}"] for i, param in enumerate(params)}
        asked = {param.name: values[param.name] for param in filters}
        return FilterParams(
            filters={_filter(name): value for name, value in asked.items() if value is not None},
            sort=tuple(values.get("sort", ())),
            size=values["size"],
            max_size=max_size,
            page=values.get("page"),
            after=values.get("after"),
            words=tuple((values.get("q") or "").split()),
            searched=searched,
            alternatives=tuple(read_alternatives(values.get("any", ()))),
        )

    read.__signature__ = _signature(params)  # type: ignore[attr-defined]
    return read


def _alternatives_of(
    filters: Iterable[QueryParam],
) -> Callable[[Iterable[str]], Iterator[dict[str, Any]]]:
    """Return a function that parses sets of filters, each from a query string."""
    known = {param.name: param for param in filters}
    adapters: dict[str, TypeAdapter[Any]] = {
        name: TypeAdapter(param.type) for name, param in known.items()
    }

    def read_one(place: int, text: str) -> dict[str, Any]:
        given: dict[str, list[str]] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            given.setdefault(name, []).append(value)
        found: dict[str, Any] = {}
        for name, values in given.items():
            where = ("query", "any", place, name)
            if name not in known:
                raise _refused("extra_forbidden", where, f"Unknown filter; {_available(known)}")
            if len(values) > 1 and not known[name].is_list:
                raise _refused("value_error", where, "It is given more than once")
            try:
                found[name] = adapters[name].validate_python(
                    values if known[name].is_list else values[0]
                )
            except PydanticError as error:
                details = error.errors(include_input=False, include_context=False)
                problem = str(details[0]["msg"])
                raise _refused("value_error", where, problem) from error
        used = {name: value for name, value in found.items() if value is not None}
        if not used:
            raise _refused(
                "value_error", ("query", "any", place), f"No filter; {_available(known)}"
            )
        return used

    def read(texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        return (read_one(place, text) for place, text in enumerate(texts))

    return read


def _available(known: Iterable[str]) -> str:
    return f"available: {', '.join(known)}"


def _refused(kind: str, where: tuple[str | int, ...], problem: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": where, "msg": problem}])


def _names(argument: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise ValidationError("must be a list of names, not one name", argument, names)
    return list(names)


def _filter(name: str) -> str:
    """Return the name of a filter for `get_rows`, which has parameters of its own."""
    return f"{name}__eq" if name in GET_ROWS_PARAMETERS else name


def _distinct(names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValidationError(
                f"there are two parameters {name!r}; a field of that name can be filtered as "
                f"{name}__eq",
                "allow",
            )
    return names


def _refuse_unknown(request: Request, known: Sequence[str]) -> None:
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        taken = set(_taken_by(getattr(request.scope.get("route"), "dependant", None)))
        unknown = [name for name in unknown if name not in taken]
    if unknown:
        problem = f"Unknown parameter; available: {', '.join(known)}"
        raise RequestValidationError(
            [
                {"type": "extra_forbidden", "loc": ("query", name), "msg": problem}
                for name in unknown
            ]
        )


def _taken_by(dependant: Any) -> Iterator[str]:
    """Yield the query parameters that a route and its dependencies take."""
    if dependant is None:
        return
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from (each.alias or name for name, each in model.model_fields.items())
        else:
            yield field.alias
    if isinstance(dependant.call, APIKeyQuery):
        yield dependant.call.model.name
    for each in dependant.dependencies:
        yield from _taken_by(each)


def _refuse_repeated(request: Request, singles: Sequence[str]) -> None:
    repeated = [name for name in singles if len(request.query_params.getlist(name)) > 1]
    if repeated:
        problem = "The parameter takes one value, but was given more than once"
        raise RequestValidationError(
            [{"type": "value_error", "loc": ("query", name), "msg": problem} for name in repeated]
        )


def _signature(params: Iterable[QueryParam]) -> Signature:
    """Return the signature for FastAPI; names in a URL need not be valid in Python."""
    read = [
        Parameter(
            f"param_{i}",
            Parameter.KEYWORD_ONLY,
            default=param.default,
            annotation=Annotated[
                param.type, Query(alias=param.name, description=param.description)
            ],
        )
        for i, param in enumerate(params)
    ]
    return Signature([Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request), *read])
