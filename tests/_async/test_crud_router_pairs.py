"""`crud_router` with what else the library does: tenants, history, versions, restrictions."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select

from sqlmodel_crud_utils.aio import create_pooled_engine
from sqlmodel_crud_utils.ext.fastapi import crud_router, install_error_handlers, session_dependency
from sqlmodel_crud_utils.ext.history.aio import get_change_history
from sqlmodel_crud_utils.mixins import all_tenants
from tests._async.rows import given
from tests._runtime_async import AsyncSession, execute, fetched
from tests.databases import Database
from tests.history_models import Docket
from tests.router_models import (
    CamelLodge,
    DocketCreate,
    DocketPublic,
    DocketUpdate,
    GuildCreate,
    GuildPublic,
    Lodge,
    LodgeCreate,
    LodgePublic,
    LodgeUpdate,
    LodgeWithMore,
    Ranger,
    RangerCreate,
    RangerPublic,
    RangerUpdate,
    Shift,
    ShiftCreate,
    ShipCreate,
    ShipPublic,
    ShipUpdate,
    Span,
    SpanCreate,
    SpanPublic,
    acting_ann,
    in_tenant,
)
from tests.servers import served
from tests.tenant_models import Fleet, Guild, Ship

EVERYTHING = ("list", "get", "create", "update", "delete", "restore", "bulk")
WITHOUT_RESTORE = ("list", "get", "create", "update", "delete", "bulk")
Serve = Callable[..., httpx2.Client]


@pytest.fixture
def serve(database: Database) -> Iterator[Serve]:
    """A function that serves the routes of a model."""
    with ExitStack() as servers:

        def start(model: Any, **more: Any) -> httpx2.Client:
            app = FastAPI()
            install_error_handlers(app)
            engine = create_pooled_engine(database.async_url)
            router = crud_router(model, session_dependency(engine), **more)
            app.include_router(router, prefix="/rows")
            return servers.enter_context(served(app, engine))

        yield start
    database.clear()


def refusal(answer: httpx2.Response) -> Any:
    """The kind and the place of the one thing that is wrong."""
    [detail] = answer.json()["detail"]
    return answer.status_code, detail["type"], detail["loc"]


# --- tenants -------------------------------------------------------------------------------------


async def test_a_tenant_has_its_own_rows(serve: Serve, session: AsyncSession) -> None:
    """Another's is a 404 by every route and in no total; a new one is stamped."""
    with all_tenants():
        await given(session, *(Fleet(id=n, name="x", tenant_id=t) for n, t in ((1, "a"), (2, "b"))))
    await session.close()
    ships = serve(
        Ship,
        public=ShipPublic,
        create=ShipCreate,
        update=ShipUpdate,
        filters=("name", "fleet__name"),
        sort=("name",),
        operations=WITHOUT_RESTORE,
        dependencies=[Depends(in_tenant)],
    )
    ann, bob = {"x-tenant": "a"}, {"x-tenant": "b"}
    made = ships.post("/rows", json={"name": "Argo", "fleet_id": 1}, headers=ann)
    assert made.status_code == 201
    where = made.headers["location"]
    for answer in (
        ships.get(where, headers=bob),
        ships.patch(where, json={"name": "stolen"}, headers=bob),
        ships.delete(where, headers=bob),
    ):
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert ships.get("/rows?fleet__name=x", headers=bob).json()["total"] == 0
    assert ships.get("/rows?fleet__name=x", headers=ann).json()["total"] == 1

    foreign = ships.post("/rows", json={"name": "x", "fleet_id": 1}, headers=bob)
    assert refusal(foreign) == (409, "foreign_key", ["body", "fleet_id"])
    moved = ships.post("/rows", json={"name": "x", "tenant_id": "b"}, headers=ann)
    assert refusal(moved) == (422, "value_error", ["body", "tenant_id"])
    moved = ships.patch(where, json={"tenant_id": "b"}, headers=ann)
    assert refusal(moved) == (422, "value_error", ["body", "tenant_id"])
    several = [{"name": "Beagle"}, {"name": "x", "tenant_id": "a"}]
    assert ships.post("/rows/bulk", json=several, headers=bob).status_code == 422
    assert ships.post("/rows/bulk", json=several[:1], headers=bob).status_code == 201
    with all_tenants():
        rows = fetched(await execute(session, select(Ship).order_by(Ship.name)))
    assert [(row.name, row.tenant_id) for row in rows] == [("Argo", "a"), ("Beagle", "b")]


