"""GraphQL: what a query selects is what is read, in pages that are never everything."""

from __future__ import annotations

import re
from typing import Any

import pytest
import strawberry
from graphql import GraphQLArgument, GraphQLInt, build_schema

from sqlmodel_crud_utils.aio import QueryBuilder, bulk_insert_rows, delete_row, strict_loading
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.graphql import (
    Connection,
    connection,
    for_selection,
    lookups,
    relationship_loader,
)
from sqlmodel_crud_utils.mixins import tenant_scope
from tests._async.rows import given
from tests._runtime_async import AsyncEngine, AsyncSession, answer, make_sqlite
from tests.graphql_schemas import HeroConnection, HeroFilter, HeroType, plain_schema, quiet
from tests.models import Hero, Tag, Team
from tests.recording import statements_of
from tests.tenant_models import Guild, Mage

ALLOWED = {"name", "age", "team__name", "team__city"}


@strawberry.type
class Query:
    """The query type of a service of heroes."""

    @strawberry.field(graphql_type=list[HeroType])
    async def heroes(self, info: strawberry.Info, where: HeroFilter | None = None) -> list[Hero]:
        query = QueryBuilder(info.context["session"], Hero).order_by("name")
        query = query.where(**lookups(where, Hero, allow=ALLOWED))
        return await for_selection(query, info).all()

    @strawberry.field(graphql_type=HeroConnection)
    async def page(
        self, info: strawberry.Info, first: int | None = None, after: str | None = None
    ) -> Connection[Hero]:
        query = QueryBuilder(info.context["session"], Hero).order_by("name")
        return await connection(query, info, first=first, after=after, max_size=4)


SCHEMA = strawberry.Schema(Query)


async def ask(session: AsyncSession, source: str, /, **variables: Any) -> Any:
    """Return the data of a query that Strawberry answers."""
    result = await answer(SCHEMA, source, {"session": session}, variables)
    assert result.errors is None
    return result.data


async def refusal(session: AsyncSession, source: str, schema: Any = SCHEMA) -> str:
    """Return the one error of a query, which sends nothing."""
    with quiet(), statements_of(session.bind) as sent:
        result = await answer(schema, source, {"session": session})
    assert sent == []
    [error] = result.errors
    return str(error.message)


async def teams(session: AsyncSession, count: int = 2, heroes: int = 2) -> None:
    """Write teams with heroes, each with a tag of its own."""
    rows = [Team(id=n, name=f"Team {n}", city=f"City {n}") for n in range(1, count + 1)]
    for team in rows:
        names = [f"Hero {team.id}{place}" for place in range(heroes)]
        team.heroes = [Hero(name=name, secret_name="?", age=30, team=team) for name in names]
        for hero in team.heroes:
            hero.tags = [Tag(label=f"{hero.name}'s tag")]
    await given(session, *rows)


def columns_of(statement: str) -> set[str]:
    """Return the columns that a SELECT reads."""
    selected = statement.partition("FROM")[0].replace('"', "").replace("`", "")
    return set(re.findall(r"(\w+\.\w+)", selected))


# --- statements ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("{ heroes { name } }", 1),
        ("{ heroes { __typename } }", 1),
        ("{ heroes { name team { name } } }", 2),
        ("{ heroes { name team { name } tags { label } } }", 3),
        ("{ heroes { team { heroes { tags { label } } } } }", 4),
        ("{ heroes { a: team { name } b: team { city } } }", 2),
        ("{ heroes { ...F } } fragment F on Hero { ...G } fragment G on Hero { team { city } }", 2),
        ("{ heroes { ... { team { city } } ... on Hero { team { name } } } }", 2),
        ("{ heroes { name team @skip(if: true) { name } } }", 1),
        ("{ heroes { name ... @include(if: false) { team { name } } } }", 1),
        ("query($x: Boolean!) { heroes { name team @include(if: $x) { name } } }", 1),
        ("query($x: Boolean = true) { heroes { ... @skip(if: $x) { team { name } } } }", 2),
        ("{ page { edges { node { team { name } } } } }", 2),
        ("{ page { nodes { team { name } } edges { node { tags { label } } } } }", 3),
    ],
)  # fmt: skip
async def test_a_level_of_relationships_takes_a_statement(
    session: AsyncSession, source: str, count: int
):
    """Fragments, aliases and directives are handled as in the execution."""
    await teams(session)
    with statements_of(session.bind) as sent:
        await ask(session, source, x=False)
    assert len(sent) == count


