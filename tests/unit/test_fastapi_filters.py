"""Query parameters of a FastAPI route: read, refused, and documented."""

from inspect import signature
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.dialects import sqlite

from sqlmodel_crud_utils._core.queries.builder import QueryShape
from sqlmodel_crud_utils._core.queries.select_statements import GET_ROWS_PARAMETERS
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.fastapi import FilterParams, filter_params
from sqlmodel_crud_utils.sync import get_rows
from tests.models import AllTypes, Hero
from tests.query_models import Shelf


def client_of(model: Any = Hero, **settings: Any) -> TestClient:
    """Return a client of an application with one route, which returns the parsed parameters."""
    app = FastAPI()
    params_of_model = filter_params(model, **settings)

    @app.get("/")
    async def answer(params: Annotated[FilterParams, Depends(params_of_model)]) -> dict[str, Any]:
        return {"filters": params.filters, "sort": params.sort, "size": params.size} | (
            {"after": params.after} if params.page is None else {"page": params.page}
        )

    return TestClient(app)


def parameters(client: TestClient) -> dict[str, Any]:
    """Return OpenAPI's description of the parameters, by name."""
    operation = client.get("/openapi.json").json()["paths"]["/"]["get"]
    return {each["name"]: each for each in operation["parameters"]}


# --- reading -------------------------------------------------------------------------------------


def test_without_parameters_there_is_the_first_page() -> None:
    """Everything may be left out."""
    answer = client_of(allow=["name"], sort=["name"], size=7).get("/")
    assert answer.json() == {"filters": {}, "sort": [], "size": 7, "after": None}


def test_filters_have_the_type_of_their_column() -> None:
    """Numbers arrive as numbers, lists as lists, in either way to write them."""
    client = client_of(allow=["age__gte", "team__id__in", "name", "team__is_null"])
    query = "age__gte=5&team__id__in=1,2&team__id__in=3&name=&team__is_null=no"
    assert client.get(f"/?{query}").json()["filters"] == {
        "age__gte": 5,
        "team__id__in": [1, 2, 3],
        "name": "",
        "team__is_null": False,
    }


def test_pages_and_order() -> None:
    """A cursor with cursors, a number with numbers."""
    by_cursor = client_of(allow=[], sort=["name", "age"])
    asked = by_cursor.get("/?sort=-age,name&after=abc&size=100").json()
    assert asked == {"filters": {}, "sort": ["-age", "name"], "size": 100, "after": "abc"}
    by_number = client_of(allow=[], pages="number")
    assert by_number.get("/?page=3").json() == {"filters": {}, "sort": [], "size": 50, "page": 3}


@pytest.mark.parametrize("pages", ["cursor", "number"])
def test_an_empty_parameter_is_as_good_as_none(pages: Any) -> None:
    """Forms and clients send those; a text may be empty, and a list may hold an empty text."""
    allow = ["age__gte", "age__in", "age__between", "name__in", "name", "team__is_null"]
    client = client_of(allow=allow, sort=["name"], pages=pages)
    names = [*allow, "sort", "size", "after" if pages == "cursor" else "page"]
    told = client.get("/").json()
    assert client.get("/?" + "&".join(f"{name}=" for name in names)).json() == told | {
        "filters": {"name": ""}
    }
    assert client.get("/?age__in=&age__in=").json() == told
    assert client.get('/?name__in=""').json()["filters"] == {"name__in": [""]}


def test_a_filter_is_one_for_get_rows_whatever_its_name() -> None:
    """The names of its parameters come with their lookup; the URL has them as allowed."""
    names = sorted(GET_ROWS_PARAMETERS - {"page"})
    client = client_of(Shelf, allow=[*names, "page__gt", "size__eq"])
    query = "&".join(f"{name}=5" for name in [*names, "page__gt", "size__eq"])
    expected = {f"{name}__eq": 5 for name in names} | {"page__gt": 5, "size__eq": 5}
    assert client.get(f"/?{query}").json()["filters"] == expected
    taken = signature(get_rows).parameters.keys() - {"filters"}
    assert taken | {"sort_field", "sort_desc"} == GET_ROWS_PARAMETERS


