"""Dead connections: no error surfaces as long as nothing was sent on them."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    create_pooled_engine,
    get_row,
    get_rows,
    pool_status,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, TransactionError
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    make_tables,
    run_on_connection,
    sync_engine,
    together,
)
from tests.databases import Database
from tests.models import Hero, Tag, Team
from tests.servers import hanging_up, own_postgresql

pytestmark = pytest.mark.databases("postgresql", "mysql")

BACKEND_ID = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}
OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist "
    "WHERE db = database() AND id <> connection_id()",
}
KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}


class Killer:
    """Ends the connections of others, over one of its own."""

    def __init__(self, database: Database) -> None:
        self._name = database.name
        self._engine = create_engine(database.sync_url, isolation_level="AUTOCOMMIT")
        self._connection = self._engine.connect()

    def kill(self, number: Any) -> None:
        """End one connection, and wait until the server has done so."""
        self._connection.exec_driver_sql(KILL[self._name].format(number))
        while number in self.others():
            time.sleep(0.001)

    def others(self) -> list[Any]:
        """All connections to the database but its own."""
        return list(self._connection.exec_driver_sql(OTHERS[self._name]).scalars())

    def kill_some(self, spared: list[Any]) -> None:
        """End half of the connections that there are, but for the spared ones."""
        for number in self.others():
            if number not in spared and random.random() < 0.5:
                try:
                    self._connection.exec_driver_sql(KILL[self._name].format(number))
                except DBAPIError:  # it has already ended
                    continue

    def close(self) -> None:
        """Close its own connection."""
        self._connection.close()
        self._engine.dispose()


@pytest.fixture
def killer(database: Database, engine: AsyncEngine) -> Iterator[Killer]:
    """A killer on the database; the rows that a test leaves are removed after it."""
    assert engine.dialect.name == database.name
    killer = Killer(database)
    yield killer
    killer.close()


@contextmanager
def killing(database: Database) -> Iterator[None]:
    """End new connections all the time, from a thread."""
    stop = threading.Event()
    killer = Killer(database)
    spared = killer.others()

    def kill() -> None:
        while not stop.wait(0.03):
            killer.kill_some(spared)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        killer.close()


@asynccontextmanager
async def pooled(database: Database, **options: Any) -> AsyncIterator[AsyncEngine]:
    """A pooled engine whose connections are not pinged, unless the options say so."""
    options = {"pool_ping_after": math.inf, **options}
    engine = create_pooled_engine(database.async_url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def rest(seconds: float) -> None:
    """Let the pool rest."""
    time.sleep(seconds)


async def own_id(session: AsyncSession, database: Database) -> Any:
    """The number of the session's connection, as the server knows it."""
    return (await execute(session, text(BACKEND_ID[database.name]))).scalar()


async def lose_connection(engine: AsyncEngine, database: Database, killer: Killer) -> Any:
    """Leave one connection in the pool, which is dead; return its number."""
    async with AsyncSession(engine) as session:
        number = await own_id(session, database)
    killer.kill(number)
    return number


async def names(engine: AsyncEngine) -> list[str]:
    """The names of all heroes."""
    async with AsyncSession(engine) as session:
        return sorted((await session.exec(select(Hero.name))).all())


