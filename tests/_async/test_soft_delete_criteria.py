"""No statement returns or loads soft-deleted rows, on any database."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select, exists, false, func, literal_column, select, union, update
from sqlalchemy.orm import (
    UserDefinedOption,
    aliased,
    contains_eager,
    immediateload,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
)

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_result_from_query, get_rows
from sqlmodel_crud_utils.exceptions import QueryExecutionError
from sqlmodel_crud_utils.mixins import acting_as
from tests._runtime_async import AsyncSession, execute, run_sync
from tests.models import Hero, Team
from tests.models_mixins import Badge, Club, Fan, Player, PlayerBadge, Scout

Sessions = Callable[[], AsyncSession]
LOADERS = [selectinload, joinedload, subqueryload, immediateload, lazyload]

OTHER_CLUB, OTHER_PLAYER = aliased(Club), aliased(Player)
CLUBS, FANS, PLAYERS, LINKS = (
    model.__table__  # type: ignore[attr-defined]
    for model in (Club, Fan, Player, PlayerBadge)
)
WITH_BADGES = select(Player.id, Player.club_id).where(Player.badges.any()).subquery()
VISIBLE_WITH_BADGES = aliased(Player, select(Player).subquery())


@pytest.fixture
async def league(session_factory: Sessions) -> None:
    """Reds: Ann, Bob (deleted). Ghosts (deleted): Cid, whose captain is Bob.

    Ann has the badges gold, silver (the link is deleted) and lost (the badge is deleted).
    """
    session = session_factory()
    session.add_all([Club(id=1, name="Reds"), Club(id=2, name="Ghosts", is_deleted=True)])
    session.add_all([Badge(id=1, label="gold"), Badge(id=2, label="silver")])
    session.add(Badge(id=3, label="lost", is_deleted=True))
    await session.flush()
    session.add(Player(id=1, name="Ann", club_id=1))
    session.add(Player(id=2, name="Bob", club_id=1, is_deleted=True))
    session.add_all([Fan(id=1, name="Fay", club_id=1), Fan(id=2, name="Gus", club_id=2)])
    await session.flush()
    session.add(Player(id=3, name="Cid", club_id=2, captain_id=2))
    session.add(PlayerBadge(player_id=1, badge_id=1))
    session.add(PlayerBadge(player_id=1, badge_id=2, is_deleted=True))
    session.add(PlayerBadge(player_id=1, badge_id=3))
    await session.commit()
    await session.close()


async def values_of(
    session: AsyncSession, model: type, statement: Any, *, include_deleted: bool = False
) -> list[Any]:
    """Return plain values, in an order of their own."""
    options = {"stmnt": statement, "include_deleted": include_deleted}
    _, rows = await get_rows(session, model, **options)
    plain = [row if isinstance(row, int | bool) else tuple(row) for row in rows]
    return sorted(plain, key=repr)


# --- statements ----------------------------------------------------------------------------------

IN_MODELS: dict[str, tuple[type, Select[Any], list[Any]]] = {
    "the model": (Player, select(Player.id), [1, 3]),
    "an alias": (Player, select(OTHER_PLAYER.id), [1, 3]),
    "an alias of a subquery": (Player, select(VISIBLE_WITH_BADGES.id), [1, 3]),
    "a count": (Player, select(func.count()).select_from(Player), [2]),
    "a count of a column": (Player, select(func.count(Player.id)), [2]),
    "a count of a subquery": (
        Player,
        select(func.count()).select_from(select(Player).subquery()),
        [2],
    ),
    "a window": (Player, select(Player.id, func.count().over()), [(1, 2), (3, 2)]),
    "a join": (Player, select(Player.id, Club.id).join(Club), [(1, 1)]),
    "a join with an alias": (
        Player,
        select(Player.id, OTHER_CLUB.id).join(Player.club.of_type(OTHER_CLUB)),
        [(1, 1)],
    ),
    "an outer join": (
        Player,
        select(Player.id, Club.id).outerjoin(Player.club),
        [(1, 1), (3, None)],
    ),
    "a join with itself": (
        Player,
        select(Player.id, OTHER_PLAYER.id).join(OTHER_PLAYER, Player.captain_id == OTHER_PLAYER.id),
        [],
    ),
    "a subquery": (Player, select(select(Player.id).subquery()), [1, 3]),
    "a common table expression": (Player, select(select(Player.id).cte()), [1, 3]),
    "a scalar subquery": (
        Club,
        select(
            Club.id,
            select(func.count(Player.id)).where(Player.club_id == Club.id).scalar_subquery(),
        ),
        [(1, 1)],
    ),
    "in a subquery": (
        Club,
        select(Club.id).where(Club.id.in_(select(Player.club_id).where(Player.name == "Bob"))),
        [],
    ),
    "exists": (
        Club,
        select(Club.id).where(
            exists(select(Player.id).where(Player.club_id == Club.id, Player.name == "Bob"))
        ),
        [],
    ),
    "a union": (Player, union(select(Player.id), select(Player.id)), [1, 3]),  # type: ignore[dict-item]
    "a model without the mixin": (Fan, select(Fan.id), [1, 2]),
    "a join from there": (Fan, select(Fan.id, Club.id).join(Club), [(1, 1)]),
}


@pytest.mark.parametrize("what", IN_MODELS)
@pytest.mark.usefixtures("league")
async def test_what_models_bring_in(session: AsyncSession, what: str):
    """Deleted rows are left out of every part of a statement that names models."""
    model, statement, expected = IN_MODELS[what]
    assert await values_of(session, model, statement) == expected


IN_TABLES: dict[str, tuple[type, Any, list[Any], list[Any]]] = {
    # What it is, the model, the statement, what is visible, and what is there.
    "any": (Club, select(Club.id).where(Club.players.any(Player.name == "Bob")), [], [1]),
    "any that is met": (Club, select(Club.id).where(Club.players.any(name="Ann")), [1], [1]),
    "not any": (
        Club,
        select(Club.id).where(~Club.players.any(Player.name == "Bob")),
        [1],
        [2],
    ),
    "any of an alias": (
        Club,
        select(OTHER_CLUB.id).where(OTHER_CLUB.players.any(Player.name == "Bob")),
        [],
        [1],
    ),
    "any of a type": (
        Club,
        select(Club.id).where(Club.players.of_type(OTHER_PLAYER).any(OTHER_PLAYER.name == "Bob")),
        [],
        [1],
    ),
    "any in any": (
        Club,
        select(Club.id).where(Club.players.any(Player.badges.any(Badge.label == "lost"))),
        [],
        [1],
    ),
    "any in any that is met": (
        Club,
        select(Club.id).where(Club.players.any(Player.badges.any(Badge.label == "gold"))),
        [1],
        [1],
    ),
    "any as a column": (
        Club,
        select(Club.id, Club.players.any(Player.name == "Bob")),
        [(1, False)],
        [(1, True), (2, False)],
    ),
    "any of deleted rows": (
        Player,
        select(Player.id).where(Player.badges.any(Badge.label == "lost")),
        [],
        [1],
    ),
    "any through a deleted link": (
        Player,
        select(Player.id).where(Player.badges.any(Badge.label == "silver")),
        [],
        [1],
    ),
    "any in a subquery": (
        Player,
        select(WITH_BADGES.c.id, Club.id)
        .join(Club, Club.id == WITH_BADGES.c.club_id)
        .where(Club.players.any(Player.name == "Bob")),
        [],
        [(1, 1)],
    ),
    "any next to an alias of a subquery": (
        Player,
        select(VISIBLE_WITH_BADGES.id)
        .join(VISIBLE_WITH_BADGES.club)
        .where(Club.players.any(Player.name == "Ann")),
        [1],
        [1, 2],
    ),
    "any in a union": (
        Club,
        union(
            select(Club.id).where(Club.players.any(Player.name == "Bob")),
            select(Club.id).where(Club.name == "Reds"),
        ),
        [1],
        [1],
    ),
    "has": (Player, select(Player.id).where(Player.club.has()), [1], [1, 2, 3]),
    "has of its own kind": (Player, select(Player.id).where(Player.captain.has()), [], [3]),
    "has of a model without the mixin": (
        Fan,
        select(Fan.id).where(Fan.club.has(Club.name != "x")),
        [1],
        [1, 2],
    ),
    "exists without a select": (
        Club,
        select(Club.id).where(exists().where(Player.club_id == Club.id, Player.name == "Bob")),
        [],
        [1],
    ),
    "a join through a relationship": (
        Player,
        select(Player.id, Badge.id).join(Player.badges),
        [(1, 1)],
        [(1, 1), (1, 2), (1, 3)],
    ),
    "a join with the relationship as condition": (
        Player,
        select(Player.id, Badge.id).join(Badge, Player.badges),
        [(1, 1)],
        [(1, 1), (1, 2), (1, 3)],
    ),
    "a join through the link model": (
        Player,
        select(Player.id, Badge.id).select_from(Player).join(PlayerBadge).join(Badge),
        [(1, 1)],
        [(1, 1), (1, 2), (1, 3)],
    ),
    "a join with the link table": (
        Player,
        select(Player.id, LINKS.c.badge_id).join(LINKS, LINKS.c.player_id == Player.id),
        [(1, 1), (1, 3)],
        [(1, 1), (1, 2), (1, 3)],
    ),
    "an outer join with the link table": (
        Player,
        select(Player.id, LINKS.c.badge_id).outerjoin(
            LINKS, (LINKS.c.player_id == Player.id) & (LINKS.c.badge_id == 2)
        ),
        [(1, None), (3, None)],
        [(1, 2), (2, None), (3, None)],
    ),
    "a table": (Player, select(PLAYERS.c.id), [1, 3], [1, 2, 3]),
    "an alias of a table": (Player, select(PLAYERS.alias("p").c.id), [1, 3], [1, 2, 3]),
    "an alias of an alias": (Player, select(PLAYERS.alias().alias().c.id), [1, 3], [1, 2, 3]),
    "a join of tables": (
        Player,
        select(PLAYERS.c.id, CLUBS.c.id).select_from(PLAYERS.join(CLUBS)),
        [(1, 1)],
        [(1, 1), (2, 1), (3, 2)],
    ),
    "a join with a table of a model without the mixin": (
        Club,
        select(CLUBS.c.id, FANS.c.id).select_from(CLUBS.join(FANS)),
        [(1, 1)],
        [(1, 1), (2, 2)],
    ),
    "an outer join of tables": (
        Player,
        select(PLAYERS.c.id, CLUBS.c.id).select_from(PLAYERS.outerjoin(CLUBS)),
        [(1, 1), (3, None)],
        [(1, 1), (2, 1), (3, 2)],
    ),
    "an outer join of a model and joined tables": (
        Club,
        select(Fan.id, PLAYERS.c.id).outerjoin(
            CLUBS.join(PLAYERS, PLAYERS.c.club_id == CLUBS.c.id), CLUBS.c.id == Fan.club_id
        ),
        [(1, 1), (2, None)],
        [(1, 1), (1, 2), (2, 3)],
    ),
    "an outer join of joined tables": (
        Club,
        select(FANS.c.id, PLAYERS.c.id).select_from(
            FANS.outerjoin(
                CLUBS.join(PLAYERS, PLAYERS.c.club_id == CLUBS.c.id), CLUBS.c.id == FANS.c.club_id
            )
        ),
        [(1, 1), (2, None)],
        [(1, 1), (1, 2), (2, 3)],
    ),
}


@pytest.mark.parametrize("what", IN_TABLES)
@pytest.mark.usefixtures("league")
async def test_what_a_callers_statement_brings_in(session: AsyncSession, what: str):
    """Tables, and the EXISTS that SQLAlchemy makes of relationships, are covered as well."""
    model, statement, expected, everything = IN_TABLES[what]
    assert await values_of(session, model, statement) == expected
    assert await values_of(session, model, statement, include_deleted=True) == everything


@pytest.mark.usefixtures("league")
async def test_rows_of_a_callers_own_union(session: AsyncSession):
    """A statement around another statement is entered too."""
    bob = select(Player).where(Player.name == "Bob")
    statement = select(Player).from_statement(union(bob, bob))
    assert await get_result_from_query(statement, session) is None
    found = await get_result_from_query(statement, session, include_deleted=True)
    assert found.name == "Bob"


@pytest.mark.usefixtures("league")
async def test_models_that_only_the_statement_knows(session: AsyncSession):
    """A caller may select from models that no relationship of the model leads to."""
    assert await values_of(session, Hero, select(Club.id)) == [1]
    statement = select(Team.id, Player.id).join(Player, Player.id == Team.id)
    assert await values_of(session, Team, statement) == []


# --- related rows --------------------------------------------------------------------------------


def names(rows: Any) -> Any:
    """Return the names of a related row or of several."""
    if rows is None or isinstance(rows, str):
        return rows
    if isinstance(rows, list):
        return sorted(names(row) for row in rows)
    return getattr(rows, "name", None) or rows.label


async def read(session: AsyncSession, statement: Any, **options: Any) -> Any:
    """Return the rows of a model that `get_rows` finds with a statement."""
    model = statement.column_descriptions[0]["entity"]
    return list((await get_rows(session, model, stmnt=statement, **options))[1])


async def related(
    session: AsyncSession, statement: Any, attribute: str, **options: Any
) -> dict[str, Any]:
    """Return what the rows are related to; lazy loading may query the database."""
    rows = await read(session, statement, **options)
    return await run_sync(
        session, lambda: {names(row): names(getattr(row, attribute)) for row in rows}
    )


@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__)
@pytest.mark.usefixtures("league")
class TestRelatedRows:
    async def test_to_many(self, session: AsyncSession, load: Any):
        """Deleted rows are missing in the collection."""
        statement = select(Club).options(load(Club.players))
        assert await related(session, statement, "players") == {"Reds": ["Ann"]}

    async def test_to_one(self, session: AsyncSession, load: Any):
        """A deleted row is None, also where a model without the mixin refers to it."""
        statement = select(Player).options(load(Player.club))
        assert await related(session, statement, "club") == {"Ann": "Reds", "Cid": None}
        statement = select(Fan).options(load(Fan.club))
        assert await related(session, statement, "club") == {"Fay": "Reds", "Gus": None}

    async def test_to_its_own_kind(self, session: AsyncSession, load: Any):
        """The criterion meets the related row, not the row itself."""
        statement = select(Player).options(load(Player.captain))
        assert await related(session, statement, "captain") == {"Ann": None, "Cid": None}

    async def test_many_to_many(self, session: AsyncSession, load: Any):
        """Deleted rows are missing, and rows with a deleted link."""
        badges = Player.badges
        if load is joinedload:  # SQLAlchemy joins the link table: the loader has to know.
            badges = Player.badges.and_(PlayerBadge.is_deleted == false())
        statement = select(Player).options(load(badges))
        assert await related(session, statement, "badges") == {"Ann": ["gold"], "Cid": []}

    async def test_deeper(self, session: AsyncSession, load: Any):
        """Lazy loads from related rows are filtered as well."""
        statement = select(Club).options(load(Club.players))
        rows = await read(session, statement)
        found = await run_sync(
            session, lambda: [names(p.badges) for club in rows for p in club.players]
        )
        assert found == [["gold"]]

    async def test_not_hidden(self, session: AsyncSession, load: Any):
        """With `include_deleted` nothing is hidden: the criteria apply to one read only."""
        statement = select(Player).options(load(Player.badges)).where(Player.name == "Ann")
        found = await related(session, statement, "badges", include_deleted=True)
        assert found == {"Ann": ["gold", "lost", "silver"]}


class Note(UserDefinedOption):
    """An option of the program's own statements."""

    propagate_to_loaders = True


