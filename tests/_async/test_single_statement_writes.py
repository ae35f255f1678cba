"""A row written with one statement is the same as one that was selected and flushed.

Each test runs both ways: a listener to the session is one of the things that take a flush.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, func, inspect, text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_one_or_create,
    get_row,
    on_commit,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    RecordNotFoundError,
    TransactionError,
    ValidationError,
)
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import given
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    PlainSession,
    execute,
    make_sqlite,
    run_on_connection,
    run_sync,
    sync_session,
)
from tests.bulk_models import Everything
from tests.crud_models import Cabinet, Dock, Drawer, Product, Warehouse
from tests.models import AllTypes, Currency, Hero, Seat, Setting, Team
from tests.models_mixins import Club, Counter, Letter, Player
from tests.recording import recorded

pytestmark = pytest.mark.shortcuts

Opened = Callable[[], AsyncSession]


class Base(DeclarativeBase):
    """For models of SQLAlchemy's own kind."""


class Note(Base):
    """One of them."""

    __tablename__ = "plain_note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Strict(Base):
    """One that does more when a field is set."""

    __tablename__ = "strict_note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.upper() if name == "text" else value)


@pytest.fixture(params=["at once", "by a flush"])
def way(request: pytest.FixtureRequest) -> str:
    """How rows are written."""
    found: str = request.param
    return found


@pytest.fixture
def opened(way: str, session_factory: Opened) -> Opened:
    """A function that opens a session which writes that way."""

    def open_session() -> AsyncSession:
        session = session_factory()
        if way == "by a flush":
            event.listen(sync_session(session), "before_flush", lambda *_: None)
        return session

    return open_session


@pytest.fixture
def is_quick(way: str, engine: AsyncEngine) -> bool:
    """Whether a write by key is one statement."""
    return way == "at once" and engine.dialect.name in {"sqlite", "postgresql"}


def hero(number: int = 1, **values: Any) -> Hero:
    """Return a new hero."""
    return Hero(**{"id": number, "name": f"hero {number}", "secret_name": "?", **values})


def state_of(session: AsyncSession, row: Any) -> dict[str, Any]:
    """Return what SQLAlchemy and Pydantic know of a row."""
    state, plain = inspect(row), sync_session(session)
    names = ("transient", "pending", "persistent", "detached", "deleted", "modified")
    return {
        **{name: getattr(state, name) for name in names},
        "expired": sorted(state.expired_attributes & state.dict.keys() | state.unloaded),
        "held": row in plain and plain.identity_map.get(state.key) is row,
        "clean": not (plain.new or plain.dirty or plain.deleted),
        "active": plain.is_active,
        "begun": plain.in_transaction(),
        "set": sorted(row.model_fields_set),
        "changed": sorted(state.committed_state),
    }


PERSISTENT = {
    "transient": False,
    "pending": False,
    "persistent": True,
    "detached": False,
    "deleted": False,
    "modified": False,
    "held": True,
    "clean": True,
    "active": True,
    "changed": [],
}


