"""Many new rows written without a flush are what a flush would have made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, func, inspect, select, text

from sqlmodel_crud_utils.aio import get_row, insert_data_rows, transaction
from sqlmodel_crud_utils.exceptions import BulkOperationError, TransactionError, ValidationError
from sqlmodel_crud_utils.mixins import acting_as
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    fetched,
    run_on_connection,
    sync_session,
)
from tests.bulk_models import Everything, Extra, Mark, Plain, Sign, Ticket, Truck
from tests.crud_models import Product
from tests.databases import Database
from tests.models import AllTypes, Colour, Document, Hero, Seat, Setting, Tag, Team
from tests.models_mixins import Parcel
from tests.recording import ListenerError, failing_savepoints
from tests.upsert_models import Cat

pytestmark = pytest.mark.shortcuts

# From 100 rows on they are written past the unit of work.
MANY = 120


def heroes(number: int = MANY, **values: Any) -> list[Hero]:
    """Return heroes that are not written yet."""
    return [Hero(name=f"hero {n}", secret_name="?", **values) for n in range(number)]


@contextmanager
def flushes(session: AsyncSession) -> Iterator[list[Any]]:
    """Collect the instances that go through a flush, and let nothing be quick.

    The listener itself is a reason to flush.
    """
    seen: list[Any] = []

    def listen(_session: Any, context: Any, _instances: Any) -> None:
        seen.extend(context.states)

    event.listen(sync_session(session), "before_flush", listen)
    try:
        yield seen
    finally:
        event.remove(sync_session(session), "before_flush", listen)


@contextmanager
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    """Collect the INSERTs that SQLAlchemy executes for a flush."""
    plain = getattr(engine, "sync_engine", engine)
    seen: list[str] = []

    def listen(
        _connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool
    ) -> None:
        if statement.startswith("INSERT") and context.compiled is not None:
            seen.append(statement)

    event.listen(plain, "before_cursor_execute", listen)
    try:
        yield seen
    finally:
        event.remove(plain, "before_cursor_execute", listen)


def snapshot(row: Any) -> dict[str, Any]:
    """Return what a row and its state look like, without keys and times."""
    state = inspect(row)
    values = {
        name: value
        for name, value in state.dict.items()
        if name in state.mapper.attrs
        and name not in {"id", "created_at", "number", "team", "team_id"}
    }
    return values | {
        "where": (state.persistent, state.modified, state.session is not None),
        "changes": [attribute.key for attribute in state.attrs if attribute.history.added],
        "expired": sorted(state.expired_attributes),
        "names": sorted(state.dict),
    }


# How rows are made, and whether they are written without a flush.
MAKERS: dict[str, tuple[Callable[[int], Any], bool]] = {
    "values and None": (
        lambda n: Hero(name=f"h{n}", secret_name="?", age=n if n % 2 else None),
        True,
    ),
    "a key made in Python": (lambda n: Document(title=f"d{n}"), True),
    "a composite key": (lambda n: Seat(row="a", number=n), True),
    "columns of other names": (lambda n: Product(sku=f"p{n}", shelf=n), False),
    "every mixin": (lambda n: Parcel(code=f"p{n}"), True),
    "all types": (lambda n: AllTypes(integer=n, payload={"a": n}, colour=Colour.RED), True),
    "a value over a default": (
        lambda n: Everything(text=f"{n}", source="x" if n < 50 else "y"),
        True,
    ),
    "defaults of every kind": (lambda n: Everything(text=f"{n}"), True),
    "None for a default": (
        lambda n: Everything(text=f"{n}", source=None if n % 2 else "x"),
        False,
    ),
    "defaults of the database": (lambda n: Setting(key=f"k{n}"), False),
    "values for them": (lambda n: Setting(key=f"k{n}", priority=n, state="x"), True),
    "a type that SQL changes": (lambda n: Ticket(label=f"{n}"), False),
    "a default that looks at the row": (lambda n: Sign(label=f"{n}", loud=None), False),
    "a default that is SQL": (lambda n: Mark(label=f"{n}", length=None), False),
    "a table of several models": (lambda n: Cat(id=n + 1, name=f"{n}"), False),
    "a model in two tables": (lambda n: Truck(id=n + 1, name=f"{n}", load=n), False),
    "given keys": (lambda n: Hero(id=10**6 + n, name=f"h{n}", secret_name="?"), True),
    "one given key": (
        lambda n: Hero(id=None if n else 10**6, name=f"h{n}", secret_name="?"),
        False,
    ),
    "related rows": (
        lambda n: Hero(name=f"h{n}", secret_name="?", team=Team(name=f"t{n}")),
        False,
    ),
    "SQL as a value": (
        lambda n: Hero(name=f"h{n}", secret_name="?", age=func.length("four")),
        False,
    ),
}


class TestTheSame:
    """Many rows at once become what a flush of the same rows would have made of them."""

    @pytest.mark.parametrize(("make", "quick"), MAKERS.values(), ids=MAKERS)
    async def test_rows_and_their_states(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        database: Database,
        make: Callable[[int], Any],
        quick: bool,
    ) -> None:
        """Values, keys in order, defaults, versions, and what the session knows of them."""
        outcomes: list[Any] = []
        with acting_as("alice"):
            for ordinary in (True, False):
                rows = [make(n) for n in range(MANY)]
                with statements(engine) as seen:
                    if ordinary:
                        with flushes(session):
                            await insert_data_rows(rows, session)
                    else:
                        await insert_data_rows(rows, session)
                if not ordinary and database.name != "mysql":
                    assert (not seen) == quick
                identities = [inspect(row).identity for row in rows]
                if quick and isinstance(identities[0][0], int):
                    assert identities == sorted(identities)
                assert all(row in session for row in rows)
                outcomes.append([snapshot(row) for row in rows])
                kept = [
                    await get_row(inspect(row).identity, session, type(row)) for row in rows[:3]
                ]
                assert [row for _, row in kept] == rows[:3]
                database.clear()
                session.expunge_all()
        assert outcomes[0] == outcomes[1]

    async def test_the_next_rows_get_the_next_keys(self, session: AsyncSession) -> None:
        """Sequences go on behind the keys that were used."""
        rows = heroes()
        await insert_data_rows(rows, session)
        keys = [row.id or 0 for row in rows]
        more = [Hero(name=f"more {n}", secret_name="?") for n in range(3)]
        await insert_data_rows(more, session)
        keys += [row.id or 0 for row in more]
        assert keys == list(range(keys[0], keys[0] + MANY + 3))

    async def test_a_rollback_makes_them_new_again(self, session: AsyncSession) -> None:
        """As those of a flush, whose keys SQLAlchemy leaves in them."""
        seen = []
        for listened in (True, False):
            rows = heroes()
            with pytest.raises(KeyError):
                async with transaction(session, wrap_errors=False):
                    if listened:
                        with flushes(session):
                            await insert_data_rows(rows, session)
                    else:
                        await insert_data_rows(rows, session)
                    raise KeyError
            assert all(inspect(row).transient for row in rows)
            seen.append({row.id is None for row in rows})
            assert (await execute(session, select(func.count(Hero.id)))).one()[0] == 0
            await session.rollback()
        assert seen[0] == seen[1]

    async def test_a_savepoint_that_is_undone(self, session: AsyncSession) -> None:
        """They are undone with it, and the block continues."""
        rows = heroes()
        async with transaction(session):
            await insert_data_rows(heroes(3), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await insert_data_rows([*map(renamed, rows)], session)
                    raise KeyError
            assert not any(row in session for row in rows)
        assert len(fetched(await execute(session, select(Hero)))) == 3

    async def test_they_can_be_changed_at_once(self, session: AsyncSession) -> None:
        """And what they hold after the commit is not stale."""
        rows = heroes()
        async with transaction(session):
            await insert_data_rows(rows, session)
            rows[5].age = 7
        _, found = await get_row(rows[5].id, session, Hero)
        assert found is rows[5]
        assert found.age == 7


def renamed(row: Hero) -> Hero:
    """Return a hero under a name that is free."""
    row.name = f"another {row.name}"
    return row


TRIGGERS: dict[str, tuple[list[str], list[str]]] = {
    "sqlite": (
        [
            """CREATE TRIGGER IF NOT EXISTS twin AFTER INSERT ON team WHEN NEW.city IS NULL BEGIN
            INSERT INTO team (name, city) VALUES (NEW.name || '!', 'x'); END"""
        ],
        ["DROP TRIGGER twin"],
    ),
    "postgresql": (
        [
            """CREATE FUNCTION twin() RETURNS trigger AS $$ BEGIN IF NEW.city IS NULL THEN
            INSERT INTO team (name, city) VALUES (NEW.name || '!', 'x'); END IF; RETURN NULL; END $$
            LANGUAGE plpgsql""",
            "CREATE TRIGGER twin AFTER INSERT ON team FOR EACH ROW EXECUTE FUNCTION twin()",
        ],
        ["DROP TRIGGER twin ON team", "DROP FUNCTION twin"],
    ),
}


class TestWhatNeedsAFlush:
    """Rows that only the unit of work can write."""

    @pytest.mark.parametrize("place", [0, MANY - 1])
    @pytest.mark.usefixtures("_hooks_change_nothing")
    async def test_refused_rows_are_told(self, session: AsyncSession, place: int) -> None:
        """As ever: the others are kept, or with `raise_on_error` none."""
        rows = heroes()
        rows[place].team_id = 10**6
        with pytest.raises(BulkOperationError) as caught:
            await insert_data_rows(rows, session, raise_on_error=True)
        assert caught.value.indexes == (place,)
        assert {row.id for row in rows} == {None}
        any_inserted, outcome = await insert_data_rows(rows, session)
        assert any_inserted
        assert isinstance(outcome, dict)
        assert outcome["failed"] == [rows[place]]
        assert len(outcome["success"]) == MANY - 1

    @pytest.mark.usefixtures("_hooks_change_nothing")
    async def test_values_that_the_driver_does_not_get(self, session: AsyncSession) -> None:
        """The error of a type that cannot process a value is raised, and nothing is written."""
        rows = [AllTypes(integer=n, payload={"a": n}) for n in range(MANY)]
        rows[7].payload = {"a": object()}
        with pytest.raises(ValidationError, match="cannot be converted"):
            await insert_data_rows(rows, session)
        assert (await execute(session, select(func.count(AllTypes.id)))).one()[0] == 0

    @pytest.mark.databases("sqlite", "postgresql")
    async def test_what_is_no_refusal_comes_out(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It is not tried again, and nothing is written."""
        rows = heroes()
        with failing_savepoints(engine), pytest.raises(ListenerError):
            await insert_data_rows(rows, session)
        assert (await execute(session, select(func.count(Hero.id)))).one()[0] == 0

    @pytest.mark.parametrize("name", ["before_insert", "after_insert"])
    async def test_events_of_the_mapper(self, session: AsyncSession, name: str) -> None:
        """They are called for each row."""
        seen: list[Any] = []

        def listen(_mapper: Any, _connection: Any, row: Any) -> None:
            seen.append(row)

        event.listen(Document, name, listen)
        try:
            rows = [Document(title=f"{n}") for n in range(MANY)]
            await insert_data_rows(rows, session)
        finally:
            event.remove(Document, name, listen)
        assert seen == rows

    async def test_listeners_to_statements(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Listeners to statements see the INSERT."""
        seen: list[Any] = []
        plain = getattr(engine, "sync_engine", engine)
        listen = partial(lambda *args, **_: seen.append(args[1]))
        event.listen(plain, "before_execute", listen)
        try:
            await insert_data_rows(heroes(), session)
        finally:
            event.remove(plain, "before_execute", listen)
        assert any(getattr(statement, "is_insert", False) for statement in seen)

    async def test_other_work_of_the_session(self, session: AsyncSession) -> None:
        """Other pending work is flushed with the rows."""
        session.add(Team(id=5, name="A"))
        assert (await insert_data_rows(heroes(team_id=5), session))[0]

    async def test_rows_that_hang_on_others(self, session: AsyncSession) -> None:
        """By a relationship of theirs, or of the other side."""
        tag = Tag(label="t")
        rows: Sequence[Any] = heroes(tags=[tag])
        assert (await insert_data_rows(rows, session))[0]
        assert inspect(tag).persistent

    async def test_rows_of_all_sorts(self, session: AsyncSession) -> None:
        """Of two models, twice the same, or written already."""
        rows: list[Any] = heroes(MANY)
        assert (await insert_data_rows([*rows, rows[0], Team(name="A")], session))[0]
        assert (await insert_data_rows([*rows, Hero(name="x", secret_name="?")], session))[0]

    @pytest.mark.databases("sqlite", "postgresql")
    async def test_a_trigger_that_inserts_too(
        self, session: AsyncSession, database: Database
    ) -> None:
        """Only a flush can assign the keys; on PostgreSQL they are fetched beforehand."""
        create, drop = TRIGGERS[database.name]

        def run(statements: Sequence[str], connection: Connection) -> None:
            for statement in statements:
                connection.execute(text(statement))

        await run_on_connection(session, partial(run, create))
        await session.commit()
        try:
            rows = [Team(name=f"t{n}") for n in range(MANY)]
            assert (await insert_data_rows(rows, session))[0]
            for row in (rows[0], rows[-1]):
                session.expunge(row)
                _, found = await get_row(row.id, session, Team)
                assert found is not None
                assert found.name == row.name
        finally:
            await run_on_connection(session, partial(run, drop))
            await session.commit()

    async def test_a_table_without_a_sequence(
        self, session: AsyncSession, database: Database
    ) -> None:
        """PostgreSQL's keys may come from elsewhere."""
        if database.name != "postgresql":
            pytest.skip("others have no sequences")

        async def own(owner: str) -> None:
            await execute(session, text(f"ALTER SEQUENCE tag_id_seq OWNED BY {owner}"))
            await session.commit()

        await own("NONE")
        try:
            rows = [Tag(label=f"{n}") for n in range(MANY)]
            assert (await insert_data_rows(rows, session))[0]
            assert all(row.id for row in rows)
        finally:
            await own("tag.id")


class TestRowsThatAreNotAlike:
    """One of them is enough for a flush."""

    async def test_a_row_of_a_class_that_knows_more(self, session: AsyncSession) -> None:
        """Its additional columns are written too."""
        rows: list[Plain] = [Plain(id=number, name="x") for number in range(1, MANY)]
        rows.append(Extra(id=MANY, name="x", extra="more"))
        assert (await insert_data_rows(rows, session))[0]
        found = await execute(
            session, select(Extra.id, Extra.extra).where(Extra.extra.is_not(None))
        )
        assert [tuple(row) for row in found.all()] == [(MANY, "more")]

    async def test_a_row_that_was_there_before(self, session: AsyncSession) -> None:
        """It is not new, although it is in no session and has been deleted meanwhile."""
        old = Plain(id=MANY, name="x")
        session.add(old)
        await session.commit()
        await session.refresh(old)
        session.expunge(old)
        await run_on_connection(session, lambda connection: connection.execute(delete(Plain)))
        await session.commit()
        rows = [*(Plain(id=number, name="x") for number in range(1, MANY)), old]
        assert await insert_data_rows(rows, session) == (True, rows)
        found = await execute(session, select(func.count()).select_from(Plain))
        assert found.scalar_one() == MANY - 1