@pytest.mark.databases("sqlite")
async def test_a_further_statement_for_500_parents(session: AsyncSession):
    """As with `selectin`; the guide says so."""
    owls = (Team(id=n, name=f"Team {n}") for n in range(1, 502))
    await bulk_insert_rows(owls, session, Team)
    rows = (Hero(name=f"Hero {n}", secret_name="?", team_id=n) for n in range(1, 502))
    await bulk_insert_rows(rows, session, Hero)
    schema = plain_schema(Query__heroes=lambda _, info: _heroes(info))
    with statements_of(session.bind) as sent:
        result = await answer(schema, "{ heroes { team { name } } }", {"session": session})
    assert len(result.data["heroes"]) == 501
    assert len(sent) == 3


async def _heroes(info: Any) -> list[Hero]:
    query = QueryBuilder(info.context["session"], Hero).order_by("name")
    return await for_selection(query, info).all()


async def test_what_is_read(session: AsyncSession):
    """Selected columns, keys and foreign keys are read; a secret is not read by accident."""
    await teams(session)
    with statements_of(session.bind) as sent:
        data = await ask(session, "{ heroes { age shoutName: name team { city } } }")
    assert data["heroes"][0] == {"age": 30, "shoutName": "Hero 10", "team": {"city": "City 1"}}
    assert columns_of(sent[0]) == {"hero.id", "hero.name", "hero.age", "hero.team_id"}
    assert columns_of(sent[1]) == {"team.id", "team.city"}


async def test_a_resolver_says_what_more_it_reads(session: AsyncSession):
    """A field that is not an attribute is left to its resolver; `load_only` adds to a row."""
    await teams(session)

    async def heroes(_root: Any, info: Any) -> list[Hero]:
        query = QueryBuilder(info.context["session"], Hero).load_only("age", "team__city")
        return await for_selection(query, info).all()

    schema = plain_schema(
        Query__heroes=heroes, Hero__rank=lambda hero, _info: f"{hero.age} of {hero.team.city}"
    )
    with statements_of(session.bind) as sent:
        result = await answer(schema, "{ heroes { rank } }", {"session": session})
    assert result.data["heroes"][0] == {"rank": "30 of City 1"}
    assert columns_of(sent[0]) == {"hero.id", "hero.age", "hero.team_id"}
    assert len(sent) == 2


async def test_a_union_is_read_as_it_is_executed(session: AsyncSession):
    """Only the fragments count that rows of the model can be; an interface has fields itself."""
    await teams(session)

    async def found(_root: Any, info: Any) -> list[Any]:
        session = info.context["session"]
        heroes = for_selection(QueryBuilder(session, Hero), info, types={"Hero"})
        others = for_selection(QueryBuilder(session, Team), info, types={"Team"})
        return [*await heroes.all(), *await others.all()]

    schema = plain_schema(Query__found=found, Query__named=found)
    source = """{ found {
        __typename ... on Hero { team { name } } ... on Team { name city heroes { age } }
    } }"""
    with statements_of(session.bind) as sent:
        result = await answer(schema, source, {"session": session})
    assert {row["__typename"] for row in result.data["found"]} == {"Hero", "Team"}
    assert [columns_of(each) for each in sent] == [
        {"hero.id", "hero.team_id"},
        {"team.id", "team.name"},
        {"team.id", "team.name", "team.city"},
        {"hero.id", "hero.age", "hero.team_id"},
    ]
    with statements_of(session.bind) as sent:
        source = "{ named { name ... on Hero { tags { label } } ... on Named { name } } }"
        assert (await answer(schema, source, {"session": session})).errors is None
    assert len(sent) == 3


