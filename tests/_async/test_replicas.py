"""Sessions with replicas: what reads from them, and what stays with the primary.

The replica of these tests is a database with rows of its own, so that a row tells where it was
read. How a real standby lags, and is killed, is tested in `tests/cluster`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    create_engine,
    delete,
    event,
    func,
    insert,
    lambda_stmt,
    literal,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session as SyncSession, SQLModel, select

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    create_pooled_engine,
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    pool_status,
    read_after,
    replication_token,
    run_transaction,
    session_factory,
    transaction,
    update_row,
    use_primary,
    write_row,
)
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, ValidationError
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    make_sqlite,
    run_sync,
    sync_engine,
    sync_session,
)
from tests.databases import Database, create_empty
from tests.models import Hero, HeroTag, Tag, Team
from tests.models_mixins import Bough, Trunk, Twig
from tests.observing import recorded_calls
from tests.recording import logged

# What is different on MySQL: it has no tokens, and no UPDATE with RETURNING.
pytestmark = pytest.mark.databases("sqlite", "postgresql")
EVERYWHERE = pytest.mark.databases("sqlite", "postgresql", "mysql")

TABLES = [
    SQLModel.metadata.tables[model.__tablename__]
    for model in (Team, Hero, Tag, HeroTag, Trunk, Bough, Twig)
]
OLD, NEW = 1, 2  # the age of the one hero, on the replica and on the primary


@pytest.fixture(scope="module")
def copy_url(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database with an older state."""
    if database.name == "sqlite":
        file: Path = tmp_path_factory.mktemp("copy") / "copy.db"
        yield from filled(f"sqlite:///{file}")
        return
    name = f"copy_{os.getpid()}_{__name__.rpartition('.')[0].replace('.', '_')}"
    with create_empty(database.name, name) as url:
        driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}[database.name]
        yield from filled(url.set(drivername=driver).render_as_string(hide_password=False))


def filled(url: str) -> Iterator[str]:
    """Create the tables, and the hero as he was."""
    engine = create_engine(url)
    SQLModel.metadata.create_all(engine, tables=TABLES)
    with SyncSession(engine) as session:
        session.add(Team(id=1, name="Preventers"))
        session.flush()
        session.add(Hero(id=1, name="Rusty", secret_name="?", age=OLD, team_id=1))
        session.commit()
    engine.dispose()
    yield url.replace("+psycopg", "").replace("+pymysql", "")


@pytest.fixture
async def primary(database: Database) -> AsyncIterator[AsyncEngine]:
    """The engine of the primary, with the hero as he is."""
    engine = create_pooled_engine(database.async_url)
    async with AsyncSession(engine) as session:
        session.add(Team(id=1, name="Preventers"))
        await session.flush()
        session.add(Hero(id=1, name="Rusty", secret_name="?", age=NEW, team_id=1))
        await session.commit()
    yield engine
    assert pool_status(engine)["checked_out"] == 0
    await engine.dispose()
    database.clear()


@pytest.fixture
async def replica(copy_url: str) -> AsyncIterator[AsyncEngine]:
    """The engine of the replica."""
    engine = create_pooled_engine(copy_url)
    yield engine
    assert pool_status(engine)["checked_out"] == 0
    await engine.dispose()


@pytest.fixture
def new_session(primary: AsyncEngine, replica: AsyncEngine) -> Any:
    """A factory of sessions with a replica."""
    return session_factory(primary, replicas=[replica])


@pytest.fixture
async def session(new_session: Any) -> AsyncIterator[AsyncSession]:
    """A session with a replica."""
    async with new_session() as session:
        yield session


async def age_in(session: AsyncSession) -> int:
    """Return the age that a read of the library finds."""
    _, hero = await get_row(1, session, Hero, raise_on_error=True)
    return int(hero.age)


async def streamed(session: AsyncSession) -> int:
    """Read with a stream."""
    ages = [hero.age async for hero in QueryBuilder(session, Hero).stream(1)]
    return int(ages[0])


