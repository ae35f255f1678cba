"""Upserts that fail, in transactions, of many rows, and with every kind of session."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_update_rows,
    bulk_upsert_mappings,
    transaction,
    update_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    QueryExecutionError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._async.rows import given, stored_rows
from tests._async.upserting import NOVA, RUSTY, statements
from tests._runtime_async import AsyncEngine, AsyncSession, PlainSession, scoped
from tests.bulk_models import Everything, Ticket
from tests.databases import Database
from tests.models import (
    Account,
    DeferredChild,
    Hero,
    Parent,
)
from tests.recording import ListenerError, failing_savepoints
from tests.upsert_models import Article, Heading, Item, Reading

# How many parameters a statement can have.
MOST_PARAMETERS = {"sqlite": 32_766, "postgresql": 32_767, "mysql": 65_535}


class TestMistakes:
    """Nothing is executed when the caller is wrong."""

    @pytest.mark.parametrize(
        ("payload", "options", "message"),
        [
            ([RUSTY, {"id": 2, "age": "old"}], {}, "row 1 of the payload: Hero.age must be"),
            ([RUSTY, 5], {}, "row 1 of the payload must be a mapping"),
            (RUSTY, {}, "payload must be a list of mappings, not dict"),
            ([{"age": 5}], {"pk_fields": ["name"]}, "row 0 of the payload has no name"),
            ([RUSTY], {"pk_fields": ["age"]}, "(age) is not a unique key of Hero"),
            ([RUSTY], {"update_columns": 5}, "update_columns takes names"),
            ([RUSTY], {"chunk_size": 0}, "chunk_size must be a whole number"),
        ],
    )
    async def test_it_is_refused(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        payload: Any,
        options: dict[str, Any],
        message: str,
    ) -> None:
        """A `ValidationError` says what is wrong, regardless of `raise_on_error`."""
        for raise_on_error in (None, True, False):
            with statements(engine) as seen, pytest.raises(ValidationError) as caught:
                await bulk_upsert_mappings(
                    payload, session, Hero, raise_on_error=raise_on_error, **options
                )
            assert message in str(caught.value)
            assert seen == []

    async def test_unknown_fields_are_refused(self, session: AsyncSession) -> None:
        """It is an AttributeError too, as in v0.1.0."""
        with pytest.raises(UnknownFieldError, match="did you mean 'name'"):
            await bulk_upsert_mappings([{"id": 1, "nmae": "x"}], session, Hero)
        with pytest.raises(AttributeError):
            await bulk_upsert_mappings([{"id": 1, "team": None}], session, Hero)

    async def test_what_is_no_session_is_refused(self) -> None:
        """Anything but a session is refused before anything is done."""
        session: Any = object()
        with pytest.raises(ValidationError, match="session"):
            await bulk_upsert_mappings([RUSTY], session, Hero)


class TestFailures:
    """Refused upserts are undone."""

    async def test_sqlalchemys_error_comes_through(self, session: AsyncSession) -> None:
        """As in v0.1.0; nothing is left, and the session can be used."""
        await given(session, Account(id=1, owner="Ann", balance=5))
        rows = [{"id": 1, "balance": 6}, {"id": 2, "owner": "Bob", "balance": -1}]
        for raise_on_error in (None, False):
            with pytest.raises(Exception, match="ck_account_balance") as caught:
                await bulk_upsert_mappings(rows, session, Account, raise_on_error=raise_on_error)
            assert type(caught.value).__module__ == "sqlalchemy.exc"
            assert [account.balance for account in await stored_rows(session, Account)] == [5]
        _, (account,) = await bulk_upsert_mappings([{"id": 1, "balance": 7}], session, Account)
        assert account.balance == 7

    async def test_the_librarys_error_comes_on_demand(self, session: AsyncSession) -> None:
        """With the driver's as its cause, and without a value."""
        with pytest.raises(ConstraintViolationError) as caught:
            await bulk_upsert_mappings(
                [{"id": 1, "owner": "secret", "balance": -1}],
                session,
                Account,
                raise_on_error=True,
            )
        assert caught.value.kind == "check"
        assert "secret" not in str(caught.value)
        assert not session.in_transaction()

    async def test_a_late_failure_leaves_nothing(self, session: AsyncSession) -> None:
        """All chunks are one transaction, so a late failure leaves nothing."""
        rows = [{"id": n, "owner": "x", "balance": 1} for n in range(1, 20)]
        rows.append({"id": 20, "owner": "x", "balance": -1})
        with pytest.raises(ConstraintViolationError):
            await bulk_upsert_mappings(rows, session, Account, chunk_size=3, raise_on_error=True)
        assert await stored_rows(session, Account) == []

    @pytest.mark.parametrize("whole", [0, 1, 2])
    async def test_a_failure_that_is_no_rows_fault(
        self, session: AsyncSession, engine: AsyncEngine, whole: int
    ) -> None:
        """No row is searched for, or blamed, be it the first failure or one of the search."""
        upserts: list[str] = []

        def changed(
            _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
        ) -> tuple[str, Any]:
            if statement.startswith("INSERT INTO "):
                upserts.append(statement)
            if len(upserts) > whole:
                statement = statement.replace("INSERT INTO ", "INSERT INTO missing_")
            return statement, parameters

        rows = [{"id": n, "owner": "x", "balance": 4 - n} for n in range(1, 9)]
        listened = getattr(engine, "sync_engine", engine)
        event.listen(listened, "before_cursor_execute", changed, retval=True)
        try:
            with pytest.raises(QueryExecutionError):
                await bulk_upsert_mappings(rows, session, Account, raise_on_error=True)
        finally:
            event.remove(listened, "before_cursor_execute", changed)
        assert len(upserts) == whole + 1
        assert await stored_rows(session, Account) == []

    async def test_a_pending_row_that_is_refused_fails_it(self, session: AsyncSession) -> None:
        """The flush is part of it."""
        session.add(Hero(name=None, secret_name="x"))
        with pytest.raises(ConstraintViolationError):
            await bulk_upsert_mappings([RUSTY], session, Hero, raise_on_error=True)
        assert await stored_rows(session, Hero) == []

    async def test_a_failing_commit_fails_it(
        self, session: AsyncSession, database: Database
    ) -> None:
        """A constraint may be checked at the end only."""
        if database.name == "mysql":
            pytest.skip("it checks constraints at once")
        await given(session, Parent(id=1, name="x"))
        rows = [{"id": 1, "parent_id": 1}, {"id": 2, "parent_id": 99}]
        with pytest.raises(ConstraintViolationError):
            await bulk_upsert_mappings(rows, session, DeferredChild, raise_on_error=True)
        assert await stored_rows(session, DeferredChild) == []
        with pytest.raises(IntegrityError):
            await bulk_upsert_mappings(rows, session, DeferredChild)
        assert not session.in_transaction()


