"""The quick ways of a bulk insert, COPY among them, write what the ordinary one writes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Connection, delete, event, inspect, select, text

from sqlmodel_crud_utils.aio import bulk_insert_rows, transaction
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    TransactionError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, execute, run_on_connection
from tests.bulk_models import Everything, Mark, Sign, Ticket
from tests.databases import Database
from tests.models import Account, Colour, Team
from tests.models_mixins import Parcel
from tests.properties import examples
from tests.recording import ListenerError, failing_savepoints, recorded

Row = dict[str, Any]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
SPECIAL_TEXTS = st.sampled_from(["\t", "\n", "\r\n", "\\", "\\N", "\\.", '"', "'", "🦸", "", " a "])
DAYS = st.dates(dt.date(1980, 1, 1), dt.date(2100, 1, 1))
MOMENTS = st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2100, 1, 1))  # noqa: DTZ001
ZONES = st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-7)), dt.timezone.max])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
BEYOND = st.sampled_from([float("inf"), float("-inf"), float("nan")])


def values_of(name: str) -> dict[str, st.SearchStrategy[Any]]:
    """Return what the columns of `Everything` may hold on a database."""
    floats = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    return {
        "whole": st.integers(-(2**31), 2**31 - 1),
        "small": st.integers(-(2**15), 2**15 - 1),
        "big": st.integers(-(2**63), 2**63 - 1),
        "text": TEXTS | SPECIAL_TEXTS,
        "capped": TEXTS.map(lambda text: text[:20]),
        "real": floats | BEYOND if name == "postgresql" else floats,
        "single": st.sampled_from([0.0, 0.1, -2.5, 1e30]),
        "amount": st.decimals(-(10**7), 10**7, places=6),
        "flag": st.booleans(),
        "day": DAYS,
        "clock": st.times(),
        "moment": MOMENTS.flatmap(lambda m: ZONES.map(lambda zone: m.replace(tzinfo=zone))),
        "naive": MOMENTS,
        "duration": st.timedeltas(dt.timedelta(), dt.timedelta(days=1000)),
        "token": st.uuids(version=4),  # MariaDB refuses unknown variants
        "colour": st.sampled_from(Colour),
        "shade": st.sampled_from(Colour),
        "blob": st.binary(max_size=30),
        "payload": JSON_VALUES,
        "document": JSON_VALUES,
        "numbers": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "mirror": TEXTS,
        "source": TEXTS,
        "rank": st.integers(0, 9),
    }


def row_lists(name: str) -> st.SearchStrategy[list[Row]]:
    """Return lists of rows with different fields, some of them None."""
    columns = values_of(name)
    optional = {key: st.none() | values for key, values in columns.items() if key != "rank"}
    row = st.fixed_dictionaries({}, optional=optional | {"rank": columns["rank"]})
    return st.lists(row, min_size=1, max_size=5)


@contextmanager
def watched(engine: AsyncEngine) -> Iterator[list[Any]]:
    """Listen to the statements, so that all of them are SQLAlchemy's own."""
    plain = getattr(engine, "sync_engine", engine)
    seen: list[Any] = []

    def listen(_connection: Any, statement: Any, *_rest: Any) -> None:
        seen.append(statement)

    event.listen(plain, "before_execute", listen)
    try:
        yield seen
    finally:
        event.remove(plain, "before_execute", listen)


async def take_rows(session: AsyncSession, model: type[Any]) -> list[str]:
    """Remove the rows, and return them without their keys."""
    table = inspect(model).local_table
    columns = [column for column in table.columns if not column.primary_key]
    async with AsyncSession(session.bind) as other:
        found = (await execute(other, select(*columns).order_by(*table.primary_key.columns))).all()
        await execute(other, delete(table))
        await other.commit()
    return list(map(repr, found))


EXAMPLES = examples(40)


@EXAMPLES
@given(data=st.data())
async def test_all_ways_write_the_same(
    data: st.DataObject, session: AsyncSession, engine: AsyncEngine, database: Database
) -> None:
    """Values of every type, in rows of any shape, come out as SQLAlchemy's INSERT writes them."""
    rows = data.draw(row_lists(database.name))
    with watched(engine):
        await bulk_insert_rows(rows, session, Everything, method="insert")
    expected = await take_rows(session, Everything)
    await bulk_insert_rows(rows, session, Everything, method="insert")
    assert await take_rows(session, Everything) == expected
    if database.name == "postgresql":
        await bulk_insert_rows(rows, session, Everything, method="copy")
        assert await take_rows(session, Everything) == expected


