"""`crud_router`: routes for the rows of a model."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Query
from fastapi.security import APIKeyQuery
from fastapi.testclient import TestClient
from pydantic import BaseModel

from sqlmodel_crud_utils.aio import create_pooled_engine, on_commit
from sqlmodel_crud_utils.ext.fastapi import crud_router, install_error_handlers, session_dependency
from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.databases import Database
from tests.recording import recorded
from tests.router_models import (
    Bench,
    BenchCreate,
    BenchUpdate,
    Lodge,
    LodgeCreate,
    LodgePublic,
    LodgeUpdate,
    Ranger,
    RangerCreate,
    RangerPublic,
    RangerUpdate,
    acting_ann,
)

NOWHERE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def pool(database: Database) -> Iterator[AsyncEngine]:
    """An engine on empty tables; closing the service disposes of it."""
    yield create_pooled_engine(database.async_url)
    database.clear()


@pytest.fixture
def serve(pool: AsyncEngine) -> Iterator[Callable[..., TestClient]]:
    """A function that serves the lodges with further arguments of `crud_router`."""
    clients: list[TestClient] = []

    def start(**more: Any) -> TestClient:
        app = FastAPI(lifespan=None)
        install_error_handlers(app)
        arguments = {
            "public": LodgePublic,
            "create": LodgeCreate,
            "update": LodgeUpdate,
            "filters": ("name", "motto__is_null"),
            "sort": ("name", "created_at"),
            **more,
        }
        session = session_dependency(pool)
        app.include_router(crud_router(Lodge, session, **arguments), prefix="/lodges")
        rangers = crud_router(
            Ranger,
            session,
            public=RangerPublic,
            create=RangerCreate,
            update=RangerUpdate,
            filters=("lodge__name", "age__lt", "name__in", "age__is_null"),
            sort=("name", "lodge__name"),
            search=("name", "lodge__motto"),
            alternatives=True,
            pagination="cursor",
            max_size=3,
            operations=("list", "get", "create", "update", "delete", "bulk"),
        )
        benchs = crud_router(Bench, session, public=Bench, create=BenchCreate, update=BenchUpdate)
        app.include_router(rangers, prefix="/rangers")
        app.include_router(benchs, prefix="/benchs")

        clients.append(TestClient(app, raise_server_exceptions=False).__enter__())
        return clients[-1]

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    """A client of the unchanged service."""
    return serve(operations=("list", "get", "create", "update", "delete", "restore", "bulk"))


class Paging(BaseModel):
    """Query parameters of a dependency."""

    depth: int = 0


def create(client: TestClient, name: str, **more: Any) -> Any:
    """Create a lodge, and return the answer's body."""
    answer = client.post("/lodges", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def refusal(answer: Any) -> Any:
    """The kind and the place of the one thing that is wrong."""
    [detail] = answer.json()["detail"]
    return answer.status_code, detail["type"], detail["loc"]


# --- one row -------------------------------------------------------------------------------------


def test_a_row_from_the_beginning_to_the_end(client: TestClient) -> None:
    """Created, read, changed, deleted softly, restored: with a version each time."""
    answer = client.post("/lodges", json={"name": "Owls", "motto": "Hu"})
    lodge, where = answer.json(), answer.headers["location"]
    assert (answer.status_code, where) == (201, f"/lodges/{lodge['id']}")
    assert sorted(lodge) == ["created_by", "id", "motto", "name", "version"]
    assert (answer.headers["etag"], client.get(where).headers["etag"]) == ('"1"', '"1"')
    assert client.get(where).json() == lodge

    changed = client.patch(where, json={"name": "Eagles"})
    assert changed.json() == lodge | {"name": "Eagles", "version": 2}
    assert changed.headers["etag"] == '"2"'

    gone = client.delete(where)
    assert (gone.status_code, gone.content) == (204, b"")
    assert [client.get(where).status_code, client.delete(where).status_code] == [404, 404]
    assert client.get("/lodges").json()["total"] == 0
    restored = client.post(f"{where}/restore")
    assert (restored.status_code, restored.headers["etag"]) == (200, '"4"')
    assert client.post(f"{where}/restore").status_code == 404


def test_a_composite_key_has_a_segment_for_each_column(client: TestClient) -> None:
    """Typed, in the order of the columns."""
    answer = client.post("/benchs", json={"row": "a", "number": 7})
    where = answer.headers["location"]
    assert where == "/benchs/a/7"
    assert "etag" not in answer.headers
    assert client.patch(where, json={"guest": "Ann"}).json()["guest"] == "Ann"
    assert client.get("/benchs/a/8").status_code == 404
    assert refusal(client.get("/benchs/a/x")) == (422, "int_parsing", ["path", "number"])
    assert client.delete(where).status_code == 204
    assert client.get("/benchs").json()["items"] == []


def test_related_rows_go_out_with_a_row(client: TestClient) -> None:
    """With what is public of them; the tag is one of the whole answer."""
    lodge = create(client, "Owls")
    made = client.post("/rangers", json={"name": "Ann", "lodge_id": lodge["id"]})
    assert made.json()["lodge"] == lodge
    where, tag = made.headers["location"], made.headers["etag"]
    assert client.get(where).headers["etag"] == tag
    client.patch(f"/lodges/{lodge['id']}", json={"motto": "Hu"})
    assert client.get(where).headers["etag"] != tag
    assert client.patch(where, json={"age": 3}, headers={"if-match": tag}).status_code == 412
    tag = client.get(where).headers["etag"]
    changed = client.patch(where, json={"age": 3}, headers={"if-match": tag})
    assert (changed.status_code, changed.json()["lodge"]["motto"]) == (200, "Hu")
    assert client.get("/rangers?lodge__name=Owls").json()["items"] == [changed.json()]


@pytest.mark.parametrize("wage", ["1.5", "1.50", 2, None])
def test_a_row_that_was_written_goes_out_as_it_is_stored(
    client: TestClient, wage: str | int | None
) -> None:
    """The tag of an answer to a write is that of the row, however the client has put a number."""
    made = client.post("/rangers", json={"name": "Ann", "wage": wage})
    where = made.headers["location"]
    assert client.get(where).json() == made.json()
    tag = {"if-match": made.headers["etag"]}
    changed = client.patch(where, json={"wage": "7.5"}, headers=tag)
    assert (changed.status_code, changed.json()["wage"]) == (200, "7.50")
    tag = {"if-match": changed.headers["etag"]}
    assert client.patch(where, json={"wage": "8"}, headers=tag).status_code == 200


# --- versions ------------------------------------------------------------------------------------


def test_a_row_is_changed_as_it_was_seen(client: TestClient) -> None:
    """With If-Match: a list, weak tags and `*` too, on changes and deletions."""
    where = f"/lodges/{create(client, 'Owls')['id']}"

    def change(tag: str) -> int:
        motto = {"motto": f"seen {tag}"[:20]}
        return client.patch(where, json=motto, headers={"if-match": tag}).status_code

    assert [change('"1"'), change('"1"'), change('"7", "2"'), change("*")] == [200, 412, 200, 200]
    assert [change('W/"4"'), change("4"), change("")] == [412, 412, 412]
    refused = client.delete(where, headers={"if-match": '"1"'})
    assert (refused.status_code, refused.json()) == (
        412,
        {"detail": "It has changed since it was read"},
    )
    assert client.delete(where, headers={"if-match": '"4"'}).status_code == 204
    assert change("*") == 404


def test_what_is_known_is_not_sent_again(client: TestClient) -> None:
    """With If-None-Match on one row."""
    where = f"/lodges/{create(client, 'Owls')['id']}"
    for tag in ('"1"', 'W/"1"', '"0", "1"', "*"):
        answer = client.get(where, headers={"if-none-match": tag})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == '"1"'
    assert client.get(where, headers={"if-none-match": '"2"'}).status_code == 200


def test_tags_may_come_in_several_lines(client: TestClient) -> None:
    """A list in a header may be split, and each line counts."""
    where = f"/lodges/{create(client, 'Owls')['id']}"
    lines = [("if-none-match", '"7"'), ("if-none-match", '"1"')]
    assert client.get(where, headers=lines).status_code == 304
    lines = [("if-match", '"7"'), ("if-match", '"1"')]
    assert client.patch(where, json={"motto": "seen"}, headers=lines).status_code == 200
    assert client.patch(where, json={"motto": "not seen"}, headers=lines).status_code == 412


# --- lists ---------------------------------------------------------------------------------------


def test_pages_with_a_total_link_to_each_other(client: TestClient) -> None:
    """Filtered and sorted, with links to the adjacent pages."""
    for name in ("c", "a", "b"):
        create(client, name)
    answer = client.get("/lodges?sort=-name&size=1&page=2&motto__is_null=true")
    page = answer.json()
    assert [lodge["name"] for lodge in page.pop("items")] == ["b"]
    assert page == {
        "total": 3,
        "page": 2,
        "size": 1,
        "pages": 3,
        "has_next": True,
        "has_previous": True,
    }
    previous, following = answer.headers["link"].split(", ")
    rest = "sort=-name&size=1&motto__is_null=true"
    assert previous == f'</lodges?{rest}&page=1>; rel="prev"'
    assert following == f'</lodges?{rest}&page=3>; rel="next"'
    assert "next" not in client.get("/lodges?page=9").headers["link"]
    assert client.get("/lodges?name=a").json()["total"] == 1
    assert "link" not in client.get("/lodges?name=a").headers


def test_pages_by_cursor_link_to_the_next_one(client: TestClient) -> None:
    """Laid end to end they are all rows."""
    for name in "edcba":
        assert client.post("/rangers", json={"name": name}).status_code == 201
    found, address = [], "/rangers?size=2&sort=name"
    while address:
        answer = client.get(address)
        found += [ranger["name"] for ranger in answer.json()["items"]]
        assert sorted(answer.json()) == ["items", "next_cursor"]
        address = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert found == list("abcde")
    assert client.get("/rangers?sort=-lodge__name").status_code == 200


def test_what_a_list_does_not_know_is_refused(client: TestClient) -> None:
    """And not ignored."""
    for query in ("size=101", "size=0", "page=0", "sort=secret", "secret=x", "name=a&name=b"):
        assert client.get(f"/lodges?{query}").status_code == 422, query


def names(client: TestClient, query: str) -> list[str]:
    """The names of the rangers that a query finds."""
    answer = client.get(f"/rangers?sort=name&{query}")
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["items"]]


