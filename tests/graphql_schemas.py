"""GraphQL schemas that the tests of both trees share: Strawberry's types, and plain ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import strawberry
from graphql import GraphQLSchema, build_schema

from tests.models import Hero, Team


@strawberry.type(name="Team")
class TeamType:
    name: str
    city: str | None
    heroes: list[HeroType]


@strawberry.type(name="Tag")
class TagType:
    label: str
    heroes: list[HeroType]


@strawberry.type(name="Hero")
class HeroType:
    name: str
    secret_name: str
    years: int | None = strawberry.field(name="age", resolver=lambda root: root.age)
    team: TeamType | None
    tags: list[TagType]

    @strawberry.field
    def shout(self) -> str:
        return f"{self.name.upper()}!"

    @classmethod
    def is_type_of(cls, value: Any, _info: Any) -> bool:
        return isinstance(value, cls | Hero)


@strawberry.type
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class HeroEdge:
    node: HeroType
    cursor: str


@strawberry.type
class HeroConnection:
    edges: list[HeroEdge]
    nodes: list[HeroType]
    page_info: PageInfo
    total_count: int


@strawberry.input
class TeamFilter:
    name: str | None = strawberry.UNSET
    city: str | None = strawberry.UNSET


@strawberry.input
class AgeFilter:
    gte: int | None = strawberry.UNSET
    lt: int | None = strawberry.UNSET


@strawberry.input
class HeroFilter:
    name: str | None = strawberry.UNSET
    secret_name: str | None = strawberry.UNSET
    age: AgeFilter | None = strawberry.UNSET
    team: TeamFilter | None = strawberry.UNSET


PLAIN = """
type Query {
  heroes: [Hero!]!
  payload: Payload!
  found: [Found!]!
  named: [Named!]!
  page(first: Int, after: String): Heroes!
}
type Heroes { edges: [Edge!]! nodes: [Hero!]! pageInfo: PageInfo! totalCount: Int }
type Edge { node: Hero! cursor: String! }
type PageInfo {
  hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String endCursor: String
}
type Payload { page: Items! }
type Items { items: [Hero!]! }
interface Named { name: String! }
type Hero implements Named {
  name: String! secret_name: String! age: Int team: Team tags: [Tag!]! rank: String
}
type Team implements Named { name: String! city: String heroes: [Hero!]! }
type Tag { label: String! heroes: [Hero!]! }
union Found = Hero | Team
"""


def plain_schema(**resolvers: Callable[..., Any]) -> GraphQLSchema:
    """Return a schema of graphql-core; its resolvers are named `Type__field`."""
    schema = build_schema(PLAIN)
    for name, resolve in resolvers.items():
        type_name, _, field = name.partition("__")
        fields: Any = schema.type_map[type_name]
        fields.fields[field].resolve = resolve
    for name, model in {"Hero": Hero, "Team": Team}.items():
        kind: Any = schema.type_map[name]
        kind.is_type_of = lambda value, _info, model=model: isinstance(value, model)
    return schema


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Strawberry from logging the errors that a test provokes."""
    logger = logging.getLogger("strawberry.execution")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
