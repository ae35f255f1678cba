"""Which API a router uses, and what it must not be made with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, Field, model_validator
from pydantic.alias_generators import to_camel
from sqlmodel import Session, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.fastapi import crud_router, session_dependency
from tests.models import Hero
from tests.router_models import Bench, LodgePublic, Ranger, RangerPublic, RangerUpdate


def sync_session() -> Iterator[Session]:
    """A dependency with a return type."""
    yield Session()


async def async_session() -> AsyncIterator[AsyncSession]:
    """Another one."""
    yield AsyncSession()


async def untold() -> Any:
    """One that does not say it."""
    yield None


def modules(router: Any) -> list[str]:
    """The modules of the routes' functions."""
    return sorted({route.endpoint.__module__.split(".")[-2] for route in router.routes})


@pytest.mark.parametrize(
    ("session", "tree"),
    [
        (sync_session, "_sync"),
        (async_session, "_async"),
        (session_dependency(sync.create_pooled_engine("sqlite://")), "_sync"),
        (session_dependency(aio.create_pooled_engine("sqlite://"), read_only=True), "_async"),
    ],
)
def test_the_session_says_which_api_it_is(session: Any, tree: str) -> None:
    """By the return type of its dependency."""
    router = crud_router(Bench, session, public=Bench)
    assert [route.name for route in router.routes if hasattr(route, "name")] == [
        "list",
        "get",
        "delete",
    ]
    assert modules(router) == [tree]


def test_a_dependency_that_does_not_say_it_needs_a_parameter() -> None:
    """Nobody guesses."""
    with pytest.raises(ValidationError, match="does not say which session"):
        crud_router(Bench, untold, public=Bench)
    assert modules(crud_router(Bench, untold, public=Bench, is_async=True)) == ["_async"]
    router = crud_router(Bench, sync_session, public=Bench, reading=untold)
    assert modules(router) == ["_sync"]


def test_what_is_removed_cannot_be_restored() -> None:
    """Restoring requires a model with soft deletion."""
    with pytest.raises(ValidationError, match="cannot be soft-deleted"):
        crud_router(Bench, sync_session, public=Bench, operations=("restore",))


class Sheltered(SQLModel):
    """A ranger with a required lodge."""

    id: int
    lodge: LodgePublic


def test_a_related_row_may_be_deleted_softly() -> None:
    """It is not shown then, so that a row which has to have one could not go out."""
    with pytest.raises(ValidationError, match=r"Sheltered\.lodge must allow None, because a Lodge"):
        crud_router(Ranger, sync_session, public=Sheltered)
    assert crud_router(Ranger, sync_session, public=RangerPublic).routes


class CamelRanger(BaseModel):
    """By default, Pydantic also reads a row's attribute by its alias."""

    model_config = {"alias_generator": to_camel}

    last_name: str


class Computed(BaseModel):
    """A field that rows lack and a validator computes."""

    words: int

    @model_validator(mode="wrap")
    @classmethod
    def _count(cls, row: Any, make: Any) -> Any:
        return make({"words": len(row.name.split())})


class Renamed(BaseModel):
    """Names of the answer alone, and one with a default."""

    model_config = {"alias_generator": to_camel, "populate_by_name": True}

    name: str
    lodge_id: int | None
    is_awake: bool = True
    motto: str = Field(default="", validation_alias=AliasChoices("motto", "words"))


@pytest.mark.parametrize("public", [Computed, Renamed])
def test_rows_can_be_answered_under_other_names(public: type[BaseModel]) -> None:
    """As long as each field that is required can be filled."""
    assert crud_router(Ranger, sync_session, public=public).routes


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"public": None}, "'public': must be a Pydantic model, not None"),
        (
            {"public": CamelRanger},
            "CamelRanger.last_name cannot be filled, as Bench has no 'lastName'",
        ),
        ({"create": dict}, "'create': must be a Pydantic model"),
        ({"create": Hero}, "is a table model"),
        ({"update": RangerUpdate}, "is not a column of"),
        ({"operations": ("get", "destroy")}, "'destroy' is not an operation"),
        ({"operations": ("update",), "update": None}, "'update' needs a model: update"),
        ({"operations": ("bulk",), "create": None}, "'bulk' needs a model: create"),
        ({"dependencies": {"destroy": []}}, "'destroy' is not an operation"),
        ({"filters": ("nmae",)}, "nmae"),
        ({"sort": ("nmae",)}, "nmae"),
    ],
)
def test_mistakes_show_when_the_router_is_made(arguments: Any, text: str) -> None:
    """Not with the first request."""
    with pytest.raises(ValidationError, match=text):
        crud_router(Bench, sync_session, **({"public": Bench} | arguments))