def test_words_are_searched_in_several_fields(client: TestClient) -> None:
    """Each of them in one of the fields, those of related rows too; a blank one asks nothing."""
    lodge = create(client, "Owls", motto="Wise bird")["id"]
    for name in ("Ann", "Bob"):
        client.post("/rangers", json={"name": name, "lodge_id": lodge})
    client.post("/rangers", json={"name": "Birdie"})
    assert names(client, "q=BIRD") == ["Ann", "Birdie", "Bob"]
    assert names(client, "q=wise+an") == ["Ann"]
    assert names(client, "q=wise+%25") == []
    assert names(client, "q=") == ["Ann", "Birdie", "Bob"]
    assert client.get(f"/rangers?q={'x' * 201}").status_code == 422
    assert client.get("/rangers?q=%00").status_code == 422


def test_alternatives_come_as_query_strings(client: TestClient) -> None:
    """A row meets all filters of one of them."""
    for name, age in (("Ann", 5), ("Bob", 50), ("Cyd", None)):
        client.post("/rangers", json={"name": name, "age": age})
    assert names(client, "any=age__lt%3D18&any=age__is_null%3Dtrue") == ["Ann", "Cyd"]
    assert names(client, "any=age__lt%3D60%26name__in%3DBob%2CCyd&any=name__in%3DAnn") == [
        "Ann",
        "Bob",
    ]
    assert names(client, "any=age__lt%3D18&name__in=Bob") == []
    assert names(client, "any=") == ["Ann", "Bob", "Cyd"]
    for wrong, place in (
        ("any=age__lt%3Dold", [0, "age__lt"]),
        ("any=age__lt%3D1&any=secret%3D1", [1, "secret"]),
        ("any=age__lt%3D1%26age__lt%3D2", [0, "age__lt"]),
        ("any=x&any=age__lt%3D1", [0, "x"]),
        ("any=%26&any=age__lt%3D1", [0]),
        ("any=age__lt%3D", [0]),
    ):
        status, _, loc = refusal(client.get(f"/rangers?{wrong}"))
        assert (status, loc) == (422, ["query", "any", *place]), wrong
    assert client.get(f"/rangers?{'any=age__lt%3D1&' * 21}").status_code == 422


