"""`isolated`: the sessions of a test behave as in production, and nothing outlives the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import delete, insert, select, text, update

from sqlmodel_crud_utils.aio import (
    bulk_insert_rows,
    bulk_upsert_mappings,
    get_one_or_create,
    insert_data_rows,
    on_commit,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import TransactionError, ValidationError
from sqlmodel_crud_utils.ext.pytest import assert_queries, isolated
from tests._async.rows import count_of, given
from tests._runtime_async import AsyncEngine, AsyncSession, execute, fetched, run_on_connection
from tests.models import Hero


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


async def names(session: AsyncSession) -> list[str]:
    """The names that a session sees, in order."""
    return sorted(fetched(await execute(session, select(Hero.name))))


@pytest.fixture
async def nothing_stays(session: AsyncSession, engine: AsyncEngine) -> AsyncIterator[None]:
    """The table has one row, before and after the test, and no connection is in use."""
    await given(session, hero("Rusty"))
    yield
    assert await count_of(session, Hero) == 1
    await session.close()
    assert engine.pool.checkedout() == 0


@pytest.mark.usefixtures("nothing_stays")
class TestNothingStays:
    async def test_of_what_is_committed(self, engine: AsyncEngine) -> None:
        """By the library, a block or explicitly; another session of the test sees it."""
        async with isolated(engine) as new_session, new_session() as writer:
            await write_row(hero("Nova"), writer)
            async with transaction(writer):
                await write_row(hero("Dust"), writer)
            writer.add(hero("Echo"))
            await writer.commit()
            async with new_session() as reader:
                assert await names(reader) == ["Dust", "Echo", "Nova", "Rusty"]
                assert isinstance(reader, type(writer))

    async def test_of_many_rows(self, engine: AsyncEngine) -> None:
        """COPY, arrays, upserts and statements for many rows are undone as well."""
        async with isolated(engine) as new_session, new_session() as session:
            await bulk_insert_rows([hero(f"Copy {n}") for n in range(500)], session, Hero)
            await insert_data_rows([hero(f"Row {n}") for n in range(50)], session)
            rows = [{"id": 1_000_000 + n, "name": f"U{n}", "secret_name": "?"} for n in range(50)]
            await bulk_upsert_mappings(rows, session, Hero)
            await execute(session, update(Hero).values(age=3))
            await session.commit()
            assert await count_of_rows(session) == 601

    async def test_of_a_block_that_failed(self, engine: AsyncEngine) -> None:
        """It undoes its own rows at once, and those before it are still there."""
        async with isolated(engine) as new_session, new_session() as session:
            await write_row(hero("Nova"), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("Dust"), session)
                    raise RuntimeError
            assert await names(session) == ["Nova", "Rusty"]
            assert await write_row(hero("Nova"), session, raise_on_error=False) == (False, None)
            async with transaction(session):
                assert not (await write_row(hero("Nova"), session, raise_on_error=False))[0]
                await write_row(hero("Echo"), session)
            assert await names(session) == ["Echo", "Nova", "Rusty"]

    async def test_of_rows_that_are_deleted(self, engine: AsyncEngine) -> None:
        """Rows from before are restored."""
        async with isolated(engine) as new_session, new_session() as session:
            await execute(session, delete(Hero))
            await session.commit()
            assert await names(session) == []
            _, existed = await get_one_or_create(session, Hero, {"secret_name": "?"}, name="Rusty")
            assert not existed

    async def test_of_a_test_that_fails(self, engine: AsyncEngine) -> None:
        """Its exception propagates unchanged."""
        with pytest.raises(ZeroDivisionError):
            async with isolated(engine) as new_session, new_session() as session:
                await write_row(hero("Nova"), session)
                raise ZeroDivisionError

    async def test_of_sessions_that_are_left_open(self, engine: AsyncEngine) -> None:
        """They need not be closed, even in the middle of a transaction."""
        async with isolated(engine) as new_session:
            first, second = new_session(), new_session()
            await write_row(hero("Nova"), first)
            first.add(hero("Dust"))
            await first.flush()
            assert await names(second) == ["Dust", "Nova", "Rusty"]

    async def test_of_a_transaction_that_is_ended_by_hand(self, engine: AsyncEngine) -> None:
        """A commit of the connection is refused: it would be a real one."""
        async with isolated(engine) as new_session, new_session() as session:
            await write_row(hero("Nova"), session)
            with pytest.raises(TransactionError, match="commit the session"):
                await run_on_connection(session, lambda connection: connection.commit())

    async def test_of_a_transaction_that_is_rolled_back_by_hand(self, engine: AsyncEngine) -> None:
        """Later statements on the connection are undone, too."""
        async with isolated(engine) as new_session, new_session() as session:
            await run_on_connection(session, lambda connection: connection.rollback())
            await run_on_connection(
                session,
                lambda connection: connection.execute(
                    insert(Hero).values(name="Nova", secret_name="?")
                ),
            )

    async def test_of_sessions_that_end_in_the_wrong_order(self, engine: AsyncEngine) -> None:
        """Their savepoints hold each other, and the error says what to do."""
        async with (
            isolated(engine) as new_session,
            new_session() as first,
            new_session() as second,
        ):
            first.add(hero("Nova"))
            await first.flush()
            assert await names(second) == ["Nova", "Rusty"]
            with pytest.raises(TransactionError, match="began last must end first"):
                await first.commit()

    async def test_of_an_engine_in_use_again(self, engine: AsyncEngine) -> None:
        """The connection returns to the pool unchanged."""
        for _ in range(3):
            async with isolated(engine) as new_session, new_session() as session:
                await write_row(hero("Nova"), session)


async def count_of_rows(session: AsyncSession) -> int:
    """How many heroes a session sees."""
    return len(await names(session))


class TestCallbacks:
    async def test_they_run_at_the_commit_of_the_code(self, engine: AsyncEngine) -> None:
        """Not earlier, and not for what is undone."""
        ran: list[str] = []
        async with isolated(engine) as new_session, new_session() as session:
            async with transaction(session):
                on_commit(session, lambda: ran.append("outer"))
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        on_commit(session, lambda: ran.append("undone"))
                        raise RuntimeError
                assert ran == []
            assert ran == ["outer"]
            with pytest.raises(TransactionError):
                async with transaction(session):
                    on_commit(session, lambda: ran.append("never"))
                    raise RuntimeError
        assert ran == ["outer"]


class TestArguments:
    async def test_settings_of_the_sessions(self, engine: AsyncEngine) -> None:
        """They are those of `session_factory`."""
        async with (
            isolated(engine, expire_on_commit=False) as new_session,
            new_session() as session,
        ):
            row = hero("Nova")
            session.add(row)
            await session.commit()
            assert row.name == "Nova"

    def test_what_is_no_engine(self) -> None:
        """It is named before anything happens."""
        with pytest.raises(ValidationError, match=r"isolated takes .*, not str"):
            isolated("sqlite://")

    def test_replicas(self, engine: AsyncEngine) -> None:
        """They would be read from past the connection."""
        with pytest.raises(ValidationError, match="leave replicas out"):
            isolated(engine, replicas=[engine])

    async def test_an_engine_that_commits_by_itself(self, engine: AsyncEngine) -> None:
        """It could undo nothing."""
        committing = engine.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(ValidationError, match="AUTOCOMMIT"):
            async with isolated(committing):
                pass
        assert engine.pool.checkedout() == 0


class TestAssertQueries:
    async def test_what_is_sent_is_counted(self, session: AsyncSession) -> None:
        """Statements are listed in their order; savepoints and commits do not count."""
        async with transaction(session):
            with assert_queries(2) as queries:
                async with transaction(session):
                    await execute(session, text("SELECT 1"))
                    await execute(session, select(Hero.id))
        assert [query.split()[0] for query in queries] == ["SELECT", "SELECT"]

    async def test_a_wrong_count(self, session: AsyncSession) -> None:
        """The error lists the statements, without their values."""
        with pytest.raises(AssertionError) as failed, assert_queries(1):
            await execute(session, select(Hero.id).where(Hero.name == "secret"))
            await execute(session, text("SELECT 2"))
        lines = str(failed.value).splitlines()
        assert lines[0] == "expected 1 statement, but 2 sent:"
        assert lines[1].startswith("1. SELECT hero.id")
        assert lines[-1] == "2. SELECT 2"
        assert "secret" not in str(failed.value).replace("secret_name", "")

    def test_the_error_of_the_block_comes_first(self) -> None:
        """A count would hide it."""
        with pytest.raises(ZeroDivisionError), assert_queries(1):
            raise ZeroDivisionError

    async def test_nothing_is_counted_after_the_block(self, session: AsyncSession) -> None:
        """Blocks can be nested, too."""
        with assert_queries(1) as outer, assert_queries(1):
            await execute(session, text("SELECT 1"))
        await execute(session, text("SELECT 2"))
        assert outer == ["SELECT 1"]

    @pytest.mark.databases("postgresql")
    async def test_copy_is_counted(self, session: AsyncSession) -> None:
        """The drivers send it past SQLAlchemy."""
        rows = [hero(f"Copy {n}") for n in range(500)]
        with assert_queries(1) as queries:
            await bulk_insert_rows(rows, session, Hero, method="copy")
        assert queries[0].startswith('COPY "hero" (')

    @pytest.mark.parametrize("count", [-1, "2", None])
    def test_what_is_no_count(self, count: object) -> None:
        """It is refused before the block."""
        with pytest.raises(ValidationError, match="must be 0 or more"), assert_queries(count):
            pass