async def test_rows_inside_of_a_payload(session: AsyncSession):
    """`at` is their path."""
    await teams(session)

    async def payload(_root: Any, info: Any) -> Any:
        query = for_selection(QueryBuilder(info.context["session"], Hero), info, at="page.items")
        return {"page": {"items": await query.all()}}

    schema = plain_schema(Query__payload=payload)
    with statements_of(session.bind) as sent:
        source = "{ payload { page { items { name team { city } } } } }"
        result = await answer(schema, source, {"session": session})
    assert result.errors is None
    assert [columns_of(each) for each in sent] == [
        {"hero.id", "hero.name", "hero.team_id"},
        {"team.id", "team.city"},
    ]


async def test_the_way_that_a_builder_has_stays(session: AsyncSession):
    """A relationship that is already joined needs no statement of its own."""
    await teams(session)

    async def heroes(_root: Any, info: Any) -> list[Hero]:
        query = QueryBuilder(info.context["session"], Hero).joined("team")
        return await for_selection(query, info).all()

    with statements_of(session.bind) as sent:
        schema = plain_schema(Query__heroes=heroes)
        result = await answer(schema, "{ heroes { team { name } } }", {"session": session})
    assert len(result.data["heroes"]) == 4
    [statement] = sent
    assert "city" not in statement


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("level", [4, 5, 6])
async def test_a_selection_has_a_depth(session: AsyncSession, level: int):
    """Too deep a one is refused before the first statement, in pages as in lists."""
    await teams(session)
    inner = "name"
    for depth in range(level):
        inner = f"{'team' if (level - depth) % 2 else 'heroes'} {{ {inner} }}"
    lists, pages = f"{{ heroes {{ {inner} }} }}", f"{{ page {{ nodes {{ {inner} }} }} }}"
    for source in (lists, pages):
        if level <= 5:
            assert await ask(session, source)
        else:
            assert "too deep; it may go through 5" in await refusal(session, source)


@pytest.mark.databases("sqlite")
async def test_the_depth_is_a_parameter(session: AsyncSession):
    """Of both functions; 0 allows no relationship."""

    async def heroes(_root: Any, info: Any) -> list[Hero]:
        query = QueryBuilder(info.context["session"], Hero)
        return await for_selection(query, info, max_depth=0).all()

    async def page(_root: Any, info: Any) -> Connection[Hero]:
        return await connection(QueryBuilder(info.context["session"], Hero), info, max_depth=1)

    schema = plain_schema(Query__heroes=heroes, Query__page=page)
    assert "through 0" in await refusal(session, "{ heroes { team { name } } }", schema)
    deep = "{ page { nodes { team { name } } } }"
    assert (await answer(schema, deep, {"session": session})).errors is None
    deep = "{ page { edges { node { tags { heroes { name } } } } } }"
    assert "through 1" in await refusal(session, deep, schema)


# --- sessions ------------------------------------------------------------------------------------


async def test_two_fields_read_the_same_rows(session: AsyncSession):
    """Each gets its columns and relationships, whatever the other has loaded."""
    await teams(session)
    source = "{ a: heroes { team { name } } b: heroes { age team { city heroes { name } } } }"
    for _ in range(2):
        data = await ask(session, source)
        assert data["a"][0] == {"team": {"name": "Team 1"}}
        mates = [{"name": "Hero 10"}, {"name": "Hero 11"}]
        assert data["b"][0] == {"age": 30, "team": {"city": "City 1", "heroes": mates}}


async def test_what_was_deleted_is_not_remembered(session: AsyncSession):
    """A mutation's answer, in the session that read the rows before."""
    await teams(session)
    source = "{ heroes { tags { label } team { heroes { name } } } }"
    assert len((await ask(session, source))["heroes"][0]["team"]["heroes"]) == 2
    hero = await QueryBuilder(session, Hero).where(name="Hero 11").one()
    assert await delete_row(hero.id, session, Hero)
    assert (await ask(session, source))["heroes"][0]["team"]["heroes"] == [{"name": "Hero 10"}]


