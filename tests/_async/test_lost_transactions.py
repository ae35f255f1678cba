"""A write whose connection is lost reports that, not bad rows or a failed statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text

from sqlmodel_crud_utils.aio import (
    bulk_insert_rows,
    bulk_upsert_mappings,
    get_one_or_create,
    get_rows,
    insert_data_rows,
    on_commit,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, TransactionError
from sqlmodel_crud_utils.hooks import ValidateOnWrite, registered_hook
from tests._async.transacting import assert_usable, hero, names
from tests._runtime_async import AsyncEngine, AsyncSession, execute, first_of
from tests.databases import Database
from tests.models import Hero

KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT connection_id()", "KILL {}"),
}


class Killer:
    """Lets the server end a session's connection."""

    def __init__(self, database: Database) -> None:
        self._identify, self._kill = KILL[database.name]
        self._engine = create_engine(database.sync_url)

    async def connection_of(self, session: AsyncSession) -> Any:
        """Return what the server calls the connection."""
        return first_of(await execute(session, text(self._identify)))

    def kill(self, connection: Any) -> None:
        """End the connection, from another one."""
        with self._engine.connect() as own:
            own.execute(text(self._kill.format(connection)))

    async def kill_that_of(self, session: AsyncSession) -> None:
        """End the connection that the session has; it does not notice."""
        self.kill(await self.connection_of(session))

    def close(self) -> None:
        """Close the connection of this object."""
        self._engine.dispose()


@pytest.fixture
def killer(database: Database) -> Iterator[Killer]:
    """Lets the server end connections."""
    killer = Killer(database)
    yield killer
    killer.close()


def heroes(count: int) -> list[Hero]:
    """New rows, all of them good."""
    return [hero(f"hero {number}") for number in range(count)]


async def insert(session: AsyncSession) -> None:
    """Rows as objects."""
    await insert_data_rows(heroes(3), session)


async def insert_strictly(session: AsyncSession) -> None:
    """All or nothing."""
    await insert_data_rows(heroes(3), session, raise_on_error=True)


async def insert_many_strictly(session: AsyncSession) -> None:
    """So many that they go past the unit of work."""
    await insert_data_rows(heroes(200), session, raise_on_error=True)


async def insert_with_hooks(session: AsyncSession) -> None:
    """Row by row."""
    with registered_hook(Hero, ValidateOnWrite()):
        await insert_data_rows(heroes(3), session)


async def bulk_insert(session: AsyncSession) -> None:
    """Few enough for an INSERT."""
    await bulk_insert_rows(heroes(3), session, Hero)


async def copy(session: AsyncSession) -> None:
    """On PostgreSQL with COPY."""
    await bulk_insert_rows(heroes(500), session, Hero)


async def upsert(session: AsyncSession) -> None:
    """So many that they go in one parameter per column on PostgreSQL."""
    rows = [{"name": row.name, "secret_name": "?"} for row in heroes(200)]
    await bulk_upsert_mappings(rows, session, Hero, ["name"], raise_on_error=True)


async def write(session: AsyncSession) -> None:
    """One row."""
    await write_row(hero("one"), session, raise_on_error=True)


async def create(session: AsyncSession) -> None:
    """One row, if it is not there."""
    await get_one_or_create(session, Hero, {"secret_name": "?"}, name="one")


WRITES = [
    *(insert, insert_strictly, insert_many_strictly, insert_with_hooks),
    *(bulk_insert, copy, upsert, write, create),
]


