"""Pages with a total, and pages by cursor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import case, func, text

from sqlmodel_crud_utils.aio import AsyncQueryBuilder
from sqlmodel_crud_utils.exceptions import ValidationError
from tests._runtime_async import AsyncEngine, AsyncSession, execute
from tests.models import AllTypes, Hero, Team
from tests.models_mixins import Visit
from tests.recording import recorded

Sessions = Callable[[], AsyncSession]


@pytest.fixture
async def heroes(session_factory: Sessions) -> None:
    """Ten heroes of few different ages, two of an unknown one."""
    session = session_factory()
    session.add_all(
        Hero(name=f"Hero {n}", secret_name="?", age=None if n > 7 else n % 3) for n in range(10)
    )
    await session.commit()


# --- with a total --------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_pages_know_their_place(session: AsyncSession):
    """They know whether there are rows before and after, and the number of pages."""
    query = AsyncQueryBuilder(session, Hero).order_by("name")
    page = await query.paginate(2, 4)
    assert [hero.name for hero in page.items] == ["Hero 4", "Hero 5", "Hero 6", "Hero 7"]
    assert (page.total, page.page, page.size, page.pages) == (10, 2, 4, 3)
    assert (page.has_previous, page.has_next) == (True, True)
    last = await query.paginate(page=3, size=4)
    assert (len(last.items), last.total, last.has_next) == (2, 10, False)
    first = await query.paginate()
    assert (len(first.items), first.pages, first.has_previous) == (10, 1, False)


@pytest.mark.usefixtures("heroes")
async def test_a_page_past_the_end_is_empty_and_its_total_right(session: AsyncSession):
    """Also where nothing matches at all."""
    query = AsyncQueryBuilder(session, Hero)
    page = await query.paginate(9, 4)
    assert (page.items, page.total, page.pages, page.has_next) == ([], 10, 3, False)
    nothing = await query.where(name="x").paginate()
    assert (nothing.items, nothing.total, nothing.pages, nothing.has_next) == ([], 0, 0, False)


@pytest.mark.usefixtures("heroes")
async def test_rows_are_counted_once_and_only_where_it_is_needed(
    session: AsyncSession, engine: AsyncEngine
):
    """A first page that is not full gives the total; later pages count in the same query."""
    query = AsyncQueryBuilder(session, Hero)
    await query.count()  # the transaction has begun
    numbers = {}
    for page, size in ((1, 4), (2, 4), (3, 4), (4, 4), (1, 50), (2, 10)):
        with recorded(engine) as words:
            assert (await query.paginate(page, size)).total == 10
        numbers[page, size] = len(words)
    assert numbers == {(1, 4): 2, (2, 4): 1, (3, 4): 1, (4, 4): 2, (1, 50): 1, (2, 10): 2}


@pytest.mark.usefixtures("heroes")
async def test_the_total_is_that_of_the_query(session: AsyncSession):
    """It counts with the filters, also through relationships, whatever is loaded."""
    session.add(Team(name="Owls", heroes=[Hero(name=f"O{n}", secret_name="?") for n in range(5)]))
    await session.commit()
    query = AsyncQueryBuilder(session, Hero).order_by("name")
    for each, total in (
        (query.where(team__name="Owls"), 5),
        (query.where(team__heroes__name="O1"), 5),
        (query.exclude(team__heroes__name="O1"), 10),
        (query.where(Hero.team.has(name="Owls")), 5),
        (query.where(Hero.age > 0).exclude(age=2), 3),
        (query.any_of({"age": 1}, Hero.age == 2), 5),
        (query.where(name__in=["O0", "O1", "O2"]), 3),
        (query.joined("tags").selectin("team__heroes").load_only("name"), 15),
        (query.distinct(), 15),
    ):
        rows = [hero.name for hero in await each.all()]
        for number in (1, 2, 3):
            page = await each.paginate(number, 2)
            assert page.total == total == await each.count()
            assert [hero.name for hero in page.items] == rows[2 * number - 2 : 2 * number]


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.usefixtures("heroes")
async def test_pages_of_locked_rows(session: AsyncSession):
    """The total needs no lock."""
    query = AsyncQueryBuilder(session, Hero).order_by("id").for_update()
    assert (await query.paginate(2, 4)).total == 10


# --- by cursor -----------------------------------------------------------------------------------


async def in_pages(query: AsyncQueryBuilder[Hero], size: int) -> list[str]:
    """Return the names of all heroes, read page by page."""
    page = await query.keyset(size)
    names = [hero.name for hero in page.items]
    while page.next_cursor is not None:
        assert len(page.items) == size
        page = await query.keyset(size, after=page.next_cursor)
        names += [hero.name for hero in page.items]
    return names


@pytest.mark.usefixtures("heroes")
async def test_expressions_may_be_what_pages_continue_after(session: AsyncSession):
    """With NULLs wherever the expression says."""
    query = AsyncQueryBuilder(session, Hero)
    for terms in (
        [Hero.age.desc().nulls_first(), "-name"],
        [func.lower(Hero.name).desc()],
        [Hero.age.nulls_first()],
        [(Hero.age + 1).desc(), func.length(Hero.name)],
        [case((Hero.age == 1, None), else_="x"), "-id"],
        [],
    ):
        sorted_ = query.order_by(*terms)
        expected = [hero.name for hero in await sorted_.all()]
        for size in (1, 3, 10, 11):
            assert await in_pages(sorted_, size) == expected


@pytest.mark.usefixtures("heroes")
async def test_a_page_is_one_query(session: AsyncSession, engine: AsyncEngine):
    """The first and the following alike; nothing is counted."""
    query = AsyncQueryBuilder(session, Hero).order_by("age")
    page = await query.keyset(3)
    with recorded(engine) as words:
        page = await query.keyset(3, after=page.next_cursor)
    assert words == ["SELECT"]


@pytest.mark.usefixtures("heroes")
async def test_a_cursor_stands_on_what_the_database_has(session: AsyncSession):
    """Not on changes of a row that are not written yet."""
    query = AsyncQueryBuilder(session, Hero).order_by("name")
    with session.no_autoflush:
        [row] = (await query.keyset(1)).items
        row.name = "Z"
        page = await query.keyset(1)
        page = await query.keyset(1, after=page.next_cursor)
    assert [hero.name for hero in page.items] == ["Hero 1"]


@pytest.mark.usefixtures("heroes")
async def test_a_cursor_fits_its_own_query_alone(session: AsyncSession):
    """Not another order, direction or model; filters and loading may differ."""
    query = AsyncQueryBuilder(session, Hero)
    cursor = (await query.order_by("age").keyset(2)).next_cursor
    assert cursor is not None
    assert cursor.replace("-", "").replace("_", "").isalnum()
    for other in (
        query,
        query.order_by("-age"),
        query.order_by("age", "name"),
        query.order_by(Hero.age.nulls_first()),
        query.order_by(Hero.age + 1),
        AsyncQueryBuilder(session, Team),
    ):
        with pytest.raises(ValidationError, match="another model or order_by"):
            await other.keyset(2, after=cursor)
    narrower = query.where(age__gt=0).selectin("team").order_by(Hero.age)
    assert len((await narrower.keyset(2, after=cursor)).items) == 2


@pytest.mark.usefixtures("heroes")
async def test_a_damaged_cursor_is_refused(session: AsyncSession):
    """Any damage is detected."""
    query = AsyncQueryBuilder(session, Hero).order_by("name")
    cursor = (await query.keyset(2)).next_cursor
    assert cursor is not None
    damaged = [cursor[:-1], cursor + "A", cursor[1:], cursor.swapcase(), "", "é", "x y", cursor * 2]
    for wrong in (*damaged, 3, b"abc"):
        with pytest.raises(ValidationError, match="cursor"):
            await query.keyset(2, after=wrong)


async def test_moments_of_the_server_are_continued_after(session: AsyncSession):
    """SQLite's own clock has another format than Python's datetimes."""
    for n in range(4):
        await execute(session, text(f"INSERT INTO visit (place) VALUES ('{n}')"))
    await session.commit()
    query = AsyncQueryBuilder(session, Visit).order_by("-created_at")
    page = await query.keyset(3)
    rest = await query.keyset(3, after=page.next_cursor)
    assert sorted(visit.place for visit in (*page.items, *rest.items)) == ["0", "1", "2", "3"]


@pytest.mark.databases("sqlite")  # the others round them when they store them
async def test_numbers_beyond_the_scale_of_their_column(session: AsyncSession):
    """SQLite stores them exactly but shows them rounded; pages use the stored values."""
    for amount in ("1.00001", "1.00002", "1.00003"):
        await execute(session, text(f"INSERT INTO alltypes (amount) VALUES ({amount})"))
    await session.commit()
    query = AsyncQueryBuilder(session, AllTypes).order_by("amount")
    page = await query.keyset(2)
    rest = await query.keyset(2, after=page.next_cursor)
    assert [row.id for row in (*page.items, *rest.items)] == [1, 2, 3]


# --- mistakes ------------------------------------------------------------------------------------


async def test_sizes_and_numbers_are_checked(session: AsyncSession):
    """The message names the parameter and what it may be."""
    query = AsyncQueryBuilder(session, Hero)
    for arguments, message in (
        ({"page": 0}, "page must be a whole number of 1 or more"),
        ({"size": 0}, "size must be a whole number of 1 or more"),
        ({"size": "5"}, "size must be a whole number"),
        ({"size": 1001}, "size is beyond 1000, the max_size"),
        ({"size": 6, "max_size": 5}, "size is beyond 5"),
        ({"max_size": 0}, "max_size must be"),
        ({"page": 2**62, "size": 900}, "page is beyond what a database can count"),
    ):
        with pytest.raises(ValidationError, match=message):
            await query.paginate(**arguments)
    with pytest.raises(ValidationError, match="needs the size of a page"):
        await query.keyset()
    with pytest.raises(ValidationError, match="size is beyond 1000"):
        await query.keyset(1001)
    with pytest.raises(ValidationError, match=r"cannot be combined with limit\(\) or offset"):
        await query.limit(3).paginate()
    with pytest.raises(ValidationError, match=r"cannot be combined with limit\(\) or offset"):
        await query.offset(3).keyset(3)
    with pytest.raises(ValidationError, match="after a JSON value"):
        await AsyncQueryBuilder(session, AllTypes).order_by("payload").keyset(3)
    assert len((await query.paginate(1, 1500, max_size=2000)).items) == 0
