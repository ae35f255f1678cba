"""`transaction()`: all or nothing, on every database; explicit commits and rollbacks."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_row,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
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
from tests.models import Account, Currency, Hero
from tests.recording import recorded


class TestSuccess:
    async def test_three_writes_are_one_transaction(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """One COMMIT and no SAVEPOINT, as with handwritten code."""
        await write_row(Currency(code="OLD", name="?"), session)
        with recorded(engine) as words:
            async with transaction(session):
                await write_row(Currency(code="EUR", name="Euro"), session)
                await update_row("EUR", {"numeric": 978}, session, Currency)
                await delete_row("OLD", session, Currency)
        # Where a row can be written by its key, no SELECT comes before.
        selects = {"BEGIN", "SELECT"}
        expected = ["INSERT", "UPDATE", "DELETE", "COMMIT"]
        assert [word for word in words if word not in selects] == expected
        assert words.count("BEGIN") == (engine.dialect.name == "sqlite")

    async def test_nothing_is_seen_before_the_exit(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Others see the whole of it, or nothing."""
        async with transaction(session):
            await write_row(hero("Rusty"), session)
            await insert_data_rows([hero("Nova"), hero("Sid")], session)
            assert await names(engine) == []
        assert await names(engine) == ["Nova", "Rusty", "Sid"]
        assert engine.pool.checkedout() == 0

    async def test_it_yields_the_session(self, session: AsyncSession) -> None:
        """The same one, whichever name it is used by."""
        async with transaction(session) as tx:
            assert tx is session

    async def test_what_is_done_directly_takes_part(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Unflushed objects, changed attributes, and the user's own statements."""
        _, row = await write_row(hero("Rusty"), session)
        async with transaction(session) as tx:
            row.age = 48
            tx.add(hero("Nova"))
            await tx.exec(update(Hero).where(Hero.name == "Rusty").values(secret_name="Tommy"))
            tx.add(hero("Sid"))
        async with AsyncSession(engine) as reader:
            rows = (await reader.exec(select(Hero).order_by(Hero.name))).all()
            assert [(row.name, row.secret_name, row.age) for row in rows] == [
                ("Nova", "?", None),
                ("Rusty", "Tommy", 48),
                ("Sid", "?", None),
            ]

    async def test_an_empty_block(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It is not a failure, and holds no connection."""
        async with transaction(session):
            pass
        await assert_usable(session, engine)

    async def test_as_a_decorator_of_one_session(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Each call is a block of its own."""

        @transaction(session)
        async def write(name: str) -> None:
            await write_row(hero(name), session)

        await write("Rusty")
        with pytest.raises(TransactionError):
            await write("Rusty")
        await write("Nova")
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_three_levels(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """Block in block in block: one commit at the end of the outermost."""
        with recorded(engine) as words:
            async with transaction(session):
                await write_row(hero("one"), session)
                async with transaction(session):
                    await write_row(hero("two"), session)
                    async with transaction(session):
                        await write_row(hero("three"), session)
                assert await names(engine) == []
        assert words.count("SAVEPOINT") == 2
        assert words.count("RELEASE") == 2
        assert await names(engine) == ["one", "three", "two"]


class TestByHand:
    """`commit()`, `rollback()` and `close()` in a block: the user's own decision."""

    async def test_commit(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """Earlier writes are kept; the rest is a separate transaction."""
        with pytest.raises(TransactionError):
            async with transaction(session) as tx:
                await write_row(hero("Rusty"), session)
                await tx.commit()
                assert await names(engine) == ["Rusty"]
                async with transaction(session):
                    await write_row(hero("Nova"), session)
                raise RuntimeError
        assert await names(engine) == ["Rusty"]
        async with transaction(session) as tx:
            await write_row(hero("Nova"), session)
            await tx.commit()
        assert await names(engine) == ["Nova", "Rusty"]
        await assert_usable(session, engine)

    async def test_rollback(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """Earlier work is undone, later work is committed at the exit."""
        async with transaction(session) as tx:
            await write_row(hero("Rusty"), session)
            await tx.rollback()
            await write_row(hero("Nova"), session)
        assert await names(engine) == ["Nova"]
        async with transaction(session) as tx:
            await write_row(hero("Rusty"), session)
            await tx.rollback()
        assert await names(engine) == ["Nova"]
        await assert_usable(session, engine)

    async def test_rollback_of_a_doomed_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The refused statement is undone with all the rest."""
        await write_row(hero("Rusty"), session)
        async with transaction(session) as tx:
            with pytest.raises(ConstraintViolationError):
                await write_row(hero("Rusty"), session)
            await tx.rollback()
            await write_row(hero("Nova"), session)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_commit_of_a_doomed_block(self, session: AsyncSession) -> None:
        """PostgreSQL rolls back without a word, so the exit does not pretend success."""
        with pytest.raises(TransactionError, match="refused a statement"):
            async with transaction(session) as tx:
                with pytest.raises(DBAPIError):
                    await tx.exec(text("SELECT no_such_column FROM hero"))
                await tx.commit()

    @pytest.mark.parametrize("how", ["commit", "rollback", "close"])
    async def test_in_a_nested_block(
        self, session: AsyncSession, engine: AsyncEngine, how: str
    ) -> None:
        """It ends all levels; the exits of the blocks have nothing more to do."""
        async with transaction(session):
            await write_row(hero("Rusty"), session)
            async with transaction(session) as tx:
                await write_row(hero("Nova"), session)
                await getattr(tx, how)()
            await write_row(hero("Sid"), session)
        kept = ["Nova", "Rusty", "Sid"] if how == "commit" else ["Sid"]
        assert await names(engine) == kept
        await assert_usable(session, engine)

    async def test_in_a_nested_block_that_fails_later(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The savepoint to roll back to no longer exists."""
        async with transaction(session):
            await write_row(hero("Rusty"), session)
            with pytest.raises(TransactionError):
                async with transaction(session) as tx:
                    await tx.commit()
                    await write_row(hero("Nova"), session)
                    raise RuntimeError
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_close(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It rolls back; the session begins again."""
        async with transaction(session) as tx:
            await write_row(hero("Rusty"), session)
            await tx.close()
        assert await names(engine) == []
        await assert_usable(session, engine)


async def test_balances_are_checked_by_the_database(session: AsyncSession) -> None:
    """The classic: money is never taken without being given."""
    _, (ann, bob) = await insert_data_rows(
        [Account(owner="Ann", balance=10), Account(owner="Bob", balance=0)], session
    )
    for amount, expected in ((7, (3, 7)), (7, (3, 7)), (3, (0, 10))):
        with suppress(TransactionError):
            async with transaction(session):
                _, bob = await get_row(bob.id, session, Account)
                await update_row(bob.id, {"balance": bob.balance + amount}, session, Account)
                _, ann = await get_row(ann.id, session, Account)
                await update_row(ann.id, {"balance": ann.balance - amount}, session, Account)
        await session.refresh(ann)
        await session.refresh(bob)
        assert (ann.balance, bob.balance) == expected
