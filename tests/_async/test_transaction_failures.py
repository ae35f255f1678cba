"""`transaction()` when it fails, or loses its connection: what is undone, and what is raised."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    get_rows,
    insert_data_rows,
    is_transient,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    DatabaseConnectionError,
    TransactionError,
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
    make_engine,
)
from tests.databases import Database
from tests.models import DeferredChild, Hero, Parent

KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT connection_id()", "KILL {}"),
}


@contextmanager
def refused_commits(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every COMMIT fail before it reaches the database."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no commit")

    with monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "do_commit", refuse)
        yield


class TestFailure:
    async def test_everything_is_rolled_back_and_the_error_wrapped(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The original error is the cause, and its message is included."""
        error = ValueError("no seats left")
        with pytest.raises(TransactionError) as caught:
            async with transaction(session) as tx:
                await write_row(hero("Rusty"), session)
                await insert_data_rows([hero("Nova")], session)
                tx.add(hero("Sid"))
                raise error
        assert caught.value.__cause__ is caught.value.original_error is error
        assert str(caught.value) == "Transaction failed: ValueError: no seats left"
        assert not caught.value.outcome_unknown
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_an_error_of_the_library(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Inside a block, writes raise by default."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                await write_row(hero("Rusty"), session)
        assert isinstance(caught.value.original_error, ConstraintViolationError)
        assert caught.value.original_error.columns == ("name",)
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_wrap_errors_false_lets_the_original_through(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """As it is: an HTTPException in a web handler, say."""
        error = LookupError("teapot")
        with pytest.raises(LookupError) as caught:
            async with transaction(session, wrap_errors=False):
                await write_row(hero("Rusty"), session)
                raise error
        assert caught.value is error
        assert error.__cause__ is None
        with pytest.raises(ConstraintViolationError):
            async with transaction(session, wrap_errors=False):
                await insert_data_rows([hero("Rusty")], session)
                await write_row(hero("Rusty"), session)
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_a_transaction_error_is_not_wrapped_twice(self, session: AsyncSession) -> None:
        """Through any number of levels, also one that the user raised."""
        error = ValueError()
        with pytest.raises(TransactionError) as caught:
            async with transaction(session), transaction(session), transaction(session):
                raise error
        assert caught.value.original_error is error
        own = TransactionError("my own")
        with pytest.raises(TransactionError) as caught:
            async with transaction(session), transaction(session, wrap_errors=False):
                raise own
        assert caught.value is own

    async def test_an_inner_block_that_does_not_wrap(self, session: AsyncSession) -> None:
        """An outer block wraps what an inner one lets out."""
        error = ValueError()
        with pytest.raises(TransactionError) as caught:
            async with transaction(session), transaction(session, wrap_errors=False):
                raise error
        assert caught.value.original_error is error

    @pytest.mark.parametrize("wrap_errors", [True, False])
    async def test_stop_iteration(self, session: AsyncSession, wrap_errors: bool) -> None:
        """Exceptions that generators treat specially are handled like any other."""
        error = StopIteration()
        with pytest.raises((StopIteration, TransactionError, RuntimeError)) as caught:
            async with transaction(session, wrap_errors=wrap_errors):
                await write_row(hero("Rusty"), session)
                raise error
        assert error in {caught.value, caught.value.__cause__}
        assert await get_rows(session, Hero) == (False, [])

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
    @pytest.mark.parametrize("depth", [1, 2])
    async def test_interruptions_roll_back_and_pass(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        interruption: type[BaseException],
        depth: int,
    ) -> None:
        """They are not errors of the block, and not caught by `except TransactionError`."""
        error = interruption()
        with pytest.raises(interruption) as caught:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                if depth == 1:
                    raise error
                async with transaction(session):
                    await write_row(hero("Nova"), session)
                    raise error
        assert caught.value is error
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_an_inner_failure_that_is_caught(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It undoes the inner part, with what was released in it, and nothing else."""
        async with transaction(session):
            await write_row(hero("outer"), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("inner"), session)
                    async with transaction(session):
                        await write_row(hero("innermost"), session)
                    raise RuntimeError
            await write_row(hero("more"), session)
        assert await names(engine) == ["more", "outer"]

    async def test_an_outer_failure_undoes_inner_blocks(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A released savepoint is not a commit."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                async with transaction(session):
                    await write_row(hero("inner"), session)
                async with session.begin_nested():
                    session.add(hero("by hand"))
                raise RuntimeError
        assert await names(engine) == []
        await assert_usable(session, engine)

    @pytest.mark.databases("postgresql", "sqlite")
    @pytest.mark.parametrize("wrap_errors", [True, False])
    async def test_a_deferred_constraint(
        self, session: AsyncSession, engine: AsyncEngine, wrap_errors: bool
    ) -> None:
        """The database refuses the COMMIT itself."""
        expected = TransactionError if wrap_errors else ConstraintViolationError
        with pytest.raises(expected) as caught:
            async with transaction(session, wrap_errors=wrap_errors):
                await write_row(hero("Rusty"), session)
                await write_row(DeferredChild(parent_id=999), session)
        refusal = caught.value.original_error if wrap_errors else caught.value
        assert isinstance(refusal, ConstraintViolationError)
        assert refusal.kind == "foreign_key"
        assert isinstance(refusal.__cause__, IntegrityError)
        assert await names(engine) == []
        await assert_usable(session, engine)
        async with transaction(session):
            _, child = await write_row(DeferredChild(id=1, parent_id=1), session)
            await write_row(Parent(id=1, name="late"), session)
        assert child.parent_id == 1

    async def test_a_commit_that_fails(
        self, session: AsyncSession, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A commit that fails for any reason is reported, on every database."""
        with (
            refused_commits(engine, monkeypatch),
            pytest.raises(TransactionError, match="RuntimeError"),
        ):
            async with transaction(session):
                await write_row(hero("Rusty"), session)
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_a_flush_at_the_exit_that_fails(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A pending row is refused at the end of the block."""
        await write_row(hero("Rusty"), session)
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                session.add(hero("Nova"))
                session.add(hero("Rusty"))
        assert isinstance(caught.value.original_error, ConstraintViolationError)
        assert await names(engine) == ["Rusty"]
        await assert_usable(session, engine)

    async def test_a_rollback_that_fails(
        self, session: AsyncSession, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first error is the one that is raised; the connection is thrown away."""
        monkeypatch.setattr(engine.dialect, "do_rollback", refuse_once(engine.dialect.do_rollback))
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                raise KeyError
        assert isinstance(caught.value.original_error, KeyError)
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_a_session_that_waits_for_a_rollback(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Nothing can be begun on it; the failed entry cleans up."""
        await write_row(hero("Rusty"), session)
        session.add(hero("Rusty"))
        with pytest.raises(IntegrityError):
            await session.flush()
        with pytest.raises(TransactionError):
            async with transaction(session):
                pytest.fail("the block must not run")
        await assert_usable(session, engine)

    @pytest.mark.databases("postgresql")
    @pytest.mark.usefixtures("session")
    async def test_an_inner_block_after_a_lost_race(self, database: Database) -> None:
        """It says what the caller swallowed, so that the transaction can be run again."""
        engine = make_engine(database.async_url, isolation_level="REPEATABLE READ")
        async with AsyncSession(engine) as own, AsyncSession(engine) as other:
            await write_row(hero("Rusty"), own)
            with pytest.raises(TransactionError) as caught:
                async with transaction(own):
                    [row] = (await get_rows(own, Hero))[1]
                    await update_row(row.id, {"age": 1}, other, Hero)
                    row.age = 2
                    with suppress(DBAPIError):
                        await own.flush()
                    async with transaction(own):
                        pytest.fail("it begins in a transaction that is over")
        await engine.dispose()
        assert "another transaction changed the same data" in str(caught.value)
        assert is_transient(caught.value)

    async def test_no_connection(self, database: Database) -> None:
        """The error names the connection; the session is in no block afterwards."""
        engine = make_engine(database.async_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
        async with AsyncSession(engine) as holder, AsyncSession(engine) as session:
            await holder.exec(select(Hero))
            for _ in range(2):
                with pytest.raises(TransactionError) as caught:
                    async with transaction(session):
                        pytest.fail("the block must not run")
                assert isinstance(caught.value.original_error, DatabaseConnectionError)
            with pytest.raises(DatabaseConnectionError):
                async with transaction(session, wrap_errors=False):
                    pytest.fail("the block must not run")
            await holder.rollback()
            async with transaction(session):
                pass
            assert engine.pool.checkedout() == 0
        await engine.dispose()

    async def test_autocommit_is_refused(self, database: Database) -> None:
        """Nothing could be undone there, whichever way it was asked for."""
        engine = make_engine(database.async_url)
        always = make_engine(database.async_url, isolation_level="AUTOCOMMIT")
        for refused in (engine.execution_options(isolation_level="AUTOCOMMIT"), always):
            async with AsyncSession(refused) as session:
                with pytest.raises(ValidationError, match="AUTOCOMMIT"):
                    async with transaction(session, wrap_errors=False):
                        pytest.fail("the block must not run")
        await engine.dispose()
        await always.dispose()

    async def test_a_session_of_another_kind_is_refused(self) -> None:
        """The text names what would be right."""
        with pytest.raises(ValidationError, match="Session"):
            async with transaction("session"):
                pytest.fail("the block must not run")


def refuse_once(func: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose first call fails."""
    calls: list[int] = []

    def refusing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("refused once")
        return func(*args)

    return refusing


@pytest.mark.databases("postgresql", "mysql")
class TestLostConnection:
    @asynccontextmanager
    async def killed(
        self, database: Database, engine: AsyncEngine, session: AsyncSession
    ) -> AsyncIterator[None]:
        """Let the server end the session's connection."""
        identify, kill = KILL[database.name]
        identity = (await session.exec(text(identify))).scalar_one()
        async with engine.connect() as other:
            await other.execute(text(kill.format(identity)))
        yield

    async def test_it_surfaces(
        self, database: Database, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """As what it is; afterwards the session has a new connection."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                async with self.killed(database, engine, session):
                    await write_row(hero("Nova"), session)
        assert isinstance(caught.value.original_error, DatabaseConnectionError)
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_at_the_commit(
        self, database: Database, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The COMMIT fails, and is not considered done."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                async with self.killed(database, engine, session):
                    pass
        assert await names(engine) == []
        await assert_usable(session, engine)

    @pytest.mark.parametrize("how", ["block", "savepoint", "write"])
    async def test_in_an_inner_part_that_is_caught(
        self, database: Database, session: AsyncSession, engine: AsyncEngine, how: str
    ) -> None:
        """The outer part is lost with the connection, so the block must not succeed."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                async with self.killed(database, engine, session):
                    if how == "block":
                        with pytest.raises(TransactionError):
                            async with transaction(session):
                                await write_row(hero("Nova"), session)
                    elif how == "savepoint":
                        with pytest.raises(DBAPIError):
                            async with session.begin_nested():
                                session.add(hero("Nova"))
                                await session.flush()
                    else:
                        await write_row(hero("Nova"), session, raise_on_error=False)
        assert await names(engine) == []
        await assert_usable(session, engine)
