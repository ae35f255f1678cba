"""Pages know their place, and web frameworks can return them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from sqlmodel import SQLModel

from sqlmodel_crud_utils.pagination import CursorPage, Page
from tests.models import Hero


class HeroPublic(SQLModel):
    """The public fields of a hero."""

    id: int
    name: str


@pytest.mark.parametrize(
    ("total", "page", "pages", "has_previous", "has_next"),
    [
        (0, 1, 0, False, False),
        (1, 1, 1, False, False),
        (2, 1, 1, False, False),
        (3, 1, 2, False, True),
        (3, 2, 2, True, False),
        (3, 9, 2, True, False),
    ],
)
def test_a_page_knows_its_place(
    total: int, page: int, pages: int, has_previous: bool, has_next: bool
) -> None:
    """The last page may be partly filled, and one past the end has no next."""
    found: Page[str] = Page(items=[], total=total, page=page, size=2)
    assert (found.pages, found.has_previous, found.has_next) == (pages, has_previous, has_next)


def test_a_page_cannot_be_changed() -> None:
    """It says what was found."""
    page: Page[str] = Page(items=["a"], total=1, page=1, size=2)
    with pytest.raises(ValidationError, match="frozen"):
        page.total = 5


async def get(app: FastAPI, path: str) -> Any:
    """Return what a web application answers."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return json.loads(b"".join(message.get("body", b"") for message in sent))


async def test_a_response_model_keeps_secrets() -> None:
    """Rows in a page are converted to the endpoint's model, and the page's numbers are kept."""
    app = FastAPI()
    rows = [Hero(id=1, name="Rusty", secret_name="Tommy")]

    @app.get("/page", response_model=Page[HeroPublic])
    def page() -> Page[Hero]:
        return Page(items=rows, total=3, page=1, size=1)

    @app.get("/cursor", response_model=CursorPage[HeroPublic])
    def cursor() -> CursorPage[Hero]:
        return CursorPage(items=rows, next_cursor="x")

    item = {"id": 1, "name": "Rusty"}
    assert await get(app, "/page") == {
        "items": [item],
        "total": 3,
        "page": 1,
        "size": 1,
        "pages": 3,
        "has_next": True,
        "has_previous": False,
    }
    assert await get(app, "/cursor") == {"items": [item], "next_cursor": "x"}
