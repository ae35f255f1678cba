"""Lists of rows: filters, pages, sorting, statements of the caller."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
import sqlmodel
from sqlalchemy import func, text, union_all
from sqlalchemy.orm import aliased

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    get_result_from_query,
    get_rows,
    insert_data_rows,
    transaction,
)
from sqlmodel_crud_utils.exceptions import (
    QueryExecutionError,
    SQLModelCRUDError,
    UnknownFieldError,
    ValidationError,
)
from tests._async.rows import given
from tests._runtime_async import AsyncSession
from tests.crud_models import Cabinet, Drawer
from tests.models import Hero, Seat, Team

SELECTS = [sqlalchemy.select, sqlmodel.select]


async def write_heroes(session: AsyncSession, number: int = 5, **values: Any) -> None:
    """Write heroes named h0, h1, …, and forget them."""
    heroes = [Hero(name=f"h{n}", secret_name="?", **{"age": n, **values}) for n in range(number)]
    await insert_data_rows(heroes, session)
    session.expunge_all()


def names(rows: list[Any]) -> list[str]:
    """Return the names of rows."""
    return [row.name for row in rows]


async def test_the_answer_is_whether_there_are_rows_and_the_rows(session: AsyncSession) -> None:
    """An empty list is not an error, regardless of the flag."""
    for flag in (None, False, True):
        assert await get_rows(session, Hero, raise_on_error=flag) == (False, [])
        async with transaction(session):
            assert await get_rows(session, Hero, raise_on_error=flag) == (False, [])
    await write_heroes(session, 1)
    found, rows = await get_rows(session, Hero)
    assert (found, names(rows)) == (True, ["h0"])


async def test_filters_are_all_met(session: AsyncSession) -> None:
    """Filters are joined with AND; digits come as text too."""
    await write_heroes(session)
    _, rows = await get_rows(session, Hero, age__gte="2", age__lt=4, name__like="h")
    assert names(rows) == ["h2", "h3"]


async def test_a_field_named_like_a_parameter_is_filtered_with_its_lookup(
    session: AsyncSession,
) -> None:
    """`row` is not a parameter, but `page` is; the lookup makes it a filter."""
    await insert_data_rows([Seat(row="A", number=n) for n in range(3)], session)
    _, rows = await get_rows(session, Seat, number__eq=2)
    assert [seat.number for seat in rows] == [2]
    with pytest.raises(UnknownFieldError, match="Seat has no field 'page'"):
        await get_rows(session, Seat, page__eq=2)


# --- pages ---------------------------------------------------------------------------------------


async def test_pages_are_cut_by_primary_key(session: AsyncSession) -> None:
    """100 rows per page by default, in key order."""
    await write_heroes(session, 103)
    _, first = await get_rows(session, Hero)
    _, second = await get_rows(session, Hero, page=2)
    assert (len(first), len(second)) == (100, 3)
    _, tenth = await get_rows(session, Hero, page_size=10, page=10)
    assert names(tenth) == [f"h{n}" for n in range(90, 100)]


async def test_pages_of_equal_values_hold_each_row_once(session: AsyncSession) -> None:
    """The primary key is the last sort criterion, ascending or descending."""
    await write_heroes(session, 30, age=7)
    for descending in (False, True):
        seen: list[str] = []
        for page in range(1, 7):
            _, rows = await get_rows(
                session, Hero, page_size=5, page=page, sort_field="age", sort_desc=descending
            )
            seen += names(rows)
        assert len(seen) == len(set(seen)) == 30


async def test_pages_of_a_composite_key_are_stable(session: AsyncSession) -> None:
    """All columns of the key count."""
    seats = [Seat(row=row, number=number) for row in "BA" for number in (3, 1, 2)]
    await insert_data_rows(seats, session)
    _, rows = await get_rows(session, Seat, page_size=4)
    assert [(seat.row, seat.number) for seat in rows] == [("A", 1), ("A", 2), ("A", 3), ("B", 1)]


async def test_a_page_far_past_the_end_is_empty(session: AsyncSession) -> None:
    """Offsets up to what a database can count."""
    await write_heroes(session, 2)
    assert await get_rows(session, Hero, page=2) == (False, [])
    assert await get_rows(session, Hero, page=10**15, page_size=9000) == (False, [])
    with pytest.raises(ValidationError, match="beyond what a database can count"):
        await get_rows(session, Hero, page=10**15, page_size=10**5)


@pytest.mark.parametrize("value", [0, -1, "1", 1.0, True, None])
@pytest.mark.parametrize("name", ["page", "page_size"])
async def test_pages_are_whole_numbers_from_1(session: AsyncSession, name: str, value: Any) -> None:
    """Anything else is a mistake, which names the parameter."""
    with pytest.raises(ValidationError, match=f"'{name}': {name} must be a whole number") as raised:
        await get_rows(session, Hero, **{name: value})
    assert raised.value.field == name


async def test_rows_with_a_joined_collection_fill_the_page(session: AsyncSession) -> None:
    """The page counts parents, not rows of the join."""
    cabinets = [
        Cabinet(label=f"c{n}", drawers=[Drawer(name="a"), Drawer(name="b")]) for n in range(3)
    ]
    await insert_data_rows(cabinets, session)
    session.expunge_all()
    _, rows = await get_rows(session, Cabinet, page_size=2)
    assert [(cabinet.label, len(cabinet.drawers)) for cabinet in rows] == [("c0", 2), ("c1", 2)]


# --- sorting and searching -----------------------------------------------------------------------


async def test_sort_field_sorts(session: AsyncSession) -> None:
    """`sort_desc` turns the order round."""
    await write_heroes(session)
    _, rows = await get_rows(session, Hero, sort_field="name", sort_desc=True, age__in=[1, 3])
    assert names(rows) == ["h3", "h1"]
    _, rows = await get_rows(session, Hero, sort_field="age", page_size=2)
    assert names(rows) == ["h0", "h1"]


@pytest.mark.parametrize("descending", [False, True])
async def test_nulls_come_last_in_both_directions(session: AsyncSession, descending: bool) -> None:
    """On every database, as the query builder has it; also in a statement of the caller's own."""
    await insert_data_rows(
        [Hero(name=f"{age}", secret_name="?", age=age) for age in (None, 2, 1)], session
    )
    order = ["2", "1", "None"] if descending else ["1", "2", "None"]
    for statement in (None, sqlalchemy.select(Hero)):
        _, rows = await get_rows(
            session, Hero, stmnt=statement, sort_field="age", sort_desc=descending
        )
        assert [hero.name for hero in rows] == order
    query = AsyncQueryBuilder(session, Hero).order_by("age", desc=descending)
    assert await query.scalars("name") == order