async def lazily(session: AsyncSession) -> int:
    """Read through a relationship."""
    [team] = await QueryBuilder(session, Team).selectin("heroes").all()
    return int(team.heroes[0].age)


READS = {
    "get_row": age_in,
    "get_rows": lambda s: value(get_rows(s, Hero), lambda found: found[1][0].age),
    "builder": lambda s: QueryBuilder(s, Hero).sum("age"),
    "page": lambda s: value(QueryBuilder(s, Hero).paginate(), lambda page: page.items[0].age),
    "stream": streamed,
    "relationship": lazily,
    "exec": lambda s: value(s.exec(select(Hero)), lambda found: found.one().age),
    "scalar": lambda s: s.scalar(select(Hero.age)),
    "core": lambda s: value(execute(s, select(TABLES[1].c.age)), lambda found: found.scalar()),
    "union": lambda s: value(
        execute(s, select(Hero.age).union(select(Hero.age))), lambda found: found.scalar()
    ),
    "cte": lambda s: s.scalar(select(select(Hero.age).cte().c.age)),
    "get": lambda s: value(s.get(Hero, 1), lambda hero: hero.age),
    "lambda": lambda s: s.scalar(lambda_stmt(lambda: select(Hero.age))),
    "from_statement": lambda s: value(
        s.scalar(select(Hero).from_statement(select(Hero))), lambda hero: hero.age
    ),
}


async def value(made: Any, pick: Any) -> Any:
    """Return what is picked from what a call returns."""
    return pick(await made)


class TestReads:
    async def test_a_select_goes_to_the_replica(self, new_session: Any) -> None:
        """Whoever makes it."""
        for name, read in READS.items():
            async with new_session() as session:
                assert await read(session) == OLD, name

    async def test_in_a_block_it_goes_to_the_primary(self, new_session: Any) -> None:
        """A block of the library, and those of SQLAlchemy."""
        for name, read in READS.items():
            async with new_session() as session, transaction(session):
                assert await read(session) == NEW, name
            async with new_session() as session, session.begin():
                assert await read(session) == NEW, name
            async with new_session() as session, session.begin_nested():
                assert await read(session) == NEW, name

    async def test_use_primary(self, new_session: Any) -> None:
        """Inside it alone."""
        for name, read in READS.items():
            async with new_session() as session:
                with use_primary():
                    assert await read(session) == NEW, name
                await session.rollback()
                assert await read(session) == OLD, name

    async def test_a_transaction_that_reads_the_primary_goes_on_there(
        self, session: AsyncSession
    ) -> None:
        """Time does not run backwards in it."""
        with use_primary():
            assert await age_in(session) == NEW
        assert await session.scalar(select(Hero.age)) == NEW

    async def test_a_refresh(self, session: AsyncSession) -> None:
        """It reads like a SELECT."""
        _, hero = await get_row(1, session, Hero, raise_on_error=True)
        await session.refresh(hero)
        assert hero.age == OLD
        with use_primary():
            await session.rollback()
            await session.refresh(hero)
        assert hero.age == NEW

    async def test_without_replicas_the_sessions_are_as_usual(self, primary: AsyncEngine) -> None:
        """The very class."""
        usual, without = session_factory(primary), session_factory(primary, replicas=[])
        async with usual() as one, without() as other:
            assert type(one).__mro__[1:] == type(other).__mro__[1:]
            assert (await other.get(Hero, 1)).age == NEW


TOKEN = "1.1.15267bc7"  # of an unknown cluster
LOCKED = select(Hero.age).with_for_update()


ELSE: list[Any] = [
    text("SELECT age FROM hero"),
    text("SELECT age FROM hero").columns(Hero.age),
    select(text("SELECT age FROM hero").columns(Hero.age).subquery()),
    LOCKED,
    select(LOCKED.subquery()),
    select(Hero.age).suffix_with("/* FOR UPDATE */"),
    update(Hero).values(age=NEW),
    update(Hero).where(Hero.age == NEW).values(age=Hero.age),
    delete(Tag),
    insert(TABLES[2]).values(label="x"),
    lambda_stmt(lambda: insert(TABLES[2]).values(label="y")),
]