async def test_strict_loading(session: AsyncSession):
    """All that is selected is loaded; a resolver that reads more fails, by name."""
    await teams(session)
    reads: dict[str, Any] = {"rank": lambda hero: hero.name}
    schema = plain_schema(
        Query__heroes=lambda _, info: _heroes(info),
        Hero__rank=lambda hero, _info: reads["rank"](hero),
    )
    context = {"session": session}
    with strict_loading(session):
        source = "{ heroes { name team { heroes { tags { label } } } } }"
        assert (await answer(schema, source, context)).errors is None
        result = await answer(schema, "{ heroes { name rank team { city } } }", context)
        assert result.errors is None
        reads["rank"] = lambda hero: hero.age
        result = await answer(schema, "{ heroes { rank } }", context)
        texts = str(result.errors or "columns of Hero are not loaded (age)")
        assert "columns of Hero are not loaded (age)" in texts
        session.expunge_all()
        reads["rank"] = lambda hero: hero.tags
        result = await answer(schema, "{ heroes { name rank team { city } } }", context)
        assert "Hero.tags is not loaded" in result.errors[0].message


async def test_a_relationship_with_arguments_is_left_to_its_resolver(
    session: AsyncSession, engine: AsyncEngine
):
    """Which reads many of them at once, with a session of its own."""
    await teams(session, 3)
    load = relationship_loader(lambda: AsyncSession(engine), Team.heroes)

    async def found(_root: Any, info: Any) -> list[Any]:
        return await for_selection(QueryBuilder(info.context["session"], Team), info).all()

    async def heroes(team: Team, _info: Any, first: int) -> list[Hero]:
        return sorted((await load([team]))[0], key=lambda hero: hero.name)[:first]

    schema = plain_schema(Query__found=found, Team__heroes=heroes)
    schema.type_map["Team"].fields["heroes"].args["first"] = GraphQLArgument(GraphQLInt)
    source = "{ found { ... on Team { heroes(first: 1) { name } } } }"
    with statements_of(session.bind) as sent:
        result = await answer(schema, source, {"session": session})
    assert result.data["found"][1] == {"heroes": [{"name": "Hero 20"}]}
    assert len(sent) == 1 + 3  # without a DataLoader, which asks for all of them at once

    owls, bats, cats = await QueryBuilder(session, Team).order_by("id").all()
    await delete_row(cats.id, session, Team)
    with statements_of(engine) as sent:
        loaded = await load([bats, owls, bats])
    assert [sorted(hero.name for hero in each) for each in loaded] == [
        ["Hero 20", "Hero 21"],
        ["Hero 10", "Hero 11"],
        ["Hero 20", "Hero 21"],
    ]
    assert len(sent) == 1
    teams_of = relationship_loader(lambda: AsyncSession(engine), Hero.team)
    [first] = await QueryBuilder(session, Hero).where(name="Hero 10").all()
    first.team_id = None
    await session.commit()
    assert await teams_of([first]) == [None]
    assert await load([]) == []


@pytest.mark.databases("sqlite")
async def test_what_a_loader_refuses(engine: AsyncEngine):
    """Anything but a relationship, rows of another model, and unwritten rows."""
    for wrong in (Hero, Hero.name, "team"):
        with pytest.raises(ValidationError, match="takes a relationship"):
            relationship_loader(lambda: AsyncSession(engine), wrong)
    load = relationship_loader(lambda: AsyncSession(engine), Hero.team)
    for wrong, reason in ((Team(name="x"), "takes rows of Hero"), (1, "takes rows of Hero")):
        with pytest.raises(ValidationError, match=reason):
            await load([wrong])
    with pytest.raises(ValidationError, match="not been written"):
        await load([Hero(name="x", secret_name="?")])


# --- which rows ----------------------------------------------------------------------------------


