"""Failures: one line in the log, no values in texts. Rows: readable after what came later."""

from __future__ import annotations

from contextlib import suppress

import pytest

from sqlmodel_crud_utils._core import logs
from sqlmodel_crud_utils.aio import (
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import BulkOperationError, SQLModelCRUDError, TransactionError
from tests._runtime_async import AsyncSession
from tests.crud_models import Dock, Warehouse
from tests.models import Hero, Setting, Team


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that are logged at error level."""
    written: list[str] = []
    monkeypatch.setattr(logs.get_logger(), "error", written.append)
    return written


def hero(name: str = "s3cret") -> Hero:
    """Return a hero that is not written yet."""
    return Hero(name=name, secret_name="s3cret")


async def test_a_failed_operation_is_one_line_in_the_log(
    session: AsyncSession, lines: list[str]
) -> None:
    """It tells the operation, the model and the error's class, and no row data."""
    await write_row(hero(), session)
    await write_row(Warehouse(code="W1"), session)
    await write_row(Dock(warehouse_code="W1"), session)
    _, other = await write_row(hero("other"), session, raise_on_error=True)
    key = other.id
    await write_row(hero(), session)
    await insert_data_rows([hero(), hero("new"), hero()], session)
    with pytest.raises(BulkOperationError):
        await insert_data_rows([hero(), hero()], session, raise_on_error=True)
    await update_row(key, {"name": "s3cret"}, session, Hero)
    await delete_row("W1", session, Warehouse)
    with pytest.raises(SQLModelCRUDError):
        await get_one_or_create(session, Hero, {"name": "s3cret"}, secret_name="x")
    assert [line.partition(":")[0] for line in lines] == [
        "write_row failed for Hero",
        "insert_data_rows failed for Hero",
        "insert_data_rows failed for Hero",
        "update_row failed for Hero",
        "delete_row failed for Warehouse",
        "get_one_or_create failed for Hero",
    ]
    assert all("IntegrityError" in line and "s3cret" not in line for line in lines)


async def test_a_block_that_cannot_be_written_is_one_line_in_the_log(
    session: AsyncSession, lines: list[str]
) -> None:
    """What its exit writes has no function to tell of it; a function's failure is told once."""
    for _ in range(2):
        session.add(hero())
        with suppress(TransactionError):
            async with transaction(session):
                pass
    with pytest.raises(TransactionError):
        async with transaction(session), transaction(session):
            session.add(hero())
    assert [line.partition(":")[0] for line in lines] == ["commit failed for the session"] * 2
    assert all("IntegrityError" in line and "s3cret" not in line for line in lines)
    with pytest.raises(TransactionError):
        async with transaction(session):
            await write_row(hero(), session)
    assert [line.partition(":")[0] for line in lines[2:]] == ["write_row failed for Hero"]


async def test_what_did_not_fail_is_not_logged(session: AsyncSession, lines: list[str]) -> None:
    """Not found is an answer."""
    await get_row(1, session, Hero)
    await update_row(1, {}, session, Hero)
    await delete_row(1, session, Hero)
    await get_one_or_create(session, Team, name="x")
    assert lines == []


async def test_rows_of_a_block_can_be_read_after_it(session: AsyncSession) -> None:
    """Read or written, with what the database filled in, and with what was changed by hand."""
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
    """What is pending in the session is flushed before the search, and may be refused."""
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
