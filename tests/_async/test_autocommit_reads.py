"""Reads sent to PostgreSQL without BEGIN and ROLLBACK: which ones, with the same results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import create_engine, event, func, literal, literal_column, text
from sqlalchemy.engine import make_url
from sqlmodel import col, select

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    create_pooled_engine,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    session_factory,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    DatabaseConnectionError,
    QueryExecutionError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, execute, run_on_connection
from tests.databases import Database
from tests.models import Hero, Team

pytestmark = pytest.mark.databases("postgresql")

Work = Callable[[AsyncSession], Any]


class Server:
    """The server's view of a connection."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.number: int = 0

    def _ask(self, question: str) -> Any:
        with self._engine.connect() as connection:
            return connection.exec_driver_sql(question.format(self.number)).scalar()

    @property
    def state(self) -> str:
        """Whether the connection is "idle", or "idle in transaction"."""
        return str(self._ask("SELECT state FROM pg_stat_activity WHERE pid = {}"))

    @property
    def last_statement(self) -> str:
        """The last statement sent on the connection."""
        return str(self._ask("SELECT query FROM pg_stat_activity WHERE pid = {}"))

    def kill(self) -> None:
        """End the connection."""
        self._ask("SELECT pg_terminate_backend({}, 5000)")

    def close(self) -> None:
        """Close its own connection."""
        self._engine.dispose()


@pytest.fixture
def server(database: Database) -> Iterator[Server]:
    """The server, asked over a connection of its own; rows are removed after the test."""
    server = Server(database.sync_url)
    yield server
    server.close()
    database.clear()


@asynccontextmanager
async def opened(database: Database, server: Server, **options: Any) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection, which the server is asked about; a team, and two heroes."""
    engine = create_pooled_engine(database.async_url, pool_size=1, max_overflow=0, **options)
    try:
        async with AsyncSession(engine) as session:
            team = Team(id=1, name="Left")
            session.add_all([Hero(id=n, name=f"{n}", secret_name="x", team=team) for n in (1, 2)])
            await session.commit()
        await learn_number(engine, server)
        yield engine
    finally:
        await engine.dispose()


async def learn_number(engine: AsyncEngine, server: Server) -> None:
    """Let the server be asked about the connection that the engine has now."""
    async with AsyncSession(engine) as session:
        server.number = (await execute(session, text("SELECT pg_backend_pid()"))).scalar_one()


@pytest.fixture
async def engine(database: Database, server: Server) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection, to a database with a team and two heroes."""
    async with opened(database, server) as engine:
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session."""
    async with AsyncSession(engine) as session:
        yield session


def heroes(session: AsyncSession) -> QueryBuilder[Hero]:
    """All heroes."""
    return QueryBuilder(session, Hero)


READS: dict[str, Work] = {
    "get_row": lambda session: get_row(1, session, Hero),
    "get_row with related": lambda session: get_row(1, session, Hero, True, ["team"]),
    "get_rows": lambda session: get_rows(session, Hero, name__icontains="1", sort_field="age"),
    "get_rows of a team": lambda session: get_rows(session, Hero, team__name="Left"),
    "get_rows_within_id_list": lambda session: get_rows_within_id_list([1, 2], session, Hero),
    "get_result_from_query": lambda session: get_result_from_query(select(Hero), session),
    "all": lambda session: heroes(session).where(col(Hero.name).like("%1%")).all(),
    "joined": lambda session: heroes(session).joined("team").order_by("team__name").all(),
    "count": lambda session: heroes(session).count(),
    "exists": lambda session: heroes(session).exists(),
    "sum": lambda session: heroes(session).sum("age"),
    "values": lambda session: heroes(session).values("id", "name"),
    "scalars": lambda session: heroes(session).scalars("name"),
    "paginate": lambda session: heroes(session).paginate(),
    "keyset": lambda session: heroes(session).order_by("-age").keyset(1),
}


class TestOutsideOfBlocks:
    @pytest.mark.parametrize("name", READS)
    async def test_a_read_is_sent_alone(
        self, session: AsyncSession, server: Server, name: str
    ) -> None:
        """No transaction stays open on the server, and none has to be ended."""
        await READS[name](session)
        assert session.in_transaction()
        assert server.state == "idle"
        await session.rollback()
        assert server.last_statement.startswith("SELECT ")

    @pytest.mark.parametrize("name", ["get_row", "count"])
    async def test_it_may_be_switched_off(
        self, database: Database, server: Server, name: str
    ) -> None:
        """Then each read begins a transaction."""
        async with (
            opened(database, server, autocommit_reads=False) as engine,
            AsyncSession(engine) as session,
        ):
            await READS[name](session)
            assert server.state == "idle in transaction"

    async def test_it_sees_what_is_committed_meanwhile(
        self, session: AsyncSession, database: Database
    ) -> None:
        """As in a transaction under READ COMMITTED."""
        assert await heroes(session).count() == 2
        other = create_engine(database.sync_url)
        with other.begin() as connection:
            connection.exec_driver_sql("DELETE FROM hero WHERE id = 2")
        other.dispose()
        assert await heroes(session).count() == 1

    async def test_a_replica_is_read_alone_too(
        self, database: Database, engine: AsyncEngine, server: Server
    ) -> None:
        """Its engine sends the statement."""
        primary = create_pooled_engine(database.async_url)
        async with session_factory(primary, replicas=[engine])() as session:
            assert (await get_row(1, session, Hero))[0]
            assert server.last_statement.startswith("SELECT ")
            assert server.state == "idle"
        await primary.dispose()


class TestWrites:
    async def test_a_write_begins_what_a_rollback_undoes(
        self, session: AsyncSession, server: Server
    ) -> None:
        """Also after a read, and a read after it sees it and stays in its transaction."""
        row = (await get_row(1, session, Hero))[1]
        assert row is not None
        row.age = 7
        await session.flush()
        assert server.state == "idle in transaction"
        assert await heroes(session).where(age=7).count() == 1
        assert server.state == "idle in transaction"
        await session.rollback()
        assert server.state == "idle"
        assert await heroes(session).where(age=7).count() == 0

    async def test_what_a_read_flushes_is_undone(self, session: AsyncSession) -> None:
        """The INSERT comes first, and the SELECT is part of its transaction."""
        session.add(Hero(id=3, name="3", secret_name="x"))
        assert await heroes(session).count() == 3
        await session.rollback()
        assert await heroes(session).count() == 2

    async def test_what_is_set_for_a_transaction_stays(
        self, session: AsyncSession, server: Server
    ) -> None:
        """The caller's own statements begin one."""
        await execute(session, text("SET LOCAL application_name = 'mine'"))
        assert (await get_row(1, session, Hero))[0]
        found = await execute(session, text("SELECT current_setting('application_name')"))
        assert found.scalar() == "mine"
        assert server.state == "idle in transaction"

    async def test_the_librarys_writes(self, session: AsyncSession, server: Server) -> None:
        """They commit as before."""
        assert (await get_row(1, session, Hero))[0]
        assert (await update_row(1, {"age": 3}, session, Hero))[0]
        assert (await write_row(Hero(id=3, name="3", secret_name="x"), session))[0]
        assert await heroes(session).where(age=3).count() == 1
        assert server.state == "idle"


