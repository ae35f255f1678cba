"""Every way in which a row reaches a caller of the library: no deleted row takes one of them.

docs/soft-delete.md lists these ways; each entry of `WAYS` is one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Row, event, exists, false, func, select, union
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    immediateload,
    joinedload,
    selectinload,
    subqueryload,
)

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
)
from sqlmodel_crud_utils.exceptions import (
    RecordNotFoundError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, execute, fetched, run_sync, sync_engine
from tests.models import Hero, Team
from tests.models_mixins import Badge, Club, Fan, Player, PlayerBadge, Scout

Sessions = Callable[[], AsyncSession]

OTHER = aliased(Player)
PLAYERS, LINKS = (
    model.__table__  # type: ignore[attr-defined]
    for model in (Player, PlayerBadge)
)


@pytest.fixture(autouse=True)
async def league(session_factory: Sessions) -> None:
    """Reds: Ann, Bob (deleted). Ghosts (deleted): Cid, whose captain is Bob.

    Ann has the badges gold, silver (the link is deleted) and lost (the badge is deleted).
    """
    session = session_factory()
    session.add_all([Club(id=1, name="Reds"), Club(id=2, name="Ghosts", is_deleted=True)])
    session.add_all([Badge(id=1, label="gold"), Badge(id=2, label="silver")])
    session.add(Badge(id=3, label="lost", is_deleted=True))
    session.add_all([Team(id=1, name="Avengers"), Hero(id=1, name="Nova", secret_name="?")])
    await session.flush()
    session.add(Player(id=1, name="Ann", club_id=1))
    session.add(Player(id=2, name="Bob", club_id=1, is_deleted=True))
    session.add_all([Fan(id=1, name="Fay", club_id=1), Fan(id=2, name="Gus", club_id=2)])
    session.add_all([Scout(id=1, name="Sam", club_id=1), Scout(id=2, name="Zoe", club_id=2)])
    await session.flush()
    session.add(Player(id=3, name="Cid", club_id=2, captain_id=2))
    session.add(PlayerBadge(player_id=1, badge_id=1))
    session.add(PlayerBadge(player_id=1, badge_id=2, is_deleted=True))
    session.add(PlayerBadge(player_id=1, badge_id=3))
    await session.commit()
    await session.close()


def names(found: Any) -> Any:
    """Return the names of a row, of several rows, or of what a column select returns."""
    if isinstance(found, list | Row):
        return sorted((names(each) for each in found), key=repr)
    return getattr(found, "name", getattr(found, "label", found))


@dataclass(frozen=True)
class Way:
    """A way to read: what is found as a rule, and what with `include_deleted=True`."""

    read: Callable[..., Any]
    visible: Any
    everything: Any


def listed(model: Any, visible: Any, everything: Any, /, **options: Any) -> Way:
    """Return the way through `get_rows`."""

    async def read(session: AsyncSession, include_deleted: bool) -> Any:
        _, rows = await get_rows(session, model, include_deleted=include_deleted, **options)
        return names(rows)

    return Way(read, visible, everything)


def by_key(model: Any, key: Any, visible: Any, everything: Any, /, **options: Any) -> Way:
    """Return the way through `get_row`."""

    async def read(session: AsyncSession, include_deleted: bool) -> Any:
        found = await get_row(key, session, model, include_deleted=include_deleted, **options)
        return (found[0], names(found[1]))

    return Way(read, visible, everything)


def by_list(model: Any, keys: list[Any], visible: Any, everything: Any) -> Way:
    """Return the way through `get_rows_within_id_list`."""

    async def read(session: AsyncSession, include_deleted: bool) -> Any:
        _, rows = await get_rows_within_id_list(
            keys, session, model, include_deleted=include_deleted
        )
        return names(rows.all())

    return Way(read, visible, everything)


def by_query(statement: Any, visible: Any, everything: Any) -> Way:
    """Return the way through `get_result_from_query`."""

    async def read(session: AsyncSession, include_deleted: bool) -> Any:
        return names(
            await get_result_from_query(statement, session, include_deleted=include_deleted)
        )

    return Way(read, visible, everything)


def related(model: Any, name: str, visible: Any, everything: Any, /, **options: Any) -> Way:
    """Return the way through a relationship of what `get_rows` returns: names by name."""

    async def read(session: AsyncSession, include_deleted: bool) -> Any:
        _, rows = await get_rows(session, model, include_deleted=include_deleted, **options)
        return await run_sync(
            session, lambda: {row.name: names(getattr(row, name)) for row in rows}
        )

    return Way(read, visible, everything)


def loads(model: Any, name: str) -> dict[str, dict[str, Any]]:
    """Return the ways to load a relationship: the library's options and the caller's own."""
    attribute = getattr(model, name)
    own = [selectinload, joinedload, subqueryload, immediateload]
    if attribute.property.secondary is LINKS:
        # A link table in one's own joined load is beyond reach: the docs say what to do.
        own[1] = lambda path: joinedload(path.and_(PlayerBadge.is_deleted == false()))
    statements = [select(model).options(load(attribute)) for load in own]
    return {
        "lazy": {},
        "lazy, as it says": {"lazy": True, "lazy_load_keys": name},
        "selectin": {"selectin": True, "select_in_keys": [name]},
        **dict(
            zip(
                ("own selectin", "own joined", "own subquery", "own immediate"),
                ({"stmnt": statement} for statement in statements),
                strict=True,
            )
        ),
    }


def built(run: Callable[[Any], Any], visible: Any, everything: Any, model: Any = Player) -> Way:
    """Return the way through the query builder."""

    async def read(session: AsyncSession, include_deleted: bool) -> Any:
        query = AsyncQueryBuilder(session, model)
        return names(await run(query.with_deleted() if include_deleted else query))

    return Way(read, visible, everything)


async def _in_pages(query: Any) -> Any:
    """Return the rows on pages of one row each, and the pages' totals."""
    pages = [await query.order_by("name").paginate(number, 1) for number in (1, 2, 3, 4)]
    return [row.name for page in pages for row in page.items], {page.total for page in pages}