class TestTriggers:
    """The database may have its own will."""

    async def test_it_may_complete_a_row(
        self, session: AsyncSession, engine: AsyncEngine, database: Database
    ) -> None:
        """A row with too few fields for a new one is then inserted."""
        if database.name != "postgresql":
            pytest.skip("it refuses such a row before its triggers run")
        make = """CREATE FUNCTION complete() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.must = coalesce(NEW.must, 9); RETURN NEW; END $$"""
        run = (
            "CREATE TRIGGER complete BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION complete()"
        )
        await run_statements(engine, [make, run])
        rows = [{"id": 1, "plain": 2}, {"id": 2, "plain": 3}]
        try:
            _, items = await bulk_upsert_mappings(rows, session, Item)
            assert [(item.must, item.plain) for item in items] == [(9, 2), (9, 3)]
        finally:
            await run_statements(engine, ["DROP FUNCTION complete CASCADE"])

    async def test_a_key_that_the_database_changes_is_an_error(
        self, session: AsyncSession, lost_key: dict[str, Any]
    ) -> None:
        """Nobody could say which row it has become; nothing is kept."""
        with pytest.raises(QueryExecutionError, match="row 1 of the payload was written, but no"):
            await bulk_upsert_mappings([{"place": "a", "number": 1}, lost_key], session, Reading)
        assert await stored_rows(session, Reading) == []

    async def test_it_dooms_a_block(self, session: AsyncSession, lost_key: dict[str, Any]) -> None:
        """A row that cannot be found again dooms its block, even if the error is caught."""

        async def catch_it() -> None:
            async with transaction(session):
                with pytest.raises(QueryExecutionError):
                    await bulk_upsert_mappings([lost_key], session, Reading)

        with pytest.raises(TransactionError, match="refused"):
            await catch_it()
        assert await stored_rows(session, Reading) == []

    @pytest.fixture
    async def lost_key(self, engine: AsyncEngine, database: Database) -> Any:
        """A key that a trigger changes."""
        make, drop = _TRIGGERS[database.name]
        await run_statements(engine, make)
        yield {"place": "lost", "number": 5}
        await run_statements(engine, drop)


async def run_statements(engine: AsyncEngine, wanted: list[str]) -> None:
    """Execute and commit SQL."""
    async with engine.begin() as connection:
        for statement in wanted:
            await connection.execute(text(statement))


