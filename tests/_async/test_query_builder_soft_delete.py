"""Soft-deleted rows are not there for a query, unless it asks for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select, text

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_result_from_query, get_rows
from tests._runtime_async import AsyncSession
from tests.models_mixins import Badge, Club, Fan, Player

Sessions = Callable[[], AsyncSession]


@pytest.fixture
async def players(session_factory: Sessions) -> None:
    """A club with two players, one of them deleted; a deleted club with another, and badges."""
    here, gone = Club(name="here"), Club(name="gone")
    kept, lost = Badge(label="kept"), Badge(label="lost")
    deleted = Player(name="deleted", club=here, badges=[kept])
    for row in (gone, lost, deleted):
        row.soft_delete()
    session = session_factory()
    session.add_all(
        [
            deleted,
            Player(name="alone", club=gone),
            Player(name="visible", club=here, badges=[kept, lost]),
            Fan(name="fan", club=gone),
        ]
    )
    await session.commit()


@pytest.mark.usefixtures("players")
async def test_deleted_rows_are_left_out_of_everything(session: AsyncSession):
    """Rows, numbers, values and pages."""
    query = AsyncQueryBuilder(session, Player).order_by("name")
    assert await query.scalars("name") == ["alone", "visible"]
    assert [row["name"] for row in await query.values("name", "id")] == ["alone", "visible"]
    assert [player.name for player in await query.all()] == ["alone", "visible"]
    assert (await query.count(), await query.max("name")) == (2, "visible")
    assert await query.where(name="deleted").exists() is False
    assert await query.where(name="deleted").one_or_none() is None
    assert (await query.paginate(1, 1)).total == 2
    page = await query.keyset(1)
    page = await query.keyset(5, after=page.next_cursor)
    assert [player.name for player in page.items] == ["visible"]


@pytest.mark.usefixtures("players")
async def test_deleted_rows_are_left_out_beside_text(session: AsyncSession):
    """For any text, although AND binds more tightly than OR."""
    either = text("name = 'deleted' OR name = 'visible'")
    names = await AsyncQueryBuilder(session, Player).where(either).scalars("name")
    assert names == ["visible"]
    _, players = await get_rows(session, Player, stmnt=select(Player).where(either))
    assert [player.name for player in players] == ["visible"]
    found = await get_result_from_query(select(Player.name).where(either), session)
    assert found == "visible"
    assert await AsyncQueryBuilder(session, Player).where(either).delete() == 1


@pytest.mark.usefixtures("players")
async def test_deleted_rows_do_not_count_in_a_query_of_a_table(session: AsyncSession):
    """As the value of a filter."""
    clubs = select(Player.__table__.c.club_id).where(  # type: ignore[attr-defined]
        Player.__table__.c.name == "deleted"  # type: ignore[attr-defined]
    )
    assert not await AsyncQueryBuilder(session, Club).where(id__in=clubs).exists()
    assert await AsyncQueryBuilder(session, Club).with_deleted().where(id__in=clubs).exists()


@pytest.mark.usefixtures("players")
async def test_with_deleted_and_only_deleted(session: AsyncSession):
    """They may be called before and after filters; the last one counts."""
    query = AsyncQueryBuilder(session, Player).order_by("name")
    assert await query.with_deleted().scalars("name") == ["alone", "deleted", "visible"]
    assert await query.only_deleted().scalars("name") == ["deleted"]
    assert await query.only_deleted().count() == 1
    in_gone = query.where(club__name="gone")
    assert await in_gone.scalars("name") == []
    assert await in_gone.with_deleted().scalars("name") == ["alone"]
    assert await query.with_deleted().where(club__name="gone").scalars("name") == ["alone"]
    assert await query.with_deleted().only_deleted().scalars("name") == ["deleted"]
    assert await AsyncQueryBuilder(session, Fan).with_deleted().where(club__name="gone").exists()


@pytest.mark.usefixtures("players")
async def test_related_rows_that_are_deleted_are_not_loaded(session: AsyncSession):
    """With `selectin` and `joined`, even if the session has loaded them before."""
    clubs = AsyncQueryBuilder(session, Club).where(name="here")
    for loaded in (clubs.selectin("players__badges"), clubs.joined("players__badges")):
        everything = await loaded.with_deleted().one()
        assert sorted(player.name for player in everything.players) == ["deleted", "visible"]
        [player] = (await loaded.one()).players
        assert [badge.label for badge in player.badges] == ["kept"]
    [fan] = await AsyncQueryBuilder(session, Fan).joined("club").all()
    assert fan.club is None


@pytest.mark.usefixtures("players")
async def test_deleted_related_rows_meet_no_condition(session: AsyncSession):
    """In filters, exclusions, alternatives and the caller's own expressions."""
    query = AsyncQueryBuilder(session, Player).order_by("name")
    assert await query.exclude(club__name="gone").count() == 2
    assert await query.any_of({"club__name": "gone"}, {"badges__label": "lost"}).count() == 0
    assert await query.where(badges__players__name="deleted").count() == 0
    assert await query.where(Player.club.has()).scalars("name") == ["visible"]
    assert await query.any_of(Player.badges.any(label="lost"), {"name": "x"}).count() == 0
    named = Player.club_id.in_(select(Club.id).where(Club.name == "gone"))
    assert await query.where(named).count() == 0
    assert await query.where(named).with_deleted().count() == 1
