"""The history of writes to many rows, and of the caller's own statements."""

from __future__ import annotations

import datetime as dt
import tracemalloc
import uuid
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from sqlalchemy import (
    case,
    column,
    create_engine,
    delete,
    event,
    func,
    insert,
    lambda_stmt,
    select,
    table,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import aliased
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ValidationError,
)
from sqlmodel_crud_utils.ext.history.aio import (
    ChangeHistory,
    get_change_history,
)
from sqlmodel_crud_utils.mixins import tenant_scope
from tests._async.histories import changes_of, new_pallet
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    dialect_of,
    execute,
    sync_engine,
)
from tests.databases import Database
from tests.history_models import (
    Dial,
    Docket,
    Estate,
    Grade,
    Pallet,
    Slot,
    Specimen,
    Ticker,
    Trinket,
    Vault,
)
from tests.recording import recorded

MANY = 100_000
_FILL = """
    INSERT INTO pallet (id, name, stock)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :many)
    SELECT n, 'p' || n, 0 FROM numbers
"""


@pytest.mark.databases("sqlite", "postgresql")
async def test_many_rows_are_recorded_in_the_database(session: AsyncSession) -> None:
    """None of them becomes a Python object."""
    await execute(session, text(_FILL), {"many": MANY})
    await session.commit()
    pallets = AsyncQueryBuilder(session, Pallet)
    # What is made once is there.
    await pallets.where(id=1).update(stock=-1)
    tracemalloc.start()
    try:
        assert await pallets.update(everything=True, stock=Pallet.stock + 5) == MANY
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert await AsyncQueryBuilder(session, ChangeHistory).count() == MANY + 1
    assert await changes_of(session, MANY, Pallet) == [("update", {"stock": [0, 5]})]


FEWER = 15_000


