"""`run_transaction`: a function runs again where its transaction failed because of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    create_pooled_engine,
    get_row,
    is_transient,
    on_commit,
    pool_status,
    run_transaction,
    session_factory,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    TransactionError,
    ValidationError,
)
from tests._async.transacting import hero, names
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    Barrier,
    execute,
    first_of,
    scoped,
    together,
)
from tests.databases import Database
from tests.models import Account, Hero, Team
from tests.models_mixins import Counter
from tests.recording import logged

SERVERS = pytest.mark.databases("postgresql", "mysql")
NewSession = Any  # a factory of sessions, whose engine the tests ask it for

KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT connection_id()", "KILL {}"),
}
LEVEL = {
    "postgresql": "SELECT current_setting('transaction_isolation')",
    "mysql": "SELECT trx_isolation_level FROM information_schema.innodb_trx"
    " WHERE trx_mysql_thread_id = connection_id()",
}


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine of the library's, on empty tables."""
    engine = create_pooled_engine(database.async_url)
    yield engine
    await engine.dispose()
    database.clear()


@pytest.fixture
def new_session(engine: AsyncEngine) -> NewSession:
    """The factory of sessions."""
    return session_factory(engine)


async def opened(new_session: NewSession, *balances: int) -> list[int]:
    """Open accounts, and return their keys."""
    async with new_session() as session:
        accounts = [Account(owner="?", balance=balance) for balance in balances]
        session.add_all(accounts)
        await session.flush()
        keys = [account.id for account in accounts]
        await session.commit()
        return keys


async def balances(new_session: NewSession) -> list[int]:
    """Return what the accounts hold."""
    async with new_session() as session:
        return list((await session.exec(select(Account.balance).order_by(Account.id))).all())


