"""Rows are sorted by fields of related rows, as a Python list would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Connection, delete, insert, select

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_rows
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests._runtime_async import AsyncSession, run_on_connection
from tests.filter_models import Author, Folder
from tests.models import Hero, Team
from tests.models_mixins import Club, Player
from tests.properties import examples

Sessions = Callable[[], AsyncSession]
EXAMPLES = examples(40)
PATHS = (
    "id",
    "name",
    "club__name",
    "club.id",
    "captain__name",
    "captain__club__name",
    "captain__captain__name",
    "captain__captain__club_id",
)


@dataclass
class Row:
    """A club or a player, and what it refers to."""

    id: int
    name: str
    is_deleted: bool
    club_id: int | None = None
    captain_id: int | None = None


@dataclass
class Case:
    """Rows, an order, and the expected result."""

    clubs: dict[int, Row]
    players: dict[int, Row]
    order: list[str]
    include_deleted: bool
    size: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a few rows that are often equal in what they are sorted by."""
    names, flags = st.sampled_from("abc"), st.booleans()
    clubs = {n: Row(n, draw(names), draw(flags)) for n in range(1, draw(st.integers(1, 4)))}
    numbers = range(1, draw(st.integers(1, 8)))
    players = {
        n: Row(
            n,
            draw(names),
            draw(flags),
            draw(st.none() | st.sampled_from(list(clubs))) if clubs else None,
            draw(st.none() | st.sampled_from(numbers)),
        )
        for n in numbers
    }
    paths = draw(st.lists(st.sampled_from(PATHS), unique=True, min_size=1, max_size=3))
    order = [draw(st.sampled_from(("", "-"))) + path for path in paths]
    return Case(clubs, players, order, draw(flags), draw(st.integers(1, 4)))


def value_of(case: Case, row: Row | None, path: str) -> Any:
    """Return the value at the end of a path; a deleted row on the way is None."""
    for name in path.replace(".", "__").split("__"):
        if name in {"club", "captain"}:
            rows = case.clubs if name == "club" else case.players
            row = None if row is None else rows.get(getattr(row, f"{name}_id") or 0)
            row = None if row is not None and row.is_deleted > case.include_deleted else row
    return None if row is None else getattr(row, path.replace(".", "__").rpartition("__")[2])


def in_order(case: Case) -> list[int]:
    """Sort in Python: NULLs last in both directions, the key as the last criterion."""
    found = [row for row in case.players.values() if row.is_deleted <= case.include_deleted]
    for term in reversed(case.order):
        path = term.removeprefix("-")
        filled = [row for row in found if value_of(case, row, path) is not None]
        empty = [row for row in found if value_of(case, row, path) is None]
        filled.sort(key=lambda row: value_of(case, row, path), reverse=term.startswith("-"))
        found = filled + empty
    return [row.id for row in found]


def fill(connection: Connection, case: Case) -> None:
    """Write the rows of a case in place of the existing ones."""
    connection.execute(Player.__table__.update().values(captain_id=None))
    connection.execute(delete(Player))
    connection.execute(delete(Club))
    for club in case.clubs.values():
        row = {"id": club.id, "name": club.name, "is_deleted": club.is_deleted}
        connection.execute(insert(Club), row)
    for player in case.players.values():
        connection.execute(insert(Player), {**vars(player), "captain_id": None})
    for player in case.players.values():
        statement = Player.__table__.update().where(Player.id == player.id)
        connection.execute(statement.values(captain_id=player.captain_id))


def ids(rows: Sequence[Player]) -> list[int]:
    """Return the keys of rows."""
    return [row.id or 0 for row in rows]


