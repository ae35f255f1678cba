"""What resolvers of `ext.graphql` cost, compared with optimal handwritten ones.

    python -m benchmarks.graphql [SECONDS]

A query for three levels on SQLite, crews of 10 sailors with a knot each, runs with graphql-core:
alternately with `for_selection` and a SELECT written for this query, and once with naive resolvers,
which load each relationship on access. It prints the ratio, which should be 1.20 or less, and the
number of statements of each; naive resolvers need at least 10 times as many.
"""

import sys
import time
from statistics import median
from typing import Any

from graphql import GraphQLSchema, build_schema, graphql_sync
from sqlalchemy import StaticPool, create_engine, event
from sqlalchemy.orm import selectinload
from sqlmodel import Field, Relationship, Session, SQLModel, col, select

from sqlmodel_crud_utils.ext.graphql import for_selection
from sqlmodel_crud_utils.sync import QueryBuilder

TEAMS, HEROES = 100, 10
QUERY = "{ crews { name sailors { name knots { label } } } }"
SCHEMA = """
type Query { crews: [Crew!]! }
type Crew { name: String! sailors: [Sailor!]! }
type Sailor { name: String! knots: [Knot!]! }
type Knot { label: String! }
"""


class Crew(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    motto: str = "through thick and thin"
    sailors: list["Sailor"] = Relationship(back_populates="crew")


class Sailor(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    note: str = "swims well"
    crew_id: int | None = Field(default=None, foreign_key="crew.id", index=True)
    crew: Crew | None = Relationship(back_populates="sailors")
    knots: list["Knot"] = Relationship(back_populates="sailor")


class Knot(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str
    sailor_id: int | None = Field(default=None, foreign_key="sailor.id", index=True)
    sailor: Sailor | None = Relationship(back_populates="knots")


def library(session: Session, info: Any) -> list[Crew]:
    """Return the crews with the selected fields."""
    return for_selection(QueryBuilder(session, Crew), info).all()


def by_hand(session: Session, _info: Any) -> list[Crew]:
    """Return the crews with the fields that this one query selects."""
    knots: Any = Sailor.knots
    sailors: Any = Crew.sailors
    loading = selectinload(sailors).selectinload(knots)
    wanted = select(Crew).order_by(col(Crew.id)).options(loading)
    return list(session.exec(wanted).all())


def naive(session: Session, _info: Any) -> list[Crew]:
    """Return the crews, and load the rest on access."""
    return list(session.exec(select(Crew)).all())


def schema_of(resolve: Any) -> GraphQLSchema:
    """Return a schema whose only field is resolved by a function that takes the session."""
    schema = build_schema(SCHEMA)
    query: Any = schema.query_type
    query.fields["crews"].resolve = lambda _, info: resolve(info.context, info)
    return schema


def main(seconds: float) -> None:
    """Measure alternately, and print the results."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    tables = [SQLModel.metadata.tables[name] for name in ("crew", "sailor", "knot")]
    SQLModel.metadata.create_all(engine, tables=tables)
    with Session(engine) as session:
        for team in range(TEAMS):
            sailors = [Sailor(name=f"{n}", knots=[Knot(label=f"{n}")]) for n in range(HEROES)]
            session.add(Crew(name=f"{team}", sailors=sailors))
        session.commit()
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    schemas = [schema_of(resolve) for resolve in (library, by_hand, naive)]

    def asked(schema: GraphQLSchema) -> tuple[float, int, Any]:
        sent.clear()
        with Session(engine) as session:
            begun = time.perf_counter()
            result = graphql_sync(schema, QUERY, context_value=session)
            return time.perf_counter() - begun, len(sent), result.data

    (_, ours, data), (_, theirs, same), (_, many, also) = map(asked, schemas)
    if not data == same == also:
        raise SystemExit("they do not answer the same")
    deadline, ratios = time.monotonic() + seconds, []
    while time.monotonic() < deadline:
        ratios.append(asked(schemas[0])[0] / asked(schemas[1])[0])
    print(f"{median(ratios):.2f} times by hand, in {len(ratios)} rounds")
    print(f"statements: {ours}, by hand {theirs}, naive {many}: {many / ours:.0f} times as many")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