def test_parameters_of_dependencies_are_known(serve: Callable[..., TestClient]) -> None:
    """Those of the route's own dependencies, that is."""

    async def token(token: str) -> None:
        assert token == "x"

    async def more(given: Annotated[Paging, Query()]) -> None:
        assert given.depth == 3

    key = APIKeyQuery(name="api_key")
    client = serve(dependencies={"list": [Depends(token), Depends(more), Depends(key)]})
    assert client.get("/lodges?token=x&depth=3&api_key=z").status_code == 200
    assert client.get("/lodges?token=x&depth=3&api_key=z&other=y").status_code == 422


# --- errors --------------------------------------------------------------------------------------


def test_what_the_database_refuses_names_the_place(client: TestClient) -> None:
    """Duplicates, foreign keys and checks; nothing of it is kept."""
    owls = create(client, "Owls")
    eagles = create(client, "Eagles")
    duplicate = client.post("/lodges", json={"name": "Owls"})
    assert refusal(duplicate) == (409, "unique", ["body", "name"])
    duplicate = client.patch(f"/lodges/{eagles['id']}", json={"name": "Owls"})
    assert refusal(duplicate) == (409, "unique", ["body", "name"])
    ranger = {"name": "Ann", "lodge_id": NOWHERE}
    assert client.post("/rangers", json=ranger).status_code == 409
    assert client.post("/rangers", json={"name": "Ann", "age": 13}).status_code == 422
    client.post("/rangers", json={"name": "Ann", "lodge_id": owls["id"]})
    assert client.get("/rangers").json()["items"][0]["name"] == "Ann"