@pytest.mark.databases("sqlite", "postgresql")
async def test_many_rows_that_are_read_are_recorded_in_chunks(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Only the rows before the write are in memory, not those after it and their changes."""
    await execute(session, text(_FILL), {"many": FEWER})
    await session.commit()
    pallets = AsyncQueryBuilder(session, Pallet)
    most = select(func.max(Pallet.stock) + 5).correlate(None).scalar_subquery()
    await pallets.where(id=1).update(stock=most)
    held: list[int] = []

    def on_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE"):
            tracemalloc.reset_peak()
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    event.listen(sync_engine(engine), "after_cursor_execute", on_statement)
    try:
        assert await pallets.update(everything=True, stock=most) == FEWER
        _, peak = tracemalloc.get_traced_memory()
    finally:
        event.remove(sync_engine(engine), "after_cursor_execute", on_statement)
        tracemalloc.stop()
    [before] = held
    assert peak - before < 3_000_000
    assert await AsyncQueryBuilder(session, ChangeHistory).count() == FEWER + 1
    assert await changes_of(session, FEWER, Pallet) == [("update", {"stock": [0, 10]})]


@pytest.mark.databases("sqlite", "postgresql")
async def test_many_rows_with_a_key_of_several_columns(session: AsyncSession) -> None:
    """However many there are: no statement takes all of their keys."""
    many = 8_000
    fill = _FILL.replace("pallet (id, name, stock)", "slot (row, place, label)")
    await execute(session, text(fill.replace("'p' || n, 0", "'p', 'a'")), {"many": many})
    await session.commit()
    slots = AsyncQueryBuilder(session, Slot)
    assert await slots.update(everything=True, label=func.upper(Slot.label)) == many
    assert await AsyncQueryBuilder(session, ChangeHistory).count() == many
    assert await changes_of(session, (many, "p"), Slot) == [("update", {"label": ["a", "A"]})]


async def test_set_based_writes_record_what_differs(session: AsyncSession) -> None:
    """Rows that the statement reaches but does not change are not recorded."""
    keys = [await new_pallet(session, "a", 1), await new_pallet(session, "b", 2)]
    assert await AsyncQueryBuilder(session, Pallet).update(stock=2, everything=True) == 2
    assert await delete_rows_within_id_list(keys, session, Pallet) == (True, 2)
    assert (await changes_of(session, keys[0], Pallet))[1] == ("update", {"stock": [1, 2]})
    assert [each for each, _ in await changes_of(session, keys[1], Pallet)] == ["create", "delete"]


VALUES: dict[str, Any] = {
    "text": "\u2026 é \"'\\ \n {}%s",
    "is_open": False,
    "price": Decimal("48.5"),
    "grade": Grade.HIGH,
    "moment": dt.datetime(2025, 1, 31, 12, tzinfo=dt.UTC),
    "number": -5,
    "pin": "1234",
}


async def test_the_database_records_what_the_library_would(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """No row goes through Python, and the texts are the same as for a single row."""
    one, many = Specimen(id=1), Specimen(id=2)
    await write_row(one, session)
    await write_row(many, session)
    rows = AsyncQueryBuilder(session, Specimen).where(id=2)
    await update_row(1, VALUES, session, Specimen)
    await update_row(1, {"number": -4, "other": 7, "pin": "4321"}, session, Specimen)
    await update_row(1, dict.fromkeys([*VALUES, "other"]), session, Specimen)
    await update_row(1, {"is_open": True}, session, Specimen)
    await update_row(1, VALUES, session, Specimen)
    await delete_row(1, session, Specimen)
    session.expunge_all()
    with recorded(engine) as statements:
        await rows.update(VALUES)
        await rows.update(number=(Specimen.number + 3) - 2, other=7, pin="4321")
        await rows.update(number=Specimen.number, other=7)
        await rows.update(dict.fromkeys([*VALUES, "other"]))
        await rows.update(is_open=True)
        await rows.update(VALUES)
        await rows.delete()
    assert "SELECT" not in statements
    first, second = await changes_of(session, 1, Specimen), await changes_of(session, 2, Specimen)
    assert first[1:-1] == second[1:-1]
    del first[-1][1]["id"], second[-1][1]["id"]
    assert first[-1] == second[-1]


@pytest.mark.parametrize("value", [func.abs(Pallet.stock), case((Pallet.stock > 1, 5), else_=6)])
async def test_what_is_no_sum_is_read(session: AsyncSession, value: Any) -> None:
    """Values that the database cannot compute beforehand are read after the write."""
    key = await new_pallet(session, stock=-3)
    await AsyncQueryBuilder(session, Pallet).update(stock=value, everything=True)
    _, (_, changed) = await changes_of(session, key, Pallet)
    assert changed == {"stock": [-3, 3 if value.__visit_name__ == "function" else 6]}


@pytest.mark.parametrize(
    "values",
    [
        {"number": Dial.number + 1.5},
        {"number": Dial.number + Dial.price},
        {"number": Dial.price},
        {"wide": Decimal("9876543210987654.25")},
        {"rate": 2.25},
        {"code": "b"},
        {"code": "b  "},
    ],
)
async def test_set_based_writes_record_what_is_stored(
    session: AsyncSession, values: dict[str, Any]
) -> None:
    """The texts are those of a row that is read, also where the database converts the value."""
    price, wide = Decimal("1.50"), Decimal("1234567890123456.25")
    await write_row(Dial(id=1, number=1, price=price, wide=wide, rate=1.5, code="a"), session)
    await AsyncQueryBuilder(session, Dial).where(id=1).update(values)
    await AsyncQueryBuilder(session, Dial).where(id=1).update(dict.fromkeys(values))
    (_, created), (_, first), (_, second) = await changes_of(session, 1, Dial)
    [name] = values
    assert first[name] == [created[name][1], second[name][0]]


async def test_an_assignment_sees_those_before_it_on_mysql(session: AsyncSession) -> None:
    """The recorded value matches the row."""
    await write_row(Specimen(id=1, number=1, other=10), session)
    rows = AsyncQueryBuilder(session, Specimen)
    await rows.update(number=5, other=(Specimen.number + 1), everything=True)
    specimen = await session.get(Specimen, 1)
    assert specimen is not None
    _, (_, changed) = await changes_of(session, 1, Specimen)
    assert changed == {"number": [1, 5], "other": [10, specimen.other]}


async def test_values_that_only_python_can_write_as_text(session: AsyncSession) -> None:
    """The rows are read before and after a set-based write."""
    await write_row(Trinket(id=1, code="abc", grade=Grade.LOW), session)
    await AsyncQueryBuilder(session, Trinket).where(id=1).update(code="xyz")
    await AsyncQueryBuilder(session, Trinket).where(id=1).update(grade=Grade.HIGH)
    await write_row(Ticker(id=1), session)
    await AsyncQueryBuilder(session, Ticker).where(id=1).update(number=1)
    assert (await changes_of(session, 1, Trinket))[1:] == [
        ("update", {"code": ["cba", "zyx"]}),
        ("update", {"grade": ["LOW", "HIGH"]}),
    ]
    assert (await changes_of(session, 1, Ticker))[1:] == [("update", {"number": [0, 1]})]
    with tenant_scope(uuid.UUID(int=1)):
        await write_row(Estate(id=1), session)
        await AsyncQueryBuilder(session, Estate).where(id=1).update(rent=1)
        [_, change] = await get_change_history(1, session, Estate)
    assert (change.changes, change.tenant_id) == ({"rent": [0, 1]}, str(uuid.UUID(int=1)))


@pytest.mark.databases("postgresql")
async def test_rows_that_others_add_meanwhile(
    session: AsyncSession, engine: AsyncEngine, database: Database
) -> None:
    """A set-based write reaches them too, and their changes are recorded."""
    await new_pallet(session)
    other = create_engine(database.sync_url)
    late = iter([insert(Pallet).values(name="late", stock=2)])

    def intrude(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE") and (adding := next(late, None)) is not None:
            with other.begin() as writer:
                writer.execute(adding)

    event.listen(sync_engine(engine), "before_cursor_execute", intrude)
    try:
        count = await AsyncQueryBuilder(session, Pallet).update(stock=5, everything=True)
    finally:
        event.remove(sync_engine(engine), "before_cursor_execute", intrude)
        other.dispose()
    assert count == 2
    rows = (await execute(session, select(Pallet.id))).scalars().all()
    changed = [(await changes_of(session, key, Pallet))[-1] for key in sorted(rows)]
    assert changed == [("update", {"stock": [1, 5]}), ("update", {"stock": [2, 5]})]


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("count", [1, 3])
async def test_a_row_that_another_adds_before_an_upsert(
    session: AsyncSession, engine: AsyncEngine, database: Database, count: int
) -> None:
    """It is updated, although the search did not find it."""
    await new_pallet(session)
    other = create_engine(database.sync_url)
    late = iter([insert(Pallet).values(name="late", stock=2)])

    def intrude(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO pallet") and (adding := next(late, None)) is not None:
            with other.begin() as writer:
                writer.execute(adding)

    event.listen(sync_engine(engine), "before_cursor_execute", intrude)
    try:
        names = ["late", "a", "new"][:count]
        rows = [{"name": name, "stock": 5} for name in names]
        await bulk_upsert_mappings(rows, session, Pallet, ["name"])
    finally:
        event.remove(sync_engine(engine), "before_cursor_execute", intrude)
        other.dispose()
    found = (await execute(session, select(Pallet.name, Pallet.id))).all()
    assert len(found) == max(2, count)
    last = {name: (await changes_of(session, key, Pallet))[-1] for name, key in found}
    assert last["late"] == ("update", {"stock": [2, 5]})
    if count > 1:
        assert last["a"] == ("update", {"stock": [1, 5]})
        assert last["new"][0] == "create"


@pytest.mark.databases("postgresql")
async def test_an_upsert_keeps_others_from_deleting_its_rows(
    session: AsyncSession, engine: AsyncEngine, database: Database
) -> None:
    """From its search on, the old values are those that it overwrites."""
    key = await new_pallet(session)
    other = create_engine(database.sync_url)
    searches = count()
    refused: list[OperationalError] = []

    def intrude(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM pallet" in statement and next(searches) == 1:
            try:
                with other.begin() as writer:
                    writer.execute(text("SET LOCAL lock_timeout = '50ms'"))
                    writer.execute(delete(Pallet))
            except OperationalError as error:
                refused.append(error)

    event.listen(sync_engine(engine), "before_cursor_execute", intrude)
    try:
        await bulk_upsert_mappings([{"name": "a", "stock": 5}], session, Pallet, ["name"])
    finally:
        event.remove(sync_engine(engine), "before_cursor_execute", intrude)
        other.dispose()
    assert len(refused) == 1
    assert (await changes_of(session, key, Pallet))[1:] == [("update", {"stock": [1, 5]})]


async def test_numbers_that_differ_in_their_last_digits(session: AsyncSession) -> None:
    """MySQL shows six digits of those with four bytes, and stores more."""
    key = uuid.uuid4()
    await write_row(Vault(id=key, weight=1234567), session)
    await update_row(key, {"weight": 1234568}, session, Vault)
    await AsyncQueryBuilder(session, Vault).update(weight=0.1, everything=True)
    await update_row(key, {"weight": None}, session, Vault)
    pairs = [changes["weight"] for _, changes in await changes_of(session, key, Vault)]
    assert pairs == [[None, 1234567], [1234567, 1234568], [1234568, 0.1], [0.1, None]]


async def test_many_new_rows_without_their_keys_are_refused(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL returns no keys, so these rows could not be recorded."""
    monkeypatch.setattr(dialect_of(session), "insert_returning", False)
    with pytest.raises(ValidationError, match="use bulk_insert_rows"):
        await execute(session, insert(Pallet), [{"name": "a"}, {"name": "b"}])


async def test_an_upsert_that_conflicts_is_an_update(session: AsyncSession) -> None:
    """One that leaves the row alone is nothing."""
    key = await new_pallet(session)
    rows = [{"name": "a", "stock": 5}]
    await bulk_upsert_mappings(rows, session, Pallet, ["name"])
    await bulk_upsert_mappings(rows, session, Pallet, ["name"])
    assert (await changes_of(session, key, Pallet))[1:] == [("update", {"stock": [1, 5]})]


@pytest.mark.databases("mysql")
async def test_an_upsert_that_meets_another_unique_key(session: AsyncSession) -> None:
    """MySQL updates the row that it finds by any unique key, and that is an update."""
    key = await new_pallet(session)
    rows = [{"id": 987_654, "name": "a", "stock": 5}]
    await bulk_upsert_mappings(rows, session, Pallet, ["id"])
    assert (await changes_of(session, key, Pallet))[1:] == [("update", {"stock": [1, 5]})]


async def test_a_soft_deletion_is_an_update(session: AsyncSession) -> None:
    """It records who deleted the row, which keeps its history."""
    _, docket = await write_row(Docket(name="a"), session)
    await delete_row(docket.id, session, Docket, deleted_by="bob")
    _, (operation, changed) = await changes_of(session, docket.id, Docket)
    assert operation == "update"
    assert changed["is_deleted"] == [False, True]
    assert changed["deleted_by"] == [None, "bob"]


# --- statements of the caller's -------------------------------------------------------------------


async def test_an_insert_that_may_update_is_refused(session: AsyncSession) -> None:
    """It does not report which rows it updates."""
    makers: dict[str, Any] = {"postgresql": postgresql, "sqlite": sqlite, "mysql": mysql}
    name = "mysql" if dialect_of(session).name == "mariadb" else dialect_of(session).name
    statement = makers[name].insert(Pallet).values(name="a")
    if name == "mysql":
        statement = statement.on_duplicate_key_update(stock=1)
    else:
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"stock": 1})
    with pytest.raises(ValidationError, match="bulk_upsert_mappings"):
        await execute(session, statement)


