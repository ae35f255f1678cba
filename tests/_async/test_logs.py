"""The log of a failure: one line at the caller's place, at the right level."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_upsert_mappings,
    create_pooled_engine,
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import SQLModelCRUDError, TransactionError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.rows import given
from tests._runtime_async import AsyncSession
from tests.crud_models import Dock, Warehouse
from tests.models import Hero, Team
from tests.models_mixins import Counter, Letter, Membership
from tests.recording import logged

# Beyond what the database generates meanwhile.
KEY = 1_000_000
Lines = list[tuple[str, str, str]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The log records from debug level up."""
    with logged("DEBUG") as found:
        yield found


def hero(name: str = "s3cret", **values: Any) -> Hero:
    """Return a hero that is not written yet."""
    return Hero(name=name, secret_name="s3cret", **values)


def source_at(place: str) -> str:
    """Return the line of source code at a place."""
    name, _, number = place.rpartition(":")
    assert name == __file__
    return linecache.getline(name, int(number))


class Quiet:
    """A hook that does nothing."""

    def after_create(self, instance: Any) -> None:
        """Do nothing."""


class TestAFailureThatIsReturned:
    """It is one warning: nothing else says why."""

    async def test_a_constraint(self, session: AsyncSession, lines: Lines) -> None:
        """The line names the operation, the model, the kind and the columns, and no row data."""
        await given(session, hero())
        await write_row(hero(), session)
        [(level, place, line)] = lines
        assert level == "WARNING"
        assert place.startswith(__file__)
        assert line.startswith("write_row failed for Hero: ConstraintViolationError, unique con")
        assert line.endswith(" on name")
        assert "s3cret" not in line

    async def test_the_place_is_that_of_the_call(self, session: AsyncSession, lines: Lines) -> None:
        """Of each function, with hooks and in a block too."""
        await given(session, hero(), hero("other", id=KEY), Warehouse(code="W1"), Counter(id=1))
        await given(session, Dock(warehouse_code="W1"), Membership(id=2, email="a", nick="b"))
        await given(session, Membership(id=1, email="a", nick="a", is_deleted=True))
        await write_row(hero(), session)
        await insert_data_rows([hero(), hero("n")], session)
        await update_row(KEY, {"name": "s3cret"}, session, Hero)
        await delete_row("W1", session, Warehouse)
        await restore_row(1, session, Membership)
        with registered_hook(Hero, Quiet()):
            await write_row(hero(), session)
            await insert_data_rows([hero(), hero("m")], session)
        async with transaction(session):
            await write_row(hero(), session, raise_on_error=False)
        warnings = [line for line in lines if line[0] == "WARNING"]
        assert len(warnings) == 8
        for _, place, line in warnings:
            assert f"{line.partition(' failed')[0]}(" in source_at(place)
        assert len({place for _, place, _ in warnings}) == 8
        assert all("s3cret" not in line for _, _, line in lines)

    async def test_many_rows(self, session: AsyncSession, lines: Lines) -> None:
        """One line says how many failed, and why the first did."""
        await given(session, hero())
        await insert_data_rows([hero("a"), hero(), hero()], session)
        [line] = [text for level, _, text in lines if level == "WARNING"]
        assert line.startswith("insert_data_rows failed for Hero: 2 of 3 rows, the first: Constr")

    async def test_a_conflict(
        self, session: AsyncSession, session_factory: Callable[[], AsyncSession], lines: Lines
    ) -> None:
        """The line names it, without the key."""
        await given(session, Counter(id=1))
        await update_row(1, {"value": 5}, session_factory(), Counter)
        await update_row(1, {"value": 6}, session, Counter, expected_version=1)
        assert [(level, line) for level, _, line in lines] == [
            ("WARNING", "update_row failed for Counter: ConflictError")
        ]

    async def test_a_database_that_cannot_be_reached(self, lines: Lines) -> None:
        """The classes of the causes are named."""
        nowhere = create_pooled_engine("postgresql://app:s3cret@127.0.0.1:1/heroes")
        async with AsyncSession(nowhere) as session:
            assert await write_row(hero(), session) == (False, None)
        [(level, place, line)] = lines
        assert (level, place.partition(":")[0]) == ("WARNING", __file__)
        assert line.startswith("write_row failed for Hero: DatabaseConnectionError, caused by ")
        await nowhere.dispose()


class TestAFailureThatRaises:
    """The caller handles the exception, so the log only has a debug line."""

    async def test_every_function(self, session: AsyncSession, lines: Lines) -> None:
        """One line each."""
        await given(session, hero(), hero("other", id=KEY), Warehouse(code="W1"), Counter(id=1))
        await given(session, Dock(warehouse_code="W1"))
        calls: list[Callable[[], Any]] = [
            lambda: write_row(hero(), session, raise_on_error=True),
            lambda: insert_data_rows([hero("a"), hero()], session, raise_on_error=True),
            lambda: update_row(KEY, {"name": "s3cret"}, session, Hero, raise_on_error=True),
            lambda: update_row(1, {}, session, Counter, expected_version=9, raise_on_error=True),
            lambda: delete_row("W1", session, Warehouse, raise_on_error=True),
            lambda: get_one_or_create(session, Hero, {"name": "s3cret"}, secret_name="x"),
            lambda: bulk_insert_rows([hero()], session, Hero),
            lambda: bulk_upsert_mappings(
                [{"id": 9, "name": "x", "secret_name": "s3cret", "team_id": 99}],
                session,
                Hero,
                ["id"],
                raise_on_error=True,
            ),
            lambda: QueryBuilder(session, Hero).where(id=KEY).update(name="s3cret"),
        ]
        for call in calls:
            with pytest.raises(SQLModelCRUDError):
                await call()
        failed = [(level, line.partition(" failed")[0]) for level, _, line in lines]
        assert [each for each in failed if " " not in each[1]] == [
            ("DEBUG", "write_row"),
            ("DEBUG", "insert_data_rows"),
            ("DEBUG", "update_row"),
            ("DEBUG", "update_row"),
            ("DEBUG", "delete_row"),
            ("DEBUG", "get_one_or_create"),
            ("DEBUG", "bulk_insert_rows"),
            ("DEBUG", "bulk_upsert_mappings"),
            ("DEBUG", "update"),
        ]
        assert all("s3cret" not in line for _, _, line in lines)

    async def test_in_a_block(self, session: AsyncSession, lines: Lines) -> None:
        """Refusals by a function, and failures at the exit of the block."""
        await given(session, hero())
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero(), session)
        with pytest.raises(TransactionError):
            async with transaction(session), transaction(session):
                session.add(hero())
        assert {level for level, _, _ in lines} == {"DEBUG"}
        names = [line.partition(":")[0] for _, _, line in lines]
        assert names == ["write_row failed for Hero", "commit failed for the session"]

    async def test_what_a_caller_catches(self, session: AsyncSession) -> None:
        """Nothing is above debug level."""
        await given(session, hero())
        with logged("INFO") as lines, suppress(SQLModelCRUDError):
            await write_row(hero(), session, raise_on_error=True)
        assert lines == []


async def test_what_did_not_fail_is_not_logged(session: AsyncSession, lines: Lines) -> None:
    """A missing row is a result, not a failure."""
    await get_row(1, session, Hero)
    await get_rows(session, Hero, name="x")
    await update_row(1, {}, session, Hero)
    await delete_row(1, session, Hero)
    await soft_delete_row(1, session, Letter)
    await restore_row(1, session, Letter)
    await get_one_or_create(session, Team, name="x")
    assert lines == []