async def test_an_unknown_sort_field_is_refused(session: AsyncSession) -> None:
    """It is an `AttributeError` too, as in v0.1.0."""
    with pytest.raises(AttributeError, match="did you mean 'age'"):
        await get_rows(session, Hero, sort_field="agee")
    with pytest.raises(ValidationError, match="sort_field is the name of a field"):
        await get_rows(session, Hero, sort_field=Hero.age)
    with pytest.raises(ValidationError, match=r"without a sign; write sort_field='age', sort_desc"):
        await get_rows(session, Hero, sort_field="-age")


async def test_text_field_searches_words(session: AsyncSession) -> None:
    """Full text on PostgreSQL; elsewhere a search in the text, which finds whole words too."""
    texts = ["The quick brown fox", "A lazy dog", "A fox is no dog"]
    heroes = [Hero(name=text, secret_name="?", age=n) for n, text in enumerate(texts)]
    await insert_data_rows(heroes, session)
    _, rows = await get_rows(session, Hero, text_field="name", name="FOX", sort_field="age")
    assert names(rows) == [texts[0], texts[2]]
    _, rows = await get_rows(session, Hero, text_field="name", name="fox", age__gt=0)
    assert names(rows) == [texts[2]]


async def test_text_field_without_words_searches_nothing(session: AsyncSession) -> None:
    """As in v0.1.0, whose callers always name the field, even without words."""
    await write_heroes(session, 2)
    _, rows = await get_rows(session, Hero, text_field="name")
    assert names(rows) == ["h0", "h1"]
    with pytest.raises(ValidationError, match="needs the words to search for as name=…"):
        await get_rows(session, Hero, text_field="name", name=5)
    with pytest.raises(UnknownFieldError):
        await get_rows(session, Hero, text_field="nope")


# --- statements of the caller --------------------------------------------------------------------


@pytest.mark.parametrize("select", SELECTS)
async def test_a_statement_is_run_as_it_is(session: AsyncSession, select: Any) -> None:
    """Without page and page_size nothing is cut off, however many rows there are."""
    await write_heroes(session, 120)
    _, rows = await get_rows(session, Hero, stmnt=select(Hero).order_by(Hero.age.desc()))
    assert names(rows) == [f"h{n}" for n in range(119, -1, -1)]


@pytest.mark.parametrize("page", [{"page": 1}, {"page_size": 100}, {"page": 1, "page_size": 100}])
async def test_a_page_that_is_passed_counts(session: AsyncSession, page: dict[str, int]) -> None:
    """Also when it is what would be the default."""
    await write_heroes(session, 120)
    _, rows = await get_rows(session, Hero, stmnt=sqlmodel.select(Hero), **page)
    assert names(rows) == [f"h{n}" for n in range(100)]