def test_a_tenant_restores_its_own_rows(serve: Serve) -> None:
    """Those of others are not there, deleted or not."""
    guilds = serve(
        Guild,
        public=GuildPublic,
        create=GuildCreate,
        operations=("create", "delete", "restore"),
        dependencies=[Depends(in_tenant)],
    )
    ann, bob = {"x-tenant": "a"}, {"x-tenant": "b"}
    where = guilds.post("/rows", json={"name": "Owls"}, headers=ann).headers["location"]
    assert guilds.delete(where, headers=ann).status_code == 204
    assert guilds.post(f"{where}/restore", headers=bob).status_code == 404
    assert guilds.post(f"{where}/restore", headers=ann).status_code == 200


# --- history -------------------------------------------------------------------------------------


async def test_each_request_is_in_the_history(serve: Serve, session: AsyncSession) -> None:
    """With its user; one that is refused leaves nothing there."""
    dockets = serve(
        Docket,
        public=DocketPublic,
        create=DocketCreate,
        update=DocketUpdate,
        operations=EVERYTHING,
        dependencies=[Depends(acting_ann)],
    )
    made = dockets.post("/rows", json={"name": "Rug", "stock": 1})
    where, key = made.headers["location"], made.json()["id"]
    assert dockets.post("/rows", json={"name": "Rug"}).status_code == 409
    several = [{"name": "Vase"}, {"name": "Rug"}]
    assert dockets.post("/rows/bulk", json=several).status_code == 409
    assert dockets.patch(where, json={"stock": 2}).status_code == 200
    assert dockets.delete(where).status_code == 204
    assert dockets.post(f"{where}/restore").status_code == 200
    changes = await get_change_history(key, session, Docket)
    assert [each.operation for each in changes] == ["create", "update", "update", "update"]
    assert {each.changed_by for each in changes} == {"ann"}
    assert changes[1].changes["stock"] == [1, 2]
    assert await get_change_history(key + 1, session, Docket) == []


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Lodge, Ranger])
def test_a_race_for_a_version_has_one_winner(serve: Serve, model: Any) -> None:
    """Requests with the same If-Match at once: one is answered, the others come too late."""
    of_model = {
        Lodge: {"public": LodgePublic, "create": LodgeCreate, "update": LodgeUpdate},
        Ranger: {"public": RangerPublic, "create": RangerCreate, "update": RangerUpdate},
    }
    rows = serve(model, **of_model[model])
    for number in range(3):
        made = rows.post("/rows", json={"name": f"Row {number}"})
        where, tag = made.headers["location"], made.headers["etag"]

        def change(place: int, where: str = where, tag: str = tag) -> int:
            headers = {"if-match": tag}
            if place == 3:
                return rows.delete(where, headers=headers).status_code
            body = {"name": f"Changed {place}"}
            return rows.patch(where, json=body, headers=headers).status_code

        with ThreadPoolExecutor(4) as threads:
            answers = Counter(threads.map(change, range(4)))
        assert answers in (
            Counter({200: 1, 412: 3}),
            Counter({204: 1, 404: 3}),  # the row was deleted first
        )
        rows.delete(where)


# --- restrictions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["owner", "owner__eq", "owner.eq"])
def test_what_a_restriction_fixes_is_filled(serve: Serve, name: str) -> None:
    """However it is written, past a default of the body, and in all ways to create."""
    lodges = serve(
        Lodge,
        public=LodgePublic,
        create=LodgeWithMore,
        operations=("list", "create", "bulk"),
        restrict=lambda: {name: "ann"},
    )
    assert lodges.post("/rows", json={"name": "Owls"}).status_code == 201
    assert lodges.post("/rows/bulk", json=[{"name": "Bats"}]).status_code == 201
    assert lodges.get("/rows").json()["total"] == 2
    refused = lodges.post("/rows", json={"name": "Cats", "owner": "bob"})
    assert refusal(refused) == (422, "value_error", ["body", "owner"])