async def test_rows_of_others_are_nowhere(session: AsyncSession):
    """Neither deleted rows nor another tenant's are in an edge, a total, a filter or a loader."""
    rows: dict[str, list[Any]] = {"theirs": [], "ours": []}
    for place, (tenant, kept) in enumerate(rows.items()):
        with tenant_scope(tenant):
            base = 10 * place
            guild = Guild(id=base + 1, name="Owls")
            mages = [
                Mage(id=base + n, name=f"{tenant} {n}", guild_id=base + 1) for n in range(1, 4)
            ]
            mages[2].is_deleted = True
            mages[1].guild_id = 11  # of "theirs", one refers to the others' guild
            kept += [guild, *mages]
            await given(session, *kept)
            await session.close()

    schema = _mages()
    with tenant_scope("ours"):
        source = """{ page(first: 9) {
            totalCount nodes { name guild { name mages { name } } } edges { node { name } }
        } }"""
        result = await answer(schema, source, {"session": session})
        assert result.errors is None
        page = result.data["page"]
        assert page["totalCount"] == 2
        assert [edge["node"]["name"] for edge in page["edges"]] == ["ours 1", "ours 2"]
        mates = [{"name": "ours 1"}, {"name": "ours 2"}]
        assert page["nodes"][0]["guild"] == {"name": "Owls", "mages": mates}
        allowed = {"guild__mages__name"}
        given_filter = {"guild": {"mages": {"name": "theirs 2"}}}
        query = QueryBuilder(session, Mage).where(**lookups(given_filter, Mage, allow=allowed))
        assert await query.count() == 0
        guild = await QueryBuilder(session, Guild).one()
        load = relationship_loader(lambda: AsyncSession(session.bind), Guild.mages)
        assert [mage.name for mage in (await load([guild]))[0]] == ["ours 1", "ours 2"]
    await session.close()
    with tenant_scope("theirs"):
        result = await answer(schema, "{ page { totalCount } }", {"session": session})
        assert result.data["page"]["totalCount"] == 2


def _mages() -> Any:
    schema = build_schema("""
        type Query { page(first: Int, after: String): Mages! }
        type Mages { edges: [Edge!]! nodes: [Mage!]! totalCount: Int }
        type Edge { node: Mage! cursor: String! }
        type Mage { name: String! guild: Guild }
        type Guild { name: String! mages: [Mage!]! }
    """)

    async def page(_root: Any, info: Any, **given: Any) -> Connection[Mage]:
        query = QueryBuilder(info.context["session"], Mage).order_by("name")
        return await connection(query, info, **given)

    schema.query_type.fields["page"].resolve = page
    return schema


async def test_filters(session: AsyncSession):
    """Flat and nested inputs; null asks for rows without a value, and UNSET for nothing."""
    await teams(session)
    await given(session, Hero(name="Alone", secret_name="?"))

    async def names(where: str) -> list[str]:
        data = await ask(session, f"{{ heroes(where: {where}) {{ name }} }}")
        return [hero["name"] for hero in data["heroes"]]

    assert len(await names("{}")) == 5
    assert await names('{name: "Alone"}') == ["Alone"]
    assert await names('{team: {name: "Team 2"}}') == ["Hero 20", "Hero 21"]
    assert await names("{age: null}") == ["Alone"]
    assert await names("{team: {city: null}}") == []
    assert len(await names("{age: {gte: 30, lt: 31}}")) == 4
    assert await names("{age: {gte: 31}}") == []


@pytest.mark.databases("sqlite")
async def test_a_filter_that_is_not_allowed(session: AsyncSession):
    """The error names it, and nothing else that there is."""
    text = await refusal(session, '{ heroes(where: {secretName: "x"}) { name } }')
    assert text == "Validation failed for 'secret_name': this is not a filter here; leave it out"


# --- pages ---------------------------------------------------------------------------------------


async def test_pages(session: AsyncSession):
    """They follow each other by cursor, and know whether there are more."""
    await teams(session, 2, heroes=3)
    found: list[str] = []
    after, pages = None, []
    while not pages or pages[-1]["pageInfo"]["hasNextPage"]:
        data = await ask(
            session,
            """query($after: String) { page(first: 4, after: $after) {
                edges { cursor node { name } }
                pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
            } }""",
            after=after,
        )
        pages.append(data["page"])
        found += [edge["node"]["name"] for edge in data["page"]["edges"]]
        after = data["page"]["pageInfo"]["endCursor"]
    assert found == ["Hero 10", "Hero 11", "Hero 12", "Hero 20", "Hero 21", "Hero 22"]
    infos = [page["pageInfo"] for page in pages]
    assert [info["hasPreviousPage"] for info in infos] == [False, True]
    assert infos[0]["startCursor"] == pages[0]["edges"][0]["cursor"]
    assert infos[0]["endCursor"] == pages[0]["edges"][-1]["cursor"]
    inside = pages[0]["edges"][1]["cursor"]
    data = await ask(session, f'{{ page(first: 1, after: "{inside}") {{ nodes {{ name }} }} }}')
    assert data["page"]["nodes"] == [{"name": "Hero 12"}]


