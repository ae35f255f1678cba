"""The filter language on real databases: lookups, relationship paths, lists of any length."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_rows
from sqlmodel_crud_utils.exceptions import ValidationError
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    fetched,
    run_on_connection,
)
from tests.filter_models import Author, Authorship, Book, Folder, Legacy, Publisher, Scale
from tests.models import AllTypes, Colour, Hero, HeroTag, OddName, Tag, Team

NAIVE = dt.datetime(2024, 2, 29, 12, 30)  # noqa: DTZ001 - that is the point
FULL: dict[str, Any] = {
    "integer": 5,
    "big": 2**40,
    "text": "Ünïted 100%",
    "long_text": "A long text",
    "real": 1.5,
    "amount": Decimal("12.3400"),
    "flag": True,
    "day": dt.date(2024, 2, 29),
    "moment": dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC),
    "naive_moment": NAIVE,
    "clock": dt.time(12, 30),
    "duration": dt.timedelta(hours=2, minutes=30),
    "token": uuid.UUID(int=5),
    "colour": Colour.RED,
    "blob": b"\x00\xff5",
    "payload": {"a": 1},
}
# Each value as itself, and as text: out of a query string, say.
VALUES: dict[str, tuple[Any, ...]] = {
    "integer": (5, "5"),
    "big": (2**40, str(2**40)),
    "text": ("Ünïted 100%",),
    "long_text": ("A long text",),
    "real": (1.5, "1.5"),
    "amount": (Decimal("12.34"), "12.34", 12.34),
    "flag": (True, "yes"),
    "day": (dt.date(2024, 2, 29), "2024-02-29", "29 February 2024"),
    "moment": (
        dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC),
        dt.datetime(2024, 2, 29, 14, 30, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "2024-02-29 12:30",
        "2024-02-29T14:30:00+02:00",
    ),
    "naive_moment": (NAIVE, "29 Feb 2024 12:30"),
    "clock": (dt.time(12, 30), "12:30"),
    "duration": (dt.timedelta(hours=2, minutes=30), "2:30:00", "PT2H30M"),
    "token": (uuid.UUID(int=5), str(uuid.UUID(int=5)), uuid.UUID(int=5).hex),
    "colour": (Colour.RED, "red", "RED"),
    "blob": (b"\x00\xff5",),
}
OTHERS: dict[str, Any] = {
    "integer": 6,
    "big": 2**41,
    "text": "other 100%",
    "long_text": "",
    "real": 0.25,
    "amount": Decimal("12.35"),
    "flag": False,
    "day": dt.date(2024, 3, 1),
    "moment": dt.datetime(2024, 2, 29, 12, 31, tzinfo=dt.UTC),
    "naive_moment": NAIVE + dt.timedelta(minutes=1),
    "clock": dt.time(12, 31),
    "duration": dt.timedelta(hours=2),
    "token": uuid.UUID(int=6),
    "colour": Colour.GREEN,
    "blob": b"\x00\xff",
}
MANY = 66_000  # no database takes more than 65,535 parameters


async def found(
    session: AsyncSession, model: Any, *, include_deleted: bool = False, **filters: Any
) -> list[int]:
    """Return the ids of the rows that meet the filters, in order."""
    query = AsyncQueryBuilder(session, model).where(**filters).order_by("id")
    return await (query.with_deleted() if include_deleted else query).scalars("id")


async def add(session: AsyncSession, *rows: Any) -> None:
    """Write rows."""
    session.add_all(rows)
    await session.commit()


# --- lookups -------------------------------------------------------------------------------------


async def test_decimals_are_compared_as_they_are(session: AsyncSession) -> None:
    """A number that is too large or too fine for the column is neither refused nor rounded."""
    await add(session, AllTypes(id=1, amount=Decimal("1.0001")))
    assert await found(session, AllTypes, amount__lt=Decimal(10) ** 20) == [1]
    assert await found(session, AllTypes, amount__gt=Decimal("1.00005")) == [1]
    assert await found(session, AllTypes, amount=Decimal("1.00005")) == []
    assert await found(session, AllTypes, amount__in=[Decimal("1.00005"), Decimal(10) ** 20]) == []
    assert await found(session, AllTypes, amount__in=[Decimal("1.0001")]) == [1]


@pytest.mark.parametrize("name", VALUES)
async def test_every_type_is_found_by_its_value_and_by_text(
    session: AsyncSession, name: str
) -> None:
    """Equality, lists and NULL work for each column type, with values and their text forms."""
    await add(session, AllTypes(id=1, **FULL), AllTypes(id=2))
    other = OTHERS[name]
    for value in VALUES[name]:
        assert await found(session, AllTypes, **{name: value}) == [1]
        assert await found(session, AllTypes, **{f"{name}__ne": value}) == []
        assert await found(session, AllTypes, **{f"{name}__in": [value, other, None]}) == [1]
        assert await found(session, AllTypes, **{f"{name}__not_in": [value, other]}) == []
    assert await found(session, AllTypes, **{name: other}) == []
    assert await found(session, AllTypes, **{f"{name}__not_in": [other, other]}) == [1]
    assert await found(session, AllTypes, **{name: None}) == [2]
    assert await found(session, AllTypes, **{f"{name}__is_null": "false"}) == [1]


@pytest.mark.parametrize("name", [name for name in VALUES if name not in {"colour", "blob"}])
async def test_every_ordered_type_can_be_compared(session: AsyncSession, name: str) -> None:
    """The comparisons work for each column type that has an order."""
    await add(session, AllTypes(id=1, **FULL), AllTypes(id=2))
    value, other = VALUES[name][0], OTHERS[name]
    low, high = sorted((value, other))
    assert await found(session, AllTypes, **{f"{name}__gte": low}) == [1]
    assert await found(session, AllTypes, **{f"{name}__lte": high}) == [1]
    assert await found(session, AllTypes, **{f"{name}__gt": value}) == []
    assert await found(session, AllTypes, **{f"{name}__lt": value}) == []
    assert await found(session, AllTypes, **{f"{name}__between": (low, high)}) == [1]


async def test_none_of_a_json_column_is_found_however_it_is_stored(session: AsyncSession) -> None:
    """SQLAlchemy stores None as JSON's null, and an insert may leave the column NULL."""
    await add(session, AllTypes(id=1, payload={}), AllTypes(id=2, payload=None))
    await execute(session, insert(AllTypes).values(id=3, integer=1))
    assert await found(session, AllTypes, payload=None) == [2, 3]
    assert await found(session, AllTypes, payload__is_null=False) == [1]
    assert await found(session, AllTypes, payload__ne=None) == [1]