class TestInTransactions:
    async def test_a_block(self, session: AsyncSession, server: Server) -> None:
        """Its reads are part of its transaction."""
        async with transaction(session):
            await get_row(1, session, Hero)
            assert server.state == "idle in transaction"

    async def test_a_block_after_a_read(self, session: AsyncSession, server: Server) -> None:
        """It takes over a transaction of the session in which nothing has begun yet."""
        await get_row(1, session, Hero)
        assert server.state == "idle"
        async with transaction(session):
            await get_row(1, session, Hero)
            assert server.state == "idle in transaction"

    async def test_the_callers_block(self, session: AsyncSession, server: Server) -> None:
        """The same with SQLAlchemy's."""
        async with session.begin():
            await get_row(1, session, Hero)
            assert server.state == "idle in transaction"

    async def test_a_transaction_that_the_caller_began(
        self, session: AsyncSession, server: Server
    ) -> None:
        """Whoever begins one wants one."""
        await session.begin()
        await get_row(1, session, Hero)
        assert server.state == "idle in transaction"

    async def test_the_callers_connection(self, engine: AsyncEngine, server: Server) -> None:
        """Its transaction is not the session's."""
        async with engine.begin() as connection, AsyncSession(connection) as session:
            await get_row(1, session, Hero)
            assert server.state == "idle in transaction"

    async def test_a_savepoint(self, session: AsyncSession, server: Server) -> None:
        """There is a transaction around it."""
        async with session.begin_nested():
            await get_row(1, session, Hero)
            assert server.state == "idle in transaction"


class TestStatements:
    async def test_a_lock_is_kept(self, session: AsyncSession, server: Server) -> None:
        """Until the transaction ends."""
        assert await heroes(session).for_update().first() is not None
        assert server.state == "idle in transaction"

    async def test_a_stream_has_its_cursor(self, session: AsyncSession, server: Server) -> None:
        """Which lives in a transaction."""
        async for _ in heroes(session).stream(batch_size=1):
            assert server.state == "idle in transaction"
        statement = select(Hero).execution_options(yield_per=1)
        await session.rollback()
        with suppress(QueryExecutionError):  # not every API can read such rows
            await get_rows(session, Hero, stmnt=statement)
        assert server.state == "idle in transaction"

    @pytest.mark.parametrize(
        "expression",
        [
            func.pg_advisory_xact_lock(1).is_not(None),
            func.some_schema.count(1) > 0,
            literal_column("set_config('application_name', 'x', true)") != "",
            literal_column('"count" (*)') == 0,
            literal_column("pg_sleep/**/(0)").is_not(None),
            select(literal(1)).with_for_update().scalar_subquery() == 1,
        ],
        ids=["function", "schema", "text", "quoted", "comment", "lock"],
    )
    async def test_what_may_do_more_than_read_begins(
        self, session: AsyncSession, server: Server, expression: Any
    ) -> None:
        """A function of the program's may write, and a rollback has to undo that."""
        try:
            await heroes(session).where(expression).all()
        except QueryExecutionError:
            assert server.state == "idle in transaction (aborted)"
        else:
            assert server.state == "idle in transaction"

    async def test_a_text_begins(self, session: AsyncSession, server: Server) -> None:
        """Its effect is unknown."""
        assert await get_result_from_query(text("SELECT 1"), session) == 1
        assert server.state == "idle in transaction"


