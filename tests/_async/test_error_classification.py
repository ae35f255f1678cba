"""Errors of real databases become the right error of the library, without values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, delete, event, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.engine import make_url
from sqlalchemy.orm import ORMExecuteState
from sqlmodel import col

from sqlmodel_crud_utils.aio import get_result_from_query, get_rows, write_row
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    SQLModelCRUDError,
    ValidationError,
)
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    make_engine,
    run_on_connection,
    sync_session,
)
from tests.constraint_models import Base, Booking, Gadget, Label, PostgresBase, Ticket
from tests.databases import Database
from tests.models import Account, AllTypes, DeferredChild, Hero, Invoice, Seat, Setting, Team

SECRET = "s3cr3t"
# Values that look like the parts of drivers' texts in which names are searched.
TRICKY = [
    SECRET,
    f"{SECRET}' for key '{SECRET}",
    f"({SECRET})=({SECRET})",
    f"{SECRET}.{SECRET}, {SECRET}",
]


async def failure_of(
    session: AsyncSession, work: Any, model: type[Any] | None = None
) -> SQLModelCRUDError:
    """Let a read run into what must fail; return its error.

    It flushes the given row, or a listener of the session's executes the given statement.
    """
    if isinstance(work, Executable):
        event.listen(sync_session(session), "do_orm_execute", partial(_execute, work), once=True)
    else:
        session.add(work)
    with pytest.raises(SQLModelCRUDError) as caught:
        await _read(session, model)
    await session.rollback()
    error = caught.value
    assert SECRET not in str(error)
    assert SECRET not in repr(error)
    assert SECRET not in str(getattr(error, "query", ""))
    return error


def _execute(statement: Executable, state: ORMExecuteState) -> None:
    state.session.execute(statement)


async def _read(session: AsyncSession, model: type[Any] | None) -> None:
    if model is None:
        await get_result_from_query(select(Hero.id), session)
    else:
        await get_rows(session, model)


async def _run(session: AsyncSession, work: Any) -> None:
    if isinstance(work, Hero | Team):
        session.add(work)
        await session.flush()
    else:
        await execute(session, work)
    await session.commit()


async def violation_of(
    session: AsyncSession, work: Any, model: type[Any] | None = None
) -> ConstraintViolationError:
    """Run what must break a constraint; return what becomes of the error."""
    error = await failure_of(session, work, model)
    assert isinstance(error, ConstraintViolationError)
    return error


@pytest.fixture
async def extra_tables(engine: AsyncEngine, database: Database) -> AsyncIterator[None]:
    """The tables that only these tests need."""
    bases = [Base, PostgresBase] if database.name == "postgresql" else [Base]
    async with AsyncSession(engine) as session:
        for base in bases:
            await run_on_connection(session, base.metadata.create_all)
        await session.commit()
    yield
    async with AsyncSession(engine) as session:
        for base in bases:
            await run_on_connection(session, base.metadata.drop_all)
        await session.commit()


class TestUnique:
    @pytest.mark.parametrize("name", TRICKY)
    async def test_a_taken_value_names_the_column_and_not_the_value(
        self, session: AsyncSession, database: Database, name: str
    ) -> None:
        """Every database reports kind, column and field, and the name if there is one."""
        await _run(session, Team(name=name))
        error = await violation_of(session, Team(name=name), Team)
        names = {"sqlite": None, "postgresql": "team_name_key", "mysql": "name"}
        assert (error.kind, error.columns, error.field) == ("unique", ("name",), "name")
        assert error.constraint == names[database.name]
        assert "another Team row has the same name" in str(error)

    async def test_a_named_constraint_of_two_columns(self, session: AsyncSession) -> None:
        """The declared name is reported on every database, even SQLite, which does not send it."""
        row = {"scope": SECRET, "key": SECRET}
        await _run(session, insert(Setting).values(row))
        error = await violation_of(session, insert(Setting).values(row), Setting)
        assert (error.kind, error.constraint) == ("unique", "uq_setting_scope_key")
        assert error.columns == ("scope", "key")
        assert error.field is None

    @pytest.mark.usefixtures("extra_tables")
    @pytest.mark.parametrize("taken", ["row", "guest", "seat"])
    async def test_keys_that_begin_with_the_same_column(
        self, session: AsyncSession, taken: str
    ) -> None:
        """Each is identified by its columns, although MySQL names them hall, hall_2, and so on."""
        values = {"hall": 1, "seat": 1, "row": 1, "guest": 1}
        await _run(session, insert(Ticket).values(values))
        others = {name: value + 1 for name, value in values.items() if name not in {"hall", taken}}
        error = await violation_of(session, insert(Ticket).values(values | others), Ticket)
        assert (error.kind, error.columns) == ("unique", ("hall", taken))

    async def test_a_taken_primary_key_is_unique_too(self, session: AsyncSession) -> None:
        """A composite primary key is reported with its columns."""
        await _run(session, insert(Seat).values(row=SECRET, number=1))
        error = await violation_of(session, insert(Seat).values(row=SECRET, number=1), Seat)
        assert (error.kind, error.columns) == ("unique", ("row", "number"))

    async def test_many_rows_in_one_statement(self, session: AsyncSession) -> None:
        """A duplicate among the rows of one insert is reported like any other."""
        rows = [{"name": "a"}, {"name": SECRET}, {"name": SECRET}]
        error = await violation_of(session, insert(Team).values(rows), Team)
        assert (error.kind, error.columns) == ("unique", ("name",))

    async def test_the_flush_may_fail_for_another_model(self, session: AsyncSession) -> None:
        """The failing table is reported, and no field that the model lacks."""
        await _run(session, Hero(name=SECRET, secret_name="x"))
        error = await violation_of(session, Hero(name=SECRET, secret_name="x"), Team)
        assert (error.kind, error.columns, error.field) == ("unique", ("name",), None)
        assert "another hero row" in str(error)

    async def test_without_a_model_the_driver_tells_what_it_can(
        self, session: AsyncSession, database: Database
    ) -> None:
        """Even then the kind is reported; only MySQL does not report the columns itself."""
        await _run(session, Team(name=SECRET))
        error = await violation_of(session, Team(name=SECRET))
        assert error.kind == "unique"
        assert error.columns == (() if database.name == "mysql" else ("name",))

    @pytest.mark.usefixtures("extra_tables")
    async def test_constraints_without_names(self, session: AsyncSession) -> None:
        """Names made by the database are understood; a field is named as the attribute."""
        row = {"maker": SECRET, "model": SECRET}
        await _run(session, insert(Gadget).values(serial="1", **row))
        pair = await violation_of(session, insert(Gadget).values(serial="2", **row), Gadget)
        single = await violation_of(session, insert(Gadget).values(serial="1"), Gadget)
        assert pair.columns == ("maker", "model")
        assert (single.columns, single.field) == (("serial_no",), "serial")

    @pytest.mark.usefixtures("extra_tables")
    async def test_a_unique_index(self, session: AsyncSession) -> None:
        """A unique index is a unique constraint, with its name."""
        await _run(session, insert(Label).values(code=SECRET))
        error = await violation_of(session, insert(Label).values(code=SECRET), Label)
        assert (error.kind, error.constraint) == ("unique", "ix_label_code")
        assert error.columns == ("code",)

    @pytest.mark.usefixtures("extra_tables")
    @pytest.mark.parametrize("value", TRICKY)
    async def test_an_index_of_an_expression(
        self, session: AsyncSession, database: Database, value: str
    ) -> None:
        """The index is named, with the columns that it is declared on; no value is a name."""
        if database.name == "mysql":
            pytest.skip("MariaDB has no indexes of expressions")
        await _run(session, insert(Label).values(code="a", text=value.lower()))
        for model, columns in ((Label, ("text",)), (None, ())):
            statement = insert(Label).values(code="b", text=value)
            error = await violation_of(session, statement, model)
            assert (error.kind, error.constraint) == ("unique", "ix_label_text_lower")
            assert error.columns == columns


class TestForeignKey:
    async def test_a_row_that_does_not_exist(self, session: AsyncSession) -> None:
        """Every database reports the column; on SQLite there is only one candidate."""
        error = await violation_of(session, Hero(name="a", secret_name=SECRET, team_id=99), Hero)
        assert (error.kind, error.columns, error.field) == ("foreign_key", ("team_id",), "team_id")
        assert "refers to a row that does not exist" in str(error)

    @pytest.mark.parametrize("work", ["delete", "update"])
    async def test_a_row_that_others_refer_to(
        self, session: AsyncSession, database: Database, work: str
    ) -> None:
        """The error names the constraint of the referring table, and no field of this one."""
        team = Team(name=SECRET)
        await _run(session, team)
        await session.refresh(team)
        await _run(session, Hero(name="a", secret_name="b", team_id=team.id))
        statement: Any = delete(Team) if work == "delete" else update(Team).values(id=77)
        error = await violation_of(session, statement, Team)
        sqlite = database.name == "sqlite"
        assert (error.kind, error.field) == ("foreign_key", None)
        assert error.columns == (() if sqlite else ("team_id",))
        told = "would refer" if sqlite and work == "update" else "still refer"
        assert told in str(error)

    async def test_a_deferred_one_fails_at_the_commit(
        self, session: AsyncSession, database: Database
    ) -> None:
        """A failing commit is classified as well, although there is no statement."""
        if database.name == "mysql":
            pytest.skip("MySQL has no deferred constraints")
        with pytest.raises(ConstraintViolationError) as caught:
            await write_row(DeferredChild(parent_id=99), session, raise_on_error=True)
        error = caught.value
        names = {"sqlite": None, "postgresql": "fk_deferred_child_parent"}
        assert (error.kind, error.constraint) == ("foreign_key", names[database.name])

    @pytest.mark.usefixtures("extra_tables")
    async def test_a_table_that_refers_to_itself(self, session: AsyncSession) -> None:
        """An insert lacks the row that it refers to; a delete is referred to."""
        insertion = await violation_of(session, insert(Gadget).values(part_of=99), Gadget)
        assert (insertion.columns, insertion.field) == (("part_of",), "part_of")
        await _run(session, insert(Gadget).values(id=1))
        await _run(session, insert(Gadget).values(id=2, part_of=1))
        deletion = await violation_of(session, delete(Gadget).where(Gadget.id == 1), Gadget)
        assert deletion.field is None
        assert "other rows still refer to this one" in str(deletion)


class TestOtherConstraints:
    @pytest.mark.parametrize("row", [{"name": None}, {}])
    async def test_not_null(self, session: AsyncSession, row: dict[str, Any]) -> None:
        """A null and a missing value are the same mistake, on MySQL too."""
        statement = insert(Hero).values(secret_name=SECRET, **row)
        error = await violation_of(session, statement, Hero)
        assert (error.kind, error.columns, error.field) == ("not_null", ("name",), "name")
        assert error.constraint is None
        assert "name of Hero must not be null" in str(error)

    async def test_check(self, session: AsyncSession) -> None:
        """The constraint's name and the column in its expression are reported."""
        statement = insert(Account).values(owner=SECRET, balance=-1)
        error = await violation_of(session, statement, Account)
        assert (error.kind, error.constraint) == ("check", "ck_account_balance")
        assert (error.columns, error.field) == (("balance",), "balance")

    @pytest.mark.usefixtures("extra_tables")
    async def test_checks_without_names(self, session: AsyncSession) -> None:
        """The columns are reported even without a name."""
        size = await violation_of(session, insert(Gadget).values(serial=SECRET, size=-1), Gadget)
        assert (size.kind, size.columns, size.field) == ("check", ("size",), "size")
        price = insert(Gadget).values(serial=SECRET, price=1, cost=2)
        assert (await violation_of(session, price, Gadget)).kind == "check"

    @pytest.mark.usefixtures("extra_tables")
    async def test_exclusion(self, session: AsyncSession, database: Database) -> None:
        """PostgreSQL's exclusion constraints are a kind of their own."""
        if database.name != "postgresql":
            pytest.skip("only PostgreSQL has exclusion constraints")
        await _run(session, insert(Booking).values(during=Range(4711, 4720)))
        statement = insert(Booking).values(during=Range(4715, 4730))
        for model in (Booking, None):
            error = await violation_of(session, statement, model)
            assert (error.kind, error.constraint) == ("exclusion", "ex_booking_during")
            assert error.columns == ("during",)
            assert "47" not in str(error)

    async def test_optimistic_locking(
        self, session: AsyncSession, session_factory: Callable[[], AsyncSession]
    ) -> None:
        """A row that was removed since it was read is a conflict."""
        team = Team(name="a")
        await _run(session, team)
        await session.refresh(team)
        other = session_factory()
        await execute(other, delete(Team))
        await other.commit()
        team.name = SECRET
        assert isinstance(await failure_of(session, team, Team), ConflictError)