async def test_a_type_chooses_how_values_are_compared(session: AsyncSession) -> None:
    """As SQLAlchemy's own comparisons do, however often the same filter is asked for."""
    await add(session, Scale(id=1, weight=2), Scale(id=2, weight=4))
    for weight, key in ((4, 1), (8, 2), (4, 1)):
        own = await execute(session, select(Scale.id).where(Scale.weight == weight))
        assert fetched(own) == [key]
        assert await found(session, Scale, weight=weight) == [key]
        assert await found(session, Scale, weight__gte=weight, weight__lte=weight) == [key]


async def test_case_and_accents_count_as_the_lookup_says(session: AsyncSession) -> None:
    """The exact lookups mind case, the others don't; accents always count."""
    names = ["Émile", "émile", "ÉMILE", "Emile", "emile"]
    await add(session, *(Team(id=i, name=f"{i}{name}{i}") for i, name in enumerate(names, 1)))
    assert await found(session, Team, name__contains="Émile") == [1]
    assert await found(session, Team, name__icontains="éMILE") == [1, 2, 3]
    assert await found(session, Team, name__icontains="EMILE") == [4, 5]
    assert await found(session, Team, name__startswith="1É") == [1]
    assert await found(session, Team, name__startswith="1é") == []
    assert await found(session, Team, name__istartswith="1é") == [1]
    assert await found(session, Team, name__istartswith="1e") == []
    assert await found(session, Team, name__endswith="LE3") == [3]
    assert await found(session, Team, name__endswith="le3") == []
    assert await found(session, Team, name__iendswith="le3") == [3]
    assert await found(session, Team, name__iexact="3émile3") == [3]
    assert await found(session, Team, name__iexact="3émile") == []
    assert await found(session, Team, name__ilike="É%LE_") == [1, 2, 3]
    assert await found(session, Team, name__regex="^[0-9]É.*e") == [1]


@pytest.mark.parametrize("special", ["%", "_", "\\", "/", "*", "?", "[", "]", "^", "'", '"', "[a]"])
async def test_special_characters_stand_for_themselves(session: AsyncSession, special: str) -> None:
    """Nothing in the value of a search is a wildcard, an escape or SQL."""
    await add(session, Team(id=1, name=f"1a{special}b"), Team(id=2, name="1axb"))
    for lookup, value in {
        "contains": f"a{special}b",
        "icontains": f"A{special}B",
        "startswith": f"1a{special}",
        "istartswith": f"1A{special}",
        "endswith": f"{special}b",
        "iendswith": f"{special}B",
        "iexact": f"1A{special}B",
    }.items():
        assert await found(session, Team, **{f"name__{lookup}": value}) == [1], lookup