async def test_a_total_is_counted_where_it_is_selected(session: AsyncSession):
    """`hasNextPage` does without it, and it does without the rows."""
    await teams(session, 3)
    for source, count in (
        ("{ page { nodes { name } pageInfo { hasNextPage } } }", 1),
        ("{ page { totalCount } }", 1),
        ("{ page { ... on HeroConnection { t: totalCount } nodes { name } } }", 2),
        ("{ page { nodes { name } totalCount @skip(if: true) } }", 1),
        ("{ page { __typename } }", 0),
    ):
        with statements_of(session.bind) as sent:
            data = await ask(session, source)
        assert len(sent) == count
        assert data["page"].get("totalCount", data["page"].get("t", 6)) == 6
    assert len((await ask(session, "{ page { nodes { name } } }"))["page"]["nodes"]) == 4


async def test_an_empty_page(session: AsyncSession):
    """It has no cursors."""
    source = (
        "{ page { edges { cursor } pageInfo { hasNextPage startCursor endCursor } totalCount } }"
    )
    none = {"hasNextPage": False, "startCursor": None, "endCursor": None}
    assert (await ask(session, source))["page"] == {"edges": [], "pageInfo": none, "totalCount": 0}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("first: 5", "first is beyond 4, the max_size"),
        ("first: 0", "first must be a whole number of 1 or more"),
        ("first: -1", "first must be a whole number of 1 or more"),
        ('after: "rubbish"', "the cursor is damaged"),
        ('after: ""', "the cursor is damaged"),
    ],
)
async def test_what_no_page_is(session: AsyncSession, arguments: str, reason: str):
    """An error of the client's, before the first statement."""
    assert reason in await refusal(session, f"{{ page({arguments}) {{ nodes {{ name }} }} }}")


async def test_a_cursor_of_another_query(session: AsyncSession):
    """It is refused; in plain graphql-core a page answers to GraphQL's names."""
    await teams(session)

    async def page(_root: Any, info: Any, first: Any = None, after: Any = None) -> Connection[Hero]:
        query = QueryBuilder(info.context["session"], Hero).order_by("-age", "name")
        return await connection(query, info, first=first, after=after)

    schema, context = plain_schema(Query__page=page), {"session": session}
    source = """{ page(first: 1) {
        edges { cursor } totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    } }"""
    found = (await answer(schema, source, context)).data["page"]
    [edge] = found["edges"]
    info = {"hasNextPage": True, "hasPreviousPage": False}
    assert found["pageInfo"] == info | {"startCursor": edge["cursor"], "endCursor": edge["cursor"]}
    assert found["totalCount"] == 4
    source = f'{{ page(after: "{edge["cursor"]}") {{ nodes {{ name }} }} }}'
    assert len((await answer(schema, source, context)).data["page"]["nodes"]) == 3
    assert "the cursor belongs to another model or order_by" in await refusal(session, source)


# --- errors --------------------------------------------------------------------------------------


async def test_errors_say_nothing_of_statements():
    """After any failure, neither SQL nor a value is in the response."""
    engine = make_sqlite()  # without tables
    async with AsyncSession(engine) as empty:
        with quiet():
            source = (
                '{ heroes(where: {name: "hush-hush"}) { name team { name } } page { totalCount } }'
            )
            result = await answer(SCHEMA, source, {"session": empty})
        texts = [error.message for error in result.errors]
        assert len(texts) >= 1
        for text in texts:
            assert "Query execution failed for Hero: a table does not exist" in text
            assert not re.search(r"SELECT|FROM|hush", text)
    await engine.dispose()


@pytest.mark.databases("sqlite")
async def test_what_is_no_info(session: AsyncSession):
    """It is refused, as is a query that already has a limit or an offset."""
    query = QueryBuilder(session, Hero)
    with pytest.raises(ValidationError, match="must be the info of a GraphQL resolver"):
        for_selection(query, None)

    async def page(_root: Any, info: Any) -> Connection[Hero]:
        return await connection(QueryBuilder(info.context["session"], Hero).limit(2), info)

    schema = plain_schema(Query__page=page)
    assert "limit" in await refusal(session, "{ page { nodes { name } } }", schema)
