"""Blocks on SQLite, whose driver begins no transaction for SAVEPOINT, with plain engines."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    QueryExecutionError,
    TransactionError,
)
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    make_sqlite,
    make_tables,
    sync_engine,
    together,
)
from tests.models import Account, Hero, Team
from tests.recording import recorded


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


async def names(engine: AsyncEngine) -> list[str]:
    """Return the committed names."""
    async with AsyncSession(engine) as reader:
        return sorted((await reader.exec(select(Hero.name))).all())


@asynccontextmanager
async def opened(name: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    """A plain engine, disposed of at the end."""
    engine = make_sqlite(name, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture
async def file(tmp_path: Path) -> str:
    """A database in a file, with tables."""
    name = str(tmp_path / "test.db")
    async with opened(name) as engine:
        await make_tables(engine, Team, Hero, Account)
    return name


@pytest.fixture(params=["file", "memory"])
async def engine(request: pytest.FixtureRequest, file: str) -> AsyncIterator[AsyncEngine]:
    """A plain engine, for a file and in memory."""
    async with opened(file if request.param == "file" else ":memory:") as engine:
        if request.param == "memory":
            await make_tables(engine, Team, Hero, Account)
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session with default settings."""
    async with AsyncSession(engine) as session:
        yield session


class TestAtomicity:
    async def test_an_outer_rollback_after_an_inner_success(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The release of the first savepoint does not commit."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                async with transaction(session):
                    await write_row(hero("inner"), session)
                raise RuntimeError
        await session.close()
        assert await names(engine) == []

    async def test_a_read_first(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """The driver begins nothing for a SELECT either."""
        await session.exec(select(Hero))
        with pytest.raises(TransactionError):
            async with transaction(session):
                await session.exec(select(Hero))
                async with transaction(session):
                    await session.exec(select(Hero))
                    await write_row(hero("inner"), session)
                raise RuntimeError
        await session.close()
        assert await names(engine) == []

    async def test_the_users_own_savepoints(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """They are atomic, and so is what is around them."""
        async with transaction(session) as tx:
            async with tx.begin_nested():
                tx.add(hero("kept"))
            savepoint = await tx.begin_nested()
            tx.add(hero("undone"))
            await tx.flush()
            await savepoint.rollback()
        assert await names(engine) == ["kept"]
        with pytest.raises(TransactionError):
            async with transaction(session) as tx:
                async with tx.begin_nested():
                    tx.add(hero("lost"))
                raise RuntimeError
        await session.close()
        assert await names(engine) == ["kept"]

    async def test_after_a_commit_or_rollback_by_hand(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The rest of the block begins a transaction on SQLite too."""
        with pytest.raises(TransactionError):
            async with transaction(session) as tx:
                await write_row(hero("kept"), session)
                await tx.commit()
                async with transaction(session):
                    await write_row(hero("lost"), session)
                await tx.rollback()
                async with transaction(session):
                    await write_row(hero("lost"), session)
                raise RuntimeError
        await session.close()
        assert await names(engine) == ["kept"]

    async def test_writes_that_use_savepoints(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The library's own are undone with the block."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("one"), session, raise_on_error=False)
                await write_row(hero("one"), session, raise_on_error=False)
                await insert_data_rows([hero("two"), hero("three")], session)
                await get_one_or_create(session, Hero, {"secret_name": "?"}, name="four")
                raise RuntimeError
        await session.close()
        assert await names(engine) == []

    async def test_a_bind_per_model(self, engine: AsyncEngine) -> None:
        """It begins with the first statement."""
        async with AsyncSession(binds={Hero: engine}) as session:
            with pytest.raises(TransactionError):
                async with transaction(session):
                    async with transaction(session):
                        await write_row(hero("lost"), session)
                    raise RuntimeError
        assert await names(engine) == []

    async def test_an_engine_that_begins_by_itself(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The recipe of SQLAlchemy's documentation: a listener that emits BEGIN."""
        plain = getattr(engine, "sync_engine", engine)
        event.listen(plain, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        await write_row(hero("kept"), session)
        with pytest.raises(TransactionError):
            async with transaction(session):
                async with transaction(session):
                    await write_row(hero("lost"), session)
                raise RuntimeError
        await session.close()
        assert await names(engine) == ["kept"]

    @pytest.mark.skipif(
        sys.version_info < (3, 12), reason="the driver's autocommit attribute is new in Python 3.12"
    )
    async def test_the_drivers_transactions_as_pep_249_has_them(self, file: str) -> None:
        """With autocommit=False the driver begins always."""
        async with opened(file, connect_args={"autocommit": False}) as engine:
            async with AsyncSession(engine) as session:
                await write_row(hero("kept"), session)
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        async with transaction(session):
                            await write_row(hero("lost"), session)
                        raise RuntimeError
            assert await names(engine) == ["kept"]

    async def test_the_drivers_autocommit_mode(self, file: str) -> None:
        """With isolation_level=None the driver never begins; the block does."""
        async with opened(file, connect_args={"isolation_level": None}) as engine:
            async with AsyncSession(engine) as session:
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await write_row(hero("lost"), session)
                        raise RuntimeError
                async with transaction(session):
                    await write_row(hero("kept"), session)
            assert await names(engine) == ["kept"]


class TestLocking:
    async def test_a_block_begins_with_the_write_lock(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Once for all its levels, and nothing outside blocks does."""
        with recorded(engine) as words:
            await session.exec(select(Hero))
            await session.rollback()
            assert "BEGIN" not in words
            async with transaction(session), transaction(session):
                await write_row(hero("Rusty"), session)
            await write_row(hero("Nova"), session)
        assert words.count("BEGIN") == 1
        assert words.count("COMMIT") == 2

    @pytest.mark.parametrize("begins", ["driver", "listener", "autocommit"])
    async def test_blocks_that_read_and_then_write_wait_for_each_other(
        self, file: str, begins: str
    ) -> None:
        """No block finds the database locked, and no update is lost, whichever begins."""
        if begins == "autocommit" and sys.version_info < (3, 12):
            pytest.skip("the driver's autocommit attribute is new in Python 3.12")
        options = {"autocommit": False} if begins == "autocommit" else {}
        async with opened(file, connect_args={"timeout": 30, **options}) as engine:
            if begins == "listener":  # as SQLAlchemy's documentation has it
                plain = sync_engine(engine)
                event.listen(plain, "connect", lambda c, _: setattr(c, "isolation_level", None))
                event.listen(plain, "begin", lambda c: c.exec_driver_sql("BEGIN"))
                await engine.dispose()
            async with AsyncSession(engine) as session:
                _, account = await write_row(Account(owner="Ann"), session)
                key = account.id

            async def pay_in() -> None:
                for _ in range(10):
                    async with AsyncSession(engine) as session, transaction(session):
                        _, found = await get_row(key, session, Account)
                        changes = {"balance": found.balance + 1}
                        await update_row(key, changes, session, Account)

            await together(pay_in, pay_in, pay_in)
            async with AsyncSession(engine) as session:
                _, account = await get_row(key, session, Account)
                assert account.balance == 30

    async def test_a_lock_that_is_not_given(self, file: str) -> None:
        """After the busy timeout the entry fails; the session can try again."""
        async with (
            opened(file, connect_args={"timeout": 0.05}) as engine,
            AsyncSession(engine) as holder,
            AsyncSession(engine) as session,
        ):
            async with transaction(holder):
                with pytest.raises(TransactionError) as caught:
                    async with transaction(session):
                        pytest.fail("the block must not run")
                assert isinstance(caught.value.original_error, QueryExecutionError)
                assert isinstance(caught.value.original_error.__cause__, OperationalError)
                assert engine.pool.checkedout() == 1
                assert await names(engine) == []
            async with transaction(session):
                await write_row(hero("Rusty"), session)
            assert await names(engine) == ["Rusty"]

    async def test_a_bind_per_model_that_gets_no_lock(self, file: str) -> None:
        """The statement that would begin fails; this is not reported as a refused row."""
        async with (
            opened(file, connect_args={"timeout": 0.05}) as engine,
            AsyncSession(engine) as holder,
            AsyncSession(binds={Hero: engine}) as session,
        ):
            async with transaction(holder):
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await write_row(hero("Rusty"), session)
                assert engine.pool.checkedout() == 1
            async with transaction(session):
                await write_row(hero("Nova"), session)
            assert await names(engine) == ["Nova"]

    async def test_others_can_read_meanwhile(self, file: str) -> None:
        """The lock keeps writers out, not readers."""
        async with (
            opened(file) as engine,
            AsyncSession(engine) as session,
            AsyncSession(engine) as reader,
            transaction(session),
        ):
            await write_row(hero("Rusty"), session)
            assert (await reader.exec(text("SELECT count(*) FROM hero"))).scalar_one() == 0
            await reader.rollback()

    async def test_a_file_that_was_written_is_whole(self, file: str) -> None:
        """Another program sees exactly the committed rows."""
        async with opened(file) as engine:
            async with AsyncSession(engine) as session, transaction(session):
                await write_row(hero("Rusty"), session)
                async with transaction(session):
                    await write_row(hero("Nova"), session)
                with sqlite3.connect(file) as other:
                    assert other.execute("SELECT count(*) FROM hero").fetchall() == [(0,)]
                other.close()
            with sqlite3.connect(file) as other:
                assert other.execute("SELECT count(*) FROM hero").fetchall() == [(2,)]
            other.close()

    async def test_an_interrupted_query_keeps_no_lock(self, file: str) -> None:
        """Also while the traceback, which holds the driver's cursor, is being handled."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        async with (
            opened(file, connect_args={"timeout": 0.1}) as engine,
            AsyncSession(engine) as session,
        ):
            plain = getattr(engine, "sync_engine", engine)
            await insert_data_rows([hero("kept"), hero("too")], session)
            with pytest.raises(KeyboardInterrupt) as caught:
                async with transaction(session):
                    await write_row(hero("lost"), session)
                    event.listen(plain, "after_cursor_execute", interrupt)
                    await session.exec(select(Hero))
            event.remove(plain, "after_cursor_execute", interrupt)
            assert engine.pool.checkedout() == 0
            await write_row(hero("afterwards"), session)
            assert await names(engine) == ["afterwards", "kept", "too"]
            assert caught.tb


async def test_a_block_forgets_what_failed_in_an_inner_block(session: AsyncSession) -> None:
    """A write that is tried after a refusal in the inner block doesn't doom the outer one."""
    async with transaction(session):
        await write_row(Hero(name="Nova", secret_name="?"), session)
        with pytest.raises(QueryExecutionError):
            async with transaction(session, wrap_errors=False):
                with pytest.raises(ConstraintViolationError):
                    await write_row(Hero(name="Nova", secret_name="?"), session)
                await write_row(Hero(name="Sid", secret_name="?"), session)
    _, rows = await get_rows(session, Hero)
    assert [row.name for row in rows] == ["Nova"]