class TestUpdate:
    async def test_the_row_is_loaded_and_persistent(
        self, opened: Opened, engine: AsyncEngine, is_quick: bool
    ) -> None:
        """Its columns can be read without a query, its relationships are not loaded."""
        await given(opened(), hero(age=1))
        session = opened()
        with recorded(engine) as words:
            updated, row = await update_row("1", {"age": "48", "id": 1}, session, Hero)
            assert row is not None
            assert (updated, row.id, row.name, row.age) == (True, 1, "hero 1", 48)
        assert words == ["UPDATE", "COMMIT"] if is_quick else ["SELECT", "UPDATE", "COMMIT"]
        known = state_of(session, row)
        assert known == {
            **PERSISTENT,
            "expired": ["tags", "team"],
            "begun": False,
            "set": ["age"],
        }
        row.age = 5
        await session.commit()
        assert (await get_row(1, opened(), Hero))[1].age == 5

    async def test_values_of_every_type(self, opened: Opened) -> None:
        """They are written, and come back, as by a flush."""
        await given(opened(), AllTypes(id=1, integer=1))
        values = {
            "integer": 2**31 - 1,
            "big": -(2**63),
            "text": "a\tb\nc",
            "real": 0.5,
            "amount": "12.5",
            "flag": "yes",
            "day": "2024-03-01",
            "moment": "2024-03-01T10:00:00+02:00",
            "naive_moment": "2024-03-01T10:00:00",
            "clock": "10:30",
            "token": "6f1f1d4e-2f6c-4d0e-8f0c-0f1f1d4e2f6c",
            "colour": "red",
            "blob": b"\0\1",
            "payload": {"a": [1, None]},
        }
        _, row = await update_row(1, values, opened(), AllTypes)
        _, read = await get_row(1, opened(), AllTypes)
        assert row is not None
        assert row.model_dump() == read.model_dump()
        _, row = await update_row(1, dict.fromkeys(values), opened(), AllTypes)
        _, read = await get_row(1, opened(), AllTypes)
        assert row is not None
        assert row.model_dump() == read.model_dump()
        assert not any(value for name, value in read.model_dump().items() if name != "id")

    async def test_a_column_of_another_name(self, opened: Opened) -> None:
        """Names in an update are those of fields, not of columns."""
        await given(opened(), Product(id=1, sku="a"))
        _, row = await update_row(1, {"shelf": 4}, opened(), Product)
        assert row is not None
        assert (row.shelf, row.state) == (4, "new")

    async def test_no_such_row(self, opened: Opened) -> None:
        """Nothing ends, nothing is locked, nothing of the session is forgotten."""
        session, calls = opened(), []
        await given(opened(), hero(2))
        _, other = await update_row(2, {"age": 3}, session, Hero)
        on_commit(session, lambda: calls.append(1))
        assert await update_row(1, {"age": 3}, session, Hero) == (False, None)
        with pytest.raises(RecordNotFoundError):
            await update_row(1, {"age": 3}, session, Hero, raise_on_error=True)
        assert other is not None
        assert not inspect(other).expired
        assert session.in_transaction()
        await write_row(hero(3), opened(), raise_on_error=True)
        assert calls == []
        await update_row(2, {"age": 4}, session, Hero)
        assert calls == [1]

    async def test_another_key(self, opened: Opened) -> None:
        """It is refused if such a row exists."""
        await given(opened(), hero())
        with pytest.raises(ValidationError, match="primary key"):
            await update_row(1, {"id": 2, "age": 3}, opened(), Hero)
        assert await update_row(9, {"id": 2, "age": 3}, opened(), Hero) == (False, None)

    async def test_refused_by_the_database(self, opened: Opened) -> None:
        """Outside a block, the returned row has the database's values."""
        await given(opened(), hero(1), hero(2))
        session = opened()
        updated, row = await update_row(1, {"name": "hero 2"}, session, Hero)
        assert row is not None
        assert (updated, row.name) == (False, "hero 1")
        known = state_of(session, row)
        assert known["persistent"]
        assert known["clean"]
        with pytest.raises(ConstraintViolationError) as refused:
            await update_row(1, {"name": "hero 2"}, opened(), Hero, raise_on_error=True)
        assert refused.value.kind == "unique"
        assert refused.value.columns == ("name",)

    async def test_refused_in_a_block(self, opened: Opened) -> None:
        """The block is dead at once, not just at its end."""
        await given(opened(), hero(1), hero(2))
        session = opened()
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(ConstraintViolationError):
                    await update_row(1, {"name": "hero 2"}, session, Hero)
                assert not sync_session(session).is_active
                with pytest.raises(QueryExecutionError) as dead:
                    await write_row(hero(3), session)
                assert isinstance(dead.value.__cause__, PendingRollbackError)
        assert (await get_row(3, session, Hero)) == (False, None)

    async def test_refused_in_a_block_that_goes_on(self, opened: Opened) -> None:
        """With `raise_on_error=False` only the refused update is undone."""
        await given(opened(), hero(1), hero(2))
        session = opened()
        async with transaction(session):
            updated, row = await update_row(
                1, {"name": "hero 2"}, session, Hero, raise_on_error=False
            )
            assert row is not None
            assert (updated, row.name) == (False, "hero 1")
            await update_row(2, {"age": 2}, session, Hero)
        assert (await get_row(2, opened(), Hero))[1].age == 2

    async def test_a_block_that_is_undone(self, opened: Opened) -> None:
        """The row forgets what it was given."""
        await given(opened(), hero(age=1))
        session = opened()
        with pytest.raises(TransactionError):
            async with transaction(session):
                _, row = await update_row(1, {"age": 2}, session, Hero)
                assert row is not None
                assert row.age == 2
                raise LookupError
        assert "age" in inspect(row).expired_attributes
        await session.refresh(row)
        assert row.age == 1

    async def test_a_savepoint_that_is_undone(self, opened: Opened) -> None:
        """Then too, and what was done around it stays."""
        await given(opened(), hero(age=1))
        session = opened()
        async with transaction(session):
            with pytest.raises(TransactionError):
                async with transaction(session):
                    _, row = await update_row(1, {"age": 2}, session, Hero)
                    raise LookupError
            assert row is not None
            assert "age" in inspect(row).expired_attributes
            await session.refresh(row)
            assert row.age == 1
            _, row = await update_row(1, {"secret_name": "!"}, session, Hero)
        assert row is not None
        assert (row.age, row.secret_name) == (1, "!")

    async def test_a_row_that_is_soft_deleted(self, opened: Opened) -> None:
        """It is not there, unless it is asked for; its relatives load as after a read."""
        await given(opened(), Club(id=1, name="c", is_deleted=True), Player(name="p", club_id=1))
        await given(opened(), Player(name="q", club_id=1, is_deleted=True))
        assert await update_row(1, {"name": "d"}, opened(), Club) == (False, None)
        session = opened()
        _, row = await update_row(1, {"name": "d"}, session, Club, include_deleted=True)
        assert row is not None
        found = await run_sync(session, lambda: [player.name for player in row.players])
        assert sorted(found) == ["p", "q"]
        await update_row(1, {"is_deleted": False}, opened(), Club, include_deleted=True)
        session = opened()
        _, row = await update_row(1, {"name": "e"}, session, Club)
        assert row is not None
        assert await run_sync(session, lambda: [player.name for player in row.players]) == ["p"]