@pytest.mark.usefixtures("league")
async def test_a_callers_own_options_stay(session: AsyncSession):
    """They are passed to loads of relationships together with the library's.

    SQLAlchemy's cache doesn't count them, so that the first of these statements stands for all.
    """
    statement = select(Player).where(Player.id == 1)
    for options in ([], [Note("mine")], [Note("mine"), Note("yours")], []):
        session.expunge_all()
        found = await related(session, statement.options(*options), "badges")
        assert found == {"Ann": ["gold"]}


@pytest.mark.usefixtures("league")
async def test_relationships_that_the_caller_joined(session: AsyncSession):
    """`contains_eager` takes what the join lets through."""
    statement = select(Player).join(Player.badges).options(contains_eager(Player.badges))
    statement = statement.where(Player.club.has())
    assert await related(session, statement, "badges") == {"Ann": ["gold"]}


@pytest.mark.usefixtures("league")
async def test_a_row_keeps_its_criteria_through_pickle(session: AsyncSession):
    """A row from a cache that is merged into a session loads as it would have."""
    statement = select(Player).where(Player.name == "Ann")
    [row] = await read(session, statement)
    session.expunge(row)
    copy = pickle.loads(pickle.dumps(row))
    session.add(copy)
    assert await run_sync(session, lambda: names(copy.badges)) == ["gold"]