async def test_like_has_wildcards_and_is_looked_for_anywhere(session: AsyncSession) -> None:
    """`like` wraps its value in % as v0.1.0 did; % and _ in it keep their meaning."""
    await add(session, Team(id=1, name="the blue team"), Team(id=2, name="the red team"))
    assert await found(session, Team, name__like="blue") == [1]
    assert await found(session, Team, name__like="r_d") == [2]
    assert await found(session, Team, name__like="the%team") == [1, 2]
    assert await found(session, Team, name__not_like="blue") == [2]


async def test_sql_compares_with_sql(session: AsyncSession) -> None:
    """A value may be an expression, another column or a subquery."""
    await add(session, Team(id=1, name="a", city="a"), Team(id=2, name="b", city="a"))
    assert await found(session, Team, name=Team.city) == [1]
    assert await found(session, Team, name__gt=Team.city) == [2]
    assert await found(session, Team, name=func.lower("B")) == [2]
    assert await found(session, Team, id__in=select(func.max(Team.id))) == [2]
    assert await found(session, Team, id__not_in=select(func.max(Team.id))) == [1]


async def test_a_number_beyond_the_column_is_equal_to_none(session: AsyncSession) -> None:
    """Comparisons with numbers that the column can't hold have an answer, and no error."""
    await add(session, AllTypes(id=1, integer=5), AllTypes(id=2))
    assert await found(session, AllTypes, integer=2**40) == []
    assert await found(session, AllTypes, integer__lt=2**40) == [1]
    assert await found(session, AllTypes, integer__between=(-(2**40), 2**40)) == [1]
    assert await found(session, AllTypes, integer__in=[5, 2**40]) == [1]
    assert await found(session, AllTypes, integer__not_in=[6, 2**40]) == [1]


@pytest.mark.databases("mysql")
async def test_older_character_sets_of_mysql_are_searched_alike(session: AsyncSession) -> None:
    """Columns in latin1 and utf8mb3 can be searched for any text."""
    await add(session, Legacy(id=1, western="Émile", narrow="Жук"))
    assert await found(session, Legacy, western__contains="Ém") == [1]
    assert await found(session, Legacy, western__contains="em") == []
    assert await found(session, Legacy, western__icontains="éM") == [1]
    assert await found(session, Legacy, western__icontains="Ж") == []
    assert await found(session, Legacy, narrow__startswith="Жу") == [1]
    assert await found(session, Legacy, narrow__iexact="жУК") == [1]
    assert await found(session, Legacy, narrow__contains="😀") == []
    assert await found(session, Legacy, narrow__regex="^Ж") == [1]
    assert await found(session, Legacy, narrow__regex="^ж") == []


@pytest.mark.databases("mysql")
async def test_mysql_without_backslash_escapes_is_searched_alike(engine: AsyncEngine) -> None:
    """A server's SQL mode for backslashes does not affect searches."""
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'")
        await connection.commit()
        async with AsyncSession(connection) as session:
            await add(session, Team(id=1, name="a%b"), Team(id=2, name="axb"))
            assert await found(session, Team, name__contains="a%b") == [1]
            assert await found(session, Team, name__icontains="A%B") == [1]
        # The driver would remember the mode for the next test on this connection.
        await connection.invalidate()


async def test_fields_with_the_names_of_lookups_and_paths_come_first(
    session: AsyncSession,
) -> None:
    """A field whose own name holds `__` is the field, with or without a lookup."""
    await add(session, OddName(id=1, name__like="x", team__name="y"), OddName(id=2))
    assert await found(session, OddName, name__like="x") == [1]
    assert await found(session, OddName, name__like__like="x") == [1]
    assert await found(session, OddName, team__name="y") == [1]
    assert await found(session, OddName, team__name__is_null=True) == [2]


# --- relationship paths --------------------------------------------------------------------------


async def heroes(session: AsyncSession) -> None:
    """Write two teams with heroes and tags, and a hero without any."""
    north, south = Team(id=1, name="North", city="Oslo"), Team(id=2, name="South", city="Rome")
    old, young = Tag(id=1, label="old"), Tag(id=2, label="young")
    await add(
        session,
        *(north, south, old, young),
        Hero(id=1, name="Ann", secret_name="A", age=60, team=north, tags=[old]),
        Hero(id=2, name="Bob", secret_name="B", age=20, team=north, tags=[old, young]),
        Hero(id=3, name="Cid", secret_name="C", age=30, team=south),
        Hero(id=4, name="Dan", secret_name="D"),
    )


