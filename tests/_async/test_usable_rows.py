"""Rows are readable after what came later."""

from __future__ import annotations

import pytest

from sqlmodel_crud_utils.aio import (
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import SQLModelCRUDError
from tests._async.rows import given
from tests._runtime_async import AsyncSession, run_sync
from tests.bulk_models import Truck, Vehicle
from tests.models import Hero, Setting, Team


def hero(name: str = "s3cret") -> Hero:
    """Return a hero that is not written yet."""
    return Hero(name=name, secret_name="s3cret")


async def test_rows_of_a_block_can_be_read_after_it(session: AsyncSession) -> None:
    """Read or written, with generated values, and with the program's own changes."""
    await write_row(hero("a"), session)
    async with transaction(session):
        _, read = await get_row("a", session, Hero, pk_field="name")
        _, listed = await get_rows(session, Hero)
        _, setting = await write_row(Setting(key="k"), session)
        many = [hero("b"), hero("c")]
        await insert_data_rows(many, session)
        team, _ = await get_one_or_create(session, Team, name="t")
        assert read is not None
        read.age = 5
    assert (read.age, listed[0].name) == (5, "a")
    assert setting is not None
    assert (setting.state, setting.priority) == ("new", 5)
    assert [row.name for row in many] == ["b", "c"]
    assert team.city is None


async def test_a_write_that_begins_with_a_failing_search_leaves_the_session_usable(
    session: AsyncSession,
) -> None:
    """Pending changes are flushed before the search, and may be refused."""
    _, row = await write_row(hero(), session, raise_on_error=True)
    key = row.id
    session.add(hero())
    with pytest.raises(SQLModelCRUDError):
        await update_row(key, {"age": 5}, session, Hero)
    assert (await update_row(key, {"age": 6}, session, Hero))[0]
    session.add(hero())
    with pytest.raises(SQLModelCRUDError):
        await get_one_or_create(session, Team, name="t")
    assert (await get_one_or_create(session, Team, name="t"))[1] is False


async def test_columns_of_a_subclass_can_be_loaded(session: AsyncSession) -> None:
    """Also where the rows of some other model are those of tenants."""
    await given(session, Truck(id=1, name="a", load=7))
    _, truck = await get_row(1, session, Vehicle)
    assert isinstance(truck, Truck)
    assert await run_sync(session, lambda: truck.load) == 7
    _, truck = await get_row(1, session, Truck)
    assert truck is not None
    session.expire(truck, ["load"])
    assert await run_sync(session, lambda: truck.load) == 7
