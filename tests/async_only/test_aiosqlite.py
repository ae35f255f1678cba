"""The connections to SQLite of `create_pooled_engine`: what aiosqlite's do, in fewer trips."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import create_pooled_engine, get_row, pool_status, write_row
from tests.async_only.test_cancellation import run
from tests.models import Hero

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {}) SELECT x FROM n"
SLOW = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An engine on a file with all tables."""
    engine = create_pooled_engine(f"sqlite:///{tmp_path}/heroes.db?timeout=0.2")
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trips to the thread from now on."""
    made: list[str] = []
    execute: Any = aiosqlite.Connection._execute

    async def count(self: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        made.append("trip")
        return await execute(self, function, *args, **kwargs)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", count)
    return made


async def driver_of(connection: AsyncConnection) -> Any:
    """The driver's own connection."""
    return (await connection.get_raw_connection()).driver_connection


class TestTrips:
    async def test_a_statement_is_one(self, engine: AsyncEngine, trips: list[str]) -> None:
        """It includes cursor, execution, rows and close; there is no transaction to end."""
        async with AsyncSession(engine) as session:
            assert await get_row(1, session, Hero) == (False, None)
        assert len(trips) == 1

    async def test_a_commit_is_one(self, engine: AsyncEngine, trips: list[str]) -> None:
        """If something was written."""
        async with AsyncSession(engine) as session:
            await write_row(Hero(name="Ann", secret_name="x"), session)
        assert len(trips) == 2

    async def test_the_end_of_nothing_is_none(self, engine: AsyncEngine, trips: list[str]) -> None:
        """Neither commit nor rollback."""
        async with engine.connect() as connection:
            await connection.commit()
            await connection.rollback()
        assert trips == []

    async def test_a_long_result_is_two(self, engine: AsyncEngine, trips: list[str]) -> None:
        """The first rows come with the statement, all others together."""
        async with engine.connect() as connection:
            found = await connection.execute(text(NUMBERS.format(10_000)))
            assert found.scalars().all() == list(range(1, 10_001))
        assert len(trips) == 2


class TestStreams:
    async def test_rows_are_read_when_they_are_wanted(self, engine: AsyncEngine) -> None:
        """So memory is limited to a batch, for any number of rows."""
        made = 0

        def count(number: int) -> int:
            nonlocal made
            made += 1
            return number

        async with engine.connect() as connection:
            await (await driver_of(connection)).create_function("count_it", 1, count)
            numbers = text(f"SELECT count_it(x) AS x FROM ({NUMBERS.format(200_000)})")
            found = await connection.stream(numbers.execution_options(yield_per=1000))
            read = total = 0
            async for rows in found.partitions():
                read += len(rows)
                total += sum(row.x for row in rows)
                assert made - read <= 1000
        assert total == 200_000 * 200_001 // 2

    async def test_one_that_is_given_up_holds_no_lock(self, engine: AsyncEngine) -> None:
        """Another connection writes, and the file can be put back to its old mode."""
        async with engine.connect() as connection:
            found = await connection.stream(text(NUMBERS.format(50_000)))
            assert (await found.fetchone())[0] == 1  # type: ignore[index]
            await found.close()
            async with AsyncSession(engine) as session:
                assert (await write_row(Hero(name="Ann", secret_name="x"), session))[0]

    async def test_two_run_side_by_side(self, engine: AsyncEngine) -> None:
        """On one connection."""
        async with engine.connect() as connection:
            first = await connection.stream(text(NUMBERS.format(3000)))
            second = await connection.stream(text(NUMBERS.format(3000)))
            pairs = [
                (row.x, (await second.fetchone()).x)  # type: ignore[union-attr]
                async for row in first
            ]
        assert pairs == [(number, number) for number in range(1, 3001)]