async def test_paths_lead_through_relationships_of_every_kind(session: AsyncSession) -> None:
    """To one, to many and many to many, with lookups, to any depth, without duplicate rows."""
    await heroes(session)
    assert await found(session, Hero, team__name="North") == [1, 2]
    assert await found(session, Hero, **{"team.name": "North"}) == [1, 2]
    assert await found(session, Hero, team__city__icontains="ROM") == [3]
    assert await found(session, Team, heroes__age__gt=10) == [1, 2]
    assert await found(session, Team, heroes__age__gt=50) == [1]
    assert await found(session, Hero, tags__label__startswith="y") == [2]
    assert await found(session, Tag, heroes__name__in=["Ann", "Cid"]) == [1]
    assert await found(session, Tag, heroes__team__city="Oslo") == [1, 2]
    assert await found(session, Hero, team__heroes__tags__label="young") == [1, 2]
    assert await found(session, Hero, team__heroes__team__heroes__name="Bob") == [1, 2]
    assert await found(session, Hero, team__name="North", age__lt=30) == [2]


async def test_two_filters_on_many_rows_may_be_met_by_two_of_them(session: AsyncSession) -> None:
    """Each filter asks for a related row of its own."""
    await heroes(session)
    assert await found(session, Team, heroes__name="Ann", heroes__age=20) == [1]


async def test_the_absence_of_related_rows_can_be_asked_for(session: AsyncSession) -> None:
    """A relationship itself is compared with None, to one and to many."""
    await heroes(session)
    assert await found(session, Hero, team=None) == [4]
    assert await found(session, Hero, team__ne=None) == [1, 2, 3]
    assert await found(session, Hero, team__is_null=True) == [4]
    assert await found(session, Hero, team__is_null="false") == [1, 2, 3]
    assert await found(session, Hero, tags=None) == [3, 4]
    assert await found(session, Hero, team__heroes__tags__is_null=True) == [3]


async def test_a_table_that_is_related_to_itself_is_told_apart(session: AsyncSession) -> None:
    """Paths up and down a tree, however often they meet the same table."""
    top = Folder(id=1, name="top")
    middle = Folder(id=2, name="middle", parent=top)
    await add(
        session, top, middle, Folder(id=3, name="leaf", parent=middle), Folder(id=4, name="x")
    )
    assert await found(session, Folder, parent__name="top") == [2]
    assert await found(session, Folder, parent__parent__name="top") == [3]
    assert await found(session, Folder, children__children__name="leaf") == [1]
    assert await found(session, Folder, children__parent__children__name="middle") == [1]
    assert await found(session, Folder, parent=None, children__name__like="mid") == [1]


async def test_paths_work_in_a_statement_that_joins_the_same_table(session: AsyncSession) -> None:
    """The related table of a path is an alias, which no join of the statement touches."""
    await heroes(session)
    statement = select(Hero).join(Team).join(HeroTag).join(Tag).where(Tag.label == "young")
    _, [hero] = await get_rows(session, Hero, stmnt=statement, team__heroes__name="Ann")
    assert hero.id == 2


async def test_soft_deleted_related_rows_do_not_count(session: AsyncSession) -> None:
    """On every step of a path: related rows, and the rows that link many to many."""
    here, gone = Publisher(id=1, name="Ink"), Publisher(id=2, name="Ink", is_deleted=True)
    await add(
        session,
        *(here, gone, Book(id=1, title="Here"), Book(id=2, title="Gone", is_deleted=True)),
        Author(id=1, name="Ann", publisher=here),
        Author(id=2, name="Bob", publisher=gone),
        Author(id=3, name="Cid"),
    )
    await add(
        session,
        Authorship(author_id=1, book_id=1),
        Authorship(author_id=1, book_id=2),
        Authorship(author_id=2, book_id=2),
        Authorship(author_id=3, book_id=1, is_deleted=True),
    )
    assert await found(session, Author, publisher__name="Ink") == [1]
    assert await found(session, Author, publisher=None) == [2, 3]
    assert await found(session, Author, books__title__in=["Here", "Gone"]) == [1]
    assert await found(session, Author, books=None) == [2, 3]
    assert await found(session, Book, authors__publisher__name="Ink") == [1]
    assert await found(session, Publisher, authors__books__title="Gone") == []

    everything = {"include_deleted": True}
    assert await found(session, Author, publisher__name="Ink", **everything) == [1, 2]
    assert await found(session, Author, publisher=None, **everything) == [3]
    assert await found(session, Author, books__title="Gone", **everything) == [1, 2]
    assert await found(session, Author, books__title="Here", **everything) == [1, 3]
    assert await found(session, Book, authors__publisher__name="Ink", **everything) == [1, 2]
    assert await found(session, Publisher, authors__books__title="Gone", **everything) == [1, 2]