class TestSettings:
    @pytest.mark.parametrize(
        "options",
        [
            {"isolation_level": "REPEATABLE READ"},
            {"isolation_level": "SERIALIZABLE"},
            {"pgbouncer": True},
        ],
        ids=repr,
    )
    async def test_reads_that_need_a_transaction(
        self, database: Database, server: Server, options: dict[str, Any]
    ) -> None:
        """For its snapshot, or its connection to the server."""
        async with opened(database, server, **options) as engine, AsyncSession(engine) as session:
            await get_row(1, session, Hero)
            assert server.state == "idle in transaction"

    async def test_the_level_of_one_transaction(
        self, session: AsyncSession, server: Server
    ) -> None:
        """It is asked for on the connection."""
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await get_row(1, session, Hero)
        assert server.state == "idle in transaction"

    async def test_the_level_of_the_database(self, database: Database, server: Server) -> None:
        """The server's setting counts as well."""
        level = {"options": "-c default_transaction_isolation=serializable"}
        url = make_url(database.async_url).update_query_dict(level)
        engine = create_pooled_engine(url, pool_size=1, max_overflow=0)
        await learn_number(engine, server)
        async with AsyncSession(engine) as session:
            await get_row(1, session, Hero)
            assert server.state == "idle in transaction"
        await engine.dispose()

    async def test_an_autocommitting_engine_stays_one(
        self, database: Database, server: Server
    ) -> None:
        """A write after a read is committed at once, as the engine is configured."""
        async with (
            opened(database, server, isolation_level="AUTOCOMMIT") as engine,
            AsyncSession(engine) as session,
        ):
            await get_row(1, session, Hero)
            await execute(session, text("UPDATE hero SET age = 7"))
            await session.rollback()
            assert await heroes(session).where(age=7).count() == 2


class TestFailures:
    async def test_a_read_that_fails(self, session: AsyncSession, server: Server) -> None:
        """It raises the library's error; a later write is in a transaction."""
        division = literal_column("1 / (id - id)") == 1
        with pytest.raises(ValidationError):
            await heroes(session).where(division).all()
        assert server.state == "idle"
        assert (await get_row(1, session, Hero))[0]
        await execute(session, text("UPDATE hero SET age = 7"))
        assert server.state == "idle in transaction"
        await session.rollback()
        assert await heroes(session).where(age=7).count() == 0

    async def test_a_connection_that_dies_between_reads(
        self, engine: AsyncEngine, session: AsyncSession, server: Server
    ) -> None:
        """Nothing depends on it yet, so another one takes its place; for a write, too."""
        assert (await get_row(1, session, Hero))[0]
        server.kill()
        assert (await get_rows(session, Hero))[0]
        await session.rollback()
        await learn_number(engine, server)
        assert (await get_row(1, session, Hero))[0]
        server.kill()
        await execute(session, text("UPDATE hero SET age = 7"))
        await session.rollback()
        assert await heroes(session).where(age=7).count() == 0

    async def test_a_connection_that_dies_after_a_write(
        self, session: AsyncSession, server: Server
    ) -> None:
        """The read is part of its transaction, which is lost."""
        assert (await get_row(1, session, Hero))[0]
        await execute(session, text("UPDATE hero SET age = 7"))
        server.kill()
        with pytest.raises(DatabaseConnectionError):
            await heroes(session).count()
        await session.rollback()
        assert await heroes(session).where(age=7).count() == 0

    async def test_a_statement_that_a_listener_sends_at_the_begin(
        self, session: AsyncSession, server: Server
    ) -> None:
        """It begins a transaction for all that follow, as settings for one are made like this."""

        def begun(connection: Any) -> None:
            connection.exec_driver_sql("SET LOCAL application_name = 'mine'")

        sync = await run_on_connection(session, lambda connection: connection.engine)
        await session.rollback()
        event.listen(sync, "begin", begun)
        assert (await get_row(1, session, Hero))[0]
        assert server.state == "idle in transaction"
        found = await execute(session, text("SELECT current_setting('application_name')"))
        assert found.scalar() == "mine"
