"""A relationship may bring in its soft-deleted rows: history that points to deleted rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from sqlalchemy.orm import joinedload

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, transaction
from sqlmodel_crud_utils.exceptions import UnknownFieldError
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.models import Hero
from tests.models_mixins import Badge, Club, Fan, Player, PlayerBadge
from tests.recording import recorded

Sessions = Callable[[], AsyncSession]
WAYS = pytest.mark.parametrize("way", ["selectin", "joined"])


@pytest.fixture
async def players(session_factory: Sessions) -> None:
    """Two clubs, players and badges, one of each deleted, and a link that is deleted."""
    here, gone = Club(name="here"), Club(name="gone")
    kept, lost, unlinked = Badge(label="kept"), Badge(label="lost"), Badge(label="unlinked")
    old = Player(name="old", club=gone)
    young = Player(name="young", club=gone, captain=old, badges=[kept, lost, unlinked])
    other = Player(name="other", club=here, captain=young)
    for row in (gone, lost, old):
        row.soft_delete()
    session = session_factory()
    session.add_all([old, young, other, Fan(name="fan", club=gone)])
    await session.flush()
    link = await session.get(PlayerBadge, (young.id, unlinked.id))
    assert link is not None
    link.soft_delete()
    await session.commit()


def names(rows: Iterable[Any]) -> list[str]:
    """Return the names of rows, in their own order."""
    return sorted(getattr(row, "name", None) or row.label for row in rows)


def loaded(query: AsyncQueryBuilder[Any], way: str, *paths: str) -> AsyncQueryBuilder[Any]:
    """Return the query with relationships that bring in soft-deleted rows."""
    found: AsyncQueryBuilder[Any] = getattr(query, way)(*paths, include_deleted=True)
    return found


@WAYS
@pytest.mark.usefixtures("players")
async def test_a_row_shows_what_it_referred_to(session_factory: Sessions, way: str):
    """To one, to its own kind, to many and many to many; a link that is deleted stays so."""
    players = AsyncQueryBuilder(session_factory(), Player).order_by("name")
    young = await loaded(players, way, "club", "captain", "badges").where(name="young").one()
    assert (young.club.name, young.captain.name) == ("gone", "old")
    assert names(young.badges) == ["kept", "lost"]
    clubs = AsyncQueryBuilder(session_factory(), Club).with_deleted().order_by("name")
    assert [names(club.players) for club in await loaded(clubs, way, "players").all()] == [
        ["old", "young"],
        ["other"],
    ]
    fans = AsyncQueryBuilder(session_factory(), Fan)
    assert [fan.club.name for fan in await loaded(fans, way, "club").all()] == ["gone"]


@WAYS
@pytest.mark.usefixtures("players")
async def test_the_rows_themselves_and_filters_stay_as_they_are(
    session_factory: Sessions, way: str
):
    """Only the relationship is different."""
    query = loaded(AsyncQueryBuilder(session_factory(), Player), way, "club").order_by("name")
    assert names(await query.all()) == ["other", "young"]
    assert await query.count() == 2
    assert await query.where(club__name="gone").count() == 0
    assert await query.order_by("club__name").scalars("name") == ["other", "young"]


@WAYS
@pytest.mark.usefixtures("players")
async def test_only_the_last_relationship_of_a_path_does_so(session_factory: Sessions, way: str):
    """Those before it hide deleted rows, and so do others that lead to the same model."""
    players = AsyncQueryBuilder(session_factory(), Player)
    other = await loaded(players, way, "captain__club").selectin("club").where(name="other").one()
    assert (other.captain.name, other.captain.club.name, other.club.name) == (
        "young",
        "gone",
        "here",
    )
    players = AsyncQueryBuilder(session_factory(), Player)
    query = loaded(players, way, "club").selectin("captain__club", "club__players")
    young = await query.where(name="young").one()
    assert (young.club.name, young.captain) == ("gone", None)
    assert names(young.club.players) == ["young"]
    other = await query.where(name="other").one()
    assert (other.captain.name, other.captain.club) == ("young", None)
    both = loaded(AsyncQueryBuilder(session_factory(), Player), way, "captain", "captain__club")
    young = await both.where(name="young").one()
    assert (young.captain.name, young.captain.club.name) == ("old", "gone")


@WAYS
@pytest.mark.usefixtures("players")
async def test_every_way_to_read_brings_them_in(session_factory: Sessions, way: str):
    """Pages, streams and single rows; on MySQL, too, where a stream has its connection alone."""
    query = loaded(AsyncQueryBuilder(session_factory(), Player), way, "club").order_by("-name")
    first = await query.first()
    assert first is not None
    found = [first, *(await query.limit(1).all()), *(await query.keyset(1)).items]
    found += (await query.paginate(1, 1)).items
    found += [row async for row in query.limit(1).stream(1)]
    assert [(row.name, row.club.name) for row in found] == [("young", "gone")] * 5


@WAYS
@pytest.mark.usefixtures("players")
async def test_what_a_session_holds_changes_nothing(session: AsyncSession, way: str):
    """Reads with and without it take turns, on rows that the session has loaded already."""
    plain = AsyncQueryBuilder(session, Player).where(name="young").selectin("club")
    for _ in range(3):
        assert (await plain.one()).club is None
        assert (await loaded(plain, way, "club").one()).club.name == "gone"
    assert (await loaded(plain, way, "club").selectin("club").one()).club is None
    assert (await plain.with_deleted().one()).club.name == "gone"
    assert (await loaded(plain.with_deleted(), way, "club").one()).club.name == "gone"
    joined = AsyncQueryBuilder(session, Player).options(joinedload(Player.club))
    assert (await joined.where(name="young").one()).club is None


@pytest.mark.usefixtures("players")
async def test_it_lasts_beyond_the_block(session: AsyncSession):
    """Rows that were read in a block stay loaded after its commit."""
    async with transaction(session):
        query = AsyncQueryBuilder(session, Player).where(name="young")
        young = await query.selectin("club", include_deleted=True).one()
    assert young.club.name == "gone"


@WAYS
async def test_relationships_to_models_without_the_mixin_cost_nothing(
    session: AsyncSession, engine: AsyncEngine, way: str
):
    """There is nothing to bring in; a wrong name is refused as usual."""
    query = loaded(AsyncQueryBuilder(session, Hero), way, "team")
    with recorded(engine) as statements:
        assert await query.all() == []
    assert len(statements) == 1
    with pytest.raises(UnknownFieldError):
        loaded(AsyncQueryBuilder(session, Hero), way, "teams")