def test_an_update_of_nothing_and_of_nobody(client: TestClient) -> None:
    """An empty body changes nothing; None for a required value is refused."""
    where = f"/lodges/{create(client, 'Owls')['id']}"
    assert client.patch(where, json={}).status_code == 200
    assert refusal(client.patch(where, json={"name": None})) == (
        422,
        "value_error",
        ["body", "name"],
    )
    assert client.patch(f"/lodges/{NOWHERE}", json={"motto": "x"}).status_code == 404
    assert client.get("/rangers/99999999999999999999999").status_code in {404, 422}


def test_a_body_that_cannot_be_read_is_no_failure_of_the_server(client: TestClient) -> None:
    """No UTF-8, lone surrogates, NUL, no JSON: 422, as for every other value that does not fit."""
    for text in (rb"\ud800", b"\xff", rb"\u0000"):
        for body in (b'{"name": "%s"}' % text, b'{"name": 1, "motto": "%s"}' % text):
            assert post(client, body) == 422, body
    for body in (b'{"name": NaN}', b'{"name": 1%s}' % (b"0" * 5000), b"[" * 100_000):
        assert post(client, body) == 422, body[:20]
    assert [post(client, body) for body in (b"{", b"[1]", b"", b'{"\\ud800": 1}')] == [422] * 4