WIDE: Row = {
    "whole": -5,
    "small": 2,
    "big": 2**62,
    "text": "a\tb\n\\N",
    "capped": "x",
    "real": float("nan"),
    "amount": Decimal("1.23455"),
    "flag": True,
    "day": dt.date(2024, 2, 29),
    "clock": dt.time(1, 2, 3, 4),
    "moment": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "naive": dt.datetime(2024, 1, 1, 5),  # noqa: DTZ001
    "duration": dt.timedelta(days=-3, microseconds=1),
    "colour": Colour.GREEN,
    "shade": Colour.RED,
    "blob": b"\0\xff",
    "payload": {"a": [None, 1.5]},
    "document": ["x"],
    "numbers": [1, -2],
    "mirror": "abc",
}


@pytest.mark.databases("postgresql")
class TestCopy:
    """`method="copy"`, and when "auto" chooses COPY."""

    async def test_every_type_is_copied(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """Without falling back; defaults of Python and of the server are filled in."""
        with recorded(engine) as words:
            assert await bulk_insert_rows([WIDE] * 3, session, Everything, method="copy") == 3
        assert "INSERT" not in words
        copied = await take_rows(session, Everything)
        await bulk_insert_rows([WIDE] * 3, session, Everything, method="insert")
        assert copied == await take_rows(session, Everything)
        assert "'python', 7" in copied[0] or "'python', 3" in copied[0]

    async def test_many_rows_are_copied_by_themselves(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A few rows are not, nor are rows of a session with listeners."""
        rows = [{"owner": "x", "balance": 1} for _ in range(200)]
        with recorded(engine) as words:
            await bulk_insert_rows(rows, session, Account)
        assert "INSERT" not in words
        with recorded(engine) as words:
            await bulk_insert_rows(rows[:20], session, Account)
            await bulk_insert_rows(rows, session, Account, method="insert")
        assert words.count("INSERT") == 2
        with watched(engine) as seen:
            await bulk_insert_rows(rows, session, Account)
        assert seen
        assert len(await take_rows(session, Account)) == 620

    async def test_takes_part_in_a_block(self, session: AsyncSession) -> None:
        """Copied rows are undone with the block."""
        rows = [{"owner": "x", "balance": number} for number in range(300)]
        with pytest.raises(TransactionError):
            async with transaction(session):
                await bulk_insert_rows(rows, session, Account, method="copy")
                raise KeyError
        assert await take_rows(session, Account) == []

    async def test_duplicates_are_skipped_by_inserting(self, session: AsyncSession) -> None:
        """COPY cannot skip duplicates, so these rows are inserted."""
        rows = [{"name": f"t{number % 150}"} for number in range(300)]
        options: dict[str, Any] = {"method": "copy", "on_conflict": "ignore"}
        assert await bulk_insert_rows(rows, session, Team, **options) == 150

    @pytest.mark.parametrize("method", ["auto", "copy"])
    @pytest.mark.parametrize("place", [0, 249, 299])
    async def test_a_refused_row_is_named(
        self, session: AsyncSession, place: int, method: Any
    ) -> None:
        """As by an INSERT, with the values in no text; no row is kept."""
        rows = [{"owner": "s3cret", "balance": -7 if i == place else i} for i in range(300)]
        with pytest.raises(BulkOperationError) as caught:
            await bulk_insert_rows(rows, session, Account, method=method, chunk_size=120)
        assert caught.value.indexes == (place,)
        reason = caught.value.errors[0][1]
        assert isinstance(reason, ConstraintViolationError)
        assert (reason.kind, reason.constraint) == ("check", "ck_account_balance")
        assert "s3cret" not in caught.value.get_error_summary()
        assert await take_rows(session, Account) == []

    @pytest.mark.parametrize(
        "value", [{"whole": 2**31}, {"small": -(2**15) - 1}, {"numbers": [1, 2**31]}]
    )
    async def test_numbers_out_of_range(self, session: AsyncSession, value: Row) -> None:
        """They are refused, never cut to the size of their column."""
        with pytest.raises((BulkOperationError, ValidationError)) as caught:
            await bulk_insert_rows([WIDE, WIDE | value], session, Everything, method="copy")
        assert isinstance(caught.value, ValidationError) or caught.value.indexes == (1,)
        assert await take_rows(session, Everything) == []

    async def test_what_is_no_refusal_comes_out(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The rows are not inserted instead."""
        rows = [{"owner": "x", "balance": 1}]
        with pytest.raises(ListenerError):
            async with transaction(session, wrap_errors=False):
                with failing_savepoints(engine):
                    await bulk_insert_rows(rows, session, Account, method="copy")
        assert await take_rows(session, Account) == []

    async def test_a_block_is_doomed(self, session: AsyncSession) -> None:
        """A refused COPY dooms its block, even if the error is caught in it."""
        rows = [{"owner": "x", "balance": 1 - number} for number in range(300)]
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(BulkOperationError):
                    await bulk_insert_rows(rows, session, Account, method="copy")
        assert await take_rows(session, Account) == []

    async def test_a_row_policy(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """COPY refuses such tables; their rows are inserted."""
        role = f"bulk_{engine.url.database}"

        def run(connection: Connection, *statements: str) -> None:
            for statement in statements:
                connection.execute(text(statement))

        prepare = (
            f"CREATE ROLE {role}",
            f"GRANT SELECT, INSERT ON account TO {role}",
            f"GRANT USAGE ON SEQUENCE account_id_seq TO {role}",
            "ALTER TABLE account ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY free ON account USING (true)",
            f"SET LOCAL ROLE {role}",
        )
        rows = [{"owner": "x", "balance": 1} for _ in range(250)]
        with pytest.raises(KeyError):
            async with transaction(session, wrap_errors=False):
                await run_on_connection(session, lambda connection: run(connection, *prepare))
                assert await bulk_insert_rows(rows, session, Account, chunk_size=120) == 250
                count = (await execute(session, select(Account.id))).all()
                assert len(count) == 250
                raise KeyError


async def test_none_where_there_is_a_default(session: AsyncSession) -> None:
    """It is as good as not given, in rows that are otherwise alike."""
    rows = [{"text": "a", "rank": None}, {"text": "b", "rank": None}, {"text": "c", "rank": 1}]
    await bulk_insert_rows(rows, session, Everything)
    found = (await execute(session, select(Everything.text, Everything.rank))).all()
    assert sorted(map(tuple, found)) == [("a", 3), ("b", 3), ("c", 1)]


async def test_other_databases_have_no_copy(session: AsyncSession, database: Database) -> None:
    """Asked for by name it is a mistake."""
    if database.name == "postgresql":
        pytest.skip("it has one")
    with pytest.raises(ValidationError, match="needs PostgreSQL"):
        await bulk_insert_rows([{"name": "A"}], session, Team, method="copy")


@pytest.mark.parametrize("method", ["auto", "insert", "copy"])
class TestDefaultsOfAllKinds:
    """SQLAlchemy writes rows that the faster methods do not support."""

    async def check(
        self, session: AsyncSession, model: type[Any], rows: list[Row], method: Any
    ) -> list[str]:
        """Write rows and return them."""
        if session.get_bind().dialect.name != "postgresql" and method == "copy":
            method = "auto"
        assert await bulk_insert_rows(rows, session, model, method=method) == len(rows)
        return await take_rows(session, model)

    async def test_values_that_sql_changes(self, session: AsyncSession, method: Any) -> None:
        """And defaults that Python counts: each row gets one of its own."""
        found = await self.check(session, Ticket, [{"label": "ABC"}] * 150, method)
        assert len(set(found)) == 150
        assert all("'abc'" in row and row.endswith(", 5)") for row in found)

    async def test_defaults_that_look_at_the_row(self, session: AsyncSession, method: Any) -> None:
        """Only SQLAlchemy can pass them the rest of the row."""
        found = await self.check(session, Sign, [{"label": f"l{n}"} for n in range(150)], method)
        assert found[149] == "('l149', 'L149')"

    async def test_defaults_of_sql(self, session: AsyncSession, method: Any) -> None:
        """SQL defaults are part of the statement, for every method."""
        found = await self.check(session, Mark, [{"label": "a"}] * 150, method)
        assert set(found) == {"('a', 4)"}

    async def test_versions_and_stamps(self, session: AsyncSession, method: Any) -> None:
        """The mixins' versions and stamps are written in every way."""
        rows = [{"code": f"c{number}"} for number in range(150)]
        found = await self.check(session, Parcel, rows, method)
        assert len(set(found)) == 150
