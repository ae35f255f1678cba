"""No more statements than handwritten SQLAlchemy would execute."""

from __future__ import annotations

import pytest

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.models import Currency, Hero, Setting, Team
from tests.models_mixins import Club
from tests.recording import recorded

pytestmark = pytest.mark.shortcuts


def is_mysql(engine: AsyncEngine) -> bool:
    """Return whether rows by their key take a SELECT first."""
    return engine.dialect.name in {"mysql", "mariadb"}


def euro(code: str = "EUR") -> Currency:
    """Return a currency that is not written yet."""
    return Currency(code=code, name="Euro")


async def test_reads_are_one_select(session: AsyncSession, engine: AsyncEngine) -> None:
    """Also where related rows are filtered; each relationship that is loaded is one more."""
    await write_row(euro(), session)
    with recorded(engine) as words:
        _, row = await get_row("EUR", session, Currency)
        assert row is not None
        await get_rows(session, Currency, name__like="u", sort_field="name")
        await get_rows_within_id_list(["EUR", "USD"], session, Currency)
        await get_rows(session, Team, heroes__age__gt=5)
        assert row.name == "Euro"
    assert words == ["SELECT"] * 4
    await write_row(Team(name="t"), session)
    with recorded(engine) as words:
        await get_rows(session, Team, True, ["heroes"])
    assert words == ["SELECT"] * 2


async def test_writes_outside_a_block(session: AsyncSession, engine: AsyncEngine) -> None:
    """The row is readable after its commit without another SELECT."""
    with recorded(engine) as words:
        _, row = await write_row(euro(), session)
        assert row is not None
        assert row.name == "Euro"
        assert words == ["INSERT", "COMMIT"]
        words.clear()
        _, row = await update_row("EUR", {"numeric": 978}, session, Currency)
        assert row is not None
        assert row.numeric == 978
        assert words == ["SELECT", "UPDATE", "COMMIT"]
        words.clear()
        await delete_row("EUR", session, Currency)
        assert words == ["SELECT", "DELETE", "COMMIT"]


async def test_a_row_comes_after_the_new_one_that_it_hangs_on(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """Its foreign key is in the INSERT, not in an UPDATE after it: the column may be NOT NULL."""
    with recorded(engine) as words:
        _, hero = await write_row(Hero(name="a", secret_name="?", team=Team(name="t")), session)
    assert hero is not None
    assert hero.team_id is not None
    assert words == ["INSERT", "INSERT", "COMMIT"]


async def test_many_rows_are_one_insert(session: AsyncSession, engine: AsyncEngine) -> None:
    """From a hundred on that one may be a COPY, with a savepoint around it."""
    with recorded(engine) as words:
        _, rows = await insert_data_rows([euro(f"{n}") for n in range(99)], session)
        assert [row.name for row in rows] == ["Euro"] * 99
    assert words == ["INSERT", "COMMIT"]
    with recorded(engine) as words:
        await insert_data_rows([euro(f"{n}") for n in range(100, 200)], session)
    assert words.count("INSERT") == (session.get_bind().dialect.name != "postgresql")


async def test_server_defaults_come_with_the_insert(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """RETURNING brings them, where the database has it."""
    with recorded(engine) as words:
        _, setting = await write_row(Setting(key="a"), session)
        assert setting is not None
        assert setting.state == "new"
    assert words == ["INSERT", "COMMIT"]


async def test_get_one_or_create(session: AsyncSession, engine: AsyncEngine) -> None:
    """Found: one SELECT. Created: what makes it safe is ON CONFLICT, or else a savepoint."""
    with recorded(engine) as words:
        await get_one_or_create(session, Currency, {"name": "Euro"}, code="EUR")
        created = [word for word in words if word != "BEGIN"]
        words.clear()
        await get_one_or_create(session, Currency, code="EUR")
        assert words == ["SELECT"]
    insert = ["SAVEPOINT", "INSERT", "RELEASE"] if is_mysql(engine) else ["INSERT"]
    assert created == ["SELECT", *insert, "COMMIT"]


async def test_a_block_commits_once(session: AsyncSession, engine: AsyncEngine) -> None:
    """No savepoint per operation."""
    with recorded(engine) as words:
        async with transaction(session):
            await write_row(euro(), session)
            _, row = await update_row("EUR", {"numeric": 978}, session, Currency)
        assert row is not None
        assert row.numeric == 978
    update = ["SELECT", "UPDATE"] if is_mysql(engine) else ["UPDATE"]
    assert [word for word in words if word != "BEGIN"] == ["INSERT", *update, "COMMIT"]


async def test_by_key_is_one_statement(engine: AsyncEngine, session: AsyncSession) -> None:
    """A row that the session doesn't hold is updated, marked or deleted without a SELECT."""
    search = ["SELECT"] if is_mysql(engine) else []
    await write_row(euro(), session)
    await write_row(Club(id=1, name="c"), session)
    async with AsyncSession(engine) as fresh:
        with recorded(engine) as words:
            _, row = await update_row("EUR", {"numeric": 978}, fresh, Currency)
        assert words == [*search, "UPDATE", "COMMIT"]
        assert row is not None
        assert (row.name, row.numeric) == ("Euro", 978)
    async with AsyncSession(engine) as fresh:
        with recorded(engine) as words:
            assert await delete_row("EUR", fresh, Currency)
            assert words == [*search, "DELETE", "COMMIT"]
            words.clear()
            assert await delete_row(1, fresh, Club)
        assert words[-2:] == ["UPDATE", "COMMIT"]


async def test_no_such_key_is_one_statement(engine: AsyncEngine, session: AsyncSession) -> None:
    """And nothing is left that others would have to wait for."""
    with recorded(engine) as words:
        assert await update_row("EUR", {"numeric": 978}, session, Currency) == (False, None)
        assert not await delete_row("EUR", session, Currency)
    assert words == (["SELECT"] * 2 if is_mysql(engine) else ["UPDATE", "DELETE"])
    async with AsyncSession(engine) as other:
        assert await write_row(euro(), other, raise_on_error=True)