class TestStatements:
    async def test_a_value_that_is_too_long(
        self, session: AsyncSession, database: Database
    ) -> None:
        """A refused value is not a violated constraint; MySQL reports the column."""
        if database.name == "sqlite":
            pytest.skip("SQLite takes strings of any length")
        error = await failure_of(session, insert(Team).values(name=SECRET * 100), Team)
        assert type(error) is ValidationError
        assert "a value is too long for its column" in str(error)
        assert ("column 'name' (" in str(error)) == (database.name == "mysql")

    async def test_a_value_of_the_wrong_type(self, session: AsyncSession) -> None:
        """A text for a number reaches the database, which refuses it."""
        statement = insert(Invoice).values(number=SECRET, customer="a")
        error = await failure_of(session, statement, Invoice)
        assert type(error) is ValidationError
        assert "does not fit the type of its column" in str(error)

    @pytest.mark.databases("postgresql", "mysql")
    async def test_a_pattern_that_is_no_regular_expression(self, session: AsyncSession) -> None:
        """Only the database can judge its own kind of expressions."""
        statement = select(Team).where(col(Team.name).regexp_match("(" + SECRET))
        await _run(session, Team(name="a"))
        error = await failure_of(session, statement, Team)
        assert type(error) is ValidationError
        assert "not a valid regular expression for this database" in str(error)

    async def test_a_value_that_its_column_type_refuses(self, session: AsyncSession) -> None:
        """A value that never reaches the database is a caller's mistake."""
        error = await failure_of(session, Label(code="a", digits=SECRET), Label)
        assert isinstance(error, ValidationError)
        assert not isinstance(error, ConstraintViolationError)
        assert "Label.digits cannot be converted" in str(error)
        assert error.field == "digits"

    @pytest.mark.parametrize("values", [{"text": "\ud800" + SECRET}, {"payload": {"a": {SECRET}}}])
    async def test_a_value_that_the_driver_cannot_write(
        self, session: AsyncSession, values: dict[str, Any]
    ) -> None:
        """A lone surrogate, or an invalid JSON value: drivers raise other errors than theirs."""
        error = await failure_of(session, insert(AllTypes).values(**values), AllTypes)
        assert isinstance(error, ValidationError) or "does not fit the type" in str(error)
        assert not isinstance(error, ConstraintViolationError)

    async def test_a_number_that_is_too_large(self, session: AsyncSession) -> None:
        """It is refused by the driver or by the database, and an error of ours either way."""
        error = await failure_of(session, insert(Seat).values(row="a", number=10**30), Seat)
        assert type(error) is ValidationError
        assert "1000000" not in str(error)

    async def test_a_missing_table(self, session: AsyncSession) -> None:
        """The statement is kept without its parameters."""
        statement = text("SELECT * FROM nowhere WHERE name = :name").bindparams(name=SECRET)
        error = await failure_of(session, statement)
        assert isinstance(error, QueryExecutionError)
        assert "a table does not exist" in str(error)
        assert "FROM nowhere" in (error.query or "")

    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            ("SELECT nowhere FROM team", "a column does not exist"),
            ("SELEC 1", "does not understand the statement"),
        ],
    )
    async def test_a_wrong_statement(
        self, session: AsyncSession, statement: str, reason: str
    ) -> None:
        """The most common mistakes have the same message on every database."""
        error = await failure_of(session, text(statement))
        assert isinstance(error, QueryExecutionError)
        assert reason in str(error)

    async def test_a_locked_sqlite_database(self, database: Database) -> None:
        """Waiting for another writer is not a connection failure; the message says what helps."""
        if database.name != "sqlite":
            pytest.skip("the other databases lock rows")
        engine = make_engine(database.async_url, connect_args={"timeout": 0.05})
        async with AsyncSession(engine) as first, AsyncSession(engine) as second:
            await execute(first, text("BEGIN IMMEDIATE"))
            error = await failure_of(second, text("BEGIN IMMEDIATE"))
        await engine.dispose()
        assert isinstance(error, QueryExecutionError)
        assert "locked" in str(error)
        assert "raise SQLite's busy timeout" in str(error)


