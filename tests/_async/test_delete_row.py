"""Deleting one row."""

from __future__ import annotations

from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    MultipleRecordsError,
    RecordNotFoundError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._runtime_async import AsyncSession
from tests.crud_models import Cabinet, Dock, Drawer, Product, Warehouse
from tests.models import Document, Hero, Seat, Tag, Team


async def test_a_row_is_deleted(session: AsyncSession, session_factory: Any) -> None:
    """The answer is a bool; others no longer see the row."""
    hero = Hero(name="Rusty", secret_name="Tommy")
    await write_row(hero, session)
    key = hero.id
    assert await delete_row(str(key), session, Hero) is True
    assert hero not in session
    assert await get_row(key, session_factory(), Hero) == (False, None)
    assert await delete_row(key, session, Hero) is False


async def test_a_missing_row_raises_on_request_and_in_a_block(session: AsyncSession) -> None:
    """Outside a block it is False; in a block False has to be asked for."""
    assert await delete_row(7, session, Hero, raise_on_error=False) is False
    with pytest.raises(RecordNotFoundError, match="Hero with id=7 not found"):
        await delete_row(7, session, Hero, raise_on_error=True)
    with pytest.raises(TransactionError) as raised:
        async with transaction(session):
            await delete_row(7, session, Hero)
    assert isinstance(raised.value.original_error, RecordNotFoundError)
    async with transaction(session):
        assert await delete_row(7, session, Hero, raise_on_error=False) is False


async def test_keys_of_all_sorts(session: AsyncSession) -> None:
    """A tuple, a UUID as text, another column; beyond the range and None are not there."""
    document = Document(title="Deed")
    key = str(document.id)
    await insert_data_rows([Seat(row="A", number=1), document, Product(sku="A-1")], session)
    assert await delete_row(("A", "1"), session, Seat)
    assert await delete_row(key, session, Document)
    assert await delete_row("A-1", session, Product, "sku")
    assert not await delete_row(2**40, session, Hero)
    assert not await delete_row(None, session, Hero)
    with pytest.raises(UnknownFieldError):
        await delete_row(1, session, Hero, "nope")
    with pytest.raises(ValidationError):
        await delete_row("one", session, Hero)


async def test_several_rows_for_one_key_raise(session: AsyncSession) -> None:
    """None of them is deleted."""
    await insert_data_rows([Hero(name=n, secret_name="?", age=1) for n in "ab"], session)
    with pytest.raises(MultipleRecordsError):
        await delete_row(1, session, Hero, "age", raise_on_error=False)
    assert len((await get_rows(session, Hero))[1]) == 2


async def warehouse_with_dock(session: AsyncSession) -> None:
    """Write a warehouse that another row refers to."""
    await write_row(Warehouse(code="W1"), session, raise_on_error=True)
    await write_row(Dock(warehouse_code="W1"), session, raise_on_error=True)


async def test_a_row_that_others_refer_to_is_refused(session: AsyncSession) -> None:
    """The row stays, it can be read, and the session can be used."""
    await warehouse_with_dock(session)
    assert await delete_row("W1", session, Warehouse) is False
    found, warehouse = await get_row("W1", session, Warehouse)
    assert found
    assert warehouse in session
    with pytest.raises(ConstraintViolationError) as raised:
        await delete_row("W1", session, Warehouse, raise_on_error=True)
    assert raised.value.kind == "foreign_key"
    assert "W1" not in str(raised.value)
    assert (await write_row(Team(name="after"), session))[0]


async def test_a_refusal_undoes_the_block_or_itself(session: AsyncSession) -> None:
    """As the flag says."""
    await warehouse_with_dock(session)
    with pytest.raises(TransactionError):
        async with transaction(session):
            await write_row(Team(name="Gone"), session)
            await delete_row("W1", session, Warehouse)
    async with transaction(session):
        await write_row(Team(name="Kept"), session)
        assert not await delete_row("W1", session, Warehouse, raise_on_error=False)
        assert (await get_row("W1", session, Warehouse))[0]
    _, teams = await get_rows(session, Team)
    assert [team.name for team in teams] == ["Kept"]


async def test_relationships_are_taken_care_of(session: AsyncSession) -> None:
    """References of a nullable column are cleared, links go; nothing has to be loaded before."""
    team = Team(name="Preventers")
    hero = Hero(name="Rusty", secret_name="?", team=team, tags=[Tag(label="old")])
    await write_row(hero, session)
    key, team_key = hero.id, hero.team_id
    session.expunge_all()
    assert await delete_row(team_key, session, Team, raise_on_error=True)
    _, hero = await get_row(key, session, Hero, raise_on_error=True)
    assert hero.team_id is None
    session.expunge_all()
    assert await delete_row(key, session, Hero, raise_on_error=True)
    assert (await get_rows(session, Tag))[0]


@pytest.mark.parametrize("loaded", [True, False])
async def test_cascades_take_rows_along(session: AsyncSession, loaded: bool) -> None:
    """Rows that belong to the row are deleted with it."""
    _, cabinet = await write_row(Cabinet(label="Oak", drawers=[Drawer(name="top")]), session)
    key = cabinet.id
    if not loaded:
        session.expunge_all()
    assert await delete_row(key, session, Cabinet, raise_on_error=True)
    assert await get_rows(session, Drawer) == (False, [])


async def test_soft_deletion_needs_the_mixin(session: AsyncSession) -> None:
    """`soft=True` and `deleted_by` are mistakes on other models; False says what is done anyway."""
    hero = Hero(name="Rusty", secret_name="Tommy")
    await write_row(hero, session)
    key = hero.id
    with pytest.raises(ValidationError, match="SoftDeleteMixin"):
        await delete_row(key, session, Hero, soft=True)
    with pytest.raises(ValidationError, match="deleted_by is recorded by soft deletions only"):
        await delete_row(key, session, Hero, deleted_by="ann")
    assert await delete_row(key, session, Hero, soft=False)