class TestBeforeTheFirstStatement:
    async def test_a_dead_connection_is_replaced(self, database: Database, killer: Killer) -> None:
        """The read is answered, the pool has as many connections as before."""
        async with pooled(database) as engine:
            for _ in range(3):
                killed = await lose_connection(engine, database, killer)
                async with AsyncSession(engine) as session:
                    assert await get_row(1, session, Hero) == (False, None)
                    assert await own_id(session, database) != killed
                assert pool_status(engine)["checked_in"] == 1

    async def test_a_write_is_written_once(self, database: Database, killer: Killer) -> None:
        """The library's, and a flush of many rows, which is one statement in several parts."""
        async with pooled(database, insertmanyvalues_page_size=3) as engine:
            await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                assert (await write_row(Tag(id=1, label="a"), session))[0]
            await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                heroes = [Hero(name=f"{n}", secret_name="x") for n in range(10)]
                session.add_all(heroes)
                await session.commit()
            assert await names(engine) == [f"{n}" for n in range(10)]
            async with AsyncSession(engine) as session:
                assert len((await get_rows(session, Tag))[1]) == 1

    async def test_many_rows_without_an_answer(self, database: Database, killer: Killer) -> None:
        """The driver sends them in its own way."""
        rows = [{"name": f"{n}", "secret_name": "x"} for n in range(3)]
        async with pooled(database) as engine:
            await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                await execute(session, Hero.__table__.insert(), rows)
                await session.commit()
            assert await names(engine) == ["0", "1", "2"]

    async def test_a_block_with_a_savepoint(self, database: Database, killer: Killer) -> None:
        """A block's first statement is sent again like any other."""
        async with pooled(database) as engine:
            await lose_connection(engine, database, killer)
            async with (
                AsyncSession(engine) as session,
                transaction(session),
                transaction(session),
            ):
                await write_row(Hero(name="Ann", secret_name="x"), session)
            assert await names(engine) == ["Ann"]

    async def test_a_connection_that_dies_after_the_block_began(
        self, database: Database, killer: Killer
    ) -> None:
        """A block takes its connection before it sends anything."""
        async with pooled(database) as engine:
            number = await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                number = await own_id(session, database)
            async with AsyncSession(engine) as session, transaction(session):
                killer.kill(number)
                await write_row(Hero(name="Ann", secret_name="x"), session)
            assert await names(engine) == ["Ann"]

    async def test_a_stream(self, database: Database, killer: Killer) -> None:
        """Its cursor on the server is opened on the new connection."""
        async with pooled(database) as engine:
            async with AsyncSession(engine) as session:
                session.add_all([Hero(name=f"{n}", secret_name="x") for n in range(5)])
                await session.commit()
            await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                found = QueryBuilder(session, Hero).stream(batch_size=2)
                assert len([hero async for hero in found]) == 5

    async def test_the_isolation_level_stays(self, database: Database, killer: Killer) -> None:
        """For the transaction that asked for it, and not for the next."""
        serializable = {"execution_options": {"isolation_level": "SERIALIZABLE"}}
        async with pooled(database) as engine:
            async with AsyncSession(engine) as session:
                number = await own_id(session, database)
                usual = await run_on_connection(session, Connection.get_isolation_level)
            async with AsyncSession(engine) as session:
                await session.connection(**serializable)
                killer.kill(number)
                assert await own_id(session, database) != number
                level = await run_on_connection(session, Connection.get_isolation_level)
                assert level == "SERIALIZABLE" != usual
            async with AsyncSession(engine) as session:
                level = await run_on_connection(session, Connection.get_isolation_level)
                assert level == usual

    async def test_listeners_hear_of_the_new_connection(
        self, database: Database, killer: Killer
    ) -> None:
        """Both when it is made and when it is handed out."""
        heard: list[str] = []
        async with pooled(database) as engine:
            await lose_connection(engine, database, killer)
            for name in ("connect", "checkout", "invalidate"):
                event.listen(sync_engine(engine), name, lambda *_, name=name: heard.append(name))
            async with AsyncSession(engine) as session:
                await get_row(1, session, Hero)
        assert heard == ["checkout", "invalidate", "connect", "checkout"]

    async def test_a_transaction_without_a_statement_ends(
        self, database: Database, killer: Killer
    ) -> None:
        """MySQL is sent a COMMIT regardless."""
        async with pooled(database) as engine:
            await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                await session.connection()
                await session.commit()
                assert await get_row(1, session, Hero) == (False, None)