# --- leftovers -----------------------------------------------------------------------------------


async def mark(session: AsyncSession, model: Any, key: int, *, is_deleted: bool) -> None:
    """Delete or restore a row behind the back of the session's objects."""
    statement = update(model).where(model.id == key).values(is_deleted=is_deleted)
    unseen = statement.execution_options(synchronize_session=False)
    await execute(session, unseen)


@pytest.mark.usefixtures("league")
@pytest.mark.parametrize("load", [selectinload, joinedload], ids=lambda load: load.__name__)
class TestLeftovers:
    async def test_a_collection_that_is_loaded_already(self, session: AsyncSession, load: Any):
        """A second read shows the current rows, in the same object."""
        statement = select(Club).options(load(Club.players)).where(Club.id == 1)
        [club] = await read(session, statement)
        assert names(club.players) == ["Ann"]
        await mark(session, Player, 2, is_deleted=False)
        [again] = await read(session, statement)
        assert again is club
        assert names(club.players) == ["Ann", "Bob"]
        await mark(session, Player, 1, is_deleted=True)
        assert names((await read(session, statement))[0].players) == ["Bob"]

    async def test_a_reference_that_is_loaded_already(self, session: AsyncSession, load: Any):
        """The session holds the row that it refers to, too."""
        statement = select(Player).options(load(Player.club)).where(Player.id == 1)
        [player] = await read(session, statement)
        club = player.club
        assert names(club) == "Reds"
        await mark(session, Club, 1, is_deleted=True)
        await read(session, statement)
        assert player.club is None
        await read(session, statement, include_deleted=True)
        assert player.club is club

    async def test_with_and_without_deleted_rows(self, session: AsyncSession, load: Any):
        """Each read gets what it asks for, independent of earlier reads."""
        statement = select(Club).options(load(Club.players)).where(Club.id == 1)
        [club] = await read(session, statement)
        assert names(club.players) == ["Ann"]
        await read(session, statement, include_deleted=True)
        assert names(club.players) == ["Ann", "Bob"]
        await read(session, statement)
        assert names(club.players) == ["Ann"]

    async def test_other_objects_are_left_alone(self, session: AsyncSession, load: Any):
        """Objects that a read doesn't return keep their relationships loaded."""
        [fan] = await read(session, select(Fan).options(load(Fan.club)).where(Fan.id == 1))
        statement = select(Player).options(load(Player.badges)).where(Player.id == 1)
        [player] = await read(session, statement)
        badges = player.badges
        await read(session, select(Player).options(load(Player.club)))
        assert names(fan.club) == "Reds"
        assert player.badges is badges

    async def test_unflushed_changes_stay(self, session: AsyncSession, load: Any):
        """A read without autoflush loses neither values nor members."""
        statement = select(Club).options(load(Club.players)).where(Club.id == 1)
        [club] = await read(session, statement)
        with session.no_autoflush:
            club.name = "Blues"
            club.players.append(Player(id=9, name="Dee"))
            await read(session, statement)
            assert club.name == "Blues"
            assert names(club.players) == ["Ann", "Dee"]
        await session.commit()
        await read(session, statement)
        assert names(club.players) == ["Ann", "Dee"]

    async def test_a_failing_read_loses_nothing(self, session: AsyncSession, load: Any):
        """Relationships that were set aside are restored."""
        statement = select(Club).options(load(Club.players))
        [club] = await read(session, statement)
        with pytest.raises(QueryExecutionError):
            await read(session, statement.where(literal_column("nowhere") == 1))
        assert names(club.players) == ["Ann"]