@pytest.mark.parametrize("statement", [insert(Pallet), update(Pallet)], ids=["insert", "update"])
async def test_a_statement_that_replaces_is_refused(session: AsyncSession, statement: Any) -> None:
    """It may remove other rows, without saying which."""
    replacing = statement.prefix_with("OR REPLACE").values(name="a")
    with pytest.raises(ValidationError, match="without REPLACE"):
        await execute(session, replacing)


@pytest.mark.databases("sqlite", "postgresql")
async def test_an_insert_that_leaves_rows_alone(session: AsyncSession) -> None:
    """Only what is inserted is recorded."""
    key = await new_pallet(session)
    maker = postgresql if dialect_of(session).name == "postgresql" else sqlite
    statement = maker.insert(Pallet).on_conflict_do_nothing()
    await execute(session, statement.values(name="a", stock=5))
    await execute(session, statement, [{"name": "a", "stock": 5}, {"name": "b", "stock": 6}])
    assert len(await changes_of(session, key, Pallet)) == 1
    found = await execute(session, select(ChangeHistory).order_by("id"))
    assert [each.changes["name"][1] for each in found.scalars()] == ["a", "b"]


async def test_a_write_in_an_unusual_place_is_refused(session: AsyncSession) -> None:
    """To an alias, as the source of rows, in a lambda or another statement, to several tables."""
    key = await new_pallet(session)
    raised = update(Pallet).values(stock=9)
    statements: list[Any] = [
        update(aliased(Pallet)).values(stock=9),
        update(SQLModel.metadata.tables["pallet"].alias("p")).values(stock=9),
        delete(SQLModel.metadata.tables["pallet"].alias("p")),
        update(table("pallet", column("stock"))).values(stock=9),
        select(Pallet).from_statement(raised.returning(Pallet)),
        select(Pallet).from_statement(insert(Pallet).values(name="b").returning(Pallet)),
        lambda_stmt(lambda: update(Pallet).values(stock=9)),
        update(Trinket).values(code="t").add_cte(raised.cte("raised")),
        update(Trinket).where(Trinket.id == Pallet.id).values({Pallet.stock: 9}),
        update(Pallet).where(Trinket.id == Pallet.id).values({Pallet.stock: 9, Trinket.code: "t"}),
    ]
    for statement in statements:
        with pytest.raises(ValidationError, match="rows have a history"):
            await execute(session, statement)
    assert len(await changes_of(session, key, Pallet)) == 1


async def test_an_update_of_keys_is_refused(session: AsyncSession) -> None:
    """Afterwards the rows could not be identified."""
    await new_pallet(session)
    for statement in (update(Pallet).values(id=7), update(Pallet)):
        with pytest.raises(ValidationError, match="cannot set id"):
            await execute(session, statement, None if statement._values else {"id": 7})