class TestConnections:
    async def failure_of_connecting(self, url: Any) -> DatabaseConnectionError:
        engine = make_engine(url)
        async with AsyncSession(engine) as session:
            error = await failure_of(session, text("SELECT 1"))
        await engine.dispose()
        assert isinstance(error, DatabaseConnectionError)
        return error

    async def test_no_server(self, database: Database, tmp_path: Path) -> None:
        """A server or a file that cannot be reached, for every driver."""
        url = make_url(database.async_url)
        if database.name == "sqlite":
            url = url.set(database=str(tmp_path / "missing" / "x.db"))
        else:
            url = url.set(host="127.0.0.1", port=1, password=SECRET, query={})
        assert "cannot be" in str(await self.failure_of_connecting(url))

    async def test_no_such_database(self, database: Database) -> None:
        """The server exists, but not the database."""
        if database.name == "sqlite":
            pytest.skip("SQLite creates the file")
        url = make_url(database.async_url).set(database="there_is_no_such_database")
        await self.failure_of_connecting(url)

    async def test_a_refused_login(self, database: Database) -> None:
        """The text has no password, not even a wrong one."""
        if database.name == "sqlite":
            pytest.skip("SQLite has no users")
        url = make_url(database.async_url).set(username="nobody_at_all", password=SECRET)
        assert "refuses the login" in str(await self.failure_of_connecting(url))

    async def test_no_database_file(self, database: Database, tmp_path: Path) -> None:
        """A file that is not a database cannot be used."""
        if database.name != "sqlite":
            pytest.skip("the other databases are servers")
        file = tmp_path / "letter.txt"
        file.write_text("Dear reader, this is no database at all. " * 20)
        engine = make_engine(make_url(database.async_url).set(database=str(file)))
        async with AsyncSession(engine) as session:
            error = await failure_of(session, text("SELECT * FROM sqlite_master"))
        await engine.dispose()
        assert isinstance(error, DatabaseConnectionError)
        assert "not a SQLite database" in str(error)

    async def test_a_killed_connection(
        self,
        session: AsyncSession,
        session_factory: Callable[[], AsyncSession],
        database: Database,
    ) -> None:
        """The server ends the connection in the middle of a transaction."""
        if database.name == "sqlite":
            pytest.skip("SQLite has no server")
        own_id, kill = {
            "postgresql": (func.pg_backend_pid(), "SELECT pg_terminate_backend({}, 5000)"),
            "mysql": (func.connection_id(), "KILL {}"),
        }[database.name]
        number = (await execute(session, select(own_id))).one()[0]
        other = session_factory()
        await execute(other, text(kill.format(number)))
        await other.commit()
        error = await failure_of(session, text("SELECT 1"))
        assert isinstance(error, DatabaseConnectionError)
        assert "lost" in str(error)

    async def test_an_exhausted_pool(self, database: Database) -> None:
        """The text says how long was waited and how large the pool is."""
        engine = make_engine(database.async_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
        async with AsyncSession(engine) as first, AsyncSession(engine) as second:
            await execute(first, text("SELECT 1"))
            error = await failure_of(second, text("SELECT 1"))
        await engine.dispose()
        assert isinstance(error, DatabaseConnectionError)
        assert "within 0.1 s (pool_size=1, max_overflow=0)" in str(error)