@EVERYWHERE
async def test_all_else_goes_to_the_primary_and_stays_there(new_session: Any) -> None:
    """SQL text may write; locks and nested DML belong there too."""
    for statement in ELSE:
        async with new_session() as session:
            assert await session.scalar(select(Hero.age)) == OLD
            await execute(session, statement)
            assert await session.scalar(select(Hero.age)) == NEW, statement
            await session.commit()
            assert await age_in(session) == NEW
            await session.close()
            assert await age_in(session) == OLD


@pytest.mark.databases("postgresql")
async def test_dml_in_a_cte(session: AsyncSession) -> None:
    """It is a SELECT on the outside."""
    changed = update(Hero).values(age=NEW).returning(Hero.age).cte()
    assert await session.scalar(select(changed.c.age)) == NEW
    assert await age_in(session) == NEW


async def flushed(session: AsyncSession) -> None:
    """Write past the library."""
    session.add(Tag(label="flushed"))
    await session.flush()


async def pending(session: AsyncSession) -> None:
    """Leave a row to be written by the next read."""
    session.add(Tag(label="pending"))


async def in_an_empty_block(session: AsyncSession) -> None:
    """Do nothing in a block."""
    async with transaction(session):
        pass


async def in_bulk(session: AsyncSession, count: int) -> None:
    """Write rows past the unit of work."""
    await bulk_insert_rows([{"label": f"{count} {n}"} for n in range(count)], session, Tag)


async def in_legacy_bulk(session: AsyncSession, method: str, *args: Any) -> None:
    """Write with a legacy method of SQLAlchemy's session."""
    await run_sync(session, lambda: getattr(sync_session(session), method)(*args))


WRITES: dict[str, Any] = {
    "write_row": lambda s: write_row(Tag(label="written"), s, raise_on_error=True),
    "flush": flushed,
    "autoflush": pending,
    "bulk": lambda s: in_bulk(s, 1),
    "many": lambda s: in_bulk(s, 200),
    "delete": lambda s: delete_row(7, s, Hero),
    "connection": lambda s: s.connection(),
    "existing": lambda s: get_one_or_create(s, Hero, name="Rusty"),
    "builder": lambda s: QueryBuilder(s, Tag).where(label="x").delete(),
    "empty block": in_an_empty_block,
    "merge": lambda s: s.merge(Tag(label="merged")),
    "objects": lambda s: in_legacy_bulk(s, "bulk_save_objects", [Tag(label="object")]),
    "mappings": lambda s: in_legacy_bulk(s, "bulk_insert_mappings", Tag, [{"label": "mapped"}]),
    "changes": lambda s: in_legacy_bulk(s, "bulk_update_mappings", Team, [{"id": 1, "name": "T"}]),
}