class TestAnAttempt:
    async def test_what_it_writes_is_committed_and_what_it_returns_comes_back(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """The function gets a session in a block, and its arguments."""
        ran: list[str] = []

        async def work(session: AsyncSession, name: str, *, age: int) -> str:
            ran.append(name)
            await write_row(hero(name, age=age), session)
            on_commit(session, lambda: ran.append("told"))
            return name.upper()

        assert await run_transaction(new_session, work, "Rusty", age=48) == "RUSTY"
        assert ran == ["Rusty", "told"]
        assert await names(engine) == ["Rusty"]
        assert pool_status(engine)["checked_out"] == 0

    async def test_rows_can_be_used_after_the_session_is_closed(
        self, new_session: NewSession
    ) -> None:
        """Those that the function made itself too, wherever they are in what it returns."""

        async def work(session: AsyncSession) -> Any:
            session.add(Team(name="Preventers", city="Oslo"))
            team = (await session.exec(select(Team))).one()
            own = Hero(name="Rusty", secret_name="?", team=team)
            session.add(own)
            page = await QueryBuilder(session, Team).paginate()
            return {"own": own, "found": [(True, team)], "page": page, "number": 1}

        result = await run_transaction(new_session, work)
        [(_, team)] = result["found"]
        assert (team.name, team.city, team.id) == ("Preventers", "Oslo", result["own"].team_id)
        assert result["own"].id is not None
        assert result["own"].team is team
        assert result["page"].items == [team]

    async def test_an_error_of_the_function_arrives_as_it_is(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """Without a second attempt and without a note; this includes errors of the system."""
        for error in (ValueError("no seats"), OSError(), TimeoutError(), ConnectionResetError()):
            ran: list[int] = []

            async def work(session: AsyncSession, error: Exception, ran: list[int]) -> None:
                ran.append(1)
                await write_row(hero("Rusty"), session)
                raise error

            with pytest.raises(type(error)) as caught:
                await run_transaction(new_session, work, error, ran)
            assert caught.value is error
            assert not hasattr(error, "__notes__")
            assert ran == [1]
        assert await names(engine) == []

    async def test_a_refused_row_is_final(self, new_session: NewSession) -> None:
        """It would be refused again: by the library, or by the database at the flush."""
        ran: list[int] = []

        async def work(session: AsyncSession, with_library: bool) -> None:
            ran.append(1)
            if with_library:
                await write_row(hero("Rusty"), session)
                await write_row(hero("Rusty"), session)
            session.add_all([hero("Nova"), hero("Nova")])
            await session.flush()

        with pytest.raises(ConstraintViolationError):
            await run_transaction(new_session, work, True)
        with pytest.raises(IntegrityError):
            await run_transaction(new_session, work, False)
        assert ran == [1, 1]

    async def test_a_failing_callback_does_not_repeat_what_is_committed(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """Not even one that fails because of others."""

        async def work(session: AsyncSession) -> None:
            await write_row(hero("Rusty"), session)
            on_commit(session, fail)

        def fail() -> None:
            raise ConflictError(Hero)

        with pytest.raises(ExceptionGroup):
            await run_transaction(new_session, work)
        assert await names(engine) == ["Rusty"]

    async def test_what_was_committed_by_hand_does_not_run_again(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """A part of it would be written twice."""
        numbers = count(1)

        async def work(session: AsyncSession) -> None:
            await write_row(hero(f"hero {next(numbers)}"), session)
            await session.commit()
            raise ConflictError(Hero)

        with pytest.raises(ConflictError):
            await run_transaction(new_session, work)
        assert await names(engine) == ["hero 1"]

    async def test_sessions_of_a_registry(self, engine: AsyncEngine) -> None:
        """They are accepted if they are unused."""
        registry = scoped(engine)
        await run_transaction(registry, lambda session: write_row(hero("Rusty"), session))
        assert await names(engine) == ["Rusty"]


class TestAttempts:
    """A `ConflictError` represents all failures that another attempt may avoid."""

    async def test_there_is_another_one_until_it_succeeds(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """Each has a session of its own, and no connection is held between them."""
        sessions: list[AsyncSession] = []
        ran: list[str] = []

        def open_session() -> AsyncSession:
            assert pool_status(engine)["checked_out"] == 0
            sessions.append(new_session())
            return sessions[-1]

        async def work(session: AsyncSession) -> None:
            assert session is sessions[-1]
            await write_row(hero(f"hero {len(sessions)}"), session)
            on_commit(session, lambda: ran.append("told"))
            if len(sessions) < 3:
                raise ConflictError(Hero)

        with logged("DEBUG") as lines:
            await run_transaction(open_session, work)
        assert await names(engine) == ["hero 3"]
        assert ran == ["told"]
        told = [(place, line) for _, place, line in lines if line.startswith("run_transaction")]
        assert [line.partition(" in ")[0] for _, line in told] == [
            "run_transaction begins attempt 2",
            "run_transaction begins attempt 3",
            "run_transaction succeeded at attempt 3",
        ]
        assert all(line.endswith("after ConflictError") for _, line in told[:2])
        assert all(place.startswith(__file__) for place, _ in told)

    @pytest.mark.parametrize("attempts", [1, 3])
    async def test_the_last_error_is_raised_with_a_note(
        self, engine: AsyncEngine, new_session: NewSession, attempts: int
    ) -> None:
        """It says how many attempts there were."""
        errors: list[Exception] = []

        async def work(session: AsyncSession) -> None:
            await write_row(hero("Rusty"), session)
            errors.append(ConflictError(Hero, len(errors)))
            raise errors[-1]

        with pytest.raises(ConflictError) as caught:
            await run_transaction(new_session, work, attempts=attempts)
        assert len(errors) == attempts
        assert caught.value is errors[-1]
        [note] = caught.value.__notes__
        assert f"gave up after {attempts} attempt" in note
        assert await names(engine) == []

    async def test_none_begins_after_the_deadline(self, new_session: NewSession) -> None:
        """The one that runs is not cut off."""
        ran: list[int] = []

        async def work(session: AsyncSession) -> None:
            await write_row(hero("Rusty"), session)
            ran.append(1)
            raise ConflictError(Hero)

        with pytest.raises(ConflictError):
            await run_transaction(new_session, work, attempts=1000, deadline=1e-9)
        assert ran == [1]

    async def test_a_final_error_ends_them(self, new_session: NewSession) -> None:
        """The note says that it was not the first attempt."""
        numbers = count(1)

        async def work(_session: AsyncSession) -> None:
            if next(numbers) == 1:
                raise ConflictError(Hero)
            raise ValueError("no seats")

        with pytest.raises(ValueError, match="no seats") as caught:
            await run_transaction(new_session, work)
        assert caught.value.__notes__ == ["run_transaction gave up after 2 attempts"]


async def take(session: AsyncSession, key: int, flag: bool | None = None) -> None:
    """Take something from an account; a deadlock may come up."""
    values = {"balance": Account.balance - 1}
    done, _ = await update_row(key, values, session, Account, raise_on_error=flag)
    if not done:
        raise LookupError


async def take_in_a_block(session: AsyncSession, key: int) -> None:
    """Do so in a savepoint."""
    async with transaction(session):
        await take(session, key)


async def take_by_a_flush(session: AsyncSession, key: int) -> None:
    """Do so past the library."""
    account = (await session.exec(select(Account).where(Account.id == key))).one()
    account.balance -= 1
    await session.flush()


async def take_by_a_statement(session: AsyncSession, key: int) -> None:
    """Do so past the ORM."""
    change = text("UPDATE account SET balance = balance - 1 WHERE id = :key")
    await execute(session, change, {"key": key})


TAKES: dict[str, Any] = {
    "flagged": partial(take, flag=False),
    "nested block": take_in_a_block,
    "flush": take_by_a_flush,
    "statement": take_by_a_statement,
}


@SERVERS
class TestRaces:
    @pytest.mark.parametrize(
        "how",
        [
            *("as it is", "wrapped", "hidden", "swallowed", "flagged"),
            *("nested block", "flush", "statement"),
        ],
    )
    async def test_a_deadlock(self, new_session: NewSession, how: str) -> None:
        """However the function handles it, and for any statement."""
        keys = await opened(new_session, 10, 10)
        both, runs, told = Barrier(2), count(1), list[str]()

        async def work(session: AsyncSession, first: int, other: int) -> None:
            waits = next(runs) <= 2
            on_commit(session, lambda: told.append("told"))
            await update_row(first, {"balance": Account.balance + 1}, session, Account)
            if waits:
                await both.wait()
            try:
                await TAKES.get(how, take)(session, other)
            except Exception as error:
                if how == "wrapped":
                    raise RuntimeError("cannot") from error
                if how == "hidden":
                    raise RuntimeError("cannot") from None
                if how != "swallowed":
                    raise

        if how == "flagged" and new_session.kw["bind"].dialect.name == "postgresql":
            pytest.skip("PostgreSQL undoes the statement alone, so that the block goes on")
        await together(
            lambda: run_transaction(new_session, work, keys[0], keys[1]),
            lambda: run_transaction(new_session, work, keys[1], keys[0]),
        )
        assert next(runs) == 4
        assert told == ["told", "told"]
        assert await balances(new_session) == [10, 10]

    @pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
    async def test_a_lost_update(self, new_session: NewSession, level: str) -> None:
        """Two that read before either writes: one of them runs again, so that none is lost."""
        [key] = await opened(new_session, 0)
        both, runs = Barrier(2), count(1)

        async def work(session: AsyncSession) -> None:
            _, account = await get_row(key, session, Account, raise_on_error=True)
            if next(runs) <= 2:
                await both.wait()
            await update_row(key, {"balance": account.balance + 1}, session, Account)

        run = partial(run_transaction, new_session, work, isolation_level=level)
        if level == "REPEATABLE READ" and new_session.kw["bind"].dialect.name != "postgresql":
            pytest.skip("MySQL lets the second one overwrite there")
        await together(run, run)
        assert await balances(new_session) == [2]
        assert next(runs) == 4

    @pytest.mark.databases("postgresql")
    async def test_a_serialization_failure_at_the_commit(self, new_session: NewSession) -> None:
        """Each reads what the other writes; the database finds it out at the end."""
        keys = await opened(new_session, 50, 50)
        read, written, runs = Barrier(2), Barrier(2), count(1)

        async def work(session: AsyncSession, key: int) -> None:
            waits = next(runs) <= 2
            total = await QueryBuilder(session, Account).sum("balance")
            if waits:
                await read.wait()
            await update_row(key, {"balance": Account.balance - total}, session, Account)
            if waits:
                await written.wait()

        async def withdraw(key: int) -> str | None:
            try:
                await run_transaction(new_session, work, key, isolation_level="SERIALIZABLE")
            except ConstraintViolationError:
                return "below zero"
            return None

        for key in keys:
            async with new_session() as session:
                await update_row(key, {"balance": 100}, session, Account)
        await together(*(partial(withdraw, key) for key in keys))
        assert sorted(await balances(new_session)) in ([100, 100], [-100, 100], [0, 100])

    async def test_a_version_that_another_one_has_changed(self, new_session: NewSession) -> None:
        """The library's error, or that of a flush; a version that the caller named is final."""
        for how in ("library", "flush", "named"):
            async with new_session() as session:
                _, counter = await write_row(Counter(value=0), session)
            key, runs = counter.id, count(1)

            async def work(session: AsyncSession, key: int, how: str, runs: Iterator[int]) -> None:
                _, row = await get_row(key, session, Counter, raise_on_error=True)
                if next(runs) == 1:
                    async with new_session() as other:
                        await update_row(key, {"value": 10}, other, Counter)
                if how == "flush":
                    row.value += 1
                    await session.flush()
                    return
                named = 1 if how == "named" else None
                values = {"value": row.value + 1}
                await update_row(key, values, session, Counter, expected_version=named)

            if how == "named":
                with pytest.raises(ConflictError):
                    await run_transaction(new_session, work, key, how, runs)
                continue
            await run_transaction(new_session, work, key, how, runs)
            async with new_session() as session:
                _, row = await get_row(key, session, Counter, raise_on_error=True)
                assert (row.value, next(runs)) == (11, 3)

    @pytest.mark.databases("mysql")
    async def test_a_lock_timeout(self, new_session: NewSession) -> None:
        """MySQL undoes the statement alone; the function runs again as a whole."""
        [key] = await opened(new_session, 0)
        runs = count(1)
        holder = new_session()
        await execute(holder, text("UPDATE account SET balance = 1"))

        async def open_session() -> AsyncSession:
            if next(runs) == 2:
                await holder.commit()
            return new_session()

        async def work(session: AsyncSession) -> None:
            await execute(session, text("SET SESSION innodb_lock_wait_timeout = 1"))
            await update_row(key, {"balance": Account.balance + 1}, session, Account)

        await run_transaction(open_session, work)
        await holder.close()
        assert await balances(new_session) == [2]

    @pytest.mark.databases("postgresql")
    async def test_who_will_not_wait_is_not_made_to(self, new_session: NewSession) -> None:
        """NOWAIT is an answer."""
        [key] = await opened(new_session, 0)
        ran: list[int] = []

        async def work(session: AsyncSession) -> None:
            ran.append(1)
            await QueryBuilder(session, Account).where(id=key).for_update(nowait=True).one()

        async with new_session() as holder, transaction(holder):
            await update_row(key, {"balance": 1}, holder, Account)
            with pytest.raises(QueryExecutionError):
                await run_transaction(new_session, work)
        assert ran == [1]


@pytest.mark.databases("sqlite")
class TestSQLite:
    async def test_another_writer(self, database: Database, new_session: NewSession) -> None:
        """The lock that is missing at the BEGIN is asked for again."""
        impatient = create_pooled_engine(database.async_url, connect_args={"timeout": 0})
        runs = count(1)
        holder = new_session()
        holder.add(hero("holder"))
        await holder.flush()
        opening = session_factory(impatient)

        async def open_session() -> AsyncSession:
            if next(runs) == 3:
                await holder.commit()
            return opening()

        await run_transaction(open_session, lambda session: write_row(hero("Rusty"), session))
        await holder.close()
        await impatient.dispose()
        assert next(runs) == 4
        assert await names(new_session.kw["bind"]) == ["Rusty", "holder"]

    async def test_a_reader_waits_for_no_writer(
        self, database: Database, new_session: NewSession
    ) -> None:
        """With `read_only` it takes no lock, and sees what is committed."""
        impatient = create_pooled_engine(database.async_url, connect_args={"timeout": 0})
        async with new_session() as holder, transaction(holder):
            await write_row(hero("holder"), holder)
            found = await run_transaction(
                session_factory(impatient),
                lambda session: QueryBuilder(session, Hero).all(),
                read_only=True,
            )
        await impatient.dispose()
        assert found == []


@SERVERS
class TestLostConnections:
    async def kill(self, session: AsyncSession, database: Database) -> None:
        """End the connection that the session has; it does not notice."""
        identify, kill = KILL[database.name]
        number = first_of(await execute(session, text(identify)))
        engine = create_engine(database.sync_url)
        with engine.connect() as own:
            own.execute(text(kill.format(number)))
        engine.dispose()

    @pytest.mark.parametrize("how", ["library", "statement"])
    async def test_one_is_replaced(
        self, engine: AsyncEngine, new_session: NewSession, database: Database, how: str
    ) -> None:
        """Before the COMMIT nothing was written, whichever error is raised."""
        runs = count(1)

        async def work(session: AsyncSession) -> None:
            await write_row(hero("Rusty"), session)
            if next(runs) == 1:
                await self.kill(session, database)
            if how == "library":
                await write_row(hero("Nova"), session)
            else:
                await execute(session, text("SELECT 1"))

        await run_transaction(new_session, work)
        assert "Rusty" in await names(engine)
        assert next(runs) == 3

    async def test_a_second_one_is_not(
        self, engine: AsyncEngine, new_session: NewSession, database: Database
    ) -> None:
        """It may be lost because of what the function does."""
        ran: list[int] = []

        async def work(session: AsyncSession) -> None:
            ran.append(1)
            await self.kill(session, database)
            await write_row(hero("Rusty"), session)

        with pytest.raises(DatabaseConnectionError) as caught:
            await run_transaction(new_session, work)
        assert is_transient(caught.value)
        assert ran == [1, 1]
        assert await names(engine) == []
        assert pool_status(engine)["checked_out"] == 0

    async def test_one_that_is_lost_in_the_commit_is_final(
        self, engine: AsyncEngine, new_session: NewSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The transaction may be written, and is here; callbacks do not run."""
        ran: list[str] = []
        dialect: Any = engine.dialect
        committed = dialect.do_commit

        def do_commit(connection: Any) -> None:
            monkeypatch.undo()
            committed(connection)
            raise ConnectionResetError

        async def work(session: AsyncSession) -> None:
            ran.append("ran")
            await write_row(hero("Rusty"), session)
            on_commit(session, lambda: ran.append("told"))
            monkeypatch.setattr(dialect, "do_commit", do_commit)

        with pytest.raises(TransactionError) as caught:
            await run_transaction(new_session, work)
        assert caught.value.outcome_unknown
        assert not is_transient(caught.value)
        assert ran == ["ran"]
        assert await names(engine) == ["Rusty"]

    async def test_one_that_only_reads_is_run_again(
        self, engine: AsyncEngine, new_session: NewSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With `read_only` it makes no difference whether the COMMIT was carried out."""
        runs = count(1)

        def do_commit(_connection: Any) -> None:
            monkeypatch.undo()
            raise ConnectionResetError

        async def work(session: AsyncSession) -> int:
            if next(runs) == 1:
                monkeypatch.setattr(engine.dialect, "do_commit", do_commit)
            return await QueryBuilder(session, Hero).count()

        assert await run_transaction(new_session, work, read_only=True) == 0
        assert next(runs) == 3


async def test_a_bank(database: Database) -> None:
    """Many callers, few accounts: nothing is lost, nothing is made twice."""
    engine = create_pooled_engine(database.async_url, 4, 0)
    new_session = session_factory(engine)
    keys = await opened(new_session, 100, 100, 100)
    told: list[int] = []

    async def transfer(session: AsyncSession, number: int) -> None:
        source, target = keys[number % 3], keys[(number + number % 2 + 1) % 3]
        _, giver = await get_row(source, session, Account, raise_on_error=True)
        _, taker = await get_row(target, session, Account, raise_on_error=True)
        await update_row(source, {"balance": giver.balance - 1}, session, Account)
        await update_row(target, {"balance": taker.balance + 1}, session, Account)
        await write_row(hero(f"transfer {number}"), session)
        on_commit(session, lambda: told.append(number))

    async def call(caller: int) -> None:
        for number in range(caller, 24, 4):
            await run_transaction(
                new_session, transfer, number, isolation_level="SERIALIZABLE", attempts=1000
            )

    await together(*(partial(call, caller) for caller in range(4)))
    assert sum(await balances(new_session)) == 300
    assert sorted(told) == list(range(24))
    assert len(await names(engine)) == 24
    assert pool_status(engine)["checked_out"] == 0
    await engine.dispose()
    database.clear()


class TestModes:
    """Isolation level and read-only are those of this transaction alone."""

    @pytest.fixture
    async def engine(self, database: Database) -> AsyncIterator[AsyncEngine]:
        """An engine with one connection."""
        engine = create_pooled_engine(database.async_url, 1, 0)
        yield engine
        await engine.dispose()
        database.clear()

    async def level(self, session: AsyncSession, database: Database) -> str:
        """Return the isolation level of the current transaction."""
        await write_row(hero("any"), session, raise_on_error=True)
        if database.name == "mysql":
            # Its information about transactions is up to a tenth of a second old.
            await execute(session, text("SELECT sleep(0.11)"))
        return str(first_of(await execute(session, text(LEVEL[database.name])))).upper()

    @SERVERS
    @pytest.mark.parametrize("works", [True, False], ids=["work", "no work"])
    async def test_the_level_is_set_and_forgotten(
        self, new_session: NewSession, database: Database, works: bool
    ) -> None:
        """The next transaction on the same connection has the usual one, after an error too."""
        for level in ("READ UNCOMMITTED", "SERIALIZABLE"):
            found = level

            async def work(session: AsyncSession, fails: bool) -> str:
                found = await self.level(session, database) if works else ""
                await session.rollback() if works else None
                if fails:
                    raise ValueError("no more")
                return found

            for fails in (False, True):
                run = partial(run_transaction, new_session, work, fails, isolation_level=level)
                if fails:
                    with pytest.raises(ValueError, match="no more"):
                        await run()
                else:
                    found = await run()
                async with new_session() as session, session.begin():
                    usual = await self.level(session, database)
                    await session.rollback()
                assert usual == self.usual(database)
            assert found in (level, "")

    @staticmethod
    def usual(database: Database) -> str:
        return "READ COMMITTED" if database.name == "postgresql" else "REPEATABLE READ"

    @pytest.mark.databases("sqlite")
    async def test_sqlite_is_always_serializable(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """So that it takes every level."""
        await run_transaction(
            new_session,
            lambda session: write_row(hero("Rusty"), session),
            isolation_level="READ COMMITTED",
        )
        assert await names(engine) == ["Rusty"]

    async def test_read_only_refuses_to_write(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """It also leaves the connection's settings unchanged."""
        await run_transaction(new_session, lambda session: write_row(hero("Rusty"), session))

        async def read(session: AsyncSession) -> int:
            return await QueryBuilder(session, Hero).count()

        assert await run_transaction(new_session, read, read_only=True) == 1
        with pytest.raises(ValidationError, match="read-only"):
            await run_transaction(
                new_session, lambda session: write_row(hero("Nova"), session), read_only=True
            )

        async def add(session: AsyncSession) -> None:
            session.add(hero("Nova"))

        with pytest.raises(QueryExecutionError):
            await run_transaction(new_session, add, read_only=True)
        await run_transaction(new_session, lambda session: write_row(hero("Sid"), session))
        assert await names(engine) == ["Rusty", "Sid"]

    async def test_a_session_on_a_connection_keeps_its_transaction(
        self, new_session: NewSession
    ) -> None:
        """As in isolated tests: the transaction has begun, and its modes cannot be changed."""
        async with new_session.kw["bind"].connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
            joined = session_factory(new_session.kw["bind"])
            joined.configure(bind=connection, join_transaction_mode="create_savepoint")
            if connection.dialect.name == "sqlite":
                await connection.exec_driver_sql("BEGIN")
            await run_transaction(
                joined,
                lambda session: write_row(hero("Rusty"), session),
                isolation_level="SERIALIZABLE",
            )
            await connection.rollback()
        assert await names(new_session.kw["bind"]) == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"attempts": 0}, "1 or more"),
            ({"attempts": True}, "1 or more"),
            ({"attempts": 2.0}, "1 or more"),
            ({"deadline": 0}, "above 0"),
            ({"deadline": float("nan")}, "above 0"),
            ({"deadline": "soon"}, "above 0"),
            ({"isolation_level": "AUTOCOMMIT"}, "must be one of"),
            ({"isolation_level": "serializable"}, "must be one of"),
            ({"read_only": "yes"}, "True or False"),
        ],
    )
    @pytest.mark.databases("sqlite")
    async def test_options(
        self, new_session: NewSession, options: dict[str, Any], text: str
    ) -> None:
        """Nothing runs."""
        ran: list[int] = []
        with pytest.raises(ValidationError, match=text) as caught:
            await run_transaction(new_session, ran.append, **options)
        assert caught.value.field in options
        assert ran == []

    @pytest.mark.databases("sqlite")
    async def test_a_generator_function(self, new_session: NewSession) -> None:
        """Its body would run after the transaction; it is refused even if it is wrapped."""

        def generate(_session: AsyncSession) -> Iterator[int]:
            yield 1

        async def generate_later(_session: AsyncSession) -> AsyncIterator[int]:
            yield 1

        class Generating:
            def __call__(self, _session: AsyncSession) -> Iterator[int]:
                yield 1

        for work in (generate, generate_later, Generating(), partial(generate)):
            with pytest.raises(ValidationError, match="generator function"):
                await run_transaction(new_session, work)

    @pytest.mark.databases("sqlite")
    async def test_what_is_no_function(self, new_session: NewSession) -> None:
        """As the work, and as what opens the session."""
        with pytest.raises(ValidationError, match="work must be callable"):
            await run_transaction(new_session, "work")
        with pytest.raises(ValidationError, match="new_session must be callable"):
            await run_transaction(new_session(), print)
        for made in (1, None):
            with pytest.raises(ValidationError, match="must return a session of this API"):
                await run_transaction(lambda made=made: made, print)

    @pytest.mark.databases("sqlite")
    async def test_a_session_in_use(self, new_session: NewSession) -> None:
        """Its earlier work could not be repeated; the session stays unchanged."""
        async with new_session() as session:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                with pytest.raises(ValidationError, match="is already in a transaction"):
                    await run_transaction(lambda: session, print)
                await write_row(hero("Nova"), session)
            session.add(hero("Sid"))
            with pytest.raises(ValidationError, match="is already in a transaction"):
                await run_transaction(lambda: session, print)
            await session.commit()
        assert await names(new_session.kw["bind"]) == ["Nova", "Rusty", "Sid"]

    @pytest.mark.databases("sqlite")
    async def test_autocommit(self, database: Database) -> None:
        """Nothing could be undone."""
        engine = create_pooled_engine(database.async_url, isolation_level="AUTOCOMMIT")
        ran: list[int] = []
        with pytest.raises(ValidationError, match="AUTOCOMMIT"):
            await run_transaction(session_factory(engine), ran.append)
        await engine.dispose()
        assert ran == []

    async def test_inside_of_another_one(
        self, engine: AsyncEngine, new_session: NewSession
    ) -> None:
        """Only the outermost transaction can run again; afterwards, in a callback, another may."""

        async def write(session: AsyncSession, name: str) -> None:
            await write_row(hero(name), session)

        async def work(session: AsyncSession) -> None:
            with pytest.raises(ValidationError, match="inside the function of another"):
                await run_transaction(new_session, write, "Nova")
            on_commit(session, partial(run_transaction, new_session, write, "Rusty"))

        await run_transaction(new_session, work)
        assert await names(engine) == ["Rusty"]

    @SERVERS
    async def test_another_task_is_free(self, engine: AsyncEngine, new_session: NewSession) -> None:
        """Tasks that the function starts have their own transactions."""

        async def write(session: AsyncSession, name: str) -> None:
            await write_row(hero(name), session)

        async def work(_session: AsyncSession) -> None:
            await together(partial(run_transaction, new_session, write, "Nova"))

        await run_transaction(new_session, work)
        assert await names(engine) == ["Nova"]
