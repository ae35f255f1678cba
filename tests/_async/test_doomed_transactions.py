"""A refused statement dooms its `transaction()`; `raise_on_error=False` undoes just that one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from sqlmodel_crud_utils.aio import (
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    RecordNotFoundError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._async.transacting import (
    assert_usable,
    hero,
    names,
)
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
)
from tests.crud_models import Dock, Warehouse
from tests.models import Hero


def update_age(age: int) -> Any:
    """An update of all heroes."""
    return update(Hero).values(age=age).execution_options(synchronize_session=False)


@contextmanager
def ended_transaction(session: Any) -> Iterator[None]:
    """Let the database end the whole transaction at the next refusal."""
    engine = session.get_bind()

    def end(context: Any) -> None:
        event.remove(engine, "handle_error", end)
        context.cursor.execute("ROLLBACK")

    event.listen(engine, "handle_error", end)
    yield


class TestDoomed:
    """A refusal by the database dooms the block, unless a savepoint has undone it."""

    @pytest.fixture(autouse=True)
    async def _rusty(self, session: AsyncSession) -> None:
        await write_row(hero("Rusty"), session)

    async def assert_doomed(self, engine: AsyncEngine, session: AsyncSession) -> None:
        """Nothing of the block was written, and the session works."""
        assert await names(engine) == ["Rusty"]
        await assert_usable(session, engine)

    @pytest.mark.parametrize("wrap_errors", [True, False])
    async def test_a_caught_error_of_the_library(
        self, session: AsyncSession, engine: AsyncEngine, wrap_errors: bool
    ) -> None:
        """The exit raises, and says what to do instead."""
        with pytest.raises(TransactionError, match="raise_on_error=False") as caught:
            async with transaction(session, wrap_errors=wrap_errors):
                await write_row(hero("Nova"), session)
                with pytest.raises(ConstraintViolationError):
                    await write_row(hero("Rusty"), session)
        assert isinstance(caught.value.original_error, ConstraintViolationError)
        assert caught.value.original_error.kind == "unique"
        assert caught.value.__cause__ is caught.value.original_error
        assert caught.value.operation == "commit"
        await self.assert_doomed(engine, session)

    async def test_a_caught_error_of_a_statement_by_hand(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The library notices it through an event of the engine."""
        with pytest.raises(TransactionError, match="refused a statement"):
            async with transaction(session) as tx:
                await write_row(hero("Nova"), session)
                with pytest.raises(DBAPIError):
                    await tx.exec(text("SELECT no_such_column FROM hero"))
        await self.assert_doomed(engine, session)

    async def test_a_caught_error_of_a_flush_by_hand(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The exit names the refusal, not what SQLAlchemy says afterwards."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session) as tx:
                tx.add(hero("Rusty"))
                with pytest.raises(IntegrityError):
                    await tx.flush()
        assert isinstance(caught.value.original_error, ConstraintViolationError)
        await self.assert_doomed(engine, session)

    async def test_caught_errors_of_the_other_writes(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Each of them raises in a block, and dooms it."""
        await write_row(Warehouse(code="north"), session)
        await write_row(Dock(warehouse_code="north"), session)
        await write_row(hero("Nova"), session)

        async def update() -> None:
            await update_row("Nova", {"name": "Rusty"}, session, Hero, "name")

        async def delete() -> None:
            await delete_row("north", session, Warehouse)

        async def insert() -> None:
            await insert_data_rows([hero("Sid"), hero("Rusty")], session)

        async def upsert() -> None:
            await bulk_upsert_mappings([{"name": "Rusty", "team_id": 999}], session, Hero, ["name"])

        async def create() -> None:
            await get_one_or_create(session, Hero, {"secret_name": "?", "team_id": 999}, name="Sid")

        for write in (update, delete, insert, upsert, create):
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    await session.exec(update_age(48))
                    with pytest.raises((ConstraintViolationError, BulkOperationError)):
                        await write()
            assert engine.pool.checkedout() == 0
            assert await names(engine) == ["Nova", "Rusty"]
            _, row = await get_row("Rusty", session, Hero, pk_field="name")
            assert row.age is None
            await session.rollback()

    async def test_an_error_caught_in_a_nested_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It dooms the nested block alone."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    await write_row(hero("Sid"), session)
                    with pytest.raises(ConstraintViolationError):
                        await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_an_error_of_a_nested_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The savepoint of a nested block undoes its error, so the outer block is not doomed."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            for _ in range(2):
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await write_row(hero("Rusty"), session)
            await write_row(hero("Sid"), session)
        assert await names(engine) == ["Nova", "Rusty", "Sid"]

    async def test_an_error_of_the_users_savepoint(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """An error that is caught outside the user's savepoint dooms nothing."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    session.add(hero("Rusty"))
            with pytest.raises(ConstraintViolationError):
                async with session.begin_nested():
                    await write_row(hero("Rusty"), session)
            savepoint = await session.begin_nested()
            with pytest.raises(DBAPIError):
                await session.exec(text("SELECT no_such_column FROM hero"))
            await savepoint.rollback()
        assert await names(engine) == ["Nova", "Rusty"]

    @pytest.mark.parametrize("released", [True, False])
    async def test_an_error_caught_inside_of_the_users_savepoint(
        self, session: AsyncSession, engine: AsyncEngine, released: bool
    ) -> None:
        """Nothing was undone; PostgreSQL refuses the release, the others would commit."""
        with pytest.raises((TransactionError, DBAPIError)):
            async with transaction(session):
                await write_row(hero("Nova"), session)
                savepoint = await session.begin_nested()
                with pytest.raises(DBAPIError):
                    await session.exec(text("SELECT no_such_column FROM hero"))
                if released:
                    await savepoint.commit()
        await self.assert_doomed(engine, session)

    async def test_a_nested_block_in_a_doomed_one(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It saves nothing: PostgreSQL refuses it, elsewhere the outer exit does."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(DBAPIError):
                    await session.exec(text("SELECT no_such_column FROM hero"))
                async with transaction(session):
                    await write_row(hero("Nova"), session)
        await self.assert_doomed(engine, session)

    @pytest.mark.parametrize("how", ["block", "savepoint", "write"])
    async def test_a_savepoint_that_is_lost(
        self, session: AsyncSession, engine: AsyncEngine, how: str
    ) -> None:
        """MySQL ends the whole transaction in a deadlock, including earlier statements."""
        caught = None
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("Nova"), session)
                if how == "block":
                    with pytest.raises(TransactionError) as caught:
                        async with transaction(session):
                            await session.exec(text("ROLLBACK"))
                            raise RuntimeError
                elif how == "savepoint":
                    with pytest.raises(DBAPIError):
                        async with session.begin_nested():
                            await session.exec(text("ROLLBACK"))
                            raise RuntimeError
                else:
                    with ended_transaction(session):
                        await write_row(hero("Rusty"), session, raise_on_error=False)
        if caught is not None:
            assert isinstance(caught.value.original_error, RuntimeError)
        await self.assert_doomed(engine, session)

    async def test_not_found_and_validation_doom_nothing(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """These errors never reached the database."""
        async with transaction(session):
            with pytest.raises(RecordNotFoundError):
                await update_row(999_999, {"age": 1}, session, Hero)
            with pytest.raises(RecordNotFoundError):
                await delete_row(999_999, session, Hero)
            with pytest.raises(RecordNotFoundError):
                await get_row(999_999, session, Hero, raise_on_error=True)
            with pytest.raises(UnknownFieldError):
                await get_rows(session, Hero, nmae="Rusty")
            with pytest.raises(ValidationError):
                await update_row("Rusty", {"age": "old"}, session, Hero, "name")
            with pytest.raises(ValidationError):
                await write_row("Rusty", session)
            await write_row(hero("Nova"), session)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_a_read_that_finds_nothing_is_no_failure(self, session: AsyncSession) -> None:
        """Reads behave inside a block as outside."""
        async with transaction(session):
            assert await get_row(999_999, session, Hero) == (False, None)
            assert await get_rows(session, Hero, name="nobody") == (False, [])

    async def test_the_next_block_is_not_doomed(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Neither the next block nor work outside blocks is doomed."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("Rusty"), session)
        async with transaction(session):
            await write_row(hero("Nova"), session)
        with pytest.raises(IntegrityError):
            await session.exec(text("INSERT INTO hero (name, secret_name) VALUES ('Rusty', '?')"))
        await session.rollback()
        async with transaction(session):
            await write_row(hero("Sid"), session)
        assert await names(engine) == ["Nova", "Rusty", "Sid"]


class TestRaiseOnErrorFalse:
    """Inside a block it undoes only that operation, and the block continues."""

    @pytest.fixture(autouse=True)
    async def _rusty(self, session: AsyncSession) -> None:
        await write_row(hero("Rusty", age=48), session)

    async def test_write_row(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A refused row is not there; what was before and after is."""
        async with transaction(session):
            session.add(hero("pending"))
            assert await write_row(hero("Rusty"), session, raise_on_error=False) == (False, None)
            assert (await write_row(hero("Nova"), session, raise_on_error=False))[0]
        assert await names(engine) == ["Nova", "Rusty", "pending"]

    async def test_update_row(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """The returned row has the database's values, and can be used after the block."""
        async with transaction(session):
            _, nova = await write_row(hero("Nova", age=31), session)
            changes = {"name": "Rusty", "age": 32}
            updated, row = await update_row(nova.id, changes, session, Hero, raise_on_error=False)
            assert (updated, row.name, row.age) == (False, "Nova", 31)
            assert await update_row(999_999, {}, session, Hero, raise_on_error=False) == (
                False,
                None,
            )
            await update_row(nova.id, {"age": 33}, session, Hero, raise_on_error=False)
        assert (nova.name, nova.age) == ("Nova", 33)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_delete_row(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A row that others refer to stays."""
        async with transaction(session):
            await write_row(Warehouse(code="north"), session)
            await write_row(Dock(warehouse_code="north"), session)
            assert not await delete_row("north", session, Warehouse, raise_on_error=False)
            assert not await delete_row(999_999, session, Hero, raise_on_error=False)
            assert await delete_row("Rusty", session, Hero, "name", raise_on_error=False)
        assert await names(engine) == []
        assert await get_rows(session, Warehouse, code="north")

    async def test_insert_data_rows(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """`insert_data_rows` keeps the good rows."""
        async with transaction(session):
            rows = [hero("Nova"), hero("Rusty"), hero("Sid")]
            inserted, outcome = await insert_data_rows(rows, session, raise_on_error=False)
            assert inserted
            assert [row.name for row in outcome["success"]] == ["Nova", "Sid"]
            assert [row.name for row in outcome["failed"]] == ["Rusty"]
        assert [row.name for row in outcome["success"]] == ["Nova", "Sid"]
        assert await names(engine) == ["Nova", "Rusty", "Sid"]

    async def test_bulk_upsert_mappings(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A failure raises regardless of the flag, and only this call is undone."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            payload = [
                {"name": "Sid", "secret_name": "?"},
                {"name": "Rusty", "secret_name": "?", "team_id": 999},
            ]
            with pytest.raises(IntegrityError):
                await bulk_upsert_mappings(payload, session, Hero, ["name"], raise_on_error=False)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_in_a_nested_block(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """The nested block continues too."""
        async with transaction(session), transaction(session):
            await write_row(hero("Nova"), session)
            assert await write_row(hero("Rusty"), session, raise_on_error=False) == (False, None)
            await write_row(hero("Sid"), session)
        assert await names(engine) == ["Nova", "Rusty", "Sid"]

    async def test_what_was_pending_belongs_to_the_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """If it is refused, more than the write has failed."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                session.add(hero("Rusty"))
                await write_row(hero("Nova"), session, raise_on_error=False)
        assert await names(engine) == ["Rusty"]
        await assert_usable(session, engine)