def test_what_is_refused_is_called_as_it_was_sent(serve: Serve) -> None:
    """By the alias of the body, also where a restriction refuses it."""

    async def owls() -> dict[str, Any]:
        return {"motto": "owls"}

    lodges = serve(Lodge, public=LodgePublic, create=CamelLodge, restrict=owls)
    sent = {"lodgeName": "Owls", "lodgeMotto": "owls"}
    assert lodges.post("/rows", json=sent).status_code == 201
    assert refusal(lodges.post("/rows", json=sent)) == (409, "unique", ["body", "lodgeName"])
    refused = lodges.post("/rows", json={"lodgeName": "Elks", "lodgeMotto": "elks"})
    assert refusal(refused) == (422, "value_error", ["body", "lodgeMotto"])


def test_what_is_related_can_restrict(serve: Serve) -> None:
    """A new row has to lead to what the request may see; no field is filled for that."""
    rangers = serve(
        Ranger,
        public=RangerPublic,
        create=RangerCreate,
        update=RangerUpdate,
        restrict=lambda: {"lodge.owner": "ann"},
    )
    lodges = serve(Lodge, public=LodgePublic, create=LodgeWithMore, operations=("create",))
    ours, theirs = (
        lodges.post("/rows", json={"name": owner, "owner": owner}).json()["id"]
        for owner in ("ann", "bob")
    )
    body = {"name": "Kit", "lodge_id": theirs}
    assert refusal(rangers.post("/rows", json=body)) == (422, "value_error", ["body"])
    assert refusal(rangers.post("/rows", json={"name": "Kit"})) == (422, "value_error", ["body"])
    made = rangers.post("/rows", json=body | {"lodge_id": ours})
    assert made.status_code == 201
    moved = rangers.patch(made.headers["location"], json={"lodge_id": theirs})
    assert refusal(moved) == (422, "value_error", ["body"])
    assert rangers.get("/rows").json()["total"] == 1


# --- bodies --------------------------------------------------------------------------------------


async def test_what_a_body_has_beyond_its_fields_is_not_written(
    serve: Serve, session: AsyncSession
) -> None:
    """Also where its model lets it through."""
    lodges = serve(Lodge, public=LodgePublic, create=LodgeWithMore, operations=("create",))
    more = {"secret": "known", "version": 7, "is_deleted": True, "nope": 1}
    assert lodges.post("/rows", json={"name": "Owls", **more}).json()["version"] == 1
    [row] = fetched(await execute(session, select(Lodge)))
    assert (row.secret, row.is_deleted) == ("hidden", False)


@pytest.mark.databases("sqlite")
def test_a_duration_beyond_all_bounds(serve: Serve) -> None:
    """Pydantic lets it overflow; a failure of the server it is not."""
    spans = serve(Span, public=SpanPublic, create=SpanCreate)
    for text in ("-P999999999DT1S", "P999999999DT24H"):
        refused = spans.post("/rows", json={"name": "x", "lasts": text})
        assert refused.status_code == 422
    assert spans.post("/rows", json={"name": "x", "lasts": "P1D"}).json()["lasts"] == "P1D"


# --- addresses -----------------------------------------------------------------------------------


def test_a_location_leads_to_the_row(serve: Serve) -> None:
    """Also where Python writes a part of the key in its own way: Enums, durations."""
    shifts = serve(Shift, public=Shift, create=ShiftCreate, update=ShiftCreate)
    sent = {"watch": "at night", "starts": "2024-03-01T10:30:00Z", "lasts": "P1DT1H", "guards": 2}
    created = shifts.post("/rows", json=sent)
    assert (created.status_code, created.json()) == (201, sent)
    assert shifts.get(created.headers["location"]).json() == sent
    assert shifts.delete(created.headers["location"]).status_code == 204
