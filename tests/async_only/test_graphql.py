"""GraphQL resolvers that run concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from strawberry.dataloader import DataLoader

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, session_factory, transaction
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.graphql import for_selection, relationship_loader
from sqlmodel_crud_utils.mixins import tenant_scope
from tests._runtime_async import answer, make_engine
from tests.databases import Database, prepare
from tests.graphql_schemas import plain_schema
from tests.models import Hero, Team
from tests.recording import statements_of
from tests.tenant_models import Guild, Mage

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine of its own, on two teams of three heroes."""
    engine = make_engine(database.async_url)
    prepare(engine)
    async with AsyncSession(engine) as session:
        for number in (1, 2):
            team = Team(id=number, name=f"Team {number}", city="Oslo")
            team.heroes = [Hero(name=f"Hero {number}{n}", secret_name="?") for n in range(3)]
            session.add(team)
        await session.commit()
    yield engine
    await engine.dispose()
    database.clear()


def schema_of(new_session: Any, slowly: Any = None) -> Any:
    """Return a schema whose root fields take the session of a function."""

    async def heroes(_root: Any, info: Any) -> list[Hero]:
        query = AsyncQueryBuilder(new_session(), Hero).order_by("name")
        return await for_selection(query, info).all()

    async def found(_root: Any, info: Any) -> list[Team]:
        query = AsyncQueryBuilder(new_session(), Team).order_by("name")
        return await for_selection(query, info).all()

    resolvers = {"Hero__team": slowly} if slowly else {}
    return plain_schema(Query__heroes=heroes, Query__found=found, **resolvers)


SOURCE = """{
    a: heroes { name team { name } }
    b: heroes { age team { city heroes { name tags { label } } } }
    c: found { ... on Team { name heroes { name team { city } } } }
    d: heroes { name }
}"""


async def test_fields_of_one_session_wait_for_each_other(engine: AsyncEngine):
    """None fails, and each gets what it has selected."""
    async with AsyncSession(engine) as session:
        result = await answer(schema_of(lambda: session), SOURCE, None)
        assert result.errors is None
        assert result.data["a"][0] == {"name": "Hero 10", "team": {"name": "Team 1"}}
        assert [len(row["team"]["heroes"]) for row in result.data["b"]] == [3] * 6
        assert result.data["c"][1]["heroes"][0]["team"] == {"city": "Oslo"}
        # Other uses of the session are still refused.
        assert len((await session.exec(select(Hero))).all()) == 6


async def test_in_a_block(engine: AsyncEngine):
    """As a request has it."""
    async with AsyncSession(engine) as session, transaction(session):
        result = await answer(schema_of(lambda: session), SOURCE, None)
        assert result.errors is None


async def test_any_builder_of_the_session_waits(engine: AsyncEngine):
    """Also one that began before the others, and for all that it reads."""
    async with AsyncSession(engine) as session:
        builder = AsyncQueryBuilder(session, Hero)

        async def heroes(_root: Any, info: Any) -> list[Hero]:
            return await for_selection(builder, info).all()

        async def plain(_root: Any, _info: Any) -> list[Hero]:
            page = await builder.paginate(1, 2)
            assert page.total == await builder.count() == 6
            return page.items

        schema = plain_schema(Query__heroes=heroes, Query__found=plain)
        part = "found { ... on Hero { name } }"
        source = f"{{ x: {part} heroes {{ name }} y: {part} }}"
        result = await answer(schema, source, None)
        assert result.errors is None
        assert [len(rows) for rows in result.data.values()] == [2, 6, 2]


async def test_rows_stay_whole_while_others_read(engine: AsyncEngine):
    """Relationships are always present for a field, even while other reads reload them."""
    with tenant_scope("acme"):
        async with AsyncSession(engine) as session, transaction(session):
            session.add(Guild(id=1, name="Owls"))
            session.add_all([Mage(id=n, name=f"Mage {n}", guild_id=1) for n in range(1, 4)])
        async with AsyncSession(engine) as session:
            builder = for_selection_of_mages(session)
            mages = await builder.all()
            looked = 0

            async def look() -> None:
                nonlocal looked
                while looked < 2_000:
                    assert mages[0].guild is not None
                    assert len(mages[0].guild.mages) == 3
                    looked += 1
                    await asyncio.sleep(0)

            async def read() -> None:
                while looked < 2_000:
                    await builder.all()

            await asyncio.gather(look(), read())


