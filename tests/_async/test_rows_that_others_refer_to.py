"""Deleting rows that others refer to, through the database and through the unit of work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    delete_row,
    delete_rows_within_id_list,
    get_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConstraintViolationError, TransactionError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.rows import given, stored_rows
from tests._runtime_async import AsyncSession
from tests.crud_models import Dock, Warehouse
from tests.models_mixins import Badge, Bough, Club, Player, PlayerBadge, Trunk, Twig
from tests.reference_models import Box, Line, Purchase, Rack, Ware

Key = Any
# A model, the key of a row, and the rows: the columns that refer to it, and their table.
CASES: dict[str, tuple[type[Any], Key, Callable[[], list[Any]], tuple[str, ...], str]] = {
    "the database alone": (
        Warehouse,
        "W1",
        lambda: [Warehouse(code="W1"), Dock(warehouse_code="W1")],
        ("warehouse_code",),
        "dock",
    ),
    "the key of an association": (
        Ware,
        1,
        lambda: [Line(ware=Ware(id=1), purchase=Purchase(id=1))],
        ("ware_id",),
        "line",
    ),
    "the key of an association of rows with versions": (
        Purchase,
        1,
        lambda: [Line(ware=Ware(id=1), purchase=Purchase(id=1))],
        ("purchase_id",),
        "line",
    ),
    "a column that may not be null": (
        Rack,
        ("A", 1),
        lambda: [Box(rack=Rack(room="A", number=1))],
        ("rack_room", "rack_number"),
        "box",
    ),
}


@pytest.fixture(params=CASES)
async def case(request: pytest.FixtureRequest, session: AsyncSession) -> Any:
    """A row to which another one refers."""
    model, key, rows, columns, table = CASES[request.param]
    for row in rows():
        await given(session, row)
    return model, key, columns, table


class Quiet:
    """A hook, so that rows of a list are deleted one by one."""

    def after_delete(self, instance: Any) -> None:
        """Do nothing."""


async def by_key(session: AsyncSession, model: type[Any], key: Key) -> Any:
    """Delete with `delete_row`."""
    return await delete_row(key, session, model, raise_on_error=True)


async def by_list(session: AsyncSession, model: type[Any], key: Key) -> Any:
    """Delete with one statement."""
    return await delete_rows_within_id_list([key], session, model)


async def by_list_with_hooks(session: AsyncSession, model: type[Any], key: Key) -> Any:
    """Delete row by row."""
    with registered_hook(model, Quiet()):
        return await delete_rows_within_id_list([key], session, model)


async def by_query(session: AsyncSession, model: type[Any], _key: Key) -> Any:
    """Delete with the query builder."""
    return await QueryBuilder(session, model).delete(everything=True)


@pytest.mark.parametrize("way", [by_key, by_list, by_list_with_hooks, by_query])
async def test_every_way_of_deletion_names_the_foreign_key(
    session: AsyncSession, case: Any, way: Callable[..., Any]
) -> None:
    """The kind, the columns and the text are the same, and the session can be used at once."""
    model, key, columns, table = case
    with pytest.raises(ConstraintViolationError) as refused:
        await way(session, model, key)
    assert refused.value.kind == "foreign_key"
    assert "other rows still refer to this one" in str(refused.value)
    assert refused.value.field is None
    if way is by_key:
        assert refused.value.__cause__ is not None
    if refused.value.columns:  # SQLite does not report them
        assert refused.value.columns == columns
        assert f"through {', '.join(columns)} of {table}" in str(refused.value)
    assert (await get_row(key, session, model))[0]


async def test_it_follows_raise_on_error(session: AsyncSession, case: Any) -> None:
    """It returns False outside a block, and with the flag inside one, which continues."""
    model, key, _, table = case
    assert not await delete_row(key, session, model)
    async with transaction(session):
        assert not await delete_row(key, session, model, raise_on_error=False)
        await write_row(Ware(id=7), session)
    assert (await get_row(7, session, Ware))[0]
    assert (await get_row(key, session, model))[0]
    with pytest.raises(TransactionError) as failed:
        async with transaction(session):
            await write_row(Ware(id=8), session)
            await delete_row(key, session, model)
    assert isinstance(failed.value.original_error, ConstraintViolationError)
    assert failed.value.original_error.kind == "foreign_key"
    assert not (await get_row(8, session, Ware))[0]
    assert table


async def test_a_block_is_doomed_by_it(session: AsyncSession, case: Any) -> None:
    """If the caller catches the error and continues, the exit raises it again."""
    model, key, _, _ = case
    with pytest.raises(TransactionError):
        async with transaction(session):
            await write_row(Ware(id=8), session)
            with pytest.raises(ConstraintViolationError):
                await delete_row(key, session, model)
    assert not (await get_row(8, session, Ware))[0]


async def test_a_row_that_is_taken_out_of_a_collection(session: AsyncSession) -> None:
    """It would be without its key: a value is missing, and nothing was to be deleted."""
    await given(session, Line(ware=Ware(id=1), purchase=Purchase(id=1)))
    await given(session, Box(rack=Rack(room="A", number=1)))
    for model, key, name, column in (
        (Ware, 1, "lines", "ware_id"),
        (Rack, ("A", 1), "boxes", "rack_room"),
    ):
        with pytest.raises(ConstraintViolationError) as refused:
            await update_row(key, {name: []}, session, model, raise_on_error=True)
        assert refused.value.kind == "not_null"
        assert column in refused.value.columns
        assert not (await update_row(key, {name: []}, session, model))[0]
    assert len(await stored_rows(session, Line)) == 1


async def test_what_was_pending_keeps_its_own_error(session: AsyncSession) -> None:
    """A missing value in another row is not reported as a reference."""
    await given(session, Ware(id=1), Box(id=1, rack=Rack(room="A", number=1)))
    _, box = await get_row(1, session, Box)
    box.rack_room = None
    with pytest.raises(ConstraintViolationError) as refused:
        await delete_row(1, session, Ware, raise_on_error=True)
    assert refused.value.kind == "not_null"


class TestHiddenReferences:
    """A soft-deleted row refers to a row like any other, whatever was read before."""

    @pytest.mark.parametrize("many", [False, True])
    async def test_references_are_cleared(self, session: AsyncSession, many: bool) -> None:
        """Those that a read has left out of the relationship, too."""
        await given(
            session,
            Club(id=1, name="Reds"),
            Player(id=1, name="Ann", club_id=1),
            Player(id=2, name="Bob", club_id=1, is_deleted=True),
        )
        club = await QueryBuilder(session, Club).selectin("players").one()
        assert [player.name for player in club.players] == ["Ann"]
        with registered_hook(Club, _Watching()):
            if many:
                deleting = delete_rows_within_id_list([1], session, Club, soft=False)
                assert await deleting == (True, 1)
            else:
                assert await delete_row(1, session, Club, soft=False, raise_on_error=True)
        assert [player.club_id for player in await stored_rows(session, Player)] == [None, None]

    async def test_links_are_removed(self, session: AsyncSession) -> None:
        """To soft-deleted rows, and soft-deleted links."""
        await given(
            session,
            *(Badge(id=n, label=f"b{n}", is_deleted=n == 2) for n in (1, 2, 3)),
            Player(id=1, name="Ann"),
        )
        links = [PlayerBadge(player_id=1, badge_id=n, is_deleted=n == 3) for n in (1, 2, 3)]
        await given(session, *links)
        player = await QueryBuilder(session, Player).selectin("badges").one()
        assert [badge.id for badge in player.badges] == [1]
        async with transaction(session):
            assert await delete_row(1, session, Player, soft=False)
        assert await stored_rows(session, PlayerBadge) == []
        assert len(await stored_rows(session, Badge)) == 3

    @pytest.mark.parametrize("paths", [(), ("boughs",), ("boughs__twigs",)])
    async def test_deletions_reach_hidden_rows(
        self, session: AsyncSession, paths: tuple[str, ...]
    ) -> None:
        """On each level, with rows that the session already holds."""
        await given(
            session,
            Trunk(id=1),
            *(Bough(id=n, trunk_id=1, is_deleted=n == 1) for n in (1, 2)),
            *(Twig(id=n, bough_id=(n + 1) // 2, is_deleted=n % 2 == 1) for n in (1, 2, 3, 4)),
        )
        trunk = await QueryBuilder(session, Trunk).selectin(*paths).one()
        boughs = await QueryBuilder(session, Bough).selectin("twigs").all()
        assert [twig.id for bough in boughs for twig in bough.twigs] == [4]
        assert await delete_row(trunk.id, session, Trunk, soft=False, raise_on_error=True)
        for model in (Trunk, Bough, Twig):
            assert await stored_rows(session, model) == []


class _Watching:
    """A hook that lets rows be deleted one by one."""

    def after_delete(self, instance: Any) -> None:
        pass