# --- refusing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "age__gte=x",
        "age__gte=+",
        "age__gte=5&age__gte=6",
        "size=5&size=6",
        "after=a&after=b",
        "age__between=5,1",
        "size=0",
        "size=101",
        "sort=team_id",
        "sort=name,,",
        "age__gte=%00",
    ],
)
def test_values_that_do_not_fit_are_refused(query: str) -> None:
    """FastAPI names the parameter in its usual way."""
    answer = client_of(allow=["age__gte", "age__between"], sort=["name"]).get(f"/?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["query", query.partition("=")[0]]


def test_a_parameter_that_is_not_known_is_refused() -> None:
    """A misspelt filter must not show every row; the answer names what there is."""
    answer = client_of(allow=["age__gte"]).get("/?age_gte=5&page=1")
    assert answer.status_code == 422
    assert [each["loc"] for each in answer.json()["detail"]] == [
        ["query", "age_gte"],
        ["query", "page"],
    ]
    assert answer.json()["detail"][0]["msg"].endswith("available: age__gte, after, size")


def test_other_parameters_of_the_route_are_named() -> None:
    """The route's own parameters are not refused."""
    client = client_of(allow=["age__gte"], ignore=["token"])
    assert client.get("/?token=x").status_code == 200
    assert "token" not in parameters(client)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"allow": ["agee"]}, "agee"),
        ({"allow": "name"}, "a list of names"),
        ({"allow": [], "sort": "name"}, "a list of names"),
        ({"allow": ["name", "name"]}, "two parameters 'name'"),
        ({"allow": ["name"], "ignore": ["name"]}, "two parameters 'name'"),
        ({"allow": [], "sort": ["agee"]}, "agee"),
        ({"allow": [], "size": 0}, "size"),
        ({"allow": [], "size": 101}, "size"),
        ({"allow": [], "max_size": 0}, "max_size"),
        ({"allow": [], "pages": "none"}, "'cursor' or 'number'"),
    ],
)
def test_mistakes_show_at_import(settings: dict[str, Any], match: str) -> None:
    """A list that can't be served fails before the first request."""
    with pytest.raises(ValidationError, match=match):
        filter_params(Hero, **settings)


def test_a_page_is_of_the_kind_that_was_asked_for() -> None:
    """Cursors don't make numbered pages, nor the other way round."""
    with pytest.raises(ValidationError, match="pages='number'"):
        FilterParams({}, (), size=1, max_size=1).paginate(None)  # type: ignore[call-overload]
    with pytest.raises(ValidationError, match="pages='cursor'"):
        FilterParams({}, (), size=1, max_size=1, page=1).keyset(None)  # type: ignore[call-overload]


def test_what_is_asked_for_comes_after_what_the_route_asks_for() -> None:
    """The query of the route is kept, its order too."""
    query = QueryShape(None, Hero, sqlite.dialect()).where(team_id=1).order_by("age")
    params = FilterParams({"age__gte": 5}, ("-name",), size=1, max_size=1)
    sql = " ".join(params.apply(query).sql().split())
    assert "hero.team_id = " in sql
    assert "hero.age >= " in sql
    assert sql.index("ORDER BY hero.age") < sql.index("hero.name DESC")


# --- documenting ---------------------------------------------------------------------------------


def test_openapi_documents_each_parameter() -> None:
    """It contains name, type, limits and choices, and a description of the filter."""
    found = parameters(
        client_of(
            AllTypes, allow=["integer__gte", "colour", "token__in", "day__between"], sort=["text"]
        )
    )
    assert list(found) == [
        "integer__gte",
        "colour",
        "token__in",
        "day__between",
        "sort",
        "after",
        "size",
    ]
    assert all(each["in"] == "query" and not each["required"] for each in found.values())
    assert all(each["description"] for each in found.values())
    assert found["integer__gte"]["schema"]["type"] == "integer"
    assert found["integer__gte"]["description"] == "`integer` is at least this."
    assert found["token__in"]["schema"]["items"] == {"type": "string", "format": "uuid"}
    assert found["day__between"]["schema"]["minItems"] == 2
    assert found["sort"]["schema"]["items"]["enum"] == ["text", "-text"]
    size = found["size"]["schema"]
    assert (size["minimum"], size["maximum"], size["default"]) == (1, 100, 50)