def post(client: TestClient, body: bytes) -> int:
    """Send a body unchanged."""
    headers = {"content-type": "application/json"}
    return client.post("/lodges", content=body, headers=headers).status_code


# --- many rows -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("_hooks_change_nothing")
def test_many_rows_are_all_created_or_none(client: TestClient) -> None:
    """An error has the place of its row."""
    made = client.post("/lodges/bulk", json=[{"name": "a"}, {"name": "b"}])
    assert (made.status_code, [lodge["name"] for lodge in made.json()]) == (201, ["a", "b"])
    refused = client.post("/lodges/bulk", json=[{"name": "c"}, {"name": "a"}])
    assert refusal(refused) == (409, "unique", ["body", 1, "name"])
    refused = client.post("/lodges/bulk", json=[{"name": "c"}, {"name": "d\0"}])
    assert refusal(refused) == (422, "value_error", ["body", 1, "name"])
    refused = client.post("/lodges/bulk", json=[{"name": "c"}, {}])
    assert refusal(refused) == (422, "missing", ["body", 1, "name"])
    assert client.get("/lodges").json()["total"] == 2
    assert client.post("/rangers/bulk", json=[{"name": "Ann"}]).json()[0]["lodge"] is None
    assert client.post("/lodges/bulk", json=[]).json() == []


# --- who may see what ----------------------------------------------------------------------------


def owned(x_user: Annotated[str, Header()]) -> dict[str, str]:
    """The rows of the request's user."""
    return {"owner": x_user}


def test_a_request_sees_its_own_rows(serve: Callable[..., TestClient]) -> None:
    """In lists, totals, reads and writes of all kinds; what is written stays its own."""
    everything = ("list", "get", "create", "update", "delete", "restore", "bulk")
    client = serve(restrict=owned, operations=everything)
    ann, bob = {"x-user": "ann"}, {"x-user": "bob"}
    where = client.post("/lodges", json={"name": "Owls"}, headers=ann).headers["location"]
    assert client.get(where, headers=ann).status_code == 200
    for refused in (
        client.get(where, headers=bob),
        client.patch(where, json={"motto": "x"}, headers=bob),
        client.delete(where, headers=bob),
        client.post(f"{where}/restore", headers=bob),
    ):
        assert refused.status_code == 404
    assert client.get("/lodges", headers=bob).json()["total"] == 0
    away = client.patch(where, json={"owner": "bob"}, headers=ann)
    assert refusal(away) == (422, "value_error", ["body", "owner"])
    assert client.patch(where, json={"motto": "x"}, headers=ann).status_code == 200
    assert client.delete(where, headers=ann).status_code == 204
    assert client.post(f"{where}/restore", headers=bob).status_code == 404
    assert client.post(f"{where}/restore", headers=ann).status_code == 200
    made = client.post("/lodges/bulk", json=[{"name": "a"}, {"name": "b"}], headers=bob)
    assert made.status_code == 201
    assert client.get("/lodges", headers=bob).json()["total"] == 2


def test_an_expression_restricts_as_well(serve: Callable[..., TestClient]) -> None:
    """Only the database can check it for a new row; the error's place is the body."""
    client = serve(restrict=lambda: Lodge.name != "Owls", operations=("list", "create", "bulk"))
    assert refusal(client.post("/lodges", json={"name": "Owls"})) == (422, "value_error", ["body"])
    refused = client.post("/lodges/bulk", json=[{"name": "a"}, {"name": "Owls"}])
    assert refusal(refused) == (422, "value_error", ["body", 1])
    assert client.get("/lodges").json()["total"] == 0


def test_a_mistake_in_a_restriction_shows_nothing(serve: Callable[..., TestClient]) -> None:
    """It is the service's mistake, which is logged; clients see neither details nor all rows."""
    wrong = (None, True, "ann", ["owner"], {"ownr": ""}, {"owner__x": ""}, Ranger.name == "Ann")
    returned: list[Any] = []
    client = serve(restrict=lambda: returned[-1])
    for each in wrong:
        returned.append(each)
        create_one = client.post("/lodges", json={"name": "Owls"})
        assert [create_one.status_code, client.get("/lodges").status_code] == [500, 500]
    with pytest.raises(TypeError, match="restrict returned"):
        TestClient(client.app).get("/lodges")
    returned.append({})
    assert client.get("/lodges").json()["total"] == 0