@EXAMPLES
@given(case=cases())
async def test_any_paths_sort_as_python_does(case: Case, session: AsyncSession):
    """All rows, pages with numbers and cursors, values, batches, and rows with related ones."""
    session.expunge_all()
    await run_on_connection(session, lambda connection: fill(connection, case))
    query = AsyncQueryBuilder(session, Player).order_by(*case.order)
    query = query.with_deleted() if case.include_deleted else query
    expected = in_order(case)
    assert ids(await query.all()) == expected
    assert ids(await query.distinct().all()) == expected
    assert await query.scalars("id") == expected
    assert (
        ids(await query.joined("club", "captain__club").limit(case.size).all())
        == (expected[: case.size])
    )
    assert ids(await query.joined("badges").selectin("captain").all()) == expected
    assert ids([row async for row in query.stream(case.size)]) == expected
    assert await query.count() == len(expected)
    page = await query.keyset(case.size)
    found = ids(page.items)
    while page.next_cursor is not None:
        page = await query.keyset(case.size, after=page.next_cursor)
        found += ids(page.items)
    assert found == expected
    numbers = range(1, len(expected) // case.size + 2)
    by_number = [ids((await query.paginate(number, case.size)).items) for number in numbers]
    assert [id_ for part in by_number for id_ in part] == expected
    if len(case.order) == 1:
        name = case.order[0].removeprefix("-")
        _, rows = await get_rows(
            session,
            Player,
            sort_field=name,
            sort_desc=name != case.order[0],
            include_deleted=case.include_deleted,
        )
        assert ids(rows) == expected


async def test_a_path_combines_with_filters_locks_and_expressions(session_factory: Sessions):
    """On the same relationship and on others."""
    session = session_factory()
    owls, cats = Team(name="Owls", city="Rome"), Team(name="Cats", city="Oslo")
    for n, team in enumerate((owls, cats, None, owls)):
        session.add(Hero(name=f"Hero {n}", secret_name="?", age=n, team=team))
    await session.commit()
    query = AsyncQueryBuilder(session, Hero).order_by("team__name", Hero.age.desc())
    assert await query.scalars("age") == [1, 3, 0, 2]
    assert await query.where(team__city="Rome").scalars("age") == [3, 0]
    assert await query.where(Hero.team.has(Team.city == "Oslo")).scalars("age") == [1]
    assert [hero.age for hero in await query.for_update().limit(2).all()] == [1, 3]
    assert await query.exclude(team__name="Owls").values("name") == [
        {"name": "Hero 1"},
        {"name": "Hero 2"},
    ]
    first = await query.load_only("name").first()
    assert first is not None
    assert first.name == "Hero 1"
    assert await query.order_by("team__city").where(age__lt=2).update(age=7) == 2


async def test_a_statement_of_the_callers_own_is_sorted_by_a_path(session_factory: Sessions):
    """Also one that joins the related model itself."""
    session = session_factory()
    for n, name in enumerate(("Owls", "Cats")):
        session.add(Hero(name=f"Hero {n}", secret_name="?", team=Team(name=name)))
    await session.commit()
    for statement in (select(Hero), select(Hero).join(Hero.team), select(Hero).join(Team)):
        _, rows = await get_rows(session, Hero, stmnt=statement, sort_field="team__name")
        assert [hero.name for hero in rows] == ["Hero 1", "Hero 0"]


async def test_mistakes_in_a_path_are_refused(session: AsyncSession):
    """Before anything runs, and the text says what is wrong."""
    heroes = AsyncQueryBuilder(session, Hero)
    for query, term, message in (
        (AsyncQueryBuilder(session, Team), "heroes__name", "may have several rows per Team"),
        (AsyncQueryBuilder(session, Author), "books__title", "Author.books may have several"),
        (AsyncQueryBuilder(session, Folder), "parent__children__name", "Folder.children may have"),
        (heroes, "team", "Hero.team is a relationship"),
        (heroes, "-team__heroes", "Team.heroes is a relationship|several rows"),
        (heroes, "team__name__" * 30, "goes through 40 names at most|name"),
    ):
        with pytest.raises(ValidationError, match=message):
            query.order_by(term)
    for term in ("teams__name", "team__nam", "team__name__eq", "team__", "__name", "age__gt"):
        with pytest.raises(UnknownFieldError):
            heroes.order_by(term)
    with pytest.raises(ValidationError, match="sorted by their own values"):
        await heroes.order_by("team__name").distinct().values("name")
    cursor = await heroes.order_by("team__name").keyset(1)
    assert cursor.next_cursor is None