class TestCancellation:
    async def test_at_every_suspension(self, engine: AsyncEngine) -> None:
        """Nothing is partly written, and no connection or lock is held."""

        async def work() -> None:
            async with AsyncSession(engine) as session:
                session.add_all([Hero(name=f"{n}", secret_name="x") for n in range(3)])
                await session.flush()
                await session.stream(text(NUMBERS.format(5000)))
                await session.commit()

        at, cancelled = 1, True
        while cancelled:
            cancelled, _ = await run(work(), at)
            at += 1
            assert pool_status(engine)["checked_out"] == 0
            async with engine.begin() as connection:
                count = (await connection.execute(text("SELECT count(*) FROM hero"))).scalar()
                assert count in {0, 3}
                await connection.execute(text("DELETE FROM hero"))
        assert at > 5

    async def test_a_statement_can_be_interrupted(self, engine: AsyncEngine) -> None:
        """As with aiosqlite; the connection is fine afterwards."""
        async with engine.connect() as connection:
            driver = await driver_of(connection)
            running = asyncio.ensure_future(connection.execute(text(SLOW)))
            await asyncio.sleep(0.05)
            await driver.interrupt()
            with pytest.raises(OperationalError, match="interrupted"):
                await running
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1


class TestSettings:
    async def test_isolation_level(self, engine: AsyncEngine) -> None:
        """AUTOCOMMIT writes at once; the next user of the connection has transactions again."""
        insert = text("INSERT INTO hero (name, secret_name) VALUES (hex(randomblob(8)), 'x')")
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(insert)
            assert not (await driver_of(connection)).in_transaction
        async with engine.connect() as connection:
            await connection.execute(insert)
            assert (await driver_of(connection)).in_transaction
            assert (await driver_of(connection)).isolation_level == ""
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM hero"))).scalar() == 1

    async def test_functions_and_pragmas(self, engine: AsyncEngine) -> None:
        """SQLAlchemy's REGEXP, and foreign keys."""
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 'abc' REGEXP 'b'"))).scalar() == 1
            assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar() == 1
            assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar() == 200

    async def test_arguments_reach_sqlite(self, tmp_path: Path) -> None:
        """Those of the URL and those in `connect_args`."""
        engine = create_pooled_engine(
            f"sqlite:///file:{tmp_path}/none.db?mode=ro&uri=true", connect_args={"timeout": 1}
        )
        with pytest.raises(OperationalError, match="unable to open"):
            await get_first(engine)
        await engine.dispose()

    async def test_a_creator_of_ones_own_wins(self, tmp_path: Path) -> None:
        """It makes what it likes."""
        file = tmp_path / "own.db"
        engine = create_pooled_engine(
            "sqlite:///x.db", async_creator=lambda: aiosqlite.connect(file)
        )
        async with engine.connect() as connection:
            assert type(await driver_of(connection)) is aiosqlite.Connection
        await engine.dispose()
        assert file.exists()

    async def test_a_class_of_ones_own_wins(self, tmp_path: Path) -> None:
        """With `factory` connections are aiosqlite's own."""
        engine = create_pooled_engine(
            f"sqlite:///{tmp_path}/own.db", connect_args={"factory": sqlite3.Connection}
        )
        async with engine.connect() as connection:
            assert type(await driver_of(connection)) is aiosqlite.Connection
        await engine.dispose()

    async def test_a_script_is_run(self, engine: AsyncEngine) -> None:
        """All of its statements, as with aiosqlite."""
        async with engine.connect() as connection:
            cursor = await (await driver_of(connection)).cursor()
            await cursor.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (7);")
            await cursor.close()
            assert (await connection.execute(text("SELECT x FROM t"))).scalar() == 7

    async def test_errors_are_those_of_sqlite(self, engine: AsyncEngine) -> None:
        """The transaction continues after them."""
        async with AsyncSession(engine) as session:
            session.add(Hero(id=1, name="Ann", secret_name="x"))
            await session.flush()
            with pytest.raises(IntegrityError, match="UNIQUE"):
                async with session.begin_nested():
                    session.add(Hero(id=1, name="Bob", secret_name="x"))
            with pytest.raises(OperationalError, match="syntax error"):
                await (await session.connection()).exec_driver_sql("SELEC 1")
            await session.commit()
            assert (await get_row(1, session, Hero))[0]


class TestInMemory:
    async def test_two_tasks_share_the_connection(self) -> None:
        """Their statements go one after the other, and each gets its own answers."""
        engine = create_pooled_engine("sqlite://")

        async def ask(number: int) -> None:
            async with engine.connect() as connection:
                for _ in range(50):
                    found = await connection.execute(text("SELECT :n"), {"n": number})
                    assert found.scalar() == number

        await asyncio.gather(*(ask(number) for number in range(5)))
        await engine.dispose()


async def get_first(engine: AsyncEngine) -> Any:
    """Use a connection."""
    async with engine.connect() as connection:
        return (await connection.execute(text("SELECT 1"))).scalar()