def test_a_value_that_restricts_may_come_from_the_client(
    serve: Callable[..., TestClient],
) -> None:
    """So that one which no row can have is the client's to change."""
    client = serve(restrict=lambda version: {"version": version})
    assert client.get("/lodges?version=none").status_code == 422


def test_many_rows_are_restricted_at_once(
    serve: Callable[..., TestClient], pool: AsyncEngine
) -> None:
    """One statement asks for all of them, and one shows them with others."""
    client = serve(restrict=owned, operations=("bulk",))
    names, ann = [f"n{number}" for number in range(30)], {"x-user": "ann"}
    bodies = [{"name": name} for name in names]
    with recorded(pool) as words:
        made = client.post("/lodges/bulk", json=bodies, headers=ann)
    assert ([lodge["name"] for lodge in made.json()], words.count("SELECT")) == (names, 1)
    assert client.post("/lodges/bulk", json=[], headers=ann).json() == []
    with recorded(pool) as words:
        made = client.post("/rangers/bulk", json=bodies)
    assert ([ranger["lodge"] for ranger in made.json()], words.count("SELECT")) == ([None] * 30, 1)


# --- the rest of the library ---------------------------------------------------------------------


def test_hooks_and_actors_work_in_the_routes(serve: Callable[..., TestClient]) -> None:
    """As in every other use of the functions; a hook that raises undoes the request."""
    told: list[str] = []

    class Note:
        def after_create(self, instance: Lodge, session: AsyncSession) -> None:
            if instance.name == "Bad":
                raise HTTPException(418)
            name = instance.name
            on_commit(session, lambda: told.append(name))

    client = serve(dependencies=[Depends(acting_ann)])
    with registered_hook(Lodge, Note()):
        assert create(client, "Owls")["created_by"] == "ann"
        assert client.post("/lodges", json={"name": "Bad"}).status_code == 418
    assert (told, client.get("/lodges").json()["total"]) == (["Owls"], 1)


def test_the_documentation_has_readable_names(client: TestClient) -> None:
    """Names of operations and models are unique."""
    described = client.get("/openapi.json").json()
    ids = [each["operationId"] for way in described["paths"].values() for each in way.values()]
    assert len(ids) == len(set(ids))
    assert {"list_lodges", "restore_lodges", "bulk_rangers", "update_benchs"} <= set(ids)
    schemas = described["components"]["schemas"]
    assert {"LodgeCreate", "LodgePublic", "Page_LodgePublic_", "ErrorDetails"} <= set(schemas)
    answers = described["paths"]["/lodges/{id}"]["patch"]["responses"]
    assert sorted(answers) == ["200", "404", "409", "412", "422", "429", "503"]
    headers = {status: set(answer.get("headers", ())) for status, answer in answers.items()}
    assert headers["200"] == {"ETag"}
    assert headers["429"] == headers["503"] == {"Retry-After"}
    current = described["paths"]["/lodges/{id}"]["get"]["responses"]["304"]
    assert set(current["headers"]) == {"ETag"}


@pytest.mark.databases("sqlite")
def test_beyond_a_rate_limit(client: TestClient) -> None:
    """Routes call the library's functions, so that its limits hold: 429, and when to come again."""
    limiter = RateLimiter("memory://")
    limiter.limit("1/minute", Lodge, on="write")
    try:
        assert client.post("/lodges", json={"name": "a"}).status_code == 201
        refused = client.post("/lodges", json={"name": "b"})
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "60"
        assert refused.json() == {"detail": "Too many requests; try again later"}
        assert client.get("/lodges").status_code == 200
    finally:
        limiter.close()