@pytest.mark.parametrize("select", SELECTS)
async def test_filters_are_added_to_a_statement(session: AsyncSession, select: Any) -> None:
    """They are combined with AND; sorting follows the statement's own, options are added."""
    await write_heroes(session, 6)
    statement = select(Hero).where(Hero.age > 1).order_by(Hero.age.desc())
    _, rows = await get_rows(session, Hero, stmnt=statement, age__lt=5)
    assert names(rows) == ["h4", "h3", "h2"]
    _, rows = await get_rows(
        session, Hero, True, ["team"], stmnt=select(Hero).where(Hero.age < 2), sort_field="name"
    )
    assert [(row.name, row.team) for row in rows] == [("h0", None), ("h1", None)]


async def test_pages_stay_within_the_statements_own_limit(session: AsyncSession) -> None:
    """The pages are cut out of what the statement returns."""
    await write_heroes(session, 10)
    statement = sqlmodel.select(Hero).order_by(Hero.age.desc()).offset(1).limit(5)
    _, rows = await get_rows(session, Hero, stmnt=statement)
    assert names(rows) == ["h8", "h7", "h6", "h5", "h4"]
    pages = [
        names((await get_rows(session, Hero, stmnt=statement, page=page, page_size=2))[1])
        for page in (1, 2, 3, 4)
    ]
    assert pages == [["h8", "h7"], ["h6", "h5"], ["h4"], []]
    _, rows = await get_rows(session, Hero, stmnt=sqlmodel.select(Hero).offset(8), page_size=9)
    assert names(rows) == ["h8", "h9"]
    with pytest.raises(ValidationError, match="not a plain number"):
        await get_rows(session, Hero, stmnt=sqlmodel.select(Hero).limit(func.abs(1)), page=1)


@pytest.mark.parametrize("select", SELECTS)
async def test_a_statement_of_one_column_gives_values(session: AsyncSession, select: Any) -> None:
    """With several columns or entities, it returns rows."""
    await write_heroes(session, 3)
    assert await get_rows(session, Hero, stmnt=select(Hero.name), page=1) == (
        True,
        ["h0", "h1", "h2"],
    )
    _, rows = await get_rows(session, Hero, stmnt=select(Hero.name, Hero.age), age__gt=0)
    assert sorted(tuple(row) for row in rows) == [("h1", 1), ("h2", 2)]
    assert await get_rows(session, Hero, stmnt=select(func.count(Hero.id)), page=1) == (True, [3])


async def test_values_of_another_table(session: AsyncSession) -> None:
    """They are for statements that join it; otherwise each row would match once per row there."""
    await given(
        session,
        *(Team(id=number, name=f"team {number}") for number in (1, 2, 3)),
        *(Hero(id=n, name=f"hero {n}", secret_name="?", age=n, team_id=n) for n in (1, 2, 3)),
    )
    with pytest.raises(ValidationError, match="team says nothing about rows of Hero") as caught:
        await get_rows(session, Hero, age__gte=Team.id)
    assert caught.value.field == "age__gte"
    joined = sqlmodel.select(Hero).join(Team)
    _, rows = await get_rows(session, Hero, stmnt=joined, age=Team.id, sort_field="age")
    assert [row.id for row in rows] == [1, 2, 3]
    _, rows = await get_rows(session, Hero, team__id=Hero.age, sort_field="age")
    assert [row.id for row in rows] == [1, 2, 3]


async def test_joined_entities_come_in_stable_pages(session: AsyncSession) -> None:
    """The keys of all of them sort."""
    teams = [Team(name=f"t{n}") for n in range(2)]
    await insert_data_rows(teams, session)
    await write_heroes(session, 6, age=1, team_id=teams[0].id)
    statement = sqlalchemy.select(Hero, Team).join(Team, Hero.team_id == Team.id)
    for select in (statement, statement.distinct()):
        seen = []
        for page in (1, 2, 3):
            _, rows = await get_rows(session, Hero, stmnt=select, page=page, page_size=2)
            seen += [(hero.name, team.name) for hero, team in rows]
        assert seen == [(f"h{n}", "t0") for n in range(6)]


async def test_an_alias_comes_in_stable_pages(session: AsyncSession) -> None:
    """Its own key sorts, without a second table."""
    await write_heroes(session, 4, age=1)
    statement = sqlalchemy.select(aliased(Hero))
    _, rows = await get_rows(session, Hero, stmnt=statement, page=2, page_size=3)
    assert names(rows) == ["h3"]


