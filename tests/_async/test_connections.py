"""Engines on SQLite, sessions, and passwords that are refused: no server is needed."""

from __future__ import annotations

import gc
import logging
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import NullPool, QueuePool, StaticPool, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.schema import CreateTable
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_row,
    get_session,
    pool_status,
    session_factory,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    DatabaseConnectionError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, make_tables, sync_session
from tests.fake_postgresql import refusing_server
from tests.models import Hero, Team

SECRET = "hunter2"
MEMORY_URLS = [
    "sqlite://",
    "sqlite:///:memory:",
    "sqlite:///file::memory:",
    "sqlite:///file::memory:?cache=shared&uri=true",
    "sqlite:///file:heroes?mode=memory&cache=shared",
]


def traceback_of(error: BaseException) -> str:
    """Return the full traceback of an error and its causes."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def names_in(folder: Path) -> set[str]:
    """The names of the files in a folder."""
    return {file.name for file in folder.iterdir()}


async def value(engine: AsyncEngine, statement: str) -> Any:
    """Return the value of a statement, on a separate connection."""
    async with engine.connect() as connection:
        return (await connection.execute(text(statement))).scalar()


async def make_teams(engine: AsyncEngine) -> None:
    """Make the tables of teams and heroes, and one team."""
    async with engine.begin() as connection:
        for table in (Team.__table__, Hero.__table__):
            await connection.execute(CreateTable(table))
        await connection.execute(text("INSERT INTO team (id, name) VALUES (1, 'Rangers')"))


async def add_team_and_fail(engine: AsyncEngine, error: type[BaseException]) -> None:
    """A request that fails after its write."""
    async with asynccontextmanager(get_session(engine))() as session:
        session.add(Team(name="Rovers"))
        await session.flush()
        raise error


class TestSQLite:
    async def test_a_file_is_in_wal_mode_with_a_busy_timeout(self, tmp_path: Path) -> None:
        """Readers and a writer don't block each other, and writers wait."""
        engine = create_pooled_engine(f"sqlite:///{tmp_path}/heroes.db")
        assert await value(engine, "PRAGMA journal_mode") == "wal"
        assert await value(engine, "PRAGMA busy_timeout") == 30_000
        await engine.dispose()

    async def test_the_timeout_can_be_set(self, tmp_path: Path) -> None:
        """SQLite's timeout is set in the URL or for the driver."""
        for url, options in (
            (f"sqlite:///{tmp_path}/heroes.db?timeout=2", {}),
            (f"sqlite:///{tmp_path}/heroes.db", {"connect_args": {"timeout": 2}}),
        ):
            engine = create_pooled_engine(url, **options)
            assert await value(engine, "PRAGMA busy_timeout") == 2000
            await engine.dispose()

    @pytest.mark.parametrize(
        "url", ["sqlite://", "sqlite:///file::memory:", "sqlite:///{}/heroes.db"]
    )
    async def test_foreign_keys_are_enforced(self, url: str, tmp_path: Path) -> None:
        """SQLite ignores them on every connection that doesn't ask for them."""
        engine = create_pooled_engine(url.format(tmp_path))
        await make_teams(engine)
        async with AsyncSession(engine) as first, AsyncSession(engine) as second:
            for session in (first, second):
                session.add(Hero(name="Ann", secret_name="A", team_id=99))
                with pytest.raises(IntegrityError, match="FOREIGN KEY"):
                    await session.flush()
                await session.rollback()
        await engine.dispose()

    @pytest.mark.parametrize("url", MEMORY_URLS)
    async def test_sessions_share_the_database_in_memory(self, url: str) -> None:
        """It would be empty for each connection otherwise."""
        engine = create_pooled_engine(url)
        await make_teams(engine)
        async with AsyncSession(engine) as session:
            session.add(Hero(name="Ann", secret_name="A", team_id=1))
            await session.commit()
        async with AsyncSession(engine) as first, AsyncSession(engine) as second:
            for session in (first, second):
                assert (await session.exec(select(Hero.name))).all() == ["Ann"]
        assert pool_status(engine)["size"] == 1
        await engine.dispose()

    async def test_two_databases_in_memory_are_separate(self) -> None:
        """Tests with an engine each don't meet."""
        first, second = create_pooled_engine("sqlite://"), create_pooled_engine("sqlite://")
        await make_teams(first)
        assert await value(first, "SELECT count(*) FROM team") == 1
        assert await value(second, "SELECT count(*) FROM sqlite_master") == 0
        await first.dispose()
        await second.dispose()

    async def test_the_pool_keeps_what_it_was_told_to(self, tmp_path: Path) -> None:
        """A file has a real pool, with the numbers that were given."""
        engine = create_pooled_engine(
            f"sqlite:///{tmp_path}/heroes.db", pool_size=2, max_overflow=1, pool_timeout=0.1
        )
        async with engine.connect(), engine.connect(), engine.connect():
            assert pool_status(engine) == {
                "size": 2,
                "checked_in": 0,
                "checked_out": 3,
                "overflow": 1,
            }
            with pytest.raises(Exception, match="QueuePool limit of size 2 overflow 1"):
                await value(engine, "SELECT 1")
        assert pool_status(engine) == {
            "size": 2,
            "checked_in": 2,
            "checked_out": 0,
            "overflow": 0,
        }
        await engine.dispose()

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///{}/heroes.db"])
    async def test_dispose_closes_everything(self, url: str, tmp_path: Path) -> None:
        """A connection that is left open is a ResourceWarning, and here an error."""
        engine = create_pooled_engine(url.format(tmp_path))
        async with engine.connect(), engine.connect():
            pass
        await engine.dispose()
        assert pool_status(engine)["checked_in"] == 0
        del engine
        gc.collect()
        # SQLite removes the files beside it with the last connection.
        assert names_in(tmp_path) <= {"heroes.db"}

    async def test_a_file_that_is_no_database_fails_when_it_is_used(self, tmp_path: Path) -> None:
        """The connection is closed, and the error is the driver's own."""
        (tmp_path / "notes.txt").write_text("no database" * 100)
        engine = create_pooled_engine(f"sqlite:///{tmp_path}/notes.txt")
        with pytest.raises(DBAPIError, match="not a database"):
            await value(engine, "SELECT count(*) FROM sqlite_master")
        await engine.dispose()
        gc.collect()

    async def test_a_busy_file_can_be_opened(self, tmp_path: Path) -> None:
        """WAL mode can't be set while another program writes; the next connection sets it."""
        file = tmp_path / "heroes.db"
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("CREATE TABLE team (name)")
        other.execute("BEGIN EXCLUSIVE")
        engine = create_pooled_engine(f"sqlite:///{file}", connect_args={"timeout": 0.01})
        async with engine.connect() as connection:
            assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar() == 1
            other.execute("COMMIT")
            other.close()
            async with engine.connect() as second:
                assert (await second.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        await engine.dispose()


class TestArguments:
    @pytest.mark.parametrize(
        ("numbers", "field"),
        [
            ({"pool_size": 0}, "pool_size"),
            ({"pool_size": True}, "pool_size"),
            ({"max_overflow": -2}, "max_overflow"),
            ({"pool_timeout": 0}, "pool_timeout"),
            ({"pool_timeout": float("nan")}, "pool_timeout"),
        ],
    )
    def test_bad_numbers_are_refused(self, numbers: dict[str, Any], field: str) -> None:
        """Bad numbers are refused on every database."""
        for url in ("sqlite://", "postgresql://host/db"):
            with pytest.raises(ValidationError) as caught:
                create_pooled_engine(url, **numbers)
            assert caught.value.field == field

    @pytest.mark.parametrize(
        "url", ["", "heroes", "oracle://host/db", f"postgresql://ann:a@{SECRET}@host/db", None]
    )
    def test_a_bad_url_is_refused(self, url: Any) -> None:
        """The password is not revealed."""
        with pytest.raises(ValidationError) as caught:
            create_pooled_engine(url)
        assert caught.value.field == "database_url"
        assert SECRET not in traceback_of(caught.value)

    @pytest.mark.parametrize("echo", [False, True])
    async def test_a_traceback_shows_no_parameters(self, echo: bool) -> None:
        """With an echo it does: it was asked for."""
        engine = create_pooled_engine("sqlite://", echo=echo)
        await make_tables(engine, Team, Hero)
        async with session_factory(engine)() as session:
            with pytest.raises(ConstraintViolationError) as refused:
                row = Hero(name=SECRET, secret_name="?", team_id=99)
                await write_row(row, session, raise_on_error=True)
        assert (SECRET in traceback_of(refused.value)) is echo
        await engine.dispose()

    async def test_sqlalchemys_arguments_win(self) -> None:
        """They are passed on unchanged."""
        engine = create_pooled_engine("sqlite://", poolclass=NullPool, echo="debug")
        assert isinstance(engine.pool, NullPool)
        assert engine.echo == "debug"
        assert set(pool_status(engine).values()) == {0}
        await engine.dispose()

    async def test_sqlalchemy_does_not_ask_each_connection(self) -> None:
        """A ping costs a round trip; the caller may enable it."""
        for url, kind in (("sqlite://", StaticPool), ("postgresql://host/db", QueuePool)):
            engine = create_pooled_engine(url)
            assert isinstance(engine.pool, kind)
            assert engine.pool._pre_ping is False
            assert create_pooled_engine(url, pool_pre_ping=True).pool._pre_ping is True

    def test_a_rest_is_a_length_of_time(self) -> None:
        """A negative `pool_ping_after` is refused on every database."""
        for url in ("sqlite://", "postgresql://host/db"):
            with pytest.raises(ValidationError) as caught:
                create_pooled_engine(url, pool_ping_after=-1)
            assert caught.value.field == "pool_ping_after"


class TestSessions:
    async def test_the_factory_makes_sqlmodel_sessions(self) -> None:
        """They have SQLAlchemy's default settings, or those that are given."""
        engine = create_pooled_engine("sqlite://")
        async with session_factory(engine)() as session:
            assert isinstance(session, AsyncSession)
            assert sync_session(session).expire_on_commit is True
            assert (await session.exec(select(1))).one() == 1
        async with session_factory(engine, expire_on_commit=False)() as session:
            assert sync_session(session).expire_on_commit is False
        await engine.dispose()

    async def test_the_factory_begins_transactions_too(self) -> None:
        """`begin()` of the factory opens a transaction, as SQLAlchemy's does."""
        engine = create_pooled_engine("sqlite://")
        await make_teams(engine)
        async with session_factory(engine).begin() as session:
            session.add(Team(name="Rovers"))
        assert await value(engine, "SELECT count(*) FROM team") == 2
        await engine.dispose()

    async def test_the_dependency_gives_a_session_and_closes_it(self, tmp_path: Path) -> None:
        """FastAPI makes a context manager of it, too, for each request."""
        engine = create_pooled_engine(f"sqlite:///{tmp_path}/heroes.db")
        request = asynccontextmanager(get_session(engine))
        async with request() as first, request() as second:
            assert first is not second
            for session in (first, second):
                assert isinstance(session, AsyncSession)
                assert (await session.exec(select(1))).one() == 1
            assert pool_status(engine)["checked_out"] == 2
        assert pool_status(engine)["checked_out"] == 0
        await engine.dispose()

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    async def test_the_dependency_rolls_back_on_an_error(
        self, error: type[BaseException], tmp_path: Path
    ) -> None:
        """The error propagates; nothing of the request is kept."""
        engine = create_pooled_engine(f"sqlite:///{tmp_path}/heroes.db")
        await make_teams(engine)
        with pytest.raises(error):
            await add_team_and_fail(engine, error)
        assert pool_status(engine)["checked_out"] == 0
        assert await value(engine, "SELECT count(*) FROM team") == 1
        await engine.dispose()

    async def test_the_dependency_keeps_what_was_committed(self) -> None:
        """A request keeps what it committed, and nothing else."""
        engine = create_pooled_engine("sqlite://")
        await make_teams(engine)
        async with asynccontextmanager(get_session(engine, autoflush=False))() as session:
            assert sync_session(session).autoflush is False
            session.add(Team(name="Rovers"))
            await session.commit()
            session.add(Team(name="Wanderers"))
            await session.flush()
        assert await value(engine, "SELECT count(*) FROM team") == 2
        await engine.dispose()

    @pytest.mark.parametrize("function", [session_factory, get_session, pool_status])
    def test_what_is_no_engine_is_refused(self, function: Callable[[Any], Any]) -> None:
        """It is refused at once, not at the first request."""
        with pytest.raises(ValidationError, match="not str") as caught:
            function("sqlite://")
        assert caught.value.field == "engine"


class TestWrongPassword:
    @pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
    @pytest.mark.parametrize(
        "password",
        [None, SECRET, SecretStr(SECRET), lambda: SECRET],
        ids=["in the URL", "str", "SecretStr", "callable"],
    )
    async def test_it_never_shows(
        self, scheme: str, password: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither in the error and its causes, nor in what the pool and the engine log."""
        caplog.set_level(logging.DEBUG)
        with refusing_server() as server:
            url = server.url.replace("postgresql", scheme, 1)
            url = url if password else url.replace("ann", f"ann:{SECRET}")
            engine = create_pooled_engine(url, password=password, echo_pool="debug", echo=True)
            async with AsyncSession(engine) as session:
                with pytest.raises(DatabaseConnectionError) as caught:
                    await get_row(1, session, Hero)
            await engine.dispose()
        assert server.passwords == [SECRET]
        assert "password authentication failed" in traceback_of(caught.value)
        assert SECRET not in traceback_of(caught.value)
        assert SECRET not in caplog.text + repr(engine) + repr(engine.url) + str(engine.url)

    async def test_each_attempt_asks_for_it_again(self) -> None:
        """A token that was refused may have been replaced meanwhile."""
        tokens = iter(["first", "second"])
        with refusing_server() as server:
            engine = create_pooled_engine(server.url, password=lambda: next(tokens))
            for _ in range(2):
                with pytest.raises(Exception, match="password authentication failed"):
                    await value(engine, "SELECT 1")
            await engine.dispose()
        assert server.passwords == ["first", "second"]
        assert pool_status(engine)["checked_out"] == 0

    async def test_a_callable_that_fails_is_heard(self) -> None:
        """Its error propagates unchanged, and the pool loses no connection."""

        async def token() -> str:
            raise LookupError("the vault is closed")

        engine = create_pooled_engine("postgresql://ann@127.0.0.1:1/db", password=token)
        with pytest.raises(LookupError, match="vault"):
            await value(engine, "SELECT 1")
        assert pool_status(engine)["checked_out"] == 0
        await engine.dispose()

    async def test_an_unreachable_server_is_a_connection_error(self) -> None:
        """It is not reported as "not found"."""
        engine = create_pooled_engine(f"postgresql://ann:{SECRET}@127.0.0.1:1/db")
        async with AsyncSession(engine) as session:
            with pytest.raises(DatabaseConnectionError) as caught:
                await get_row(1, session, Hero)
        assert SECRET not in traceback_of(caught.value)
        await engine.dispose()