@pytest.mark.databases("postgresql", "mysql")
class TestBefore:
    """The connection is lost before the COMMIT, so nothing was written."""

    @pytest.mark.parametrize("inside", [True, False], ids=["block", "no block"])
    @pytest.mark.parametrize("work", WRITES)
    async def test_a_write(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        killer: Killer,
        work: Callable[[AsyncSession], Any],
        inside: bool,
    ) -> None:
        """The error is that of a connection, with the driver's behind it."""
        with pytest.raises(DatabaseConnectionError) as caught:
            if inside:
                async with transaction(session, wrap_errors=False):
                    await killer.kill_that_of(session)
                    await work(session)
            else:
                await killer.kill_that_of(session)
                await work(session)
        assert caught.value.__cause__ is not None
        await session.rollback()
        assert await names(engine) == []
        await assert_usable(session, engine)

    @pytest.mark.parametrize("method", ["auto", "insert"])
    async def test_between_two_chunks(
        self, session: AsyncSession, engine: AsyncEngine, killer: Killer, method: Any
    ) -> None:
        """Earlier chunks are lost as well."""
        connection = await killer.connection_of(session)

        def rows() -> Iterator[Hero]:
            yield from heroes(200)
            killer.kill(connection)
            yield from [hero(f"more {number}") for number in range(200)]

        with pytest.raises(DatabaseConnectionError):
            await bulk_insert_rows(rows(), session, Hero, chunk_size=100, method=method)
        assert await names(engine) == []
        await assert_usable(session, engine)

    @pytest.mark.parametrize("how", ["nested block", "flush", "flagged"])
    async def test_at_a_step_of_the_block_itself(
        self, session: AsyncSession, engine: AsyncEngine, killer: Killer, how: str
    ) -> None:
        """At its savepoint, its flush, or after a write that may fail."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                await write_row(hero("one"), session)
                await killer.kill_that_of(session)
                if how == "nested block":
                    async with transaction(session):
                        await write_row(hero("two"), session)
                elif how == "flush":
                    session.add(hero("two"))
                else:
                    await write_row(hero("two"), session, raise_on_error=False)
                    await write_row(hero("three"), session)
        error = caught.value
        while isinstance(error.original_error, TransactionError):
            error = error.original_error
        assert isinstance(error.original_error, DatabaseConnectionError)
        assert not error.outcome_unknown
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_a_flagged_failure_alone(
        self, session: AsyncSession, engine: AsyncEngine, killer: Killer
    ) -> None:
        """The exit reports what happened, and does not advise to pass the flag that was passed."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                await killer.kill_that_of(session)
                await write_row(hero("two"), session, raise_on_error=False)
        assert isinstance(caught.value.original_error, DatabaseConnectionError)
        assert "raise_on_error" not in str(caught.value)
        assert await names(engine) == []

    async def test_a_read(self, session: AsyncSession, engine: AsyncEngine, killer: Killer) -> None:
        """It leaves an earlier transaction to the caller; the next error says the same."""
        await killer.kill_that_of(session)
        for _ in range(2):
            with pytest.raises(DatabaseConnectionError):
                await get_rows(session, Hero)
        await session.rollback()
        await assert_usable(session, engine)


class TestAtTheCommit:
    """The COMMIT was sent, and no answer came: its outcome is unknown."""

    @pytest.fixture
    def lost(
        self, engine: AsyncEngine, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Let the connection be lost just after a COMMIT that was carried out."""
        dialect: Any = engine.dialect
        committed = dialect.do_commit

        def do_commit(connection: Any) -> None:
            monkeypatch.undo()
            committed(connection)
            raise ConnectionResetError

        monkeypatch.setattr(dialect, "do_commit", do_commit)
        assert session is not None

    def assert_unknown(self, error: TransactionError) -> None:
        """Check the error of an unknown outcome."""
        assert error.outcome_unknown
        assert error.operation == "commit"
        assert isinstance(error.original_error, DatabaseConnectionError)
        assert "check before" in str(error)

    @pytest.mark.usefixtures("lost")
    @pytest.mark.parametrize("wrap_errors", [True, False])
    async def test_of_a_block(
        self, session: AsyncSession, engine: AsyncEngine, wrap_errors: bool
    ) -> None:
        """With `wrap_errors=False`, too; callbacks do not run."""
        ran: list[str] = []
        with pytest.raises(TransactionError) as caught:
            async with transaction(session, wrap_errors=wrap_errors):
                await write_row(hero("one"), session)
                on_commit(session, lambda: ran.append("told"))
        self.assert_unknown(caught.value)
        assert await names(engine) == ["one"]
        await assert_usable(session, engine)
        assert ran == []

    @pytest.mark.usefixtures("lost")
    @pytest.mark.parametrize("raise_on_error", [True, False, None])
    async def test_of_one_row(
        self, session: AsyncSession, engine: AsyncEngine, raise_on_error: bool | None
    ) -> None:
        """A tuple could only say that it was written or that it was not."""
        with pytest.raises(TransactionError) as caught:
            await write_row(hero("one"), session, raise_on_error=raise_on_error)
        self.assert_unknown(caught.value)
        assert await names(engine) == ["one"]
        await assert_usable(session, engine)

    @pytest.mark.usefixtures("lost")
    @pytest.mark.parametrize("work", WRITES)
    async def test_of_other_writes(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        work: Callable[[AsyncSession], Any],
    ) -> None:
        """None of them is tried again, which would write twice."""
        with pytest.raises(TransactionError) as caught:
            await work(session)
        self.assert_unknown(caught.value)
        assert await names(engine) != []
        await assert_usable(session, engine)

    @pytest.mark.databases("postgresql", "mysql")
    async def test_a_connection_that_is_really_lost(
        self, session: AsyncSession, engine: AsyncEngine, killer: Killer
    ) -> None:
        """If the driver knows that it is closed, nothing was sent."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                await write_row(hero("one"), session)
                await killer.kill_that_of(session)
        assert isinstance(caught.value.original_error, DatabaseConnectionError)
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_a_refused_commit_is_known(
        self, session: AsyncSession, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the connection was not lost, the outcome is known."""

        def do_commit(_connection: Any) -> None:
            raise RuntimeError("no commit")

        with monkeypatch.context() as patch, pytest.raises(TransactionError) as caught:
            patch.setattr(engine.dialect, "do_commit", do_commit)
            async with transaction(session):
                await update_row(1, {"age": 1}, session, Hero, raise_on_error=False)
                await execute(session, select(Hero))
        assert not caught.value.outcome_unknown
        await assert_usable(session, engine)
