"""The service, talked to over HTTP by one client."""

from typing import Any

from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fastapi_app.models import Message
from fastapi_app.outbox import send_some
from sqlmodel_crud_utils.aio import Repository
from sqlmodel_crud_utils.ext.pytest import assert_queries


async def create(client: AsyncClient, name: str, **fields: Any) -> dict[str, Any]:
    """Create a hero and return it."""
    answer = await client.post("/heroes", json={"name": name, "secret_name": "?"} | fields)
    assert answer.status_code == 201, answer.text
    hero: dict[str, Any] = answer.json()
    return hero


async def messages(session: AsyncSession) -> list[str]:
    """What the outbox holds, without the numbers of the rows."""
    rows = await Repository(session, Message).order_by("id").all()
    return [" ".join(word for word in row.text.split() if not word.isdigit()) for row in rows]


async def test_a_hero_from_the_beginning_to_the_end(
    client: AsyncClient, async_crud_session: AsyncSession
) -> None:
    """Created, changed, tagged, deleted and restored; who did it is noted, the secret is kept."""
    team = (await client.post("/teams", json={"name": "Preventers", "city": "Oslo"})).json()
    body = {"name": "Rusty", "secret_name": "Tommy", "age": 48, "team_id": team["id"]}
    hero = (await client.post("/heroes", json=body, headers={"x-user": "alice"})).json()
    assert (hero["created_by"], hero["team"]["name"], hero["tags"]) == ("alice", "Preventers", [])
    assert "secret_name" not in hero

    path = f"/heroes/{hero['id']}"
    changed = (await client.patch(path, json={"age": 49}, headers={"x-user": "bob"})).json()
    assert changed == hero | {"age": 49, "version": 2, "updated_by": "bob"}
    tagged = [(await client.put(f"{path}/tags/strong")).json()["tags"] for _ in range(2)]
    assert tagged == [[{"label": "strong"}]] * 2

    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.get("/heroes")).json()["items"] == []
    assert (await client.post(f"{path}/restore")).json()["age"] == 49
    assert (await client.get(path)).status_code == 200

    changes = (await client.get(f"{path}/history")).json()
    assert [each["operation"] for each in changes] == ["create", *["update"] * 3]
    assert changes[0]["changes"]["secret_name"] == ["…", "…"]
    assert changes[1]["changes"]["age"] == [48, 49]
    assert changes[1]["changed_by"] == "bob"
    did = ["created", "updated", "tagged strong", "deleted", "updated"]
    expected = ["team created", *(f"hero {each}" for each in did)]
    assert await messages(async_crud_session) == expected


async def test_errors_have_their_status(
    client: AsyncClient, async_crud_session: AsyncSession
) -> None:
    """Not found 404, conflicts 409, what doesn't fit 422; none of them leaves a trace."""
    rusty, rosty = await create(client, "Rusty"), await create(client, "Rosty")
    path = f"/heroes/{rusty['id']}"
    gone = f"/heroes/{rosty['id'] + 99}"
    answers = [
        (404, await client.get(gone)),
        (404, await client.patch(gone, json={"age": 1})),
        (404, await client.delete(gone)),
        (404, await client.put(f"{gone}/tags/strong")),
        (409, await client.post("/heroes", json={"name": "Rusty", "secret_name": "?"})),
        (409, await client.post("/heroes", json={"name": "X", "secret_name": "?", "team_id": 0})),
        (412, await client.patch(path, json={"age": 1}, headers={"if-match": '"7"'})),
        (409, await client.patch(path, json={"name": rosty["name"]})),
        (422, await client.patch(path, json={"name": None})),
        (422, await client.post("/heroes", json={"name": "X", "secret_name": "?", "age": -1})),
        (422, await client.get("/heroes?age_gte=5")),
        (422, await client.get("/heroes?after=nonsense")),
        (422, await client.get("/heroes?size=101")),
    ]
    assert [answer.status_code for _, answer in answers] == [status for status, _ in answers]
    assert all(list(answer.json()) == ["detail"] for _, answer in answers)
    assert (await client.get(path)).json() == rusty
    assert await messages(async_crud_session) == ["hero created"] * 2


async def test_lists_have_filters_an_order_and_pages(client: AsyncClient) -> None:
    """Pages by cursor, laid end to end, are what was asked for; a page costs what it should."""
    for number in range(7):
        await create(client, f"Hero {number}", age=30 + number % 3)
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        query = {"age__gte": "31", "sort": "-age,name", "size": "2", **after}
        with assert_queries(2):  # the heroes with their teams, and the tags of all of them
            page = (await client.get("/heroes", params=query)).json()
        found += [hero["name"] for hero in page["items"]]
        if page["next_cursor"] is None:
            break
        after = {"after": page["next_cursor"]}
    assert found == ["Hero 2", "Hero 5", "Hero 1", "Hero 4"]


async def test_messages_are_sent_once(
    client: AsyncClient, async_crud_session_factory: async_sessionmaker[AsyncSession]
) -> None:
    """What the outbox has sent is marked, and shown as such."""
    await create(client, "Rusty")
    assert await send_some(async_crud_session_factory) == 1
    assert await send_some(async_crud_session_factory) == 0
    shown = (await client.get("/messages")).json()["items"]
    assert [message["sent"] for message in shown] == [True]