class TestDelete:
    async def test_the_row_is_gone(
        self, opened: Opened, engine: AsyncEngine, is_quick: bool
    ) -> None:
        """Whether it is known to the session or not."""
        await given(opened(), Warehouse(code="a"), Warehouse(code="b"))
        session = opened()
        with recorded(engine) as words:
            assert await delete_row("a", session, Warehouse)
        assert words == ["DELETE", "COMMIT"] if is_quick else ["SELECT", "DELETE", "COMMIT"]
        _, row = await get_row("b", session, Warehouse)
        assert await delete_row("b", session, Warehouse)
        assert inspect(row).detached
        assert not await delete_row("b", session, Warehouse)
        with pytest.raises(RecordNotFoundError):
            await delete_row("b", session, Warehouse, raise_on_error=True)

    async def test_refused_by_the_database(self, opened: Opened) -> None:
        """A row that another one refers to is not deleted."""
        await given(opened(), Warehouse(code="a"))
        await given(opened(), Dock(warehouse_code="a"))
        session = opened()
        assert not await delete_row("a", session, Warehouse)
        assert sync_session(session).is_active
        with pytest.raises(ConstraintViolationError) as refused:
            await delete_row("a", session, Warehouse, raise_on_error=True)
        assert refused.value.kind == "foreign_key"
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(ConstraintViolationError):
                    await delete_row("a", session, Warehouse)
                assert not sync_session(session).is_active

    async def test_a_row_is_marked(
        self, opened: Opened, engine: AsyncEngine, is_quick: bool
    ) -> None:
        """With the moment, the actor, and the stamps of an update."""
        await given(
            opened(), Letter(id=1, text="a"), Letter(id=2, text="b"), Letter(id=3, text="c")
        )
        with acting_as("alice"), recorded(engine) as words:
            assert await delete_row(1, opened(), Letter)
            assert await delete_row(2, opened(), Letter, deleted_by="bob")
            assert await soft_delete_row(3, opened(), Letter)
            assert not await delete_row(1, opened(), Letter)
        assert words.count("SELECT") == (0 if is_quick else 4)
        for key, name in ((1, "alice"), (2, "bob"), (3, "alice")):
            _, row = await get_row(key, opened(), Letter, include_deleted=True)
            assert (row.is_deleted, row.deleted_by, row.updated_by) == (True, name, "alice")
            assert abs((row.deleted_at - row.updated_at).total_seconds()) < 5
            assert row.text

    async def test_marked_and_undone(self, opened: Opened) -> None:
        """It is undone with its block, and the session's objects are updated."""
        await given(opened(), Club(id=1, name="c"))
        session = opened()
        with pytest.raises(TransactionError):
            async with transaction(session):
                assert await delete_row(1, session, Club)
                raise LookupError
        _, row = await get_row(1, session, Club)
        assert await delete_row(1, session, Club)
        assert row.is_deleted
        assert await delete_row(1, opened(), Club, soft=False)