async def _by_cursor(query: Any) -> list[str]:
    """Return what is on the pages of one row that follow after cursors."""
    page = await query.order_by("-name").keyset(1)
    rows = [*page.items]
    while page.next_cursor is not None:
        page = await query.order_by("-name").keyset(1, after=page.next_cursor)
        rows += page.items
    return [row.name for row in rows]


async def _streamed(query: Any) -> list[str]:
    """Return the rows of a stream."""
    return [row.name async for row in query.stream(1)]


async def _related(how: str, name: str, query: Any) -> dict[str, Any]:
    """Return what is loaded with the rows."""
    rows = await getattr(query, how)(name).all()
    return {row.name: names(row.__dict__[name]) for row in rows}


async def _related_in_a_stream(how: str, name: str, query: Any) -> dict[str, Any]:
    """Return what is loaded with the rows of a stream."""
    rows = getattr(query, how)(name).stream(2)
    return {row.name: names(row.__dict__[name]) async for row in rows}


async def _related_on_a_page(how: str, name: str, query: Any) -> dict[str, Any]:
    """Return what is loaded with the rows of a page."""
    page = await getattr(query, how)(name).keyset(5)
    return {row.name: names(row.__dict__[name]) for row in page.items}


COUNT = select(func.count())
HAS_BOB, HAS_ANN = (Club.players.any(Player.name == name) for name in ("Bob", "Ann"))
A_PLAYER_BOB = exists().where(Player.club_id == Club.id, Player.name == "Bob")
OF_BOB = select(Player.club_id).where(Player.name == "Bob")
NUMBER_OF_PLAYERS = COUNT.where(Player.club_id == Club.id).scalar_subquery()

