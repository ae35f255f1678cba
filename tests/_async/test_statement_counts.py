"""No more statements than SQLAlchemy written by hand would execute."""

from __future__ import annotations

from sqlmodel_crud_utils._async.get_or_create import get_one_or_create
from sqlmodel_crud_utils._async.inserts import insert_data_rows
from sqlmodel_crud_utils._async.reads import get_row, get_rows, get_rows_within_id_list
from sqlmodel_crud_utils._async.transactions import transaction
from sqlmodel_crud_utils._async.writes import delete_row, update_row, write_row
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.models import Currency, Setting, Team
from tests.recording import recorded


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


async def test_many_rows_are_one_insert(session: AsyncSession, engine: AsyncEngine) -> None:
    """However many there are."""
    with recorded(engine) as words:
        _, rows = await insert_data_rows([euro(f"{n}") for n in range(100)], session)
        assert [row.name for row in rows] == ["Euro"] * 100
    assert words == ["INSERT", "COMMIT"]


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
    """Found: one SELECT. Created: a savepoint around the INSERT is what makes it safe."""
    with recorded(engine) as words:
        await get_one_or_create(session, Currency, {"name": "Euro"}, code="EUR")
        created = [word for word in words if word != "BEGIN"]
        words.clear()
        await get_one_or_create(session, Currency, code="EUR")
        assert words == ["SELECT"]
    assert created == ["SELECT", "SAVEPOINT", "INSERT", "RELEASE", "COMMIT"]


async def test_a_block_commits_once(session: AsyncSession, engine: AsyncEngine) -> None:
    """No savepoint per operation."""
    with recorded(engine) as words:
        async with transaction(session):
            await write_row(euro(), session)
            _, row = await update_row("EUR", {"numeric": 978}, session, Currency)
        assert row is not None
        assert row.numeric == 978
    assert [word for word in words if word != "BEGIN"] == ["INSERT", "SELECT", "UPDATE", "COMMIT"]