# --- lists ---------------------------------------------------------------------------------------


async def test_any_iterable_is_a_list(session: AsyncSession) -> None:
    """Generators, sets and views of dicts too; an empty one matches nothing."""
    await heroes(session)
    assert await found(session, Hero, id__in=(number for number in (1, 2))) == [1, 2]
    assert await found(session, Hero, name__in={"Ann": 1, "Cid": 2}.keys()) == [1, 3]
    assert await found(session, Hero, age__in=frozenset({"20", 30.0})) == [2, 3]
    assert await found(session, Hero, age__in=[]) == []
    assert await found(session, Hero, age__in=[None]) == []
    assert await found(session, Hero, age__not_in=[]) == [1, 2, 3, 4]
    assert await found(session, Hero, age__not_in=[None, 20]) == [1, 3]


@pytest.mark.parametrize("name", ["integer", "big", "text", "token", "moment", "blob"])
async def test_a_list_may_have_more_values_than_parameters(
    session: AsyncSession, name: str
) -> None:
    """No limit of the database on parameters is met, with `in` and with `not_in`."""
    await add(
        session, AllTypes(id=1, **FULL), AllTypes(id=2, **{name: OTHERS[name]}), AllTypes(id=3)
    )
    values = [VALUES[name][0], *many(name)]
    assert len(values) > MANY
    assert await found(session, AllTypes, **{f"{name}__in": values}) == [1]
    assert await found(session, AllTypes, **{f"{name}__not_in": values}) == [2]


def many(name: str) -> list[Any]:
    """Return many values for a column that no row has."""
    start = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    make = {
        "integer": lambda number: number + 1000,
        "big": lambda number: number + 2**50,
        "text": lambda number: f"number {number}",
        "token": lambda number: uuid.UUID(int=number + 1000),
        "moment": lambda number: start + dt.timedelta(seconds=number),
        "blob": lambda number: b"%d" % (number + 1000),
    }[name]
    return [make(number) for number in range(MANY)]


async def test_texts_of_a_list_may_hold_anything(session: AsyncSession) -> None:
    """Quotes, backslashes, braces and letters of every kind are the text they are."""
    texts = ["'", '"', "\\", "\\\\", "{}", "{a,b}", "NULL", "null", "", " ", "é", "😀", "[1]", "\n"]
    await add(session, *(Team(id=i, name=f"{t}|{i}") for i, t in enumerate(texts, 1)))
    values = [f"{t}|{i}" for i, t in enumerate(texts, 1)]
    assert await found(session, Team, name__in=values) == list(range(1, len(texts) + 1))
    assert await found(session, Team, name__not_in=values[1:]) == [1]


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
async def test_a_text_that_no_row_can_hold_is_refused(session: AsyncSession, text: str) -> None:
    """A NUL and half a surrogate pair: databases differ in what they make of them."""
    for filters in ({"name": text}, {"name__in": [text, "c"]}, {"name__icontains": text}):
        with pytest.raises(ValidationError, match=r"Team\.name must be a string; got one with"):
            await get_rows(session, Team, **filters)


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_list_can_use_an_index(session: AsyncSession) -> None:
    """The database looks up the values of a list in the key's index; it doesn't read all rows."""
    await add(session, *(Team(id=i, name=f"team {i}") for i in range(1, 1001)))
    await execute(session, text("ANALYZE team"))
    statement = AsyncQueryBuilder(session, Team).where(id__in=[5, 7]).statement()

    def plan(connection: Connection) -> str:
        dialect = connection.dialect
        explain = "EXPLAIN QUERY PLAN" if dialect.name == "sqlite" else "EXPLAIN"
        compiled = statement.compile(dialect=dialect)
        parameters = compiled.construct_params()
        sql = str(compiled)
        if dialect.positional:
            values = tuple(parameters[name] for name in compiled.positiontup or ())
            rows = connection.exec_driver_sql(f"{explain} {sql}", values)
        else:
            rows = connection.exec_driver_sql(f"{explain} {sql}", parameters)
        return "\n".join(str(row) for row in rows)

    assert "INDEX" in (await run_on_connection(session, plan)).upper()