WAYS: dict[str, Way] = {
    # By key.
    "a key": by_key(Player, 1, (True, "Ann"), (True, "Ann")),
    "the key of a deleted row": by_key(Player, "2", (False, None), (True, "Bob")),
    "another field": by_key(Player, "Bob", (False, None), (True, "Bob"), pk_field="name"),
    "a key with selectin": by_key(
        Player, 2, (False, None), (True, "Bob"), selectin=True, select_in_keys="club"
    ),
    "a list of keys": by_list(Player, [1, "2", 3], ["Ann", "Cid"], ["Ann", "Bob", "Cid"]),
    # Lists and pages.
    "a list": listed(Player, ["Ann", "Cid"], ["Ann", "Bob", "Cid"]),
    "a page": listed(Player, ["Cid"], ["Bob"], page=2, page_size=1, sort_field="name"),
    "a filter": listed(Player, [], ["Bob"], name="Bob"),
    "a search for text": listed(Club, [], ["Ghosts"], text_field="name", name="Ghosts"),
    "the mark itself": listed(Player, [], ["Bob"], is_deleted=True),
    # Filters through relationships.
    "a filter to many": listed(Club, [], ["Reds"], players__name="Bob"),
    "a filter to one": listed(Player, [], ["Cid"], club__name="Ghosts"),
    "a filter to its own kind": listed(Player, [], ["Cid"], captain__name="Bob"),
    "a filter many to many": listed(Player, [], ["Ann"], badges__label="lost"),
    "a filter through a deleted link": listed(Player, [], ["Ann"], badges__label="silver"),
    "a filter over two steps": listed(Club, [], ["Reds"], players__badges__label="lost"),
    "a filter to nothing": listed(Player, ["Cid"], [], club=None),
    "a filter from a model without the mixin": listed(Fan, [], ["Gus"], club__name="Ghosts"),
    # A statement of one's own.
    "a statement": listed(Player, ["Ann", "Cid"], ["Ann", "Bob", "Cid"], stmnt=select(Player)),
    "a statement in pages": listed(
        Player, ["Cid"], ["Bob"], stmnt=select(Player).order_by(Player.id), page=2, page_size=1
    ),
    "a statement with a filter": listed(Player, [], ["Bob"], stmnt=select(Player), name="Bob"),
    "columns": listed(Player, ["Ann", "Cid"], ["Ann", "Bob", "Cid"], stmnt=select(Player.name)),
    "a count": listed(Player, [2], [3], stmnt=COUNT.select_from(Player)),
    "a count of a subquery": listed(
        Player, [2], [3], stmnt=COUNT.select_from(select(Player).subquery())
    ),
    "an alias": listed(Player, ["Ann", "Cid"], ["Ann", "Bob", "Cid"], stmnt=select(OTHER)),
    "a subquery": listed(
        Player, [1, 3], [1, 2, 3], stmnt=select(select(Player.id).subquery().c.id)
    ),
    "a common table expression": listed(
        Player, [1, 3], [1, 2, 3], stmnt=select(select(Player.id).cte().c.id)
    ),
    "a scalar subquery": listed(
        Club, [["Reds", 1]], [["Ghosts", 1], ["Reds", 2]], stmnt=select(Club, NUMBER_OF_PLAYERS)
    ),
    "in a subquery": listed(Club, [], ["Reds"], stmnt=select(Club).where(Club.id.in_(OF_BOB))),
    "exists": listed(Club, [], ["Reds"], stmnt=select(Club).where(A_PLAYER_BOB)),
    "any": listed(Club, [], ["Reds"], stmnt=select(Club).where(HAS_BOB)),
    "any that is met": listed(Club, ["Reds"], ["Reds"], stmnt=select(Club).where(HAS_ANN)),
    "not any": listed(Club, ["Reds"], ["Ghosts"], stmnt=select(Club).where(~HAS_BOB)),
    "any, many to many": listed(
        Player, [], ["Ann"], stmnt=select(Player).where(Player.badges.any(Badge.label == "lost"))
    ),
    "any, through a deleted link": listed(
        Player, [], ["Ann"], stmnt=select(Player).where(Player.badges.any(Badge.label == "silver"))
    ),
    "has": listed(
        Player, ["Ann"], ["Ann", "Bob", "Cid"], stmnt=select(Player).where(Player.club.has())
    ),
    "has of its own kind": listed(
        Player, [], ["Cid"], stmnt=select(Player).where(Player.captain.has())
    ),
    "has, from a model without the mixin": listed(
        Fan, ["Fay"], ["Fay", "Gus"], stmnt=select(Fan).where(Fan.club.has())
    ),
    "a join": listed(
        Player, ["Ann"], ["Ann", "Bob", "Cid"], stmnt=select(Player).join(Player.club)
    ),
    "a join with an alias": listed(
        Club,
        [["Ann", "Reds"]],
        [["Ann", "Reds"], ["Bob", "Reds"], ["Cid", "Ghosts"]],
        stmnt=select(Club, OTHER).join(OTHER, OTHER.club_id == Club.id),
    ),
    "an outer join": listed(
        Player,
        [["Ann", "Reds"], ["Cid", None]],
        [["Ann", "Reds"], ["Bob", "Reds"], ["Cid", "Ghosts"]],
        stmnt=select(Player.name, Club.name).outerjoin(Player.club),
    ),
    "a join many to many": listed(
        Player,
        [["Ann", "gold"]],
        [["Ann", "gold"], ["Ann", "lost"], ["Ann", "silver"]],
        stmnt=select(Player, Badge).join(Player.badges),
    ),
    "a join with a link table": listed(
        Player,
        [1, 3],
        [1, 2, 3],
        stmnt=select(LINKS.c.badge_id).join(Player, LINKS.c.player_id == Player.id),
    ),
    "a table": listed(Player, [1, 3], [1, 2, 3], stmnt=select(PLAYERS.c.id)),
    "a union": listed(
        Player,
        ["Ann", "Cid"],
        ["Ann", "Bob", "Cid"],
        stmnt=select(Player).from_statement(union(select(Player), select(Player))),
    ),
    "another model": listed(Hero, ["Reds"], ["Ghosts", "Reds"], stmnt=select(Club)),
    # One result.
    "a query": by_query(select(Player).order_by(Player.id.desc()).offset(1), "Ann", "Bob"),
    "a query of a deleted row": by_query(select(Player).where(Player.id == 2), None, "Bob"),
    "a query of a column": by_query(select(Player.name).where(Player.id == 2), None, "Bob"),
    "a query of a count": by_query(COUNT.select_from(Player), 2, 3),
    "a query of two models": by_query(
        select(Club, Player).join(Club.players).order_by(Player.id.desc()),
        ["Ann", "Reds"],
        ["Cid", "Ghosts"],
    ),
    "a query with any": by_query(select(Club).where(HAS_BOB), None, "Reds"),
    "a query of an alias": by_query(select(OTHER).where(OTHER.id == 2), None, "Bob"),
    "a query of a table": by_query(select(PLAYERS.c.name).where(PLAYERS.c.id == 2), None, "Bob"),
    "a query of a model without the mixin": by_query(
        select(Fan).join(Fan.club).order_by(Fan.id.desc()), "Fay", "Gus"
    ),
    # The query builder.
    "built rows": built(lambda q: q.all(), ["Ann", "Cid"], ["Ann", "Bob", "Cid"]),
    "the first built row": built(lambda q: q.where(name="Bob").first(), None, "Bob"),
    "a built count": built(lambda q: q.count(), 2, 3),
    "built, whether there are any": built(lambda q: q.where(name="Bob").exists(), False, True),
    "built values": built(lambda q: q.scalars("name"), ["Ann", "Cid"], ["Ann", "Bob", "Cid"]),
    "a built sum": built(lambda q: q.sum("id"), 4, 6),
    "built dicts": built(
        lambda q: q.values("name"),
        [{"name": "Ann"}, {"name": "Cid"}],
        [{"name": name} for name in ("Ann", "Bob", "Cid")],
    ),
    "a built maximum": built(lambda q: q.where(club_id=1).max("name"), "Ann", "Bob"),
    "a built average": built(lambda q: q.where(id__lt=3).avg("id"), 1.0, 1.5),
    "the one built row": built(lambda q: q.where(name="Bob").one_or_none(), None, "Bob"),
    "built pages": built(_in_pages, (["Ann", "Cid"], {2}), (["Ann", "Bob", "Cid"], {3})),
    "a built page by a path": built(
        lambda q: _in_pages(q.where(club__is_null=False)),
        (["Ann"], {1}),
        (["Ann", "Bob", "Cid"], {3}),
    ),
    "a built page by an expression": built(
        lambda q: _in_pages(q.where(Player.club.has())),
        (["Ann"], {1}),
        (["Ann", "Bob", "Cid"], {3}),
    ),
    "built pages by cursor": built(_by_cursor, ["Ann", "Cid"], ["Ann", "Bob", "Cid"]),
    "a built stream": built(_streamed, ["Ann", "Cid"], ["Ann", "Bob", "Cid"]),
    "a built exclusion of players": built(
        lambda q: q.exclude(club__name="Ghosts").scalars("name"), ["Ann", "Cid"], ["Ann", "Bob"]
    ),
    "built alternatives": built(
        lambda q: q.any_of({"badges__label": "lost"}, {"captain__name": "Bob"}).scalars("name"),
        [],
        ["Ann", "Cid"],
    ),
    **{
        f"built {what}, {how}": built(partial(read, how, name), visible, everything, model)
        for how in ("selectin", "joined")
        for read in (_related, _related_in_a_stream, _related_on_a_page)
        for what, model, name, visible, everything in (
            ("to one", Fan, "club", {"Fay": "Reds", "Gus": None}, {"Fay": "Reds", "Gus": "Ghosts"}),
            (
                "to many",
                Club,
                "players",
                {"Reds": ["Ann"]},
                {"Reds": ["Ann", "Bob"], "Ghosts": ["Cid"]},
            ),
            (
                "many to many",
                Player,
                "badges",
                {"Ann": ["gold"], "Cid": []},
                {"Ann": ["gold", "lost", "silver"], "Bob": [], "Cid": []},
            ),
        )
        if not (read is _related_in_a_stream and how == "joined" and what != "to one")
        for what in (f"{what} ({read.__name__})",)
    },
    "a built filter": built(lambda q: q.where(players__name="Bob").all(), [], ["Reds"], Club),
    "a built exclusion": built(
        lambda q: q.exclude(players__name="Bob").all(), ["Reds"], ["Ghosts"], Club
    ),
    "a built expression": built(
        lambda q: q.where(Club.players.any(Player.name == "Bob")).all(), [], ["Reds"], Club
    ),
    # Related rows.
    **{
        f"to many, {how}": related(
            Club, "players", {"Reds": ["Ann"]}, {"Reds": ["Ann", "Bob"], "Ghosts": ["Cid"]}, **load
        )
        for how, load in loads(Club, "players").items()
    },
    **{
        f"to one, {how}": related(
            Player,
            "club",
            {"Ann": "Reds", "Cid": None},
            {"Ann": "Reds", "Bob": "Reds", "Cid": "Ghosts"},
            **load,
        )
        for how, load in loads(Player, "club").items()
    },
    **{
        f"to its own kind, {how}": related(
            Player,
            "captain",
            {"Ann": None, "Cid": None},
            {"Ann": None, "Bob": None, "Cid": "Bob"},
            **load,
        )
        for how, load in loads(Player, "captain").items()
    },
    **{
        f"to one from a model without the mixin, {how}": related(
            Fan, "club", {"Fay": "Reds", "Gus": None}, {"Fay": "Reds", "Gus": "Ghosts"}, **load
        )
        for how, load in loads(Fan, "club").items()
    },
    "to one, as the model loads it": related(
        Scout, "club", {"Sam": "Reds", "Zoe": None}, {"Sam": "Reds", "Zoe": "Ghosts"}
    ),
    **{
        f"many to many, {how}": related(
            Player,
            "badges",
            {"Ann": ["gold"], "Cid": []},
            {"Ann": ["gold", "lost", "silver"], "Bob": [], "Cid": []},
            **load,
        )
        for how, load in loads(Player, "badges").items()
        if how != "own joined"
    },
    "many to many, own joined": related(
        Player,
        "badges",
        {"Ann": ["gold"], "Cid": []},
        {"Ann": ["gold", "lost"], "Bob": [], "Cid": []},
        **loads(Player, "badges")["own joined"],
    ),
    "many to many, contains_eager": related(
        Player,
        "badges",
        {"Ann": ["gold"]},
        {"Ann": ["gold", "lost", "silver"]},
        stmnt=select(Player).join(Player.badges).options(contains_eager(Player.badges)),
    ),
    "related rows of related rows": related(
        Fan,
        "club",
        {"Fay": "Reds", "Gus": None},
        {"Fay": "Reds", "Gus": "Ghosts"},
        selectin=True,
        select_in_keys=["club.players"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_leads_to_a_deleted_row(session: AsyncSession, way: str):
    """In a new session."""
    assert await WAYS[way].read(session, False) == WAYS[way].visible


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_leads_there_on_request(session: AsyncSession, way: str):
    """`include_deleted=True` brings deleted rows back, wherever they were left out."""
    assert await WAYS[way].read(session, True) == WAYS[way].everything


# What SQLAlchemy serves from objects that are loaded already, without SQL; the docs say so.
BEYOND_REACH = (", lazy", ", lazy, as it says", ", own immediate")


@pytest.mark.databases("sqlite")  # it is about what is in memory
@pytest.mark.parametrize("way", [way for way in WAYS if not way.endswith(BEYOND_REACH)])
async def test_what_the_session_holds_does_not_matter(session: AsyncSession, way: str):
    """It holds all rows and all relationships from an earlier read, and the answer is the same."""
    held = [
        (await get_rows(session, model, include_deleted=True, selectin=True, select_in_keys=keys))
        for model, keys in (
            (Club, ["players.badges"]),
            (Player, ["club", "captain", "badges"]),
            (Fan, ["club"]),
            (Scout, []),
            (PlayerBadge, []),
        )
    ]
    assert await WAYS[way].read(session, False) == WAYS[way].visible
    assert await WAYS[way].read(session, True) == WAYS[way].everything
    assert await WAYS[way].read(session, False) == WAYS[way].visible
    assert all(found for found, _ in held)


# --- what was read before ------------------------------------------------------------------------


async def test_rows_that_are_deleted_while_the_session_holds_them(session: AsyncSession):
    """The object is still there, and no read returns it or finds it in a relationship."""
    _, club = await get_row(1, session, Club, selectin=True, select_in_keys="players")
    [ann] = club.players
    async with transaction(session):
        ann.soft_delete()
        assert await get_row(1, session, Player) == (False, None)
        assert names((await get_rows(session, Player))[1]) == ["Cid"]
        await get_row(1, session, Club, selectin=True, select_in_keys="players")
        assert club.players == []
        assert (await get_rows_within_id_list([1], session, Player))[0] is False
    assert await get_row(1, session, Player) == (False, None)
    assert (await get_row(1, session, Player, include_deleted=True))[1] is ann


async def test_deeper_relationships_of_a_row(session: AsyncSession):
    """Rows loaded with a related row are filtered, too, now and later."""
    for options in ({"selectin": True, "select_in_keys": "players.badges"}, {}):
        session.expunge_all()
        _, club = await get_row(1, session, Club, **options)
        found = await run_sync(session, lambda row: [names(p.badges) for p in row.players], club)
        assert found == [["gold"]]


# --- writes --------------------------------------------------------------------------------------


async def test_writes_don_t_find_deleted_rows(session: AsyncSession):
    """An update or a deletion of a deleted row is one of a missing row."""
    assert await update_row(2, {"name": "Rob"}, session, Player) == (False, None)
    assert await delete_row(2, session, Player) is False
    assert await soft_delete_row(2, session, Player) is False
    for call in (
        lambda: update_row(2, {"name": "Rob"}, session, Player, raise_on_error=True),
        lambda: delete_row(2, session, Player, raise_on_error=True),
        lambda: get_row(2, session, Player, raise_on_error=True),
    ):
        with pytest.raises(RecordNotFoundError):
            await call()
    updated, bob = await update_row(2, {"name": "Rob"}, session, Player, include_deleted=True)
    assert (updated, bob.name, bob.is_deleted) == (True, "Rob", True)
    restored, bob = await restore_row(2, session, Player)
    assert (restored, bob.is_deleted) == (True, False)


async def test_relationships_of_written_rows(session: AsyncSession):
    """A row that a write returned loads its relationships as one that was read."""
    _, ann = await update_row(1, {"name": "Anna"}, session, Player)
    assert await run_sync(session, lambda: names(ann.badges)) == ["gold"]


async def test_upserts_are_the_exception(session: AsyncSession):
    """They return what they wrote to, deleted or not."""
    rows = [{"id": 2, "name": "Rob"}]
    _, [bob] = await bulk_upsert_mappings(rows, session, Player)
    assert (bob.name, bob.is_deleted) == ("Rob", True)
    assert await get_row(2, session, Player) == (False, None)


# --- get_one_or_create ---------------------------------------------------------------------------


async def test_get_one_or_create_makes_a_new_row(session: AsyncSession):
    """A deleted row is not returned, unless one asks for it."""
    bob, existed = await get_one_or_create(session, Player, name="Bob", include_deleted=True)
    assert (bob.id, existed) == (2, True)
    bob, existed = await get_one_or_create(session, Player, {"id": 9}, name="Bob")
    assert (bob.id, bob.is_deleted, existed) == (9, False, False)


async def test_get_one_or_create_by_relationship(session: AsyncSession):
    """Related rows that come along are visible ones."""
    club, existed = await get_one_or_create(
        session, Club, selectin=True, select_in_key="players", name="Reds"
    )
    assert (names(club.players), existed) == (["Ann"], True)


# --- what it costs -------------------------------------------------------------------------------


@contextmanager
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    """Collect the SQL that is sent."""
    sent: list[str] = []

    def keep(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(sync_engine(engine), "before_cursor_execute", keep)
    try:
        yield sent
    finally:
        event.remove(sync_engine(engine), "before_cursor_execute", keep)


async def test_models_without_the_mixin_pay_nothing(
    engine: AsyncEngine, session: AsyncSession, session_factory: Sessions
):
    """Their reads send the same SQL as handwritten ones, and nothing else."""
    statement = select(Hero).where(Hero.team.has(Team.name == "Avengers"))
    joined = select(Hero, Team).join(Hero.team)
    by_hand = {
        "a key": select(Hero).where(Hero.id == 1),
        "a list": select(Hero).order_by(Hero.id).limit(100).offset(0),
        "a statement": statement,
        "a statement with include_deleted": statement,
        "a query": joined,
    }
    through_library = {
        "a key": lambda: get_row(1, session, Hero),
        "a list": lambda: get_rows(session, Hero),
        "a statement": lambda: get_rows(session, Hero, stmnt=statement),
        "a statement with include_deleted": lambda: get_rows(
            session, Hero, stmnt=statement, include_deleted=True
        ),
        "a query": lambda: get_result_from_query(joined, session),
    }
    plain = session_factory()
    for name, call in through_library.items():
        with statements(engine) as expected:
            fetched((await execute(plain, by_hand[name])).unique())
        with statements(engine) as sent:
            await call()
        assert [plainly(text) for text in sent] == [plainly(text) for text in expected], name
        assert "is_deleted" not in json.dumps(sent)


def plainly(text: str) -> str:
    """Leave out the names of parameters and casts of their types."""
    return re.sub(r"(?<=%\()\w+(?=\)s)|::\w+", "", text)


async def test_the_same_number_of_statements(engine: AsyncEngine, session: AsyncSession):
    """With the mixin, a read is one statement as well, and each relationship one more."""
    for call, number in (
        (lambda: get_row(1, session, Player), 1),
        (lambda: get_rows(session, Player), 1),
        (lambda: get_rows(session, Player, stmnt=select(Player).join(Player.club)), 1),
        (lambda: get_result_from_query(select(Player), session), 1),
        (lambda: get_row(1, session, Player, selectin=True, select_in_keys="badges"), 2),
    ):
        with statements(engine) as sent:
            await call()
        assert len(sent) == number