@pytest.mark.usefixtures("league")
async def test_relationships_that_a_model_loads_eagerly_by_itself(session: AsyncSession):
    """A read that asks for nothing loads those again, and no others."""
    session.add(Scout(id=1, name="Sam", club_id=1))
    await session.commit()
    [fan] = await read(session, select(Fan).options(selectinload(Fan.club)).where(Fan.id == 1))
    [scout] = await read(session, select(Scout))
    assert names(scout.club) == "Reds"
    await mark(session, Club, 1, is_deleted=True)
    assert await read(session, select(Scout)) == [scout]
    assert await read(session, select(Fan).where(Fan.id == 1)) == [fan]
    assert scout.club is None
    assert names(fan.club) == "Reds"


@pytest.mark.usefixtures("league")
async def test_lazy_loading_of_an_object_that_the_program_made(session: AsyncSession):
    """A read returns it from the session; from then on it loads as the read would have."""
    ghost_fan = Fan(id=9, name="Hal", club_id=2)
    session.add(ghost_fan)
    await session.commit()
    [fan] = await read(session, select(Fan).where(Fan.id == 9))
    assert fan is ghost_fan
    assert await run_sync(session, lambda: fan.club) is None
    await read(session, select(Fan).where(Fan.id == 9), include_deleted=True)
    session.expire(fan, ["club"])
    assert names(await run_sync(session, lambda: fan.club)) == "Ghosts"