class TestAfterAWrite:
    @EVERYWHERE
    async def test_the_session_stays_with_the_primary(self, new_session: Any) -> None:
        """Until it is closed."""
        for how, write in WRITES.items():
            async with new_session() as session:
                assert await age_in(session) == OLD
                await write(session)
                assert await session.scalar(select(Hero.age)) == NEW, how
                await session.commit()
                assert await age_in(session) == NEW
                await session.reset()
                assert await age_in(session) == OLD

    @EVERYWHERE
    async def test_a_row_of_the_replica_is_read_again_before_it_is_written(
        self, session: AsyncSession
    ) -> None:
        """A write based on the old state, or compared with it, would be wrong."""
        _, hero = await get_row(1, session, Hero, raise_on_error=True)
        assert hero.age == OLD
        _, written = await update_row(1, {"secret_name": "Tommy"}, session, Hero)
        assert written is hero
        assert hero.age == NEW
        await session.close()
        assert await age_in(session) == OLD
        await update_row(1, {"age": OLD}, session, Hero)  # as the session believes it to be
        async with AsyncSession(session.bind) as other:
            assert await age_in(other) == OLD

    async def test_a_row_of_the_replica_is_read_again_where_it_is_read(
        self, session: AsyncSession
    ) -> None:
        """With the library, and past it; what is not flushed yet stays."""
        _, hero = await get_row(1, session, Hero, raise_on_error=True)
        await write_row(Tag(label="x"), session)
        assert (await session.exec(select(Hero))).one().age == NEW
        await session.close()
        hero = await session.get(Hero, 1)
        assert hero.age == OLD
        with use_primary():
            assert (await session.get(Hero, 1)).age == NEW
        await session.close()
        hero = await session.get(Hero, 1)
        hero.age = 50
        with use_primary():
            assert (await session.exec(select(Hero))).one().age == 50
            await session.rollback()

    async def test_a_row_is_merged_into_that_of_the_primary(
        self, new_session: Any, primary: AsyncEngine
    ) -> None:
        """The replica may have an older one, or none."""
        async with AsyncSession(primary) as other:
            other.add(Team(id=2, name="Avengers"))
            await other.commit()
        async with new_session() as session:
            await session.merge(Hero(id=1, name="Rusty", secret_name="?", age=OLD, team_id=1))
            await session.merge(Team(id=2, name="Merged"))
            await session.commit()
        async with AsyncSession(primary) as other:
            assert await age_in(other) == OLD
            assert (await other.get(Team, 2)).name == "Merged"  # type: ignore[union-attr]

    async def test_what_refers_to_a_deleted_row_is_searched_for_in_the_primary(
        self, new_session: Any, primary: AsyncEngine
    ) -> None:
        """The replica may not have it yet."""
        async with AsyncSession(primary) as other:
            other.add(Trunk(id=1, boughs=[Bough(id=1)]))
            await other.commit()
        async with new_session() as session:
            with use_primary():
                trunk = await session.get(Trunk, 1)
            await session.commit()
            await session.delete(trunk)
            await session.commit()
        async with AsyncSession(primary) as other:
            assert (await other.exec(select(Bough))).all() == []

    async def test_transactions_that_run_again(self, new_session: Any) -> None:
        """They are as on a plain session."""

        async def work(session: AsyncSession) -> int:
            await write_row(Tag(label="x"), session)
            return await age_in(session)

        assert await run_transaction(new_session, work) == NEW


def lose_connections(url: str) -> None:
    """End all connections to a database."""
    administrator = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with administrator.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    administrator.dispose()


async def in_a_block(session: AsyncSession) -> None:
    """Write in a block."""
    async with transaction(session):
        session.add(Tag(label="y"))


READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET default_transaction_read_only = on",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}


