"""Many new rows, written past the ORM, on every database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import event, inspect
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import bulk_insert_rows, transaction
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import count_of, given, stored_rows
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.bulk_models import Nowhere, Truck
from tests.crud_models import Product
from tests.models import (
    Account,
    AllTypes,
    Colour,
    DeferredChild,
    Document,
    Hero,
    Setting,
    Team,
)
from tests.models_mixins import Parcel, Visit
from tests.recording import recorded
from tests.upsert_models import Article, Cat, Node


def hero(number: int, **values: Any) -> dict[str, Any]:
    """Return the values of a hero."""
    return {"name": f"hero {number}", "secret_name": "?"} | values


class TestWhatIsWritten:
    """Rows of every kind, with their defaults."""

    async def test_mappings_instances_and_pydantic_objects(self, session: AsyncSession) -> None:
        """In any mixture; values are coerced, and instances stay unchanged."""

        class NewHero(SQLModel):
            name: str
            secret_name: str
            age: int | None = 99

        instance = Hero(**hero(2), age=31)
        rows = [hero(1, age="48"), instance, NewHero(**hero(3))]
        assert await bulk_insert_rows(rows, session, Hero) == 3
        found = {row.name: row.age for row in await stored_rows(session, Hero)}
        assert found == {"hero 1": 48, "hero 2": 31, "hero 3": None}
        assert instance.id is None
        assert inspect(instance).transient

    async def test_rows_of_equal_length(self, session: AsyncSession) -> None:
        """They may have different fields; a mapping need not be a dict."""
        rows = [hero(1, age=5), MappingProxyType(hero(2, team_id=None)), hero(3, age=None)]
        assert await bulk_insert_rows(rows, session, Hero) == 3
        assert [row.age for row in await stored_rows(session, Hero)] == [5, None, None]

    @pytest.mark.databases("sqlite", "postgresql")
    async def test_a_schema_in_place_of_another(self, session: AsyncSession) -> None:
        """As the connection translates them, which no quick way does."""
        place = "main" if session.get_bind().dialect.name == "sqlite" else "public"
        options = {"schema_translate_map": {None: place}}
        await session.connection(execution_options=options)
        assert await bulk_insert_rows(map(hero, range(150)), session, Hero) == 150

    async def test_nothing(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """An empty iterable executes nothing."""
        with recorded(engine) as words:
            assert await bulk_insert_rows(iter(()), session, Hero) == 0
        assert "INSERT" not in words

    async def test_many_rows_from_a_generator(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """No more than a chunk is read ahead, and all chunks are one transaction."""
        read = 0

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal read
            for number in range(25):
                read += 1
                yield hero(number)

        ahead = []
        with recorded(engine) as words:
            inserted = await bulk_insert_rows(
                rows(), session, Hero, chunk_size=10, progress=lambda *_: ahead.append(read)
            )
        assert inserted == 25
        assert ahead == [10, 20, 25]
        assert words.count("COMMIT") == 1
        assert await count_of(session, Hero) == 25

    async def test_rows_beyond_every_bind_limit(self, session: AsyncSession) -> None:
        """The number of rows has no limit."""
        assert await bulk_insert_rows((hero(i) for i in range(20_000)), session, Hero) == 20_000
        assert await count_of(session, Hero) == 20_000

    async def test_defaults_of_all_kinds(self, session: AsyncSession) -> None:
        """By the server, by SQLAlchemy, by Pydantic; None counts as not given there."""
        rows = [{"key": "a"}, {"key": "b", "priority": None}, {"key": "c", "priority": 1}]
        await bulk_insert_rows([*rows, Setting(key="d")], session, Setting)
        found = await stored_rows(session, Setting)
        assert [row.key for row in found] == ["a", "b", "c", "d"]
        assert [row.priority for row in found] == [5, 5, 1, 5]
        assert {(row.scope, row.state, row.source) for row in found} == {
            ("global", "new", "python")
        }

    async def test_versions_columns_of_other_names_and_uuids(self, session: AsyncSession) -> None:
        """Values that the ORM would fill in are filled in."""
        await bulk_insert_rows([{"slug": "a"}, {"slug": "b", "mood": "x"}], session, Article)
        articles = await stored_rows(session, Article)
        assert [(a.mood, a.views, a.version) for a in articles] == [("calm", 7, 1), ("x", 7, 1)]
        await bulk_insert_rows([{"title": "a"}, Document(title="b")], session, Document)
        assert await count_of(session, Document) == 2
        await bulk_insert_rows([{"sku": "a", "shelf": 5}], session, Product)
        assert [p.shelf for p in await stored_rows(session, Product)] == [5]

    async def test_stamps(self, session: AsyncSession) -> None:
        """Actor and time are set, for mappings and instances; an explicit value wins."""
        with acting_as("alice"):
            rows = [{"code": "a"}, Parcel(code="b"), {"code": "c", "created_by": "bob"}]
            await bulk_insert_rows(rows, session, Parcel)
        found = sorted(await stored_rows(session, Parcel), key=lambda parcel: parcel.code)
        assert [parcel.created_by for parcel in found] == ["alice", "alice", "bob"]
        for parcel in found:
            assert parcel.created_at.tzinfo is not None
            assert (parcel.updated_at, parcel.version, parcel.is_deleted) == (None, 1, False)
        moment = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
        await bulk_insert_rows([{"until": "2024-03-01"}], session, Visit)
        assert [visit.until for visit in await stored_rows(session, Visit)] == [moment]

    async def test_a_kind_of_a_shared_table(self, session: AsyncSession) -> None:
        """The discriminator is that of the model."""
        await bulk_insert_rows([{"id": 1, "name": "Tom"}], session, Cat)
        assert [cat.kind for cat in await stored_rows(session, Cat)] == ["cat"]

    async def test_rows_may_refer_to_earlier_ones(self, session: AsyncSession) -> None:
        """They are inserted in order, whichever fields they have."""
        rows = [{"id": 1}, {"id": 2, "parent_id": 1, "label": "x"}, {"id": 3, "parent_id": 2}]
        assert await bulk_insert_rows(rows, session, Node) == 3

    async def test_same_rows_as_the_orm(self, session: AsyncSession) -> None:
        """JSON's null is distinguished from NULL, as in the ORM."""
        await given(session, AllTypes(id=1), AllTypes(id=2, payload={"a": [1]}, colour=Colour.RED))
        await bulk_insert_rows(
            [AllTypes(id=3), AllTypes(id=4, payload={"a": [1]}, colour=Colour.RED)],
            session,
            AllTypes,
        )
        a, b, c, d = [
            row.model_dump(exclude={"id"}) for row in await stored_rows(session, AllTypes)
        ]
        assert (a, b) == (c, d)