# A SQLite connection that created a trigger assumes that it still exists, even if another has
# dropped it since; it only checks with IF NOT EXISTS.
_TRIGGERS: dict[str, tuple[list[str], list[str]]] = {
    "sqlite": (
        [
            """CREATE TRIGGER IF NOT EXISTS lose AFTER INSERT ON reading WHEN NEW.place = 'lost'
            BEGIN UPDATE reading SET number = 6 WHERE place = 'lost'; END"""
        ],
        ["DROP TRIGGER lose"],
    ),
    "postgresql": (
        [
            """CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.place = 'lost' THEN NEW.number = 6; END IF; RETURN NEW; END $$""",
            "CREATE TRIGGER lose BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION lose()",
        ],
        ["DROP TRIGGER lose ON reading", "DROP FUNCTION lose"],
    ),
    "mysql": (
        [
            """CREATE TRIGGER lose BEFORE INSERT ON reading FOR EACH ROW
            SET NEW.number = IF(NEW.place = 'lost', 6, NEW.number)"""
        ],
        ["DROP TRIGGER lose"],
    ),
}


class TestTransactions:
    """Inside a block nothing is committed."""

    async def test_it_takes_part_in_a_block(self, session: AsyncSession) -> None:
        """The exit commits, and the rows stay loaded."""
        async with transaction(session):
            _, (hero,) = await bulk_upsert_mappings([RUSTY], session, Hero)
            assert await stored_rows(session, Hero) == []
        assert hero.name == "Rusty"
        assert len(await stored_rows(session, Hero)) == 1

    async def test_a_failing_block_undoes_it(self, session: AsyncSession) -> None:
        """A block that fails undoes the upsert with everything else in it."""
        await given(session, Hero(**RUSTY))

        async def fail() -> None:
            async with transaction(session):
                await bulk_upsert_mappings([RUSTY | {"age": 1}, NOVA], session, Hero)
                raise RuntimeError

        with pytest.raises(TransactionError):
            await fail()
        assert [hero.age for hero in await stored_rows(session, Hero)] == [48]

    async def test_a_failure_in_a_block_raises_the_librarys_error(
        self, session: AsyncSession
    ) -> None:
        """A refused upsert raises the library's error and dooms its block."""

        async def catch_it() -> None:
            async with transaction(session):
                await bulk_upsert_mappings([RUSTY], session, Hero)
                with pytest.raises(ConstraintViolationError):
                    await bulk_upsert_mappings([{"id": 1, "balance": -1}], session, Account)

        with pytest.raises(TransactionError):
            await catch_it()
        assert await stored_rows(session, Hero) == []

    async def test_a_block_can_go_on_after_a_failure(self, session: AsyncSession) -> None:
        """`raise_on_error=False` undoes just the call, which raises SQLAlchemy's error."""
        rows = [
            {"id": 1, "owner": "a", "balance": 1},
            {"id": 2, "owner": "b", "balance": -1},
        ]
        async with transaction(session):
            await bulk_upsert_mappings([RUSTY], session, Hero)
            with pytest.raises(Exception, match="ck_account_balance") as caught:
                await bulk_upsert_mappings(
                    rows, session, Account, chunk_size=1, raise_on_error=False
                )
            assert type(caught.value).__module__ == "sqlalchemy.exc"
            await bulk_upsert_mappings(rows[:1], session, Account, raise_on_error=False)
        assert len(await stored_rows(session, Hero)) == 1
        assert len(await stored_rows(session, Account)) == 1