class TestFailures:
    @pytest.fixture
    async def gone(self, database: Database, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
        """The engine of a missing replica."""
        url = f"{database.name}://localhost:1/nothing"
        if database.name == "sqlite":
            url = f"sqlite:///{tmp_path}/nowhere/copy.db"
        engine = create_pooled_engine(url)
        yield engine
        assert pool_status(engine)["checked_out"] == 0
        await engine.dispose()

    async def test_the_primary_answers(self, primary: AsyncEngine, gone: AsyncEngine) -> None:
        """It is logged once, not for each read."""
        new_session = session_factory(primary, replicas=[gone])
        with logged() as lines:
            for _ in range(3):
                async with new_session() as session:
                    assert await age_in(session) == NEW
        assert [line for _, _, line in lines if "replica" in line] == [
            next(line for _, _, line in lines if line.endswith("reads go to the primary"))
        ]

    async def test_another_replica_answers_the_next_session(
        self, primary: AsyncEngine, gone: AsyncEngine, replica: AsyncEngine
    ) -> None:
        """The one that failed is left alone."""
        new_session = session_factory(primary, replicas=[gone, replica])
        ages = []
        with logged() as lines:
            for _ in range(4):
                async with new_session() as session:
                    ages.append(await age_in(session))
        assert ages == [NEW, OLD, OLD, OLD]
        assert any(line.endswith("1 of 2 are left") for _, _, line in lines)

    async def test_a_statement_that_a_replica_refuses_to_write(
        self, session: AsyncSession, replica: AsyncEngine
    ) -> None:
        """A function that writes: the primary does it, and the replica is not to blame."""

        @event.listens_for(sync_engine(replica), "connect")
        def refuse_writes(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(READ_ONLY[replica.dialect.name])
            cursor.close()
            connection.commit()

        @event.listens_for(sync_engine(replica), "before_cursor_execute", retval=True)
        def write(*_: Any) -> Any:
            return "INSERT INTO tag (label) VALUES ('x')", ()

        assert await session.scalar(select(Hero.age)) == NEW
        event.remove(sync_engine(replica), "before_cursor_execute", write)
        assert await session.scalar(select(Hero.age)) == NEW
        await session.close()
        assert await session.scalar(select(Hero.age)) == OLD

    @pytest.mark.databases("postgresql")
    async def test_a_connection_that_is_lost_inside_of_a_transaction(
        self, session: AsyncSession, copy_url: str
    ) -> None:
        """The rest of the transaction continues on the primary."""
        assert await session.scalar(select(Hero.age)) == OLD
        lose_connections(copy_url)
        assert await session.scalar(select(Hero.age)) == NEW
        assert (await update_row(1, {"age": 7}, session, Hero))[0]

    @pytest.mark.databases("postgresql")
    async def test_a_connection_that_is_lost_before_a_commit(
        self, primary: AsyncEngine, replica: AsyncEngine, copy_url: str
    ) -> None:
        """What was written to the primary is committed, and the caller learns of no failure."""
        writes: list[Any] = [
            lambda s: write_row(Tag(label="x"), s, raise_on_error=True),
            in_a_block,
            lambda s: s.commit(),
        ]
        for write in writes:
            async with session_factory(primary, replicas=[replica])() as session:
                assert await session.scalar(select(Hero.age)) == OLD
                lose_connections(copy_url)
                await write(session)
        async with AsyncSession(primary) as other:
            assert set((await other.exec(select(Tag.label))).all()) == {"x", "y"}

    async def test_a_session_does_not_go_to_another_replica(
        self, primary: AsyncEngine, replica: AsyncEngine, database: Database
    ) -> None:
        """It may be behind the one that failed."""
        ahead = create_pooled_engine(database.async_url)
        new_session = session_factory(primary, replicas=[ahead, replica])
        async with new_session() as session:
            assert await age_in(session) == NEW
            await session.commit()

            @event.listens_for(sync_engine(ahead), "before_cursor_execute")
            def fail(*_: Any) -> None:
                raise ConnectionRefusedError

            for _ in range(2):
                async with new_session() as other:
                    await age_in(other)
            assert await age_in(session) == NEW
        await ahead.dispose()

    async def test_a_database_that_the_caller_names(
        self, session: AsyncSession, primary: AsyncEngine, replica: AsyncEngine
    ) -> None:
        """It is asked, and a write to it is one."""
        statement = select(Hero.age)
        for engine, age in ((primary, NEW), (replica, OLD)):
            arguments = {"bind": sync_engine(engine)}
            assert await session.scalar(statement, bind_arguments=arguments) == age
            await session.rollback()
        assert await age_in(session) == OLD
        arguments = {"bind": sync_engine(primary)}
        await session.scalar(text("SELECT 1"), bind_arguments=arguments)
        assert await session.scalar(statement) == NEW
        await session.close()
        other = make_sqlite()
        arguments = {"bind": sync_engine(other)}
        assert await session.scalar(select(literal(3)), bind_arguments=arguments) == 3
        await session.close()
        await other.dispose()

    async def test_an_error_of_the_statement_is_not_hidden(self, session: AsyncSession) -> None:
        """The primary would say the same."""
        with pytest.raises(DBAPIError):
            await session.scalar(select(func.no_such_function(Hero.age)))
        await session.rollback()
        assert await age_in(session) == OLD

    @pytest.mark.databases("postgresql")
    async def test_one_that_cannot_say_how_far_it_has_come(
        self, primary: AsyncEngine, gone: AsyncEngine
    ) -> None:
        """It has not come far enough."""
        async with session_factory(primary, replicas=[gone])() as session:
            with read_after(TOKEN):
                assert await age_in(session) == NEW

    async def test_a_session_that_is_bound_otherwise(
        self, new_session: Any, primary: AsyncEngine
    ) -> None:
        """To a connection, as where tests are isolated: it has no replicas."""
        async with primary.connect() as connection:
            new_session.configure(bind=connection)
            async with new_session() as session:
                assert await age_in(session) == NEW

    async def test_without_the_primary_nothing_answers(
        self, gone: AsyncEngine, replica: AsyncEngine
    ) -> None:
        """Reads do, as long as there is a replica."""
        async with session_factory(gone, replicas=[replica])() as session:
            assert await age_in(session) == OLD
            with pytest.raises(DatabaseConnectionError):
                await write_row(Tag(label="x"), session, raise_on_error=True)


class TestTokens:
    @pytest.mark.databases("sqlite", "mysql")
    async def test_other_databases_have_none(self, session: AsyncSession) -> None:
        """With a foreign token, the primary answers."""
        with pytest.raises(ValidationError, match="needs PostgreSQL"):
            await replication_token(session)
        with read_after(TOKEN):
            assert await age_in(session) == NEW

    @pytest.mark.databases("postgresql")
    async def test_a_server_that_has_come_that_far(self, session: AsyncSession) -> None:
        """Both databases are on one server here."""
        await write_row(Tag(label="x"), session)
        with recorded_calls() as recording:
            token = await replication_token(session)
        assert (recording.only.name, recording.only.kind) == ("replication_token", "read")
        await session.close()
        with read_after(token):
            for _ in range(2):
                assert await age_in(session) == OLD
                await session.close()
            with use_primary(), read_after(token):
                await session.rollback()
                assert await session.scalar(select(Hero.age)) == NEW

    @pytest.mark.databases("postgresql")
    async def test_a_token_of_another_cluster(self, session: AsyncSession) -> None:
        """It says nothing about these replicas."""
        with (
            read_after(TOKEN),
            pytest.raises(ValidationError, match="a different database cluster"),
        ):
            await age_in(session)

    @pytest.mark.databases("postgresql")
    async def test_the_commit_comes_first(self, session: AsyncSession) -> None:
        """Inside a block, nothing is committed yet."""
        async with transaction(session):
            with pytest.raises(ValidationError, match="after the commit"):
                await replication_token(session)

    @pytest.mark.databases("sqlite")
    @pytest.mark.parametrize("nothing", [None, ""])
    async def test_no_token_asks_for_nothing(
        self, session: AsyncSession, nothing: str | None
    ) -> None:
        """Without a cookie, an outer block's token still counts."""
        with read_after(nothing):
            assert await age_in(session) == OLD
        with use_primary(), read_after(nothing):
            await session.rollback()
            assert await session.scalar(select(Hero.age)) == NEW


@pytest.mark.parametrize("token", ["x", "1.1", "1.1.00000000", "-1.1.00000000", 5, b"1"])
def test_a_damaged_token(token: Any) -> None:
    """It is refused when it is received."""
    with pytest.raises(ValidationError, match="this one is damaged") as caught:
        read_after(token)
    assert caught.value.field == "token"


@pytest.mark.databases("postgresql")
async def test_what_is_no_replica(primary: AsyncEngine) -> None:
    """The primary itself, another kind of database, no engine at all."""
    other = create_pooled_engine("sqlite://")
    for wrong in ([primary], [other], ["postgresql://localhost"], other):
        with pytest.raises(ValidationError):
            session_factory(primary, replicas=wrong)
    await other.dispose()