class TestDuplicates:
    """`on_conflict="ignore"`."""

    async def test_duplicates_are_skipped(self, session: AsyncSession) -> None:
        """Those of existing rows, and those in the input; the count is that of new rows."""
        await given(session, Hero(**hero(1, age=5)))
        rows = [hero(1), hero(2), hero(2, age=7), hero(3), Hero(**hero(3))]
        for expected in (2, 0):
            new = await bulk_insert_rows(rows, session, Hero, on_conflict="ignore", chunk_size=3)
            assert new == expected
        found = {row.name: row.age for row in await stored_rows(session, Hero)}
        assert found == {"hero 1": 5, "hero 2": None, "hero 3": None}

    async def test_many_rows_are_counted(self, session: AsyncSession) -> None:
        """Beyond what one statement of the driver holds."""
        await bulk_insert_rows((hero(2 * i) for i in range(1500)), session, Hero)
        rows = (hero(i) for i in range(3000))
        assert await bulk_insert_rows(rows, session, Hero, on_conflict="ignore") == 1500

    async def test_other_errors_are_not_ignored(self, session: AsyncSession) -> None:
        """Only duplicates are ignored."""
        rows = [hero(1), hero(2, team_id=99)]
        with pytest.raises(BulkOperationError) as caught:
            await bulk_insert_rows(rows, session, Hero, on_conflict="ignore")
        assert caught.value.indexes == (1,)
        assert await count_of(session, Hero) == 0