class TestAfterTheFirstStatement:
    async def test_a_loss_is_an_error(self, database: Database, killer: Killer) -> None:
        """Half of a transaction would be written otherwise; the next one is fine."""
        async with pooled(database) as engine, AsyncSession(engine) as session:
            with pytest.raises(TransactionError) as caught:
                async with transaction(session):
                    await write_row(Hero(name="Ann", secret_name="x"), session)
                    killer.kill(await own_id(session, database))
                    await write_row(Hero(name="Bob", secret_name="x"), session)
            assert isinstance(caught.value.__cause__, DatabaseConnectionError)
            assert await names(engine) == []
            assert (await write_row(Hero(name="Cid", secret_name="x"), session))[0]
            assert await names(engine) == ["Cid"]

    async def test_a_refused_statement_is_no_loss(
        self, database: Database, engine: AsyncEngine
    ) -> None:
        """The connection stays in use."""
        assert engine.dialect.name == database.name
        async with pooled(database) as pool, AsyncSession(pool) as session:
            number = await own_id(session, database)
            await write_row(Tag(id=1, label="a"), session)
            assert not (await write_row(Tag(id=1, label="b"), session))[0]
            assert await own_id(session, database) == number

    async def test_a_lost_commit_is_an_error(self, database: Database, killer: Killer) -> None:
        """Nobody knows whether it took place."""
        async with pooled(database) as engine, AsyncSession(engine) as session:
            with pytest.raises(DBAPIError):
                session.add(Hero(name="Ann", secret_name="x"))
                await session.flush()
                killer.kill(await own_id(session, database))
                await session.commit()
            await session.rollback()
            assert await names(engine) == []

    async def test_a_lost_rollback_is_none(
        self, database: Database, killer: Killer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The server has rolled back; a session that only read ends without an error."""
        async with pooled(database) as engine:
            async with AsyncSession(engine) as session:
                await get_row(1, session, Hero)
                killer.kill(await own_id(session, database))
            async with AsyncSession(engine) as session:
                assert await get_row(1, session, Hero) == (False, None)
            assert pool_status(engine)["checked_in"] == 1
        assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []

    async def test_what_the_driver_was_sent_directly_counts(
        self, database: Database, killer: Killer
    ) -> None:
        """SQLAlchemy knows nothing of it, and it is part of the transaction."""
        insert = "INSERT INTO tag (id, label) VALUES (1, 'a')"
        async with pooled(database) as engine, AsyncSession(engine) as session:
            number = await own_id(session, database)
            await session.rollback()

            def write(connection: Connection) -> None:
                cursor = connection.connection.cursor()
                cursor.execute(insert)
                cursor.close()

            await run_on_connection(session, write)
            killer.kill(number)
            with pytest.raises(DatabaseConnectionError):
                await get_row(1, session, Hero)

    async def test_what_a_connection_keeps_is_not_lost_silently(
        self, database: Database, killer: Killer
    ) -> None:
        """A temporary table, for instance, outlives a transaction, but not its connection."""
        async with pooled(database) as engine, engine.connect() as connection:
            number = (await connection.execute(text(BACKEND_ID[database.name]))).scalar()
            await connection.commit()
            killer.kill(number)
            with pytest.raises(DBAPIError):
                await connection.execute(text("SELECT 1"))

    async def test_a_two_phase_transaction_is_not_moved(
        self, database: Database, killer: Killer
    ) -> None:
        """It has begun on its connection."""
        async with pooled(database) as engine:
            async with AsyncSession(engine) as session:
                number = await own_id(session, database)
            async with AsyncSession(engine, twophase=True) as session:
                await session.connection()
                killer.kill(number)
                with pytest.raises(DBAPIError):
                    await session.exec(select(1))


class TestAutocommit:
    async def test_a_statement_is_not_sent_again(self, database: Database, killer: Killer) -> None:
        """It may have been executed; then it would be written twice."""
        async with pooled(database, isolation_level="AUTOCOMMIT") as engine:
            await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                with pytest.raises(DatabaseConnectionError):
                    await get_row(1, session, Hero)
            async with AsyncSession(engine) as session:
                assert await get_row(1, session, Hero) == (False, None)

    async def test_a_connection_that_has_rested_is_asked(
        self, database: Database, killer: Killer
    ) -> None:
        """Before anything is sent, so that even a statement on its own is safe."""
        options = {"isolation_level": "AUTOCOMMIT", "pool_ping_after": 0.05}
        async with pooled(database, **options) as engine:
            await lose_connection(engine, database, killer)
            rest(0.06)
            async with AsyncSession(engine) as session:
                assert await get_row(1, session, Hero) == (False, None)

    async def test_sqlalchemys_own_way_to_ask_wins(
        self, database: Database, killer: Killer
    ) -> None:
        """Whoever sets `pool_pre_ping` has said what is to be asked, and when."""
        options = {"isolation_level": "AUTOCOMMIT", "pool_pre_ping": False, "pool_ping_after": 0}
        async with pooled(database, **options) as engine:
            await lose_connection(engine, database, killer)
            async with AsyncSession(engine) as session:
                with pytest.raises(DatabaseConnectionError):
                    await get_row(1, session, Hero)


class TestAsking:
    async def test_a_rested_connection_is_asked_once(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither a new one, nor one that has not rested for so long."""
        asked: list[Any] = []

        def count(ask: Callable[[Any], bool]) -> Callable[[Any], bool]:
            return lambda connection: asked.append(connection) or ask(connection)

        async with pooled(database, pool_ping_after=0.2) as engine:
            dialect = sync_engine(engine).dialect
            monkeypatch.setattr(dialect, "do_ping", count(dialect.do_ping))
            for _ in range(3):
                async with engine.connect():
                    pass
            assert asked == []
            rest(0.25)
            async with engine.connect():
                pass
            assert len(asked) == 1

    async def test_what_is_no_loss_is_raised(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mistake does not look like a dead connection."""
        async with pooled(database, pool_ping_after=0) as engine:
            async with engine.connect():
                pass

            def fail(_connection: Any) -> bool:
                raise ValueError("a mistake")

            monkeypatch.setattr(sync_engine(engine).dialect, "do_ping", fail)
            with pytest.raises(ValueError, match="a mistake"):
                await names(engine)
            monkeypatch.undo()
            assert await names(engine) == []


class TestUnderLoad:
    async def test_readers_never_hear_of_a_killed_connection(
        self, database: Database, engine: AsyncEngine
    ) -> None:
        """Each gets the row, although connections are being killed."""
        answers: list[bool] = []
        async with AsyncSession(engine) as session:
            await write_row(Hero(id=1, name="Ann", secret_name="x"), session)
        async with pooled(database, pool_size=3, max_overflow=2) as pool:
            # SQLAlchemy's first connection takes a dozen round trips; the others live long enough.
            assert await names(pool) == ["Ann"]
            await pool.dispose()

            async def read() -> None:
                end = time.monotonic() + 2
                while time.monotonic() < end:
                    async with AsyncSession(pool) as session:
                        answers.append((await get_row(1, session, Hero))[0])

            with killing(database):
                await together(*[read] * 6)
            assert pool_status(pool)["checked_out"] == 0
        assert answers
        assert all(answers)


async def test_a_server_that_hangs_up_is_tried_a_few_times() -> None:
    """Perhaps only this connection was ended; after a few tries, the error is raised."""
    calls: list[int] = []
    for scheme in ("mysql", "postgresql"):
        with hanging_up() as server:
            engine = create_pooled_engine(f"{scheme}://ann@127.0.0.1:{server.port}/heroes")
            async with AsyncSession(engine) as session:
                with pytest.raises(DatabaseConnectionError):
                    await get_row(1, session, Hero)
            await engine.dispose()
        calls.append(server.calls)
    # Some drivers do not distinguish it from a missing server.
    assert 10 in calls


async def test_a_server_that_was_away_is_used_again() -> None:
    """Without a restart of the program, whether or not a caller noticed the outage."""
    with own_postgresql() as server:
        engine = create_pooled_engine(server.url, pool_ping_after=math.inf)
        await make_tables(engine, Team, Hero)

        async def read() -> None:
            async with AsyncSession(engine) as session:
                assert await get_row(1, session, Hero) == (False, None)

        await together(*[read] * 3)
        server.stop()
        with pytest.raises(DatabaseConnectionError):
            await read()
        server.start()
        await together(*[read] * 3)
        server.stop()
        server.start()
        await together(*[read] * 3)
        assert pool_status(engine)["checked_out"] == 0
        await engine.dispose()
