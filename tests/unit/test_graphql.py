"""Inputs of GraphQL as filters, names, and what is refused before a database is asked."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Any

import pytest
import strawberry
from graphql import Undefined

from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from sqlmodel_crud_utils.ext import graphql as extra
from sqlmodel_crud_utils.ext.graphql import lookups, relationship_loader
from sqlmodel_crud_utils.ext.graphql.selections import snake_case
from tests.models import Hero
from tests.unit.test_surfaces import ASYNC_PARTS, NAME, _among, _run

ALLOWED = {"name", "age__gte", "team__name", "team__city", "team", "tags__label"}


def filters(given: Any, allow: Any = ALLOWED) -> dict[str, Any]:
    """Return the filters on heroes for an input."""
    return lookups(given, Hero, allow=allow)


@strawberry.input
class TeamFilter:
    name: str | None = strawberry.UNSET
    city: str | None = strawberry.UNSET


@strawberry.input
class HeroFilter:
    name: str | None = strawberry.UNSET
    name__in: list[str] | None = strawberry.UNSET
    team: TeamFilter | None = strawberry.UNSET


@dataclass
class Bound:
    gte: int


class Kind(Enum):
    ANN = "Ann"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, {}),
        (strawberry.UNSET, {}),
        ({}, {}),
        ({"name": "Ann"}, {"name": "Ann"}),
        ({"name": Kind.ANN}, {"name": Kind.ANN}),
        ({"name__eq": "Ann"}, {"name": "Ann"}),
        ({"name": {"startswith": "A", "isNull": False}},
         {"name__startswith": "A", "name__is_null": False}),
        ({"name": None, "age": Undefined, "tags": strawberry.UNSET}, {"name": None}),
        ({"age": {"gte": 18}}, {"age__gte": 18}),
        ({"age": Bound(gte=18)}, {"age__gte": 18}),
        ({"team": {"name": "x", "city": None}}, {"team__name": "x", "team__city": None}),
        ({"team": None}, {"team": None}),
        ({"team": {"isNull": True}}, {"team__is_null": True}),
        ({"tags": {"label": {"in": ["a", "b"]}}}, {"tags__label__in": ["a", "b"]}),
        (HeroFilter(), {}),
        (HeroFilter(name=None, name__in=["a"]), {"name": None, "name__in": ["a"]}),
        (HeroFilter(team=TeamFilter(city="Oslo")), {"team__city": "Oslo"}),
        (HeroFilter(team=TeamFilter()), {}),
    ],
)  # fmt: skip
def test_inputs(given: Any, found: dict[str, Any]) -> None:
    """Omitted fields are not filters, None is NULL, and nested inputs are paths."""
    assert filters(given) == found


@pytest.mark.parametrize(
    "given",
    [
        {"secret_name": "x"},
        {"secretName": "x"},
        {"nope": 1},
        {"age": 3},
        {"age__lt": 3},
        {"team": {"id": 3}},
        {"team": {"heroes": {"secret_name": "x"}}},
        {"name__regex": "(a+)+$"},
        {"name": {"regex": "(a+)+$"}},
        {"name": {"nope": 1}},
        {"team": 5},
        {"team": {"gt": None}},
        {"__class__": 1},
        {"": 1},
        {"_".join("a" * 500): 1},
        {"__".join("a" * 500): 1},
    ],
)
def test_what_is_not_allowed(given: Any) -> None:
    """The error names the refused filter, and no other."""
    with pytest.raises(ValidationError) as refused:
        filters(given)
    assert type(refused.value) is ValidationError
    text = str(refused.value).partition(": ")[2]
    assert text in {"this is not a filter here; leave it out", "takes null alone, or is_null"}


@pytest.mark.parametrize("given", [5, "name", ["name"], Hero])
def test_what_is_no_input(given: Any) -> None:
    """A mistake of the program's."""
    with pytest.raises(ValidationError, match="takes an input of GraphQL or a mapping"):
        filters(given)


def test_what_may_be_allowed() -> None:
    """Fields with or without a lookup are allowed; unsafe lookups are refused."""
    assert filters({"age": {"gte": 1}}, {"age"}) == {"age__gte": 1}
    assert filters({"name": "x"}, {"name__eq"}) == {"name": "x"}
    assert filters({"team": {"name": "x"}}, {"team.name"}) == {"team__name": "x"}
    for wrong in ({"nope"}, {"team__nope"}, {"name", "secret"}):
        with pytest.raises(UnknownFieldError):
            filters({}, wrong)
    for wrong, reason in (
        ({"name__regex"}, "cannot filter with regex"),
        ("name", "a set of names"),
    ):
        with pytest.raises(ValidationError, match=reason):
            filters({}, wrong)


@pytest.mark.parametrize(
    ("name", "snake"),
    [("name", "name"), ("secretName", "secret_name"), ("has2Parts", "has2_parts"), ("URL", "url"),
     ("age__gte", "age__gte"), ("a_B", "a_b")],
)  # fmt: skip
def test_names(name: str, snake: str) -> None:
    """GraphQL's names are written in camel case, as a rule."""
    assert snake_case(name) == snake


def test_a_relationship_is_named_by_its_attribute() -> None:
    """Nothing is asked of a database before there are rows."""
    with pytest.raises(ValidationError, match="takes a relationship"):
        relationship_loader(lambda: None, Hero.name)  # type: ignore[arg-type,return-value]


# --- loading -------------------------------------------------------------------------------------


def test_its_names() -> None:
    """`__all__` holds no name twice, and none that cannot be had."""
    assert len(extra.__all__) == len(set(extra.__all__))
    assert [name for name in extra.__all__ if not hasattr(extra, name)] == []


def test_a_sync_server_loads_the_sync_tree_only() -> None:
    """The extra costs it nothing of the async API, and needs no server's package."""
    program = f"""
from {NAME}.ext.graphql import connection, for_selection, relationship_loader
from graphql import build_schema, graphql_sync
from sqlalchemy import create_engine
from sqlmodel import Field, Session, SQLModel
from {NAME}.sync import QueryBuilder

class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)

engine = create_engine("sqlite://")
SQLModel.metadata.create_all(engine)
schema = build_schema("type Query {{ heroes: Heroes }} type Heroes {{ totalCount: Int }}")
with Session(engine) as session:
    schema.query_type.fields["heroes"].resolve = lambda _, info: connection(
        QueryBuilder(session, Hero), info
    )
    result = graphql_sync(schema, "{{ heroes {{ totalCount }} }}")
    assert result.data == {{"heroes": {{"totalCount": 0}}}}
engine.dispose()
"""
    unwanted = [f"{NAME}._async", f"{NAME}._runtime_async", *ASYNC_PARTS, "strawberry"]
    assert _among(_run(program), unwanted) == []


def test_without_graphql_core_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports the extra without having it reads what to install."""
    monkeypatch.setitem(sys.modules, "graphql", None)  # importing it raises ModuleNotFoundError
    monkeypatch.delitem(sys.modules, f"{NAME}.ext.graphql")
    with pytest.raises(ModuleNotFoundError, match=r'pip install "sqlmodel-crud-utils\[graphql\]"'):
        import_module(f"{NAME}.ext.graphql")