class TestFailures:
    """After any failure, no row is kept."""

    @pytest.mark.parametrize("place", [0, 1, 37, 66, 99])
    async def test_a_refused_row_is_named(self, session: AsyncSession, place: int) -> None:
        """By its index in the input; the chunks before it are undone."""
        rows = [{"owner": "x", "balance": -1 if i == place else i} for i in range(100)]
        with pytest.raises(BulkOperationError) as caught:
            await bulk_insert_rows(rows, session, Account, chunk_size=10)
        error = caught.value
        assert (error.total, error.indexes) == (100, (place,))
        reason = error.errors[0][1]
        assert isinstance(reason, ConstraintViolationError)
        assert reason.kind == "check"
        assert error.__cause__ is not None
        assert await count_of(session, Account) == 0

    async def test_the_second_of_two_equal_rows(self, session: AsyncSession) -> None:
        """It is the one that is refused; a generator's total is what was read of it."""
        rows = (hero(i % 30) for i in range(50))
        with pytest.raises(BulkOperationError) as caught:
            await bulk_insert_rows(rows, session, Hero, chunk_size=8)
        assert (caught.value.total, caught.value.indexes) == (32, (30,))

    async def test_a_block_is_doomed(self, session: AsyncSession) -> None:
        """Also where the error is caught inside, and for what the database never saw."""
        for bad in ({"name": "hero 0", "secret_name": "?"}, hero(9, age="old")):
            with pytest.raises(TransactionError):
                async with transaction(session):
                    with pytest.raises((BulkOperationError, ValidationError)):
                        await bulk_insert_rows([*map(hero, range(5)), bad], session, Hero)
            assert await count_of(session, Hero) == 0

    async def test_takes_part_in_a_block(self, session: AsyncSession) -> None:
        """Rows are inserted in the block, after what was pending."""
        async with transaction(session):
            session.add(Team(id=1, name="A"))
            assert await bulk_insert_rows([hero(1, team_id=1)], session, Hero) == 1
            assert await count_of(session, Hero) == 0
        assert await count_of(session, Hero) == 1

    async def test_a_failing_generator_or_callback(self, session: AsyncSession) -> None:
        """Their own errors propagate, and no chunk is kept."""

        def rows() -> Iterator[dict[str, Any]]:
            yield from map(hero, range(5))
            raise LookupError

        def tell(done: int, _total: int | None) -> None:
            if done > 2:
                raise KeyError

        with pytest.raises(LookupError):
            await bulk_insert_rows(rows(), session, Hero, chunk_size=2)
        with pytest.raises(KeyError):
            await bulk_insert_rows(map(hero, range(5)), session, Hero, chunk_size=2, progress=tell)
        assert await count_of(session, Hero) == 0

    async def test_a_bad_value_stops_its_chunk(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Nothing of it is executed, and nothing is kept."""
        rows = [*map(hero, range(3)), hero(3, age="old")]
        with recorded(engine) as words, pytest.raises(ValidationError, match="row 3: "):
            await bulk_insert_rows(rows, session, Hero)
        assert "INSERT" not in words

    @pytest.mark.databases("sqlite", "postgresql")
    async def test_a_constraint_that_is_checked_at_the_commit(self, session: AsyncSession) -> None:
        """The row is unknown."""
        with pytest.raises(ConstraintViolationError):
            await bulk_insert_rows([{"parent_id": 9}], session, DeferredChild)
        assert await count_of(session, DeferredChild) == 0

    @pytest.mark.databases("postgresql", "mysql")
    async def test_a_value_that_the_column_cannot_hold(self, session: AsyncSession) -> None:
        """It is refused before anything is written, on SQLite too, which would store it."""
        for bad in ({"age": 2**40}, {"name": "x" * 101}):
            rows = [hero(1), hero(2) | bad]
            with pytest.raises(ValidationError, match="row 1: Hero") as caught:
                await bulk_insert_rows(rows, session, Hero)
            assert caught.value.field in bad
        assert await count_of(session, Hero) == 0

    @pytest.mark.parametrize(
        "row",
        [
            5,
            {"name": 1.5},
            {"nmae": "x"},
            {"team": None},
            {"name": None, "secret_name": "?"},
            Team(name="A"),
        ],
    )
    async def test_rows_that_are_none(self, session: AsyncSession, row: Any) -> None:
        """Each thing that is not a row raises."""
        with pytest.raises(ValidationError):
            await bulk_insert_rows([row], session, Hero)

    async def test_constraints_of_the_fields(self, session: AsyncSession) -> None:
        """Values meet the constraints of the fields, as in `update_row`."""
        with pytest.raises(ValidationError) as caught:
            await bulk_insert_rows([{"sku": "a"}, {"sku": "b", "stock": -1}], session, Product)
        assert caught.value.field == "stock"

    async def test_instances_that_are_more_than_values(self, session: AsyncSession) -> None:
        """Related rows would be lost, and a row of a session be written twice."""
        with pytest.raises(ValidationError, match="team holds related rows"):
            await bulk_insert_rows([Hero(**hero(1), team=Team(name="A"))], session, Hero)
        pending = Hero(**hero(1))
        session.add(pending)
        with pytest.raises(ValidationError, match="belongs to a session"):
            await bulk_insert_rows([pending], session, Hero)

    @pytest.mark.parametrize(
        "options",
        [
            {"chunk_size": 0},
            {"method": "fast"},
            {"on_conflict": "update"},
            {"progress": 5},
            {"rows": "text"},
            {"rows": 5},
            {"model": Truck},
        ],
    )
    async def test_mistakes_raise(
        self, session: AsyncSession, engine: AsyncEngine, options: dict[str, Any]
    ) -> None:
        """A caller's mistake raises before anything is executed."""
        rest = {"rows": [hero(1)], "model": Hero} | options
        with recorded(engine) as words, pytest.raises(ValidationError):
            await bulk_insert_rows(rest.pop("rows"), session, rest.pop("model"), **rest)
        assert words == []

    async def test_an_unknown_field_says_where(self, session: AsyncSession) -> None:
        """In a note, as its text names the fields there are."""
        with pytest.raises(UnknownFieldError) as caught:
            await bulk_insert_rows([hero(1), {"nmae": "x"}], session, Hero)
        assert caught.value.__notes__ == ["in row 1"]


class TestTroubleOfOtherKinds:
    """Not every error is the fault of a row."""

    async def test_a_table_that_is_not_there(self, session: AsyncSession) -> None:
        """No row is blamed for it."""
        with pytest.raises(QueryExecutionError):
            await bulk_insert_rows([{"id": 1}, {"id": 2}], session, Nowhere)

    @pytest.mark.parametrize(
        ("raised", "expected"),
        [
            ([RuntimeError()], RuntimeError),
            ([OverflowError()], ValidationError),
            ([OverflowError(), RuntimeError()], RuntimeError),
            ([OverflowError(), ConnectionError()], DatabaseConnectionError),
        ],
    )
    async def test_errors_that_come_and_go(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        raised: list[Exception],
        expected: type[Exception],
    ) -> None:
        """An error that does not recur in the search is raised without an index."""
        waiting = list(raised)

        def refuse(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if waiting and statement.startswith("INSERT"):
                raise waiting.pop(0)

        plain = getattr(engine, "sync_engine", engine)
        event.listen(plain, "before_cursor_execute", refuse)
        try:
            with pytest.raises(expected):
                await bulk_insert_rows(map(hero, range(4)), session, Hero)
        finally:
            event.remove(plain, "before_cursor_execute", refuse)
        assert await count_of(session, Hero) == 0


class TestProgress:
    """Progress reports after each chunk."""

    async def test_a_function_is_called(self, session: AsyncSession) -> None:
        """With the rows that are done, skipped ones too, and the total if it is known."""
        calls: list[tuple[int, int | None]] = []

        def tell(done: int, total: int | None) -> None:
            calls.append((done, total))

        options: dict[str, Any] = {"chunk_size": 2, "progress": tell, "on_conflict": "ignore"}
        await bulk_insert_rows([hero(i) for i in range(5)], session, Hero, **options)
        await bulk_insert_rows((hero(i) for i in range(3)), session, Hero, **options)
        assert calls == [(2, 5), (4, 5), (5, 5), (2, None), (3, None)]

    async def test_a_bar(self, session: AsyncSession, capsys: pytest.CaptureFixture[str]) -> None:
        """It shows the rows, for unknown totals too, and is closed after an error."""
        await bulk_insert_rows([hero(i) for i in range(5)], session, Hero, progress=True)
        assert "Hero: 100%" in capsys.readouterr().err
        with pytest.raises(BulkOperationError):
            await bulk_insert_rows(map(hero, range(9)), session, Hero, progress=True)
        assert capsys.readouterr().err.endswith("\n")


async def test_another_failure_while_the_row_is_searched_for(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """It is not blamed on the row that is being tried."""
    inserts: list[str] = []

    def changed(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> tuple[str, Any]:
        if statement.startswith("INSERT INTO "):
            inserts.append(statement)
        if len(inserts) > 1:
            statement = statement.replace("INSERT INTO ", "INSERT INTO missing_")
        return statement, parameters

    listened = getattr(engine, "sync_engine", engine)
    event.listen(listened, "before_cursor_execute", changed, retval=True)
    try:
        with pytest.raises(QueryExecutionError):
            await bulk_insert_rows(
                [hero(1, id=1), hero(2, id=2), hero(3, id=2)], session, Hero, method="insert"
            )
    finally:
        event.remove(listened, "before_cursor_execute", changed)
    assert len(inserts) == 2
    assert await count_of(session, Hero) == 0