class TestManyRows:
    """Chunks, and statements that do not grow in number."""

    async def test_a_chunk_is_one_statement_and_one_query(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A chunk is one statement and one query, for any number of rows."""
        rows = [{"place": "x", "number": n, "value": n / 2} for n in range(10)]
        with statements(engine) as seen:
            await bulk_upsert_mappings(rows, session, Reading)
        assert seen == ["INSERT", "SELECT"]
        with statements(engine) as seen:
            _, found = await bulk_upsert_mappings(rows, session, Reading, chunk_size=4)
        assert seen == ["INSERT", "SELECT"] * 3
        assert [row.value for row in found] == [n / 2 for n in range(10)]

    async def test_types_that_no_array_holds(self, session: AsyncSession) -> None:
        """JSON, lists, and values that SQL changes on their way."""
        rows: list[dict[str, Any]]
        rows = [{"id": n, "payload": {"a": n}, "numbers": [n]} for n in range(1, 201)]
        for _ in range(2):
            _, found = await bulk_upsert_mappings(rows, session, Everything)
            assert [(row.payload, row.numbers) for row in found] == [
                (row["payload"], row["numbers"]) for row in rows
            ]
        tickets = [{"id": n, "label": f"T{n}"} for n in range(1, 201)]
        _, labelled = await bulk_upsert_mappings(tickets, session, Ticket)
        assert [row.label for row in labelled] == [f"t{n}" for n in range(1, 201)]

    @pytest.mark.databases("postgresql")
    async def test_what_is_no_refusal_comes_out(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The rows are not upserted one by one instead."""
        rows = [{"place": "x", "number": n} for n in range(200)]
        with pytest.raises(ListenerError):
            async with transaction(session, wrap_errors=False):
                with failing_savepoints(engine):
                    await bulk_upsert_mappings(rows, session, Reading)
        assert await stored_rows(session, Reading) == []

    async def test_chunks_stay_under_the_limit(
        self, session: AsyncSession, database: Database
    ) -> None:
        """More rows than one statement could take, of every kind of key."""
        count = MOST_PARAMETERS[database.name] // 2
        rows: list[dict[str, Any]] = [{"place": "x", "number": n} for n in range(count)]
        _, found = await bulk_upsert_mappings(rows, session, Reading)
        assert [row.number for row in found] == list(range(count))
        for row in rows[::2]:
            row["note"] = "again"
        _, found = await bulk_upsert_mappings(rows, session, Reading)
        assert [row.note for row in found[:4]] == ["again", None, "again", None]

    async def test_stamped_rows_stay_under_the_limit(self, session: AsyncSession) -> None:
        """MySQL gets them in one statement, defaults included."""
        rows = [{"slug": f"s{n}", "title": "x"} for n in range(6_000)]
        for version in (1, 2):
            _, articles = await bulk_upsert_mappings(rows, session, Article, ["slug"])
            assert {article.version for article in articles} == {version}

    async def test_many_values_of_one_key(self, session: AsyncSession) -> None:
        """Many values of one key are one row."""
        rows = [RUSTY | {"age": n} for n in range(2_000)]
        _, heroes = await bulk_upsert_mappings(rows, session, Hero)
        assert {id(hero) for hero in heroes} == {id(heroes[0])}
        assert heroes[0].age == 1_999


class TestSessions:
    """Sessions of any kind can be used."""

    async def test_a_plain_session(self, engine: AsyncEngine) -> None:
        """A session of SQLAlchemy's own will do."""
        async with PlainSession(engine) as session:
            _, (hero,) = await bulk_upsert_mappings([RUSTY], session, Hero)
            assert hero.name == "Rusty"

    async def test_a_scoped_session(self, engine: AsyncEngine) -> None:
        """A scoped session is used through its registry."""
        session = scoped(engine)
        _, (hero,) = await bulk_upsert_mappings([RUSTY], session, Hero)
        assert hero.name == "Rusty"
        await session.remove()


async def test_an_onupdate_that_looks_at_the_row(session: AsyncSession) -> None:
    """An upsert cannot show it the row, and names the column; other updates can."""
    await given(session, Heading(id=1, name="Old"))
    with pytest.raises(ValidationError, match=r"Heading\.slug reads the row"):
        await bulk_upsert_mappings([{"id": 1, "name": "New"}], session, Heading)
    _, rows = await bulk_upsert_mappings([{"id": 1, "name": "A", "slug": "a"}], session, Heading)
    assert (rows[0].slug, rows[0].seen) == ("a", 7)
    assert await bulk_update_rows([1], {"name": "Two"}, session, Heading) == (True, 1)
    _, row = await update_row(1, {"name": "Three"}, session, Heading)
    assert row is not None
    assert row.slug == "three"


_WITHOUT_NAME: dict[str, Any] = {
    "update_row": lambda s: update_row(1, {"seen": 1}, s, Heading, raise_on_error=True),
    "bulk_update_rows": lambda s: bulk_update_rows([1], {"seen": 1}, s, Heading),
    "update": lambda s: QueryBuilder(s, Heading).where(id=1).update(seen=1),
}


@pytest.mark.parametrize("call", _WITHOUT_NAME)
async def test_an_onupdate_that_fails_is_named(session: AsyncSession, call: str) -> None:
    """It looks for a value that the statement does not set; no value of the row is to blame."""
    await given(session, Heading(id=1, name="Old"))
    with pytest.raises(QueryExecutionError, match=r"onupdate of heading\.slug failed \(KeyError"):
        await _WITHOUT_NAME[call](session)
    await session.rollback()
    _, row = await update_row(1, {"name": "New"}, session, Heading)
    assert row.slug == "new"