def for_selection_of_mages(session: AsyncSession) -> AsyncQueryBuilder[Mage]:
    """Return a builder as a query of GraphQL has it that selects guilds and their mages."""
    schema = plain_schema()
    node = _parsed("{ heroes { team { heroes { name } } } }")
    assert node is not None
    info = _Info(schema, node)
    builder = for_selection(AsyncQueryBuilder(session, Mage), info, max_depth=0)
    return builder.selectin("guild__mages__guild")


class _Info:
    """The little of a resolver's info that the selection of a scalar needs."""

    def __init__(self, schema: Any, node: Any) -> None:
        self.schema = schema
        self.field_nodes = [node]
        self.fragments: dict[str, Any] = {}
        self.return_type = schema.type_map["String"]
        self.variable_values: dict[str, Any] = {}


def _parsed(source: str) -> Any:
    from graphql import parse

    definition: Any = parse(source).definitions[0]
    return definition.selection_set.selections[0]


async def test_sessions_of_their_own_run_side_by_side(engine: AsyncEngine):
    """Nobody waits where nothing is shared."""
    inside, most = 0, 0

    async def heroes(_root: Any, info: Any) -> list[Hero]:
        nonlocal inside, most
        async with AsyncSession(engine) as session:
            builder = for_selection(AsyncQueryBuilder(session, Hero), info)
            inside += 1
            most = max(most, inside)
            rows = await builder.all()
            await asyncio.sleep(0.01)
            inside -= 1
            return rows

    schema = plain_schema(Query__heroes=heroes)
    result = await answer(schema, "{ a: heroes { name } b: heroes { name } }", None)
    assert result.errors is None
    assert most == 2


async def test_who_waits_can_be_cancelled(engine: AsyncEngine):
    """Also at the moment when it is woken; the others have their turns."""
    async with AsyncSession(engine) as session:
        schema = schema_of(lambda: session)
        await answer(schema, "{ heroes { name } }", None)  # the session is shared from now on
        builder = AsyncQueryBuilder(session, Hero)
        for moment in range(3):
            tasks = [asyncio.create_task(builder.all()) for _ in range(4)]
            for _ in range(moment):
                await asyncio.sleep(0)
            tasks[1].cancel()
            tasks[2].cancel()
            first, *cancelled, last = await asyncio.gather(*tasks, return_exceptions=True)
            assert [len(first), len(last)] == [6, 6]
            assert all(isinstance(each, asyncio.CancelledError) for each in cancelled)

        async def cancel_the_next() -> None:
            await builder.all()
            tasks[1].cancel()  # it has just been woken for its turn

        tasks = [asyncio.create_task(each) for each in (cancel_the_next(), builder.all())]
        tasks += [asyncio.create_task(builder.all()) for _ in range(2)]
        _, cancelled, *last = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert [len(each) for each in last] == [6, 6]


async def test_a_session_of_others_is_still_refused(engine: AsyncEngine):
    """Without GraphQL, concurrent use is refused."""
    async with AsyncSession(engine) as session:
        builder = AsyncQueryBuilder(session, Hero)
        found = await asyncio.gather(builder.all(), builder.all(), return_exceptions=True)
        assert sum(isinstance(each, ValidationError) for each in found) == 1


async def test_a_data_loader(engine: AsyncEngine):
    """Resolvers that ask for one row each are answered with one query."""
    new_session = session_factory(engine)
    async with new_session() as session:
        loader = DataLoader(load_fn=relationship_loader(new_session, Hero.team), cache=False)

        async def team(hero: Hero, _info: Any) -> Team | None:
            return await loader.load(hero)

        async def heroes(_root: Any, _info: Any) -> list[Hero]:
            return await AsyncQueryBuilder(session, Hero).load_only("id").all()

        schema = plain_schema(Query__heroes=heroes, Hero__team=team)
        with statements_of(engine) as sent:
            result = await answer(schema, "{ heroes { team { name } } }", None)
        assert result.errors is None
        assert {row["team"]["name"] for row in result.data["heroes"]} == {"Team 1", "Team 2"}
        assert len(sent) == 2
