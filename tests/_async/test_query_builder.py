"""The query builder returns the rows, numbers and values that are asked for."""

from __future__ import annotations

import datetime as dt
import operator
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import aliased, defer

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, transaction
from sqlmodel_crud_utils.exceptions import (
    MultipleRecordsError,
    QueryExecutionError,
    RecordNotFoundError,
    UnknownFieldError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, PlainSession, scoped
from tests.bulk_models import Truck, Vehicle
from tests.models import AllTypes, Colour, Hero, Invoice, Tag, Team
from tests.recording import statements_of

Sessions = Callable[[], AsyncSession]


@pytest.fixture
async def heroes(session_factory: Sessions) -> None:
    """Four heroes: two in Oslo, one in Bern, one on her own and of unknown age."""
    oslo, bern = Team(name="Owls", city="Oslo"), Team(name="Bears", city="Bern")
    fast, strong = Tag(label="fast"), Tag(label="strong")
    session = session_factory()
    session.add_all(
        [
            Hero(name="Ann", secret_name="a", age=40, team=oslo, tags=[fast, strong]),
            Hero(name="Bob", secret_name="b", age=30, team=oslo, tags=[fast]),
            Hero(name="Cyd", secret_name="c", age=30, team=bern),
            Hero(name="Dee", secret_name="d"),
        ]
    )
    await session.commit()


def names(rows: list[Hero]) -> list[str]:
    """Return the names of heroes, in their order."""
    return [hero.name for hero in rows]


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_all_returns_the_rows_that_match(session: AsyncSession):
    """Filters and expressions add up, call by call."""
    query = AsyncQueryBuilder(session, Hero)
    assert names(await query.all()) == ["Ann", "Bob", "Cyd", "Dee"]
    grown = query.where(Hero.age >= 30, name__ne="Bob").where(team__city="Oslo")
    assert names(await grown.all()) == ["Ann"]


@pytest.mark.usefixtures("heroes")
async def test_a_builder_never_changes(session: AsyncSession):
    """One that is half done can be taken further in several ways, and run more than once."""
    base = AsyncQueryBuilder(session, Hero).where(age=30)
    narrow, sorted_ = base.where(name="Bob"), base.order_by("-name")
    assert names(await narrow.all()) == ["Bob"]
    assert names(await sorted_.all()) == ["Cyd", "Bob"]
    assert names(await base.all()) == names(await base.all()) == ["Bob", "Cyd"]


@pytest.mark.usefixtures("heroes")
async def test_a_filter_keeps_the_values_it_was_given(session: AsyncSession):
    """An iterator is read once, and a list that changes later changes nothing."""
    wanted = ["Ann", "Bob"]
    query = AsyncQueryBuilder(session, Hero).where(name__in=wanted, age__in=iter((30, 40)))
    wanted.clear()
    assert await query.count() == 2
    assert names(await query.with_deleted().all()) == ["Ann", "Bob"]


@pytest.mark.usefixtures("heroes")
async def test_rows_are_sorted_with_nulls_last(session: AsyncSession):
    """In both directions, on every database; an expression may say otherwise."""
    query = AsyncQueryBuilder(session, Hero)
    assert names(await query.order_by("age", "name").all()) == ["Bob", "Cyd", "Ann", "Dee"]
    assert names(await query.order_by("-age", "-name").all()) == ["Ann", "Cyd", "Bob", "Dee"]
    assert names(await query.order_by("age", "name", desc=True).all())[0] == "Ann"
    by_expression = query.order_by(Hero.age.desc().nulls_first(), func.lower(Hero.name).desc())
    assert names(await by_expression.all()) == ["Dee", "Ann", "Cyd", "Bob"]
    assert names(await query.order_by(Hero.age.nulls_first()).all())[0] == "Dee"
    assert names(await query.order_by("age").order_by("-name").all())[:2] == ["Cyd", "Bob"]


@pytest.mark.usefixtures("heroes")
async def test_limit_and_offset(session: AsyncSession):
    """They cut the sorted rows; 0 is a limit too."""
    query = AsyncQueryBuilder(session, Hero).order_by("-name")
    assert names(await query.limit(2).all()) == ["Dee", "Cyd"]
    assert names(await query.offset(3).all()) == ["Ann"]
    assert names(await query.limit(1).offset(1).all()) == ["Cyd"]
    assert await query.limit(0).all() == []
    assert await query.limit(0).first() is None
    assert await query.limit(1).offset(1).count() == 4


@pytest.mark.usefixtures("heroes")
async def test_first_and_exists(session: AsyncSession):
    """None and False where nothing matches."""
    query = AsyncQueryBuilder(session, Hero)
    first = await query.order_by("-name").first()
    assert first is not None
    assert first.name == "Dee"
    assert await query.where(name="x").first() is None
    assert await query.exists() is True
    assert await query.where(name="x").exists() is False


@pytest.mark.usefixtures("heroes")
async def test_exists_asks_for_no_more_than_one_row(session: AsyncSession, engine: AsyncEngine):
    """A table may have millions of them."""
    with statements_of(engine) as sent:
        assert await AsyncQueryBuilder(session, Hero).exists()
    assert [
        statement for statement in sent if "hero" in statement and "LIMIT" not in statement
    ] == []
    assert any("LIMIT" in statement for statement in sent)


@pytest.mark.usefixtures("heroes")
async def test_one_says_how_many_it_found(session: AsyncSession):
    """The error counts them, and names the filters."""
    query = AsyncQueryBuilder(session, Hero)
    assert (await query.where(name="Ann").one()).age == 40
    assert await query.where(name="x").one_or_none() is None
    with pytest.raises(RecordNotFoundError, match="No Hero matches the filters on name"):
        await query.where(name="x").one()
    with pytest.raises(MultipleRecordsError, match=r"Expected 1 Hero, found 4$"):
        await query.one()
    with pytest.raises(MultipleRecordsError, match="found 3") as caught:
        await query.where(age__gte=30).one_or_none()
    assert (caught.value.count, caught.value.filters) == (3, {"age__gte": 30})
    assert (await query.limit(1).one()).name == "Ann"
    assert (await query.offset(3).one()).name == "Dee"
    with pytest.raises(MultipleRecordsError, match="found 3"):
        await query.offset(1).one()


# --- filters -------------------------------------------------------------------------------------


# Values of filters, and what each means where it is not the value itself.
COMPARED: dict[str, list[Any]] = {
    "integer": [1, "2", None, 2**40, "3"],
    "big": [1, 2**62, "7", None],
    "text": ["a", "ß", "", None],
    "real": [0.5, 1, "2.5", None],
    "amount": [Decimal("0.5"), 1, "2.5", None],
    "flag": [True, False, "yes", 0, None],
    "day": [dt.date(2024, 2, 29), "2024-03-01", None],
    "moment": [dt.datetime(2024, 2, 29, tzinfo=dt.UTC), "2024-03-01T10:00:00+02:00", None],
    "naive_moment": [dt.datetime(2024, 2, 29), "2024-03-01 10:00", None],  # noqa: DTZ001
    "clock": [dt.time(10), "11:30", None],
    "duration": [dt.timedelta(days=1), dt.timedelta(0), None],
    "token": [uuid.UUID(int=1), str(uuid.UUID(int=2)), None],
    "colour": [Colour.RED, "green", "RED", None],
    "blob": [b"a", b"", None],
}
MEANT: dict[tuple[str, str], Any] = {
    ("integer", "2"): 2,
    ("integer", "3"): 3,
    ("big", "7"): 7,
    ("real", "2.5"): 2.5,
    ("amount", "2.5"): Decimal("2.5"),
    ("flag", "yes"): True,
    ("flag", "0"): False,
    ("day", "2024-03-01"): dt.date(2024, 3, 1),
    ("moment", "2024-03-01T10:00:00+02:00"): dt.datetime(2024, 3, 1, 8, tzinfo=dt.UTC),
    ("naive_moment", "2024-03-01 10:00"): dt.datetime(2024, 3, 1, 10),  # noqa: DTZ001
    ("clock", "11:30"): dt.time(11, 30),
    ("token", str(uuid.UUID(int=2))): uuid.UUID(int=2),
    ("colour", "green"): Colour.GREEN,
    ("colour", "RED"): Colour.RED,
}


@pytest.mark.parametrize("field", COMPARED)
async def test_queries_of_one_shape_keep_their_own_values(session: AsyncSession, field: str):
    """They share their SQL; each finds the rows whose values compare so in Python."""
    values = [(value, MEANT.get((field, str(value)), value)) for value in COMPARED[field]]
    stored = {number: meant for number, (_, meant) in enumerate(values, 1) if meant != 2**40}
    session.add_all(AllTypes(**{"id": number, field: meant}) for number, meant in stored.items())
    await session.commit()
    query = AsyncQueryBuilder(session, AllTypes)
    lookups = ("eq", "ne") if field in {"flag", "colour"} else ("eq", "ne", "lt", "gte")
    for lookup in (each for each in lookups for _ in range(2)):
        for value, meant in values:
            if value is None and lookup not in {"eq", "ne"}:
                continue
            name = f"{field}__{lookup}"
            expected = [key for key, held in stored.items() if is_met(held, lookup, meant)]
            assert [row.id for row in await query.where(**{name: value}).all()] == expected
            assert await query.where(**{name: value}).count() == len(expected)
            rest = stored.keys() - {*expected}
            assert {*await query.exclude(**{name: value}).scalars("id")} == rest


def is_met(held: Any, lookup: str, meant: Any) -> bool:
    """Return whether a row's value compares so; NULL meets None alone."""
    if held is None:
        return meant is None and lookup == "eq"
    if meant is None:
        return lookup == "ne"
    return bool(getattr(operator, {"gte": "ge"}.get(lookup, lookup))(held, meant))


@pytest.mark.usefixtures("heroes")
async def test_queries_of_different_shapes_do_not_meet(session: AsyncSession):
    """Queries that differ in anything but values have different SQL."""
    query = AsyncQueryBuilder(session, Hero)
    for _ in range(2):
        for shaped, expected in (
            (query.where(age=30), ["Bob", "Cyd"]),
            (query.exclude(age=30), ["Ann", "Dee"]),
            (query.where(age__gt=30), ["Ann"]),
            (query.where(age=30).where(name="Bob"), ["Bob"]),
            (query.where(age=30, name="Bob"), ["Bob"]),
            (query.where(name="Bob", age=30), ["Bob"]),
            (query.where(age=30).exclude(name="Bob"), ["Cyd"]),
            (query.exclude(age=30, name="Bob"), ["Ann", "Cyd", "Dee"]),
            (query.where(team__name="Owls"), ["Ann", "Bob"]),
            (query.where(team__name="Bears"), ["Cyd"]),
            (query.where(team__city="Oslo"), ["Ann", "Bob"]),
            (query.where(age=None), ["Dee"]),
            (query.order_by("-name").limit(1), ["Dee"]),
            (query.order_by("name").limit(1), ["Ann"]),
            (query.order_by(Hero.age.nulls_first()).limit(1), ["Dee"]),
            (query.order_by("age").limit(1), ["Bob"]),
            (query.order_by("age").offset(3), ["Dee"]),
            (query.limit(2).offset(1), ["Bob", "Cyd"]),
        ):
            assert names(await shaped.all()) == expected
            assert [row["name"] for row in await shaped.values("name", "age")] == expected
            assert await shaped.scalars("name") == expected


@pytest.mark.usefixtures("heroes")
async def test_exclude_keeps_rows_without_a_value(session: AsyncSession):
    """A NULL meets no filter, and neither does a row without a related one."""
    query = AsyncQueryBuilder(session, Hero)
    assert names(await query.exclude(age=30).all()) == ["Ann", "Dee"]
    assert names(await query.exclude(age__gt=30).all()) == ["Bob", "Cyd", "Dee"]
    assert names(await query.exclude(age__in=[30, 40]).all()) == ["Dee"]
    assert names(await query.exclude(team__name="Owls").all()) == ["Cyd", "Dee"]
    assert names(await query.exclude(age=30, name="Bob").all()) == ["Ann", "Cyd", "Dee"]
    assert names(await query.exclude(tags__label="strong").all()) == ["Bob", "Cyd", "Dee"]
    assert names(await query.exclude(age=30).exclude(age=None).all()) == ["Ann"]
    assert await query.exclude().count() == 4


@pytest.mark.usefixtures("heroes")
async def test_any_of_takes_filters_and_expressions(session: AsyncSession):
    """A row that meets any of the alternatives is returned once."""
    query = AsyncQueryBuilder(session, Hero)
    found = query.any_of({"name": "Dee"}, {"age": 30, "team__city": "Bern"}, Hero.age > 35)
    assert names(await found.all()) == ["Ann", "Cyd", "Dee"]
    assert names(await found.where(age=None).all()) == ["Dee"]
    assert names(await query.any_of({"tags__label": "strong"}).all()) == ["Ann"]


@pytest.mark.usefixtures("heroes")
async def test_paths_of_any_depth(session: AsyncSession):
    """Through many-to-many and back; each row is returned once."""
    query = AsyncQueryBuilder(session, Hero)
    assert names(await query.where(tags__label__startswith="f").all()) == ["Ann", "Bob"]
    through = query.where(tags__heroes__team__heroes__name="Bob", team__city__in=["Oslo", "x"])
    assert names(await through.all()) == ["Ann", "Bob"]
    assert names(await query.exclude(team__heroes__tags__label="strong").all()) == ["Cyd", "Dee"]
    teams = AsyncQueryBuilder(session, Team).where(heroes__tags__label__iexact="FAST")
    assert [team.name for team in await teams.all()] == ["Owls"]


@pytest.mark.usefixtures("heroes")
async def test_expressions_may_ask_for_related_rows(session: AsyncSession):
    """`any()`, `has()` and subqueries can be combined with filters."""
    query = AsyncQueryBuilder(session, Hero)
    assert names(await query.where(Hero.team.has(city="Bern")).all()) == ["Cyd"]
    in_oslo = select(Team.id).where(Team.city == "Oslo")
    assert names(await query.where(Hero.team_id.in_(in_oslo), age=40).all()) == ["Ann"]


# --- values --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_values_and_scalars(session: AsyncSession):
    """Dicts and plain values, in the order of the rows; distinct ones appear once."""
    query = AsyncQueryBuilder(session, Hero).order_by("-name")
    assert await query.limit(2).values("name", "age") == [
        {"name": "Dee", "age": None},
        {"name": "Cyd", "age": 30},
    ]
    assert await query.limit(1).values("name") == [{"name": "Dee"}]
    assert [*(await query.limit(1).values())[0]] == ["id", "name", "secret_name", "age", "team_id"]
    assert await query.scalars("age") == [None, 30, 30, 40]
    ages = AsyncQueryBuilder(session, Hero).distinct().order_by("age")
    assert await ages.scalars("age") == [30, 40, None]
    assert await ages.where(age=30).values("age") == [{"age": 30}]
    assert sorted(await AsyncQueryBuilder(session, Team).distinct().scalars("city")) == [
        "Bern",
        "Oslo",
    ]
    assert names(await query.distinct().all()) == ["Dee", "Cyd", "Bob", "Ann"]


@pytest.mark.usefixtures("heroes")
async def test_aggregates(session: AsyncSession):
    """They are over all matching rows, and of one type everywhere."""
    query = AsyncQueryBuilder(session, Hero)
    assert repr(await query.limit(1).sum("age")) == "100"
    assert repr(await query.where(age=30).avg("age")) == "30.0"
    assert (await query.min("name"), await query.max("age")) == ("Ann", 40)
    nobody = query.where(name="x")
    assert [await nobody.sum("age"), await nobody.avg("age"), await nobody.max("age")] == [None] * 3


async def test_aggregates_of_other_types(session: AsyncSession):
    """Decimals stay decimals, and dates and enums have a lowest and a highest."""
    session.add_all([Invoice(customer="x", total=Decimal(n)) for n in ("1.5", "2.25")])
    session.add_all([AllTypes(real=0.5, big=2**40), AllTypes(colour=Colour.RED, big=2**40)])
    await session.commit()
    invoices, rows = AsyncQueryBuilder(session, Invoice), AsyncQueryBuilder(session, AllTypes)
    total, average = await invoices.sum("total"), await invoices.avg("total")
    assert (total, average) == (Decimal("3.75"), Decimal("1.875"))
    assert isinstance(average, Decimal)
    assert repr(await rows.sum("big")) == repr(2**41)
    assert (await rows.sum("real"), await rows.avg("real")) == (0.5, 0.5)
    assert await rows.max("colour") is Colour.RED


# --- related rows --------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_related_rows_are_loaded_with_the_rows(session: AsyncSession):
    """Nested ones too; nothing is left to be loaded later."""
    query = AsyncQueryBuilder(session, Hero)
    for name in ("team__heroes", "team.heroes"):
        for loaded in (query.selectin(name, "tags"), query.joined(name).selectin("tags")):
            session.expunge_all()
            [ann, *_] = await loaded.where(name="Ann").all()
            assert ann.team is not None
            assert sorted(names(ann.team.heroes)) == ["Ann", "Bob"]
            assert sorted(tag.label for tag in ann.tags) == ["fast", "strong"]


@pytest.mark.usefixtures("heroes")
async def test_joined_rows_are_there_once_and_limited_rightly(session: AsyncSession):
    """A relationship to many multiplies neither rows, nor pages, nor numbers."""
    query = AsyncQueryBuilder(session, Team).joined("heroes", "heroes.tags").order_by("-name")
    assert [team.name for team in await query.all()] == ["Owls", "Bears"]
    [owls] = await query.limit(1).all()
    assert sorted(names(owls.heroes)) == ["Ann", "Bob"]
    assert await query.count() == 2
    assert (await query.where(name="Owls").one()).name == "Owls"
    page = await query.paginate(2, 1)
    assert ([team.name for team in page.items], page.total) == (["Bears"], 2)
    first = await query.keyset(1)
    second = await query.keyset(1, after=first.next_cursor)
    assert [team.name for team in (*first.items, *second.items)] == ["Owls", "Bears"]
    assert sorted(names(first.items[0].heroes)) == ["Ann", "Bob"]


@pytest.mark.usefixtures("heroes")
async def test_fields_and_options(session: AsyncSession):
    """`load_only` loads the key and what is named; `options` are SQLAlchemy's."""
    query = AsyncQueryBuilder(session, Hero).order_by("name")
    [ann, *_] = await query.load_only("name").load_only("age").all()
    assert {"id", "name", "age"} == set(ann.__dict__) & {"id", "name", "age", "secret_name"}
    session.expunge_all()
    [ann, *_] = await query.options(defer(Hero.age)).all()
    assert "age" not in ann.__dict__


# --- mistakes ------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Callable[[AsyncQueryBuilder[Hero]], Any], str]] = {
    "field": (lambda q: q.where(agee=1), "did you mean 'age'"),
    "lookup": (lambda q: q.where(age__above=1), "the lookups are eq, ne"),
    "misfit": (lambda q: q.where(age__icontains="1"), "icontains searches text"),
    "value": (lambda q: q.where(age="old"), "a 64-bit integer"),
    "path": (lambda q: q.exclude(team__nmae="x"), "did you mean 'name'"),
    "alternative": (lambda q: q.any_of({"agee": 1}), "did you mean 'age'"),
    "no alternative": (lambda q: q.any_of(), "at least one alternative"),
    "empty alternative": (lambda q: q.any_of({}, {"age": 1}), "one is empty"),
    "bool": (lambda q: q.where(False), "takes expressions"),
    "string": (lambda q: q.where("age > 3"), "takes expressions"),
    "object": (lambda q: q.where(object()), "takes expressions"),
    "other table": (lambda q: q.where(Team.name == "x"), "says nothing about rows of Hero"),
    "value of another table": (lambda q: q.where(age=Team.id), "says nothing about rows of Hero"),
    "bound of another table": (lambda q: q.exclude(age__between=(1, Team.id)), "says nothing"),
    "alternative of another table": (lambda q: q.any_of({"age__lt": Team.id}), "says nothing"),
    "order": (lambda q: q.order_by("-agee"), "did you mean 'age'"),
    "order by relationship": (lambda q: q.order_by("team"), "is a relationship"),
    "order by attribute": (lambda q: q.order_by(Hero.team), "is a relationship"),
    "order by other table": (lambda q: q.order_by(Team.name), "nothing about rows of Hero"),
    "order by alias": (lambda q: q.order_by(aliased(Hero).name.desc()), "says nothing"),
    "order by number": (lambda q: q.order_by(3), "names of fields or by expressions"),
    "twice descending": (lambda q: q.order_by("-age", desc=True), "given twice"),
    "limit": (lambda q: q.limit(-1), "limit must be a whole number of 0 or more"),
    "offset": (lambda q: q.offset(True), "offset must be a whole number"),
    "huge": (lambda q: q.limit(2**63), "beyond what a database can count"),
    "selectin": (lambda q: q.selectin("teem"), "no relationship 'teem'; did you mean 'team'"),
    "joined": (lambda q: q.joined("team__citi"), "no relationship 'citi'"),
    "loader": (lambda q: q.selectin(3), "given by name"),
    "load_only": (lambda q: q.load_only("team"), "Available fields: id, name, secret_name"),
    "options": (lambda q: q.options("team"), "options are SQLAlchemy's"),
    "only_deleted": (lambda q: q.only_deleted(), "inherit SoftDeleteMixin"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_reported_by_the_call_that_makes_it(session: AsyncSession, mistake: str):
    """Nothing has to run for it, and the message names what would be right."""
    call, text = MISTAKES[mistake]
    with pytest.raises(ValidationError, match=text):
        call(AsyncQueryBuilder(session, Hero))


async def test_mistakes_of_what_runs(session: AsyncSession):
    """The methods that query report theirs before they do."""
    query = AsyncQueryBuilder(session, Hero)
    with pytest.raises(UnknownFieldError, match="no field 'agee'"):
        await query.values("name", "agee")
    with pytest.raises(UnknownFieldError):
        await query.scalars("team")
    with pytest.raises(ValidationError, match=r"sum of Hero\.name .* id, age, team_id"):
        await query.sum("name")
    with pytest.raises(ValidationError, match="not by age"):
        await query.distinct().order_by("age").scalars("name")
    with pytest.raises(ValidationError, match="not by an expression"):
        await query.distinct().order_by(func.lower(Hero.name)).values("name")


async def test_a_refused_query_is_an_error_of_the_library(session: AsyncSession):
    """SQL that the database cannot run raises a `QueryExecutionError`, from every method."""
    query = AsyncQueryBuilder(session, Hero).where(func.no_such_function(Hero.name) == "x")
    for run in (query.all, query.count, query.exists, query.one, query.values):
        with pytest.raises(QueryExecutionError):
            await run()
        await session.rollback()


async def test_models_that_are_spread_over_tables(session: AsyncSession):
    """They are read as any other; set-based writes say that they cannot reach them."""
    session.add_all([Truck(name=f"T{n}", load=n % 2) for n in range(4)])
    session.add(Vehicle(name="V"))
    await session.commit()
    query = AsyncQueryBuilder(session, Truck).order_by("-load", "name")
    expected = ["T1", "T3", "T0", "T2"]
    assert [truck.name for truck in await query.all()] == expected
    assert [truck.name async for truck in query.stream(3)] == expected
    assert await query.where(load=1).values("name", "load") == [
        {"name": "T1", "load": 1},
        {"name": "T3", "load": 1},
    ]
    page = await query.keyset(3)
    rest = await query.keyset(3, after=page.next_cursor)
    assert [truck.name for truck in (*page.items, *rest.items)] == expected
    second = await query.paginate(2, 3)
    assert ([truck.name for truck in second.items], second.total) == (["T2"], 4)
    assert await AsyncQueryBuilder(session, Vehicle).count() == 5
    for write in (query.where(load=1).delete, query.where(load=1).update):
        with pytest.raises(ValidationError, match="write to them one by one"):
            await write()


# --- sessions ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_any_session_will_do(session: AsyncSession):
    """SQLModel's, SQLAlchemy's own and scoped ones."""
    async with PlainSession(session.bind) as plain:
        assert await AsyncQueryBuilder(plain, Hero).order_by("name").scalars("name") == [
            "Ann",
            "Bob",
            "Cyd",
            "Dee",
        ]
        assert names(await AsyncQueryBuilder(plain, Hero).where(age=40).all()) == ["Ann"]
    registry = scoped(session.bind)
    assert await AsyncQueryBuilder(registry, Hero).count() == 4
    await registry.remove()


@pytest.mark.usefixtures("heroes")
async def test_rows_stay_loaded_after_a_block(session: AsyncSession):
    """Those of every method, with what was loaded with them."""
    query = AsyncQueryBuilder(session, Hero).selectin("team")
    async with transaction(session):
        [ann] = await query.where(name="Ann").all()
        page = await query.keyset(2)
    assert ann.team is not None
    assert (ann.age, ann.team.city, names(page.items)) == (40, "Oslo", ["Ann", "Bob"])


@pytest.mark.usefixtures("heroes")
async def test_sql_shows_parameters_apart(session: AsyncSession):
    """Each has a line of its own below the SQL of the database."""
    text = AsyncQueryBuilder(session, Hero).where(name="O'Hara", age__in=[1]).limit(5).sql()
    sql, *parameters = text.split("\n-- ")
    assert sql.startswith("SELECT hero.id")
    assert "O'Hara" not in sql
    assert '-- name_1 = "O\'Hara"' in text
    assert parameters


VALUES_IN_SQL: dict[str, Any] = {
    "text": "tell-tale",
    "text__in": ["tell-tale", "other"],
    "text__icontains": "tell-tale",
    "text__startswith": "tell-tale",
    "text__like": "tell-tale",
    "text__regex": "tell-tale",
    "integer__between": [424_242, 434_343],
    "big": 42_424_242_424_242,
    "real__gt": 4242.4242,
    "amount__lte": Decimal("4242.4242"),
    "integer__in": [424_242, 434_343],
    "day": dt.date(2042, 4, 24),
    "moment__gte": dt.datetime(2042, 4, 24, tzinfo=dt.UTC),
    "token__ne": uuid.UUID(int=0x42424242),
    "blob": b"tell-tale",
    "flag": True,
    "colour": Colour.GREEN,
}
TELL_TALES = ("tell", "4242", "2042", "GREEN", "434343")


@pytest.mark.parametrize("name", VALUES_IN_SQL)
async def test_no_value_stands_in_the_sql(session: AsyncSession, name: str):
    """For every type and lookup, limits and offsets; values are listed below the SQL."""
    query = AsyncQueryBuilder(session, AllTypes)
    for each in (query.where(**{name: VALUES_IN_SQL[name]}), query.limit(4242).offset(434343)):
        lines = each.sql().splitlines()
        sql = "\n".join(line for line in lines if not line.startswith("-- "))
        assert not [told for told in TELL_TALES if told in sql]
        assert [line for line in lines if line.startswith("-- ")]


async def test_statement_is_the_select(session: AsyncSession):
    """It can be taken further with SQLAlchemy."""
    statement = AsyncQueryBuilder(session, Hero).where(age=3).statement()
    assert str(statement.with_only_columns(Hero.id).order_by(None)).startswith("SELECT hero.id")
    assert repr(AsyncQueryBuilder(session, Hero)).endswith("QueryBuilder of Hero>")