async def test_merged_rows_are_paged_as_they_come(session: AsyncSession) -> None:
    """DISTINCT and GROUP BY leave no key to sort by."""
    await write_heroes(session, 4, age=1)
    distinct = sqlalchemy.select(Hero.age).distinct()
    assert await get_rows(session, Hero, stmnt=distinct, page=1) == (True, [1])
    grouped = sqlalchemy.select(Hero.age, func.count()).group_by(Hero.age)
    _, rows = await get_rows(session, Hero, stmnt=grouped, page=1)
    assert [tuple(row) for row in rows] == [(1, 4)]
    both = union_all(sqlalchemy.select(Hero.name), sqlalchemy.select(Hero.name))
    _, rows = await get_rows(session, Hero, stmnt=both, page=1, page_size=5)
    assert len(rows) == 5


async def test_textual_sql_can_be_run_but_not_changed(session: AsyncSession) -> None:
    """Anything but a `select()` accepts neither filters nor pages."""
    await write_heroes(session, 2)
    statement = text("SELECT name FROM hero ORDER BY id").columns(Hero.name)
    assert await get_rows(session, Hero, stmnt=statement) == (True, ["h0", "h1"])
    with pytest.raises(ValidationError, match="need a select"):
        await get_rows(session, Hero, stmnt=statement, age=1)
    with pytest.raises(ValidationError, match="only a select"):
        await get_rows(session, Hero, stmnt=statement, page=1)


@pytest.mark.parametrize(
    "statement", [sqlalchemy.insert(Hero), sqlalchemy.delete(Hero), "SELECT 1", 5, Hero]
)
async def test_what_is_no_select_is_refused(session: AsyncSession, statement: Any) -> None:
    """Nothing is executed."""
    with pytest.raises(ValidationError, match="must be a select"):
        await get_rows(session, Hero, stmnt=statement)
    with pytest.raises(ValidationError, match="'query': query must be a select"):
        await get_result_from_query(statement, session)


async def test_a_refused_query_raises(session: AsyncSession) -> None:
    """It is never an empty list, and the driver's error is the cause."""
    statement = sqlalchemy.select(Hero).where(text("no_such_column = 1"))
    with pytest.raises(QueryExecutionError) as raised:
        await get_rows(session, Hero, stmnt=statement)
    assert isinstance(raised.value.__cause__, sqlalchemy.exc.DBAPIError)


# --- get_result_from_query -----------------------------------------------------------------------


@pytest.mark.parametrize("select", SELECTS)
async def test_a_query_gives_one_row_the_first_of_several_or_none(
    session: AsyncSession, select: Any
) -> None:
    """Of one column it is the value, of several a row."""
    assert await get_result_from_query(select(Hero), session) is None
    await write_heroes(session, 3)
    hero = await get_result_from_query(select(Hero).where(Hero.name == "h1"), session)
    assert hero.age == 1
    first = await get_result_from_query(select(Hero).order_by(Hero.age.desc()), session)
    assert first.name == "h2"
    assert await get_result_from_query(select(func.max(Hero.age)), session) == 2
    row = await get_result_from_query(select(Hero.name, Hero.age).order_by(Hero.age), session)
    assert tuple(row) == ("h0", 0)


async def test_a_query_may_be_textual_sql(session: AsyncSession) -> None:
    """It is run unchanged; `get_rows` refuses it, because it cannot be extended."""
    await write_heroes(session, 2)
    sql = text("SELECT id, name FROM hero ORDER BY id DESC")
    assert (await get_result_from_query(sql, session)).name == "h1"
    statement = sqlalchemy.select(Hero).from_statement(text("SELECT * FROM hero ORDER BY id"))
    assert (await get_result_from_query(statement, session)).age == 0
    with pytest.raises(ValidationError, match="must be a select"):
        await get_rows(session, Hero, stmnt=sql)


async def test_a_query_of_a_joined_collection_gives_its_parent(session: AsyncSession) -> None:
    """The rows that the join repeats are one."""
    drawers = [Drawer(name="a"), Drawer(name="b")]
    await insert_data_rows([Cabinet(label="c", drawers=drawers)], session)
    session.expunge_all()
    cabinet = await get_result_from_query(sqlmodel.select(Cabinet), session)
    assert len(cabinet.drawers) == 2


async def test_errors_of_reads_hold_no_values(session: AsyncSession) -> None:
    """Neither the message nor the query's attributes reveal the searched values."""
    statement = sqlalchemy.select(Hero).where(Hero.name == "s3cret", text("no_such_column = 1"))
    with pytest.raises(SQLModelCRUDError) as raised:
        await get_result_from_query(statement, session)
    assert "s3cret" not in str(raised.value) + repr(raised.value)
