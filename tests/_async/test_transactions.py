"""`transaction()`: all or nothing, on every database, with every kind of session."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import event, inspect, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel, select

from sqlmodel_crud_utils._async.get_or_create import get_one_or_create
from sqlmodel_crud_utils._async.inserts import insert_data_rows
from sqlmodel_crud_utils._async.reads import get_row, get_rows
from sqlmodel_crud_utils._async.transactions import transaction
from sqlmodel_crud_utils._async.upserts import bulk_upsert_mappings
from sqlmodel_crud_utils._async.writes import delete_row, update_row, write_row
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    DatabaseConnectionError,
    RecordNotFoundError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    PlainSession,
    make_engine,
    scoped,
)
from tests.crud_models import Dock, Warehouse
from tests.databases import Database
from tests.models import Account, Currency, DeferredChild, Hero, Parent, Setting, Team
from tests.recording import recorded

SessionFactory = Callable[[], AsyncSession]

KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT connection_id()", "KILL {}"),
}


def hero(name: str, **values: Any) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?", **values)


async def names(engine: AsyncEngine) -> list[str]:
    """What is committed."""
    async with AsyncSession(engine) as reader:
        return sorted((await reader.exec(select(Hero.name))).all())


async def assert_usable(session: Any, engine: AsyncEngine) -> None:
    """The connection is back in the pool, and the session can write at once."""
    assert engine.pool.checkedout() == 0
    written, row = await write_row(hero("afterwards"), session)
    assert written
    assert "afterwards" in await names(engine)
    assert await delete_row(row.id, session, Hero)
    assert engine.pool.checkedout() == 0


def loaded(row: Any) -> bool:
    """Whether all columns can be read without a query."""
    return set(inspect(type(row)).column_attrs.keys()) <= row.__dict__.keys()


@contextmanager
def refused_commits(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every COMMIT fail before it reaches the database."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no commit")

    with monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "do_commit", refuse)
        yield


class TestSuccess:
    async def test_three_writes_are_one_transaction(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """One COMMIT and no SAVEPOINT: a block costs what writing by hand costs."""
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
        """Added objects that nobody flushed, changed attributes, statements of the user's own."""
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
        """It is no failure, and holds no connection."""
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