class TestInsert:
    async def test_the_row_is_persistent(self, opened: Opened, engine: AsyncEngine) -> None:
        """With its key, and nothing else that a flush would not know."""
        session, row = opened(), hero(age=3)
        row.id = None
        with recorded(engine) as words:
            assert await write_row(row, session) == (True, row)
            assert row.id is not None
        assert words == ["INSERT", "COMMIT"]
        known = state_of(session, row)
        assert known == {
            **PERSISTENT,
            "expired": ["tags", "team"],
            "begun": False,
            "set": ["age", "id", "name", "secret_name"],
        }

    async def test_defaults_of_every_kind(self, opened: Opened) -> None:
        """By the server, by SQLAlchemy, by Pydantic; None that was given is not given."""
        _, row = await write_row(Setting(key="a", state=None), opened())
        assert row is not None
        assert (row.scope, row.priority, row.state, row.source) == ("global", 5, "new", "python")
        _, row = await write_row(Setting(key="b", priority=7), opened())
        assert row is not None
        assert (row.priority, row.state) == (7, "new")

    async def test_values_of_every_type(self, opened: Opened) -> None:
        """A JSON null is not the same as nothing."""
        _, row = await write_row(AllTypes(payload=None, blob=b"\0"), opened())
        assert row is not None
        _, read = await get_row(row.id, opened(), AllTypes)
        assert read.model_dump() == row.model_dump()
        _, row = await write_row(AllTypes(id=row.id + 1, payload={"a": None}), opened())
        assert row is not None
        assert row.payload == {"a": None}

    async def test_refused_by_the_database(self, opened: Opened) -> None:
        """The row is transient again, and has no key."""
        await given(opened(), hero())
        session, row = opened(), Hero(name="hero 1", secret_name="?")
        assert await write_row(row, session) == (False, None)
        assert inspect(row).transient
        assert row.id is None
        with pytest.raises(ConstraintViolationError):
            await write_row(row, session, raise_on_error=True)
        row.name = "another"
        await write_row(row, session, raise_on_error=True)
        assert inspect(row).persistent

    async def test_refused_in_a_block(self, opened: Opened) -> None:
        """The block is dead at once."""
        await given(opened(), hero())
        session, row = opened(), hero(2, name="hero 1")
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(ConstraintViolationError):
                    await write_row(row, session)
                assert not sync_session(session).is_active
                assert inspect(row).transient
        async with transaction(session):
            assert await write_row(row, session, raise_on_error=False) == (False, None)
            await write_row(hero(3), session)
        assert (await get_row(3, opened(), Hero))[0]

    async def test_a_block_that_is_undone(self, opened: Opened) -> None:
        """The row is as if it had never been written."""
        session, row, inner = opened(), hero(), hero(2)
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(row, session)
                assert state_of(session, row)["held"]
                raise LookupError
        assert inspect(row).transient
        assert row not in session
        async with transaction(session):
            await write_row(row, session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(inner, session)
                    raise LookupError
        assert inspect(row).persistent
        assert inspect(inner).transient

    async def test_what_else_is_pending_goes_with_it(self, opened: Opened) -> None:
        """As with every flush; a row that was added already is written once."""
        session, row = opened(), hero()
        session.add_all([row, hero(2)])
        await write_row(row, session)
        row = hero(3)
        session.add(row)
        await write_row(row, session)
        for key in (1, 2, 3):
            assert (await get_row(key, opened(), Hero))[0]

    async def test_the_key_of_another_row(self, opened: Opened) -> None:
        """The database refuses it; SQLAlchemy warns where the session holds the other one."""
        session = opened()
        await write_row(Currency(code="EUR", name="Euro"), session)
        assert await write_row(Currency(code="EUR", name="again"), session) == (False, None)
        _, held = await get_row("EUR", session, Currency)
        with pytest.warns(match="conflicts with persistent instance"):
            assert not (await write_row(Currency(code="EUR", name="again"), session))[0]
        await session.refresh(held)
        assert held.name == "Euro"

    async def test_events_of_the_session(self, opened: Opened) -> None:
        """They are the same, in the same order."""
        session, heard = opened(), list[str]()
        names = ("before_attach", "after_attach", "transient_to_pending", "pending_to_persistent")
        for name in names:
            event.listen(sync_session(session), name, lambda *_, name=name: heard.append(name))
        await write_row(hero(), session)
        assert heard == list(names)


class TestGetOneOrCreate:
    async def test_a_new_row(self, opened: Opened, engine: AsyncEngine, is_quick: bool) -> None:
        """Persistent and loaded, without a savepoint where the database can leave rows alone."""
        session = opened()
        with recorded(engine) as words:
            row, existed = await get_one_or_create(session, Hero, {"secret_name": "?"}, name="a")
            assert (row.name, row.age, existed) == ("a", None, False)
        assert ("SAVEPOINT" in words) is not is_quick
        assert words[-1] == "COMMIT"
        known = state_of(session, row)
        assert known == {
            **PERSISTENT,
            "expired": ["tags", "team"],
            "begun": False,
            "set": ["name", "secret_name"],
        }
        assert await get_one_or_create(session, Hero, name="a") == (row, True)

    async def test_another_unique_value(self, opened: Opened) -> None:
        """A row that is in the way, and not the one looked for, is a broken constraint."""
        await given(opened(), hero())
        session = opened()
        with pytest.raises(ConstraintViolationError) as refused:
            await get_one_or_create(session, Hero, {"secret_name": "?", "name": "hero 1"}, age=9)
        assert refused.value.kind == "unique"
        assert refused.value.columns == ("name",)
        assert sync_session(session).is_active
        assert not sync_session(session).new

    async def test_another_constraint(self, opened: Opened) -> None:
        """The error names the constraint that was broken."""
        session = opened()
        with pytest.raises(ConstraintViolationError) as refused:
            await get_one_or_create(session, Hero, name="a", secret_name=None)
        assert refused.value.kind == "not_null"
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(ConstraintViolationError):
                    await get_one_or_create(session, Hero, name="a", secret_name=None)
        row, existed = await get_one_or_create(session, Hero, name="a", secret_name="?")
        assert (row.name, existed) == ("a", False)

    async def test_undone(self, opened: Opened) -> None:
        """A block takes the row along."""
        session = opened()
        with pytest.raises(TransactionError):
            async with transaction(session):
                row, _ = await get_one_or_create(session, Hero, name="a", secret_name="?")
                raise LookupError
        assert inspect(row).transient
        assert not (await get_one_or_create(session, Hero, name="a", secret_name="?"))[1]

    async def test_by_a_relationship(self, opened: Opened) -> None:
        """It takes a flush, which sets the foreign key."""
        await given(opened(), Club(id=1, name="c"))
        session = opened()
        _, club = await get_row(1, session, Club)
        row, _ = await get_one_or_create(session, Player, club=club, name="p")
        assert (row.club_id, row.club) == (1, club)


class TestWhatTakesAFlush:
    """Each of these would be passed over by a single statement."""

    async def words_of(
        self, engine: AsyncEngine, session: AsyncSession, model: type[Any], **changes: Any
    ) -> list[str]:
        """Return what an update of the row 1 executes."""
        with recorded(engine) as words:
            updated, _ = await update_row(1, changes, session, model)
        assert updated
        return words

    async def test_a_listener(self, session_factory: Opened, engine: AsyncEngine) -> None:
        """To the mapper, to a field, or to what the session executes."""
        await given(session_factory(), hero())
        calls: list[Any] = []

        def listen(*heard: Any) -> None:
            calls.append(heard)

        session = session_factory()
        for target, name, changes in (
            (Hero, "before_update", {"age": 5}),
            (Hero, "after_update", {"age": 6}),
            (Hero.age, "set", {"age": 7}),
            (sync_session(session), "do_orm_execute", {"age": 8}),
        ):
            event.listen(target, name, listen)
            try:
                words = await self.words_of(engine, session, Hero, **changes)
            finally:
                event.remove(target, name, listen)
            assert words == ["SELECT", "UPDATE", "COMMIT"]
            assert calls
            calls.clear()
        event.listen(Hero, "after_delete", listen)
        event.listen(Hero, "before_insert", listen)
        try:
            await write_row(hero(2), session)
            assert await delete_row(2, session_factory(), Hero)
        finally:
            event.remove(Hero, "after_delete", listen)
            event.remove(Hero, "before_insert", listen)
        assert len(calls) == 2

    async def test_a_listener_to_what_a_new_row_gets(self, session: AsyncSession) -> None:
        """It is called with the values that a flush has filled in."""
        heard: list[Any] = []

        def listen(_row: Any, _context: Any, names: Any) -> None:
            heard.extend(names)

        event.listen(Everything, "refresh_flush", listen)
        try:
            await write_row(Everything(text="a"), session)
        finally:
            event.remove(Everything, "refresh_flush", listen)
        assert "source" in heard

    async def test_a_row_that_the_session_holds(
        self, session_factory: Opened, engine: AsyncEngine
    ) -> None:
        """It is the one that changes; with a text as its key it might be held under another."""
        await given(session_factory(), hero(), hero(2), Currency(code="EUR", name="Euro"))
        session = session_factory()
        _, row = await get_row(1, session, Hero)
        assert await self.words_of(engine, session, Hero, age=4) == ["SELECT", "UPDATE", "COMMIT"]
        assert row.age == 4
        with recorded(engine) as words:
            _, euro = await update_row("EUR", {"numeric": 978}, session, Currency)
        assert "SELECT" in words
        assert euro is not None

    async def test_pending_changes(self, session_factory: Opened, engine: AsyncEngine) -> None:
        """Pending changes are flushed before the write."""
        await given(session_factory(), hero())
        session = session_factory()
        session.add(hero(2))
        assert "SELECT" in await self.words_of(engine, session, Hero, age=4)
        assert (await get_row(2, session_factory(), Hero))[0]

    async def test_versions(self, session_factory: Opened, engine: AsyncEngine) -> None:
        """Versions are compared and counted, so they take a flush."""
        await given(session_factory(), Counter(id=1))
        assert "SELECT" in await self.words_of(engine, session_factory(), Counter, value=4)
        _, row = await get_row(1, session_factory(), Counter)
        assert row.version == 2

    async def test_related_rows(self, session_factory: Opened, engine: AsyncEngine) -> None:
        """Those that come along with every read, and those that a deletion changes."""
        await given(session_factory(), Cabinet(id=1, label="a", drawers=[Drawer(name="x")]))
        await given(session_factory(), Team(id=1, name="t"), hero(team_id=1))
        assert "SELECT" in await self.words_of(engine, session_factory(), Cabinet, label="b")
        assert await delete_row(1, session_factory(), Cabinet)
        assert await delete_row(1, session_factory(), Team)
        _, row = await get_row(1, session_factory(), Hero)
        assert row.team_id is None
        session = session_factory()
        team = Team(name="u")
        session.add(team)
        await session.flush()
        key = team.id
        _, row = await write_row(hero(2, team=team), session)
        assert row is not None
        assert row.team_id == key

    async def test_sql_and_missing_keys(self, session_factory: Opened) -> None:
        """An expression is a flush's business, as is a row that lacks its key."""
        _, row = await write_row(hero(age=func.abs(-3)), session_factory())
        assert row is not None
        assert row.age == 3
        seat = Seat.model_validate({"row": "A", "number": 1})
        del seat.row
        with pytest.raises(ConstraintViolationError), pytest.warns(match="row"):
            await write_row(seat, session_factory(), raise_on_error=True)

    async def test_another_key_than_the_primary_one(
        self, session_factory: Opened, engine: AsyncEngine
    ) -> None:
        """Several rows may have a key that is not the primary one."""
        await given(session_factory(), hero())
        with recorded(engine) as words:
            _, row = await update_row("hero 1", {"age": 3}, session_factory(), Hero, "name")
        assert words == ["SELECT", "UPDATE", "COMMIT"]
        assert row is not None
        assert row.age == 3

    async def test_a_session_that_chooses_its_database(
        self, engine: AsyncEngine, session_factory: Opened
    ) -> None:
        """It may send other statements than flushes to a read-only replica."""
        await given(session_factory(), hero())

        session = session_factory()
        plain = sync_session(session)
        plain.__class__ = type(
            "Routing",
            (type(plain),),
            {
                "get_bind": lambda self, *args, **options: super(type(self), self).get_bind(
                    *args, **options
                )
            },
        )
        assert "SELECT" in await self.words_of(engine, session, Hero, age=3)

    @pytest.mark.databases("postgresql")
    async def test_a_snapshot(self, session_factory: Opened) -> None:
        """PostgreSQL can't leave a row alone that the snapshot doesn't show."""
        session = session_factory()
        options = {"isolation_level": "REPEATABLE READ"}
        await session.connection(execution_options=options)
        assert not (await get_row(1, session, Hero))[0]
        await given(session_factory(), hero())
        with pytest.raises(ConstraintViolationError):
            await get_one_or_create(session, Hero, id=1, name="hero 1", secret_name="?")

    @pytest.mark.databases("sqlite")
    async def test_a_transaction_that_has_begun(
        self, session_factory: Opened, engine: AsyncEngine
    ) -> None:
        """SQLite's lock could not be given back for a missing row."""
        await given(session_factory(), hero())
        session = session_factory()
        await execute(session, text("BEGIN IMMEDIATE"))
        assert await self.words_of(engine, session, Hero, age=3) == ["SELECT", "UPDATE", "COMMIT"]


async def test_models_of_sqlalchemy(way: str) -> None:
    """They are written at once too, but not those that do more when a field is set."""
    engine = make_sqlite()
    async with PlainSession(engine) as session:
        if way == "by a flush":
            event.listen(sync_session(session), "before_flush", lambda *_: None)
        await run_on_connection(session, Base.metadata.create_all)
        await session.commit()
        for model in (Note, Strict):
            written, note = await write_row(model(text="a"), session)
            assert written
            key, note = note.id, None
            with recorded(engine) as words:
                _, note = await update_row(key, {"text": "b"}, session, model)
            assert note is not None
            assert note.text == ("b" if model is Note else "B")
            assert ("SELECT" in words) is (way == "by a flush" or model is Strict)
            note = None
            assert await delete_row(key, session, model)
    await engine.dispose()


async def test_no_database(way: str) -> None:
    """It is never reported as a missing row."""
    engine = make_sqlite("/nowhere/at/all.db")
    async with AsyncSession(engine) as session:
        if way == "by a flush":
            event.listen(sync_session(session), "before_flush", lambda *_: None)
        with pytest.raises(DatabaseConnectionError):
            await update_row(1, {"age": 3}, session, Hero)
        with pytest.raises(DatabaseConnectionError):
            await delete_row(1, session, Hero)
    await engine.dispose()
