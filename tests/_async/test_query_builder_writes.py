"""`update` and `delete` reach all rows that match, with one statement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func
from sqlalchemy.orm import object_session

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, transaction, update_row, write_row
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.filter_models import Folder
from tests.models import Hero, Seat, Tag, Team
from tests.models_mixins import Badge, Club, Counter, Parcel, Player
from tests.recording import recorded

Sessions = Callable[[], AsyncSession]


@pytest.fixture
async def heroes(session_factory: Sessions) -> None:
    """Three heroes, two of them in Oslo and one of these with a tag."""
    oslo = Team(name="Owls", city="Oslo")
    session = session_factory()
    session.add_all(
        [
            Hero(name="Ann", secret_name="a", age=40, team=oslo, tags=[Tag(label="fast")]),
            Hero(name="Bob", secret_name="b", age=30, team=oslo),
            Hero(name="Cyd", secret_name="c"),
        ]
    )
    await session.commit()


async def stored_values(session: AsyncSession, model: type[Any], field: str) -> list[Any]:
    """Return a field of all rows as another session sees it, deleted ones included."""
    async with AsyncSession(session.bind) as other:
        return await AsyncQueryBuilder(other, model).with_deleted().scalars(field)


# --- update --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_update_writes_to_all_rows_that_match(session: AsyncSession, engine: AsyncEngine):
    """With one statement and a commit; values are coerced, or SQL."""
    query = AsyncQueryBuilder(session, Hero)
    with recorded(engine) as words:
        assert await query.where(team__city="Oslo").update(age="50") == 2
    assert words == ["UPDATE", "COMMIT"]
    assert await stored_values(session, Hero, "age") == [50, 50, None]
    changed = query.exclude(name="Bob").update(age=Hero.age + 1, secret_name=func.upper(Hero.name))
    assert await changed == 2
    assert await stored_values(session, Hero, "age") == [51, 50, None]
    assert await stored_values(session, Hero, "secret_name") == ["ANN", "b", "CYD"]
    assert await query.where(name="x").update(age=1) == 0
    assert await query.update(everything=True, age=None) == 3


@pytest.mark.usefixtures("heroes")
async def test_objects_of_the_session_get_the_new_values(session: AsyncSession):
    """Also those that only the database can work out; nothing has to be loaded later."""
    async with transaction(session):
        ann, bob, cyd = await AsyncQueryBuilder(session, Hero).selectin("team").all()
        cyd.age = 7  # not written yet
        await (
            AsyncQueryBuilder(session, Hero)
            .where(age__lt=40)
            .update(age=Hero.age * 2, secret_name=func.upper(Hero.name))
        )
        assert [(hero.age, hero.secret_name) for hero in (ann, bob, cyd)] == [
            (40, "a"),
            (60, "BOB"),
            (14, "CYD"),
        ]
        assert ann.team is not None
    assert (bob.age, bob.secret_name) == (60, "BOB")


async def test_rows_that_stayed_loaded_get_the_new_values(
    session: AsyncSession, session_factory: Sessions
):
    """Rows that a function returned before its commit are updated, marked or removed."""
    _, seat = await write_row(Seat(row="a", number=1, guest="x"), session)
    assert await AsyncQueryBuilder(session, Seat).where(row="a").update(guest="y") == 1
    assert (await AsyncQueryBuilder(session, Seat).one()).guest == seat.guest == "y"
    _, player = await write_row(Player(name="Ann"), session)
    async with transaction(session):
        assert await AsyncQueryBuilder(session, Player).where(name="Ann").delete() == 1
        assert player.is_deleted
    assert await AsyncQueryBuilder(session, Player).first() is None
    assert await AsyncQueryBuilder(session, Player).only_deleted().one() is player
    _, counter = await write_row(Counter(value=1), session)
    other = session_factory()
    assert await AsyncQueryBuilder(other, Counter).where(value=1).update(value=2) == 1
    with pytest.raises(ConflictError):  # the row is no longer as this session has seen it
        await update_row(counter.id, {"value": 3}, session, Counter, raise_on_error=True)
    assert await AsyncQueryBuilder(session, Counter).where(value=2).update(value=4) == 1
    [row] = await AsyncQueryBuilder(session, Counter).all()
    assert (row.value, row.version) == (4, 3)
    _, kept = await write_row(Seat(row="b", number=1), session)
    assert await AsyncQueryBuilder(session, Seat).where(row="b").delete() == 1
    assert object_session(kept) is None
    assert await AsyncQueryBuilder(session, Seat).where(row="b").all() == []


@pytest.mark.usefixtures("heroes")
async def test_objects_are_as_before_when_a_block_is_undone(session: AsyncSession):
    """Neither new values nor deletions stay in the session."""
    query = AsyncQueryBuilder(session, Hero)
    ann = await query.where(name="Ann").one()
    with pytest.raises(TransactionError):
        async with transaction(session):
            await query.where(name="Ann").update(age=1)
            await query.where(name="Cyd").delete()
            raise ValueError
    assert await query.order_by("name").first() is ann
    assert [hero.age for hero in await query.all()] == [40, 30, None]


async def test_stamps_versions_and_actors(session: AsyncSession):
    """An update leaves the traces that every update leaves."""
    parcel = Parcel(code="a")
    session.add_all([parcel, Parcel(code="b")])
    await session.commit()
    await session.refresh(parcel)
    with acting_as("alice"):
        assert await AsyncQueryBuilder(session, Parcel).where(code="a").update(size=9) == 1
    await session.refresh(parcel)
    assert (parcel.size, parcel.version, parcel.updated_by) == (9, 2, "alice")
    assert parcel.updated_at is not None
    parcel.size = 10  # no conflict: the version is the current one
    await session.commit()
    assert sorted(await stored_values(session, Parcel, "version")) == [1, 3]


@pytest.mark.usefixtures("heroes")
async def test_writes_take_part_in_a_block(session: AsyncSession):
    """They are undone with it, and a refused one dooms it."""
    query = AsyncQueryBuilder(session, Hero)
    with pytest.raises(TransactionError):
        async with transaction(session):
            await query.where(name="Ann").update(age=1)
            await query.where(name="Cyd").delete()
            raise ValueError
    assert await stored_values(session, Hero, "age") == [40, 30, None]
    with pytest.raises(ConstraintViolationError):
        await query.where(age__gt=1).update(name="same")
    with pytest.raises(TransactionError):
        async with transaction(session):
            with pytest.raises(ConstraintViolationError):
                await query.where(age__gt=1).update(name="same")
    assert await query.count() == 3


async def test_a_filter_may_lead_back_to_the_table(session: AsyncSession):
    """MySQL takes that only in a roundabout way; composite keys do it too."""
    root = Folder(name="root")
    session.add_all([root, Folder(name="a", parent=root), Folder(name="b", parent=root)])
    session.add_all([Seat(row="a", number=1), Seat(row="a", number=2), Seat(row="b", number=1)])
    await session.commit()
    query = AsyncQueryBuilder(session, Folder)
    assert await query.where(parent__name="root").update(name="child") == 2
    assert await query.exclude(children__name="child").delete() == 2
    assert await stored_values(session, Folder, "name") == ["root"]
    seats = AsyncQueryBuilder(session, Seat)
    assert await seats.where(func.length(Seat.row) == 1, number=1).update(guest="x") == 2
    assert await seats.any_of({"guest": "x"}, Seat.number > 5).delete() == 2


# --- delete --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_delete_removes_all_rows_that_match(session: AsyncSession, engine: AsyncEngine):
    """Links of many-to-many relationships go with them; objects leave the session."""
    ann, _, cyd = await AsyncQueryBuilder(session, Hero).all()
    assert await AsyncQueryBuilder(session, Hero).where(team__name="Owls").delete() == 2
    assert (object_session(ann) is None, object_session(cyd) is None) == (True, False)
    assert await stored_values(session, Hero, "name") == ["Cyd"]
    session.expunge_all()
    await AsyncQueryBuilder(session, Tag).count()
    await session.rollback()
    with recorded(engine) as words:
        assert await AsyncQueryBuilder(session, Team).delete(everything=True) == 1
    assert words == ["DELETE", "COMMIT"]


@pytest.mark.usefixtures("heroes")
async def test_what_refers_to_a_row_keeps_it(session: AsyncSession):
    """The database refuses, and nothing is deleted."""
    with pytest.raises(ConstraintViolationError) as caught:
        await AsyncQueryBuilder(session, Team).where(name="Owls").delete()
    assert caught.value.kind == "foreign_key"
    assert await stored_values(session, Team, "name") == ["Owls"]


async def test_soft_delete_is_what_the_mixin_says(session: AsyncSession):
    """Rows are marked once; removing them, or those in the bin, has to be said."""
    session.add_all([Player(name=name, club=Club(name=f"{name}'s")) for name in "abcd"])
    await session.commit()
    players = AsyncQueryBuilder(session, Player)
    with acting_as("alice"):
        assert await players.where(name="a").delete() == 1
    assert await players.where(name="b").delete(deleted_by="bob") == 1
    assert await players.with_deleted().where(name__in=["a", "b", "c"]).delete() == 1
    assert await players.scalars("name") == ["d"]
    assert await stored_values(session, Player, "deleted_by") == ["alice", "bob", None, None]
    assert await players.where(name="a").update(name="z") == 0
    assert await players.only_deleted().where(name="a").update(name="z") == 1
    with pytest.raises(ValidationError, match=r"delete\(soft=False\) removes them"):
        await players.only_deleted().where(name="z").delete()
    assert await players.only_deleted().where(name="z").delete(soft=False) == 1
    assert await players.delete(soft=False, everything=True) == 1
    assert await stored_values(session, Player, "name") == ["b", "c"]


async def test_deleted_related_rows_do_not_count(session: AsyncSession):
    """Neither in filters nor in expressions, unless they are asked for."""
    gone = Club(name="gone")
    gone.soft_delete()
    session.add_all([Player(name="a", club=gone), Player(name="b", club=Club(name="here"))])
    await session.commit()
    players = AsyncQueryBuilder(session, Player)
    assert await players.where(club__is_null=False).update(name="x") == 1
    assert await players.where(Player.club.has()).update(name="y") == 1
    assert await players.with_deleted().where(Player.club.has()).update(name="z") == 2


async def test_no_hooks_are_run(session: AsyncSession):
    """The statements reach the rows without reading them."""
    session.add_all([Badge(label="a")])
    await session.commit()

    class Refuse:
        def before_update(self, *_arguments: Any) -> None:
            raise AssertionError

        before_delete = before_update

    with registered_hook(Badge, Refuse()):
        assert await AsyncQueryBuilder(session, Badge).where(label="a").update(label="b") == 1
        assert await AsyncQueryBuilder(session, Badge).where(label="b").delete() == 1


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("heroes")
async def test_mistakes_write_nothing(session: AsyncSession, engine: AsyncEngine):
    """All rows have to be asked for, and values have to fit."""
    query = AsyncQueryBuilder(session, Hero)
    some = query.where(name="Ann")
    await session.rollback()
    with recorded(engine) as words:
        for run, message in (
            (lambda: query.update(age=1), r"update\(everything=True\)"),
            (lambda: query.where().order_by("age").delete(), r"delete\(everything=True\)"),
            (lambda: some.limit(1).delete(), "takes no limit"),
            (lambda: some.offset(1).update(age=1), "takes no limit"),
            (some.update, "needs values"),
            (lambda: some.update(age="old"), "a 32-bit integer"),
            (lambda: some.update(id=3), "id cannot be"),
            (lambda: some.update(id=Hero.id + 1), "id cannot be"),
            (lambda: some.update(age=Team.id), "Hero.age is read from team, another table"),
            (lambda: some.delete(soft=True), "SoftDeleteMixin"),
            (lambda: some.delete(deleted_by="x"), "deleted_by is recorded by soft deletions"),
        ):
            with pytest.raises(ValidationError, match=message):
                await run()
        for values in ({"agee": 1}, {"agee": Hero.age}, {"team": None}):
            with pytest.raises(UnknownFieldError):
                await some.update(**values)
    assert words == []