class TestFailure:
    async def test_everything_is_rolled_back_and_the_error_wrapped(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The original is the cause, and no value of it is in the text."""
        error = KeyError("secret")
        with pytest.raises(TransactionError) as caught:
            async with transaction(session) as tx:
                await write_row(hero("Rusty"), session)
                await insert_data_rows([hero("Nova")], session)
                tx.add(hero("Sid"))
                raise error
        assert caught.value.__cause__ is caught.value.original_error is error
        assert "KeyError" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_an_error_of_the_library(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Inside a block writes raise unless they are told not to."""
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
        """The outer one still does."""
        error = ValueError()
        with pytest.raises(TransactionError) as caught:
            async with transaction(session), transaction(session, wrap_errors=False):
                raise error
        assert caught.value.original_error is error

    @pytest.mark.parametrize("wrap_errors", [True, False])
    async def test_stop_iteration(self, session: AsyncSession, wrap_errors: bool) -> None:
        """What generators treat specially is an exception like any other here."""
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
        expected = TransactionError if wrap_errors else IntegrityError
        with pytest.raises(expected) as caught:
            async with transaction(session, wrap_errors=wrap_errors):
                await write_row(hero("Rusty"), session)
                await write_row(DeferredChild(parent_id=999), session)
        if wrap_errors:
            assert isinstance(caught.value.__cause__, IntegrityError)
        assert await names(engine) == []
        await assert_usable(session, engine)
        async with transaction(session):
            _, child = await write_row(DeferredChild(id=1, parent_id=1), session)
            await write_row(Parent(id=1, name="late"), session)
        assert child.parent_id == 1

    async def test_a_commit_that_fails(
        self, session: AsyncSession, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For whatever reason, on every database."""
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
        """What was only added is refused when the block ends."""
        await write_row(hero("Rusty"), session)
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                session.add(hero("Nova"))
                session.add(hero("Rusty"))
        assert isinstance(caught.value.original_error, IntegrityError)
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
        """The COMMIT fails then, and is not taken for done."""
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


class TestDoomed:
    """What the database refused dooms the block, unless a savepoint has undone it."""

    @pytest.fixture(autouse=True)
    async def _rusty(self, session: AsyncSession) -> None:
        await write_row(hero("Rusty"), session)

    async def assert_doomed(self, engine: AsyncEngine, session: AsyncSession) -> None:
        """Nothing of the block was written, and the session works."""
        assert await names(engine) == ["Rusty"]
        await assert_usable(session, engine)

    @pytest.mark.parametrize("wrap_errors", [True, False])
    async def test_a_caught_error_of_the_library(
        self, session: AsyncSession, engine: AsyncEngine, wrap_errors: bool
    ) -> None:
        """The exit says so, and what to do instead."""
        with pytest.raises(TransactionError, match="raise_on_error=False") as caught:
            async with transaction(session, wrap_errors=wrap_errors):
                await write_row(hero("Nova"), session)
                with pytest.raises(ConstraintViolationError):
                    await write_row(hero("Rusty"), session)
        assert isinstance(caught.value.original_error, IntegrityError)
        assert caught.value.__cause__ is caught.value.original_error
        assert caught.value.operation == "commit"
        await self.assert_doomed(engine, session)

    async def test_a_caught_error_of_a_statement_by_hand(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The library hears of it through the engine."""
        with pytest.raises(TransactionError, match="refused a statement"):
            async with transaction(session) as tx:
                await write_row(hero("Nova"), session)
                with pytest.raises(DBAPIError):
                    await tx.exec(text("SELECT no_such_column FROM hero"))
        await self.assert_doomed(engine, session)

    async def test_a_caught_error_of_a_flush_by_hand(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The exit names the refusal, not what SQLAlchemy says afterwards."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session) as tx:
                tx.add(hero("Rusty"))
                with pytest.raises(IntegrityError):
                    await tx.flush()
        assert isinstance(caught.value.original_error, IntegrityError)
        await self.assert_doomed(engine, session)

    async def test_caught_errors_of_the_other_writes(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Each of them raises in a block, and dooms it."""
        await write_row(Warehouse(code="north"), session)
        await write_row(Dock(warehouse_code="north"), session)
        await write_row(hero("Nova"), session)

        async def update() -> None:
            await update_row("Nova", {"name": "Rusty"}, session, Hero, "name")

        async def delete() -> None:
            await delete_row("north", session, Warehouse)

        async def insert() -> None:
            await insert_data_rows([hero("Sid"), hero("Rusty")], session)

        async def upsert() -> None:
            await bulk_upsert_mappings([{"name": "Rusty", "team_id": 999}], session, Hero, ["name"])

        async def create() -> None:
            await get_one_or_create(session, Hero, {"secret_name": "?", "team_id": 999}, name="Sid")

        for write in (update, delete, insert, upsert, create):
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    await session.exec(update_age(48))
                    with pytest.raises((ConstraintViolationError, BulkOperationError)):
                        await write()
            assert engine.pool.checkedout() == 0
            assert await names(engine) == ["Nova", "Rusty"]
            _, row = await get_row("Rusty", session, Hero, pk_field="name")
            assert row.age is None
            await session.rollback()

    async def test_an_error_caught_in_a_nested_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It dooms the nested block alone."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    await write_row(hero("Sid"), session)
                    with pytest.raises(ConstraintViolationError):
                        await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_an_error_of_a_nested_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Its savepoint has undone it."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            for _ in range(2):
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await write_row(hero("Rusty"), session)
            await write_row(hero("Sid"), session)
        assert await names(engine) == ["Nova", "Rusty", "Sid"]

    async def test_an_error_of_the_users_savepoint(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Caught outside of it, as SQLAlchemy's users do."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    session.add(hero("Rusty"))
            with pytest.raises(ConstraintViolationError):
                async with session.begin_nested():
                    await write_row(hero("Rusty"), session)
            savepoint = await session.begin_nested()
            with pytest.raises(DBAPIError):
                await session.exec(text("SELECT no_such_column FROM hero"))
            await savepoint.rollback()
        assert await names(engine) == ["Nova", "Rusty"]

    @pytest.mark.parametrize("released", [True, False])
    async def test_an_error_caught_inside_of_the_users_savepoint(
        self, session: AsyncSession, engine: AsyncEngine, released: bool
    ) -> None:
        """Nothing was undone; PostgreSQL refuses the release, the others would commit."""
        with pytest.raises((TransactionError, DBAPIError)):
            async with transaction(session):
                await write_row(hero("Nova"), session)
                savepoint = await session.begin_nested()
                with pytest.raises(DBAPIError):
                    await session.exec(text("SELECT no_such_column FROM hero"))
                if released:
                    await savepoint.commit()
        await self.assert_doomed(engine, session)

    async def test_a_nested_block_in_a_doomed_one(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It saves nothing: PostgreSQL refuses it, elsewhere the outer exit does."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(DBAPIError):
                    await session.exec(text("SELECT no_such_column FROM hero"))
                async with transaction(session):
                    await write_row(hero("Nova"), session)
        await self.assert_doomed(engine, session)

    @pytest.mark.parametrize("how", ["block", "savepoint", "write"])
    async def test_a_savepoint_that_is_lost(
        self, session: AsyncSession, engine: AsyncEngine, how: str
    ) -> None:
        """MySQL ends the whole transaction in a deadlock; what was before it is gone then."""
        caught = None
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("Nova"), session)
                if how == "block":
                    with pytest.raises(TransactionError) as caught:
                        async with transaction(session):
                            await session.exec(text("ROLLBACK"))
                            raise RuntimeError
                elif how == "savepoint":
                    with pytest.raises(DBAPIError):
                        async with session.begin_nested():
                            await session.exec(text("ROLLBACK"))
                            raise RuntimeError
                else:
                    with ended_transaction(session):
                        await write_row(hero("Rusty"), session, raise_on_error=False)
        if caught is not None:
            assert isinstance(caught.value.original_error, RuntimeError)
        await self.assert_doomed(engine, session)

    async def test_not_found_and_validation_doom_nothing(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """These errors never reached the database."""
        async with transaction(session):
            with pytest.raises(RecordNotFoundError):
                await update_row(999_999, {"age": 1}, session, Hero)
            with pytest.raises(RecordNotFoundError):
                await delete_row(999_999, session, Hero)
            with pytest.raises(RecordNotFoundError):
                await get_row(999_999, session, Hero, raise_on_error=True)
            with pytest.raises(UnknownFieldError):
                await get_rows(session, Hero, nmae="Rusty")
            with pytest.raises(ValidationError):
                await update_row("Rusty", {"age": "old"}, session, Hero, "name")
            with pytest.raises(ValidationError):
                await write_row("Rusty", session)
            await write_row(hero("Nova"), session)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_a_read_that_finds_nothing_is_no_failure(self, session: AsyncSession) -> None:
        """Reads behave inside a block as outside."""
        async with transaction(session):
            assert await get_row(999_999, session, Hero) == (False, None)
            assert await get_rows(session, Hero, name="nobody") == (False, [])

    async def test_the_next_block_is_not_doomed(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Neither is work outside of blocks."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("Rusty"), session)
        async with transaction(session):
            await write_row(hero("Nova"), session)
        with pytest.raises(IntegrityError):
            await session.exec(text("INSERT INTO hero (name, secret_name) VALUES ('Rusty', '?')"))
        await session.rollback()
        async with transaction(session):
            await write_row(hero("Sid"), session)
        assert await names(engine) == ["Nova", "Rusty", "Sid"]


def update_age(age: int) -> Any:
    """An update of all heroes."""
    return update(Hero).values(age=age).execution_options(synchronize_session=False)


@contextmanager
def ended_transaction(session: Any) -> Iterator[None]:
    """Let the database end the whole transaction at the next refusal."""
    engine = session.get_bind()

    def end(context: Any) -> None:
        event.remove(engine, "handle_error", end)
        context.cursor.execute("ROLLBACK")

    event.listen(engine, "handle_error", end)
    yield


class TestRaiseOnErrorFalse:
    """Inside a block it undoes just that operation, and the block goes on."""

    @pytest.fixture(autouse=True)
    async def _rusty(self, session: AsyncSession) -> None:
        await write_row(hero("Rusty", age=48), session)

    async def test_write_row(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A refused row is not there; what was before and after is."""
        async with transaction(session):
            session.add(hero("pending"))
            assert await write_row(hero("Rusty"), session, raise_on_error=False) == (False, None)
            assert (await write_row(hero("Nova"), session, raise_on_error=False))[0]
        assert await names(engine) == ["Nova", "Rusty", "pending"]

    async def test_update_row(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """The row comes back as the database has it, and can be used after the block."""
        async with transaction(session):
            _, nova = await write_row(hero("Nova", age=31), session)
            changes = {"name": "Rusty", "age": 32}
            updated, row = await update_row(nova.id, changes, session, Hero, raise_on_error=False)
            assert (updated, row.name, row.age) == (False, "Nova", 31)
            assert await update_row(999_999, {}, session, Hero, raise_on_error=False) == (
                False,
                None,
            )
            await update_row(nova.id, {"age": 33}, session, Hero, raise_on_error=False)
        assert (nova.name, nova.age) == ("Nova", 33)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_delete_row(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A row that others refer to stays."""
        async with transaction(session):
            await write_row(Warehouse(code="north"), session)
            await write_row(Dock(warehouse_code="north"), session)
            assert not await delete_row("north", session, Warehouse, raise_on_error=False)
            assert not await delete_row(999_999, session, Hero, raise_on_error=False)
            assert await delete_row("Rusty", session, Hero, "name", raise_on_error=False)
        assert await names(engine) == []
        assert await get_rows(session, Warehouse, code="north")

    async def test_insert_data_rows(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """The good ones are kept."""
        async with transaction(session):
            rows = [hero("Nova"), hero("Rusty"), hero("Sid")]
            inserted, outcome = await insert_data_rows(rows, session, raise_on_error=False)
            assert inserted
            assert [row.name for row in outcome["success"]] == ["Nova", "Sid"]
            assert [row.name for row in outcome["failed"]] == ["Rusty"]
        assert [row.name for row in outcome["success"]] == ["Nova", "Sid"]
        assert await names(engine) == ["Nova", "Rusty", "Sid"]

    async def test_bulk_upsert_mappings(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A failure raises whatever the flag says, and is undone by itself."""
        async with transaction(session):
            await write_row(hero("Nova"), session)
            payload = [
                {"name": "Sid", "secret_name": "?"},
                {"name": "Rusty", "secret_name": "?", "team_id": 999},
            ]
            with pytest.raises(IntegrityError):
                await bulk_upsert_mappings(payload, session, Hero, ["name"], raise_on_error=False)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_in_a_nested_block(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """The nested block goes on too."""
        async with transaction(session), transaction(session):
            await write_row(hero("Nova"), session)
            assert await write_row(hero("Rusty"), session, raise_on_error=False) == (False, None)
            await write_row(hero("Sid"), session)
        assert await names(engine) == ["Nova", "Rusty", "Sid"]

    async def test_what_was_pending_belongs_to_the_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A refusal of it is no refusal of the write alone."""
        with pytest.raises(TransactionError):
            async with transaction(session):
                session.add(hero("Rusty"))
                await write_row(hero("Nova"), session, raise_on_error=False)
        assert await names(engine) == ["Rusty"]
        await assert_usable(session, engine)


class TestByHand:
    """`commit()`, `rollback()` and `close()` in a block: the user's own decision."""

    async def test_commit(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """What was written stays; what follows is a transaction of its own."""
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
        """What was before is gone, what follows is committed by the exit."""
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
        """There is no savepoint any more to roll back to."""
        async with transaction(session):
            await write_row(hero("Rusty"), session)
            with pytest.raises(TransactionError):
                async with transaction(session) as tx:
                    await tx.commit()
                    await write_row(hero("Nova"), session)
                    raise RuntimeError
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_close(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It rolls back; the session begins anew."""
        async with transaction(session) as tx:
            await write_row(hero("Rusty"), session)
            await tx.close()
        assert await names(engine) == []
        await assert_usable(session, engine)


class TestRows:
    """What the library returned inside a block stays loaded after its commit."""

    async def test_rows_of_every_function(self, session: AsyncSession) -> None:
        """They can be read without a query, changed as they were afterwards."""
        await write_row(Team(name="Preventers"), session)
        async with transaction(session):
            _, written = await write_row(hero("written"), session)
            _, (inserted,) = await insert_data_rows([hero("inserted")], session)
            _, updated = await update_row(written.id, {"age": 48}, session, Hero)
            _, got = await get_row("Preventers", session, Team, pk_field="name")
            _, listed = await get_rows(session, Hero)
            created, _ = await get_one_or_create(session, Hero, {"secret_name": "?"}, name="new")
            _, (upserted,) = await bulk_upsert_mappings(
                [{"name": "upserted", "secret_name": "?"}], session, Hero, ["name"]
            )
            inserted.age = 1
            got.city = "Somewhere"
        for row in (written, inserted, updated, got, *listed, created, upserted):
            assert loaded(row)
            assert not inspect(row).modified
        assert (written.age, inserted.age, got.city) == (48, 1, "Somewhere")

    async def test_others_expire_as_configured(self, session: AsyncSession) -> None:
        """Objects that the user loaded himself are his own affair."""
        await write_row(hero("Rusty"), session)
        await write_row(hero("Nova"), session)
        session.expunge_all()
        async with transaction(session) as tx:
            own = (await tx.exec(select(Hero).where(Hero.name == "Rusty"))).one()
            _, kept = await get_row("Nova", session, Hero, pk_field="name")
        assert inspect(own).expired
        assert "name" not in own.__dict__
        assert loaded(kept)

    async def test_with_expire_on_commit_off(self, engine: AsyncEngine) -> None:
        """Nothing expires there."""
        async with AsyncSession(engine, expire_on_commit=False) as session:
            async with transaction(session) as tx:
                own = hero("own")
                tx.add(own)
                _, row = await write_row(hero("Rusty"), session)
                row.age = 48
            assert loaded(own)
            assert (row.name, row.age) == ("Rusty", 48)

    async def test_server_defaults(self, session: AsyncSession) -> None:
        """Also of a row whose defaults were not asked for in the block."""
        async with transaction(session):
            _, row = await write_row(Setting(key="a"), session)
            _, (other,) = await insert_data_rows([Setting(key="b")], session)
        for setting in (row, other):
            assert loaded(setting)
            assert (setting.priority, setting.state, setting.source) == (5, "new", "python")

    async def test_selectin_loaded_relationships(self, session: AsyncSession) -> None:
        """The related rows are loaded as well as the relationship itself."""
        _, team = await write_row(Team(name="Preventers"), session)
        await insert_data_rows(
            [hero("Rusty", team_id=team.id), hero("Nova", team_id=team.id)], session
        )
        session.expunge_all()
        async with transaction(session):
            _, found = await get_row("Preventers", session, Team, True, ["heroes"], pk_field="name")
            found.heroes[0].age = 48
        assert sorted(row.name for row in found.heroes) == ["Nova", "Rusty"]
        assert found.heroes[0].age == 48
        assert all(loaded(row) for row in found.heroes)

    async def test_a_row_that_was_undone_in_a_savepoint(self, session: AsyncSession) -> None:
        """It is as the database has it."""
        async with transaction(session):
            _, row = await write_row(hero("Rusty", age=1), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await update_row(row.id, {"age": 2}, session, Hero)
                    raise RuntimeError
        assert loaded(row)
        assert row.age == 1

    async def test_a_row_that_is_gone(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It must not make the commit fail."""
        async with transaction(session) as tx:
            _, row = await write_row(hero("Rusty"), session)
            await write_row(hero("Nova"), session)
            tx.expire(row)
            await tx.exec(text("DELETE FROM hero WHERE name = 'Rusty'"))
        assert await names(engine) == ["Nova"]

    async def test_a_row_that_was_deleted(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """There is nothing to keep loaded."""
        async with transaction(session):
            _, row = await write_row(hero("Rusty"), session)
            assert await delete_row(row.id, session, Hero)
        assert row.name == "Rusty"
        assert await names(engine) == []

    async def test_rows_that_nobody_holds_are_not_kept(self, session: AsyncSession) -> None:
        """A block that reads a million rows does not hold them all."""
        async with transaction(session):
            _, row = await write_row(hero("Rusty"), session)
            watched = weakref.ref(row)
            del row
            gc.collect()
            assert watched() is None


class TestSessions:
    async def test_one_that_is_in_use(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """What was pending before the block is committed with it."""
        await session.exec(select(Hero))
        session.add(hero("pending"))
        await session.flush()
        session.add(hero("not flushed"))
        async with transaction(session):
            await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Rusty", "not flushed", "pending"]

    async def test_one_that_is_in_use_and_fails(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It is rolled back with it."""
        await session.exec(select(Hero))
        session.add(hero("pending"))
        await session.flush()
        with pytest.raises(TransactionError):
            async with transaction(session):
                raise RuntimeError
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_one_with_an_open_savepoint(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It is taken over with the rest."""
        await session.begin_nested()
        session.add(hero("pending"))
        await session.flush()
        async with transaction(session):
            await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Rusty", "pending"]
        await session.begin_nested()
        session.add(hero("more"))
        await session.flush()
        with pytest.raises(TransactionError):
            async with transaction(session):
                raise RuntimeError
        assert await names(engine) == ["Rusty", "pending"]
        await assert_usable(session, engine)

    async def test_sqlalchemys_own(self, engine: AsyncEngine) -> None:
        """Without any of SQLModel's methods."""
        async with PlainSession(engine) as session:
            async with transaction(session) as tx:
                _, row = await write_row(hero("Rusty"), session)
                tx.add(hero("Nova"))
            assert row.name == "Rusty"
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("Sid"), session)
                    await write_row(hero("Rusty"), session)
            assert await names(engine) == ["Nova", "Rusty"]
            await assert_usable(session, engine)

    async def test_scoped(self, engine: AsyncEngine) -> None:
        """The registry is yielded; blocks of it and of its session are the same."""
        registry = scoped(engine)
        async with transaction(registry) as tx:
            assert tx is registry
            await write_row(hero("Rusty"), registry)
            async with transaction(registry()):
                await write_row(hero("Nova"), registry())
            assert await names(engine) == []
        with pytest.raises(TransactionError):
            async with transaction(registry):
                await write_row(hero("Sid"), registry)
                raise RuntimeError
        assert await names(engine) == ["Nova", "Rusty"]
        await registry.remove()

    async def test_a_bind_per_model(self, engine: AsyncEngine) -> None:
        """It has no connection before the first statement tells which."""
        async with AsyncSession(binds={SQLModel: engine}) as session:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                async with transaction(session):
                    await write_row(Team(name="Preventers"), session)
                assert await names(engine) == []
            with pytest.raises(TransactionError):
                async with transaction(session):
                    async with transaction(session):
                        await write_row(hero("Nova"), session)
                    raise RuntimeError
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    await write_row(hero("Nova"), session)
                    with pytest.raises(ConstraintViolationError):
                        await write_row(hero("Rusty"), session)
            assert await names(engine) == ["Rusty"]
            await assert_usable(session, engine)

    @pytest.mark.parametrize("mode", ["conditional_savepoint", "create_savepoint", "rollback_only"])
    async def test_bound_to_a_connection(self, engine: AsyncEngine, mode: str) -> None:
        """Its transaction is somebody else's, who undoes all of it."""
        async with engine.connect() as connection:
            outside = await connection.begin()
            async with AsyncSession(connection, join_transaction_mode=mode) as session:
                async with transaction(session):
                    await write_row(hero("Rusty"), session)
                    with pytest.raises(TransactionError):
                        async with transaction(session):
                            await write_row(hero("Nova"), session)
                            raise RuntimeError
                assert [row.name for row in (await get_rows(session, Hero))[1]] == ["Rusty"]
            await outside.rollback()
        assert await names(engine) == []
        assert engine.pool.checkedout() == 0

    async def test_bound_to_a_connection_without_a_transaction(self, engine: AsyncEngine) -> None:
        """The session begins and ends it then."""
        async with engine.connect() as connection, AsyncSession(connection) as session:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    async with transaction(session):
                        await write_row(hero("Nova"), session)
                    raise RuntimeError
        assert await names(engine) == ["Rusty"]

    async def test_without_autobegin(self, engine: AsyncEngine) -> None:
        """Opening a block is beginning."""
        async with AsyncSession(engine, autobegin=False) as session:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("Nova"), session)
                    raise RuntimeError
            assert await names(engine) == ["Rusty"]

    async def test_without_autoflush(self, engine: AsyncEngine) -> None:
        """The exit flushes what is pending."""
        session = AsyncSession(engine, autoflush=False)
        async with transaction(session) as tx:
            tx.add(hero("Rusty"))
            async with transaction(session):
                tx.add(hero("Nova"))
        assert await names(engine) == ["Nova", "Rusty"]

    @pytest.mark.databases("postgresql", "mysql")
    async def test_blocks_of_two_sessions(
        self, session: AsyncSession, session_factory: SessionFactory, engine: AsyncEngine
    ) -> None:
        """They never see each other's blocks, also where one is inside of the other."""
        other = session_factory()
        async with transaction(session):
            await write_row(hero("Rusty"), session)
            await write_row(Team(name="outside"), other)
            assert (await get_rows(session_factory(), Team))[0]
            with pytest.raises(TransactionError):
                async with transaction(other):
                    await write_row(Team(name="inside"), other)
                    raise RuntimeError
        assert await names(engine) == ["Rusty"]
        _, (team,) = await get_rows(session, Team)
        assert team.name == "outside"


class TestResources:
    async def test_listeners_do_not_pile_up(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A hundred blocks listen once to the session and once to the engine."""

        def listeners() -> list[int]:
            plain, bind = getattr(session, "sync_session", session), session.get_bind()
            return [
                len(list(plain.dispatch.after_begin)),
                len(list(plain.dispatch.after_commit)),
                len(list(plain.dispatch.after_transaction_end)),
                len(list(bind.dialect.dispatch.handle_error)),
            ]

        async with transaction(session):
            pass
        before = listeners()
        for _ in range(100):
            async with transaction(session):
                pass
        async with AsyncSession(engine) as another, transaction(another):
            pass
        assert listeners() == before

    async def test_sessions_are_not_kept_alive(self, engine: AsyncEngine) -> None:
        """By nothing that the library remembers, after success and failure."""

        async def use() -> weakref.ref[AsyncSession]:
            async with AsyncSession(engine) as session:
                async with transaction(session):
                    await write_row(hero("Rusty"), session)
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await write_row(hero("Rusty"), session)
                return weakref.ref(session)

        session = await use()
        gc.collect()
        assert session() is None

    async def test_the_state_goes_with_the_block(self, session: AsyncSession) -> None:
        """Afterwards a write commits again."""
        async with transaction(session), transaction(session):
            assert session.info
        assert session.info == {}
        with pytest.raises(TransactionError):
            async with transaction(session):
                raise RuntimeError
        assert session.info == {}


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