@pytest.mark.usefixtures("league")
async def test_a_deleted_object_in_the_session_is_not_found(session: AsyncSession):
    """A query doesn't return it because the session still holds it."""
    [club] = await read(session, select(Club).where(Club.id == 1))
    club.soft_delete()
    assert await read(session, select(Club).where(Club.id == 1)) == []
    assert await read(session, select(Club).where(Club.id == 1), include_deleted=True) == [club]


@pytest.mark.usefixtures("league")
async def test_an_expired_object_can_be_refreshed_although_it_was_deleted(session: AsyncSession):
    """The criteria hide rows from queries, they don't take rows away that one holds."""
    [club] = await read(session, select(Club).where(Club.id == 1))
    await mark(session, Club, 1, is_deleted=True)
    await session.commit()
    assert await run_sync(session, lambda: (club.name, club.is_deleted)) == ("Reds", True)


# --- the marks themselves ------------------------------------------------------------------------


@pytest.mark.usefixtures("league")
async def test_set_based_soft_delete(session: AsyncSession):
    """It writes what the method of a row would."""
    with acting_as("alice"):
        await AsyncQueryBuilder(session, Club).where(id=1).delete()
    await AsyncQueryBuilder(session, Badge).where(id=2).delete(deleted_by="bob")
    [club] = await read(session, select(Club).where(Club.id == 1), include_deleted=True)
    assert (club.is_deleted, club.deleted_by, club.deleted_at is None) == (True, "alice", False)
    [badge] = await read(session, select(Badge).where(Badge.id == 2), include_deleted=True)
    assert (badge.is_deleted, badge.deleted_by) == (True, "bob")
    assert await AsyncQueryBuilder(session, Badge).scalars("label") == ["gold"]
