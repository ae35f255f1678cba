"""The content of the history, and its visibility for tenants."""

from __future__ import annotations

import datetime as dt
import tracemalloc
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
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
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import aliased
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    run_transaction,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    TenantError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.ext.history.aio import (
    ChangeHistory,
    TrackChangesMixin,
    get_change_history,
    purge_change_history,
)
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as, all_tenants, tenant_scope
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    dialect_of,
    execute,
    sync_engine,
    together,
)
from tests.databases import Database
from tests.history_models import (
    Baker,
    BakerLoaf,
    Cupboard,
    Dial,
    Docket,
    Estate,
    Grade,
    Holding,
    Lease,
    Loaf,
    LongName,
    Pallet,
    Recipe,
    Shelfmark,
    Slot,
    Specimen,
    Tariff,
    Ticker,
    Tome,
    Trinket,
    Vault,
    Waybill,
)
from tests.models import Hero
from tests.observing import recorded_calls
from tests.recording import recorded

WRONG = {"pni": UnknownFieldError, "id": ValidationError, "number": ValidationError}
Opened = Callable[[], AsyncSession]


async def changes_of(session: AsyncSession, row_key: Any, model: type[Any]) -> list[Any]:
    """Return what was changed in a row: operations with the changes of the fields."""
    found = await get_change_history(row_key, session, model)
    return [(each.operation, each.changes) for each in found]


async def new_pallet(session: AsyncSession, name: str = "a", stock: int = 1) -> Any:
    """Write a pallet, and return its key."""
    _, pallet = await write_row(Pallet(name=name, stock=stock), session)
    return pallet.id


# --- one row --------------------------------------------------------------------------------------


async def test_a_row_has_its_changes_in_their_order(session: AsyncSession) -> None:
    """A new row shows every field that is not null, an update what differs, a removed row all."""
    key = await new_pallet(session, stock=48)
    await update_row(key, {"stock": 49}, session, Pallet)
    await update_row(key, {"stock": 49}, session, Pallet)  # that changes nothing
    await update_row(key, {"stock": None}, session, Pallet)
    await delete_row(key, session, Pallet)
    assert await changes_of(session, str(key), Pallet) == [
        ("create", {"id": [None, key], "name": [None, "a"], "stock": [None, 48]}),
        ("update", {"stock": [48, 49]}),
        ("update", {"stock": [49, None]}),
        ("delete", {"id": [key, None], "name": ["a", None]}),
    ]


async def test_who_did_it_and_in_which_transaction(session: AsyncSession) -> None:
    """The name is that of `acting_as` at the write, and a transaction has one key for all."""
    key = await new_pallet(session)
    with acting_as("alice"):
        await AsyncQueryBuilder(session, Pallet).update(stock=2, everything=True)
        async with transaction(session):
            await bulk_update_rows([key], {"stock": 3}, session, Pallet)
            async with transaction(session):
                await update_row(key, {"stock": 4}, session, Pallet)
            other = await new_pallet(session, "b")
    found = await get_change_history(key, session, Pallet)
    assert [each.changed_by for each in found] == [None, "alice", "alice", "alice"]
    made_in = [each.transaction_key for each in found]
    assert made_in[2] == made_in[3]
    assert len(set(made_in)) == 3
    [made] = await get_change_history(other, session, Pallet)
    assert made.transaction_key == made_in[3]
    assert found[0].changed_at.tzinfo is not None


async def test_what_is_rolled_back_leaves_nothing(session: AsyncSession) -> None:
    """The history is written in the transaction of the change."""
    key = await new_pallet(session)
    pallet = await session.get(Pallet, key)
    assert pallet is not None
    pallet.stock = 5
    await session.flush()
    assert len(await get_change_history(key, session, Pallet)) == 2
    await session.rollback()
    assert len(await get_change_history(key, session, Pallet)) == 1


@pytest.mark.databases("postgresql", "mysql")  # SQLite takes texts of any length
async def test_a_change_that_cannot_be_recorded_fails(session: AsyncSession) -> None:
    """If the history refuses it, nothing is changed."""
    key = "x" * 300
    with pytest.raises(ValidationError, match="too long"):
        await write_row(LongName(id=key), session, raise_on_error=True)
    await session.rollback()
    assert await session.get(LongName, key) is None


async def test_a_key_of_several_columns(session: AsyncSession) -> None:
    """It is given as a tuple."""
    await write_row(Slot(row=1, place="a", label="x"), session)
    await write_row(Slot(row=2, place="a", label="x"), session)
    await AsyncQueryBuilder(session, Slot).where(row=1).update(label="y")
    assert (await changes_of(session, (1, "a"), Slot))[1:] == [("update", {"label": ["x", "y"]})]
    assert len(await changes_of(session, (2, "a"), Slot)) == 1


async def test_a_changed_key_is_recorded_under_the_old_one(session: AsyncSession) -> None:
    """Both keys are among the changes."""
    await write_row(Slot(row=1, place="a", label="x"), session)
    slot = await session.get(Slot, (1, "a"))
    assert slot is not None
    slot.row = 5
    await session.commit()
    assert (await changes_of(session, (1, "a"), Slot))[1:] == [("update", {"row": [1, 5]})]


async def test_a_key_has_one_text(session: AsyncSession) -> None:
    """Before and after it was stored, however it is given."""
    await write_row(Tariff(price=Decimal("1.5"), code="ab"), session)
    await update_row((Decimal(1) + Decimal("0.5"), "ab"), {"name": "b"}, session, Tariff)
    await AsyncQueryBuilder(session, Tariff).where(name="b").update(name="c")
    for key in (Decimal("1.5"), "ab"), (Decimal("1.500"), "ab"), ("1.50", "ab"):
        found = await get_change_history(key, session, Tariff)
        assert [each.row_key for each in found] == ['["1.50","ab"]'] * 3


async def test_keys_that_differ_in_case(session: AsyncSession) -> None:
    """They have a history each where they are different keys."""
    await write_row(Shelfmark(code="ab"), session)
    await write_row(Shelfmark(code="AB"), session)
    for code in "ab", "AB":
        assert await changes_of(session, code, Shelfmark) == [("create", {"code": [None, code]})]


async def test_a_new_row_that_replaces_a_deleted_one(session: AsyncSession) -> None:
    """A flush that updates the row instead is an update."""
    await write_row(Slot(row=1, place="a", label="x"), session)
    await session.delete(await session.get_one(Slot, (1, "a")))
    session.add(Slot(row=1, place="a", label="y"))
    await session.commit()
    assert (await changes_of(session, (1, "a"), Slot))[1:] == [("update", {"label": ["x", "y"]})]


async def test_old_values_that_are_not_loaded(
    session: AsyncSession, session_factory: Opened
) -> None:
    """An old value is right though the session never had it, or has an outdated one."""
    key = await new_pallet(session, stock=1)
    held = await session.get(Pallet, key)
    assert held is not None
    session.expire(held)
    held.stock = 2
    await session.commit()
    await session.refresh(held)
    await session.commit()
    other = session_factory()
    await update_row(key, {"stock": 7}, other, Pallet)
    held.stock = 8
    await session.commit()
    assert (await changes_of(session, key, Pallet))[1:] == [
        ("update", {"stock": [1, 2]}),
        ("update", {"stock": [2, 7]}),
        ("update", {"stock": [7, 8]}),
    ]


@pytest.mark.databases("postgresql", "mysql")
async def test_writers_side_by_side_leave_a_chain(
    session: AsyncSession, session_factory: Opened
) -> None:
    """Each old value is the new one of the change before it: it is read under the row's lock."""
    key = await new_pallet(session, stock=0)

    async def write(number: int) -> None:
        own = session_factory()
        for turn in range(5):
            await update_row(key, {"stock": 10 * number + turn}, own, Pallet, raise_on_error=True)

    await together(*(partial(write, number) for number in (1, 2, 3)))
    _, *updates = await changes_of(session, key, Pallet)
    pairs = [changed["stock"] for _, changed in updates]
    assert len(pairs) == 15
    assert [0, *(new for _, new in pairs[:-1])] == [old for old, _ in pairs]


async def _flush(session: AsyncSession, key: int) -> None:
    pallet = await session.get_one(Pallet, key)
    pallet.stock = 2
    await session.commit()


LOCKED: dict[str, Callable[[AsyncSession, int], Any]] = {
    "flush": _flush,
    "one": lambda session, key: update_row(key, {"stock": 2}, session, Pallet),
    "delete": lambda session, key: delete_row(key, session, Pallet),
    "query": lambda session, key: (
        AsyncQueryBuilder(session, Pallet).where(id=key).update(stock=func.abs(Pallet.stock))
    ),
    "statement": lambda session, key: execute(
        session, update(Pallet).where(Pallet.id == key).values(stock=2)
    ),
    "upsert": lambda session, key: bulk_upsert_mappings(
        [{"id": key, "name": "a", "stock": 2}], session, Pallet, ["id"]
    ),
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("way", LOCKED)
async def test_old_values_are_read_under_the_lock_of_sqlite(
    engine: AsyncEngine, session: AsyncSession, way: str
) -> None:
    """Its driver begins no transaction for a SELECT, so others could write after it."""
    key = await new_pallet(session)
    session.expunge_all()
    with recorded(engine) as statements:
        await LOCKED[way](session, key)
        await session.commit()
    written = [place for place, word in enumerate(statements) if word in {"UPDATE", "DELETE"}]
    first = written[0] if written else statements.index("INSERT")
    assert statements[first - 1] == "SELECT"
    assert "BEGIN" in statements[:first]
    assert "SELECT" in statements[statements.index("BEGIN") : first]


async def test_rows_that_only_a_flush_finds(session: AsyncSession) -> None:
    """A row that refers to a deleted one loses its reference, and that is recorded."""
    cupboard = Cupboard(books=[Tome(title="a")])
    session.add(cupboard)
    await session.commit()
    [tome] = (await execute(session, select(Tome))).scalars()
    key, cupboard_key = tome.id, tome.cupboard_id
    cupboard = (await execute(session, select(Cupboard))).scalars().one()
    await session.delete(cupboard)
    await session.commit()
    assert (await changes_of(session, key, Tome))[1:] == [
        ("update", {"cupboard_id": [cupboard_key, None]})
    ]


async def test_links_that_a_collection_writes(session: AsyncSession) -> None:
    """Rows of a link model are recorded that a flush writes for the collections on both ends."""
    baker, loaves = Baker(id=1), [Loaf(id=1), Loaf(id=2)]
    baker.loaves = loaves
    session.add(baker)
    await session.commit()
    await session.refresh(baker, ["loaves"])
    with acting_as("alice"):
        baker.loaves.pop()
        await session.commit()
    await session.refresh(baker, ["loaves"])
    async with session.begin_nested() as savepoint:
        baker.loaves.clear()
        await session.flush()
        await savepoint.rollback()
    await session.delete(baker)
    await session.commit()
    made = {"baker_id": [None, 1], "loaf_id": [None, 1]}
    gone = {"baker_id": [1, None], "loaf_id": [1, None]}
    assert await changes_of(session, (1, 1), BakerLoaf) == [("create", made), ("delete", gone)]
    made, gone = {**made, "loaf_id": [None, 2]}, {**gone, "loaf_id": [2, None]}
    assert await changes_of(session, (1, 2), BakerLoaf) == [("create", made), ("delete", gone)]
    found = await get_change_history((1, 2), session, BakerLoaf)
    assert [each.changed_by for each in found] == [None, "alice"]


async def test_links_whose_keys_a_collection_does_not_know(session: AsyncSession) -> None:
    """They are refused, because the written rows of the link model would be unknown."""
    session.add(Baker(id=1, planned=[Loaf(id=1)]))
    with pytest.raises(ValidationError, match="does not say which rows of Recipe"):
        await session.commit()
    await session.rollback()
    assert (await execute(session, select(Recipe))).all() == []


async def test_hooks_run_first(session: AsyncSession) -> None:
    """A hook's changes are in the same entry."""

    class Doubling:
        def before_update(self, _row: Pallet, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "stock": data["stock"] * 2}

    key = await new_pallet(session)
    with registered_hook(Pallet, Doubling()):
        await update_row(key, {"stock": 4}, session, Pallet)
    assert (await changes_of(session, key, Pallet))[1:] == [("update", {"stock": [1, 8]})]


async def test_a_transaction_that_is_retried(
    session: AsyncSession, session_factory: Opened
) -> None:
    """Only the attempt that is committed leaves its changes."""
    key, attempts = await new_pallet(session), 0

    async def work(again: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        await update_row(key, {"stock": 10 + attempts}, again, Pallet)
        if attempts == 1:
            raise ConflictError(Pallet)

    await run_transaction(session_factory, work)
    assert (await changes_of(session, key, Pallet))[1:] == [("update", {"stock": [1, 12]})]


# --- many rows ------------------------------------------------------------------------------------


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


# --- values ---------------------------------------------------------------------------------------


async def test_values_are_documented_texts(session: AsyncSession) -> None:
    """They are the same on every database, and for every way of writing."""
    key, owner = uuid.uuid4(), uuid.uuid4()
    zone = dt.timezone(timedelta(hours=2))
    values: dict[str, Any] = {
        "price": Decimal("48.5"),
        "grade": Grade.HIGH,
        "is_open": True,
        "weight": 0.1,
        "content": b"\x00\xff",
        "labels": {"a": [1, None, {"b": "c"}]},
        "day": dt.date(2025, 1, 31),
        "moment": dt.datetime(2025, 1, 31, 12, tzinfo=zone),
        "duration": timedelta(days=1, seconds=2),
        "owner": owner,
    }
    expected = {
        "price": "48.50",
        "grade": "HIGH",
        "is_open": True,
        "weight": 0.1,
        "content": "AP8=",
        "labels": {"a": [1, None, {"b": "c"}]},
        "day": "2025-01-31",
        "moment": "2025-01-31T10:00:00.000000+00:00",
        "duration": "86402.0",
        "owner": str(owner),
    }
    await write_row(Vault(id=key), session)
    await update_row(key, values, session, Vault)
    await AsyncQueryBuilder(session, Vault).update(dict.fromkeys(values), everything=True)
    _, first, second = await changes_of(session, key, Vault)
    assert first == ("update", {name: [None, text] for name, text in expected.items()})
    assert second == ("update", {name: [text, None] for name, text in expected.items()})


async def test_a_redacted_field_shows_no_value(session: AsyncSession) -> None:
    """Only the fact that it changed is recorded, also for new and removed rows."""
    vault = Vault(pin="1234", last_seen=1)
    key = vault.id
    await write_row(vault, session)
    await update_row(key, {"pin": "4321", "last_seen": 2}, session, Vault)
    await update_row(key, {"last_seen": 3}, session, Vault)
    await AsyncQueryBuilder(session, Vault).update(pin="9999", everything=True)
    await AsyncQueryBuilder(session, Vault).update(last_seen=4, everything=True)
    await delete_row(key, session, Vault)
    hidden = ["…", "…"]
    found = await changes_of(session, key, Vault)
    assert found == [
        ("create", {"id": [None, str(key)], "pin": hidden}),
        ("update", {"pin": hidden}),
        ("update", {"pin": hidden}),
        ("delete", {"id": [str(key), None], "pin": hidden}),
    ]


@pytest.mark.shortcuts
@pytest.mark.databases("sqlite", "postgresql")
async def test_a_row_by_its_key_takes_three_statements(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """It is read and locked, written, and recorded, with the values of its stamps."""
    _, waybill = await write_row(Waybill(stock=1), session)
    number, key = waybill.id, await new_pallet(session)
    session.expunge_all()
    for work, word in (
        (partial(update_row, number, {"stock": 2}, session, Waybill), "UPDATE"),
        (partial(delete_row, number, session, Waybill), "DELETE"),
        (partial(update_row, key, {"stock": 2}, session, Pallet), "UPDATE"),
        (partial(delete_row, key, session, Pallet), "DELETE"),
    ):
        with recorded(engine) as statements:
            await work()
        session.expunge_all()
        assert [each for each in statements if each not in {"BEGIN", "COMMIT"}] == [
            "SELECT",
            word,
            "INSERT",
        ]
    _, (_, changed), _ = await changes_of(session, number, Waybill)
    assert changed.keys() == {"stock", "updated_at"}


async def test_a_new_row_has_no_old_values(session: AsyncSession) -> None:
    """Not even those of a row with its key that a refused statement was about to write."""
    key = await new_pallet(session)
    async with transaction(session):
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await execute(session, update(Pallet).values(name=None))
        await AsyncQueryBuilder(session, Pallet).where(id=key).delete()
        await write_row(Pallet(id=key, name="b", stock=7), session)
    *_, last = await changes_of(session, key, Pallet)
    assert last == ("create", {"id": [None, key], "name": [None, "b"], "stock": [None, 7]})


async def test_an_update_of_excluded_fields_reads_no_row(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """Nothing is recorded, so that nothing has to be known."""
    await write_row(Vault(last_seen=1), session)
    with recorded(engine) as statements:
        count = await AsyncQueryBuilder(session, Vault).update(last_seen=4, everything=True)
    assert count == 1
    assert {"SELECT", "INSERT"}.isdisjoint(statements)


async def test_an_upsert_asks_for_its_rows_at_once(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """One query finds the existing rows, not one for each new row."""
    rows = [{"id": number, "number": number} for number in range(1, 201)]
    await bulk_upsert_mappings(rows[:20], session, Specimen)
    with recorded(engine) as statements:
        _, counts = await bulk_upsert_mappings(rows, session, Specimen, return_rows=False)
    assert counts == (180, 20)
    assert len(statements) < 40
    assert [operation for operation, _ in await changes_of(session, 200, Specimen)] == ["create"]


async def test_what_a_type_encrypts_stays_encrypted(session: AsyncSession) -> None:
    """Values are recorded as the column stores them."""
    vault = Vault(code="abc")
    await write_row(vault, session)
    await update_row(vault.id, {"code": "xyz"}, session, Vault)
    _, changed = await changes_of(session, vault.id, Vault)
    assert changed == ("update", {"code": ["cba", "zyx"]})


@pytest.mark.parametrize("names", ["__track_exclude__", "__track_redact__"])
def test_a_name_that_is_no_field_fails_when_the_class_is_made(names: str) -> None:
    """As does the key, which every entry shows."""
    keys = {"id": Field(primary_key=True)}
    keys["number"] = Field(sa_column=Column(Integer, primary_key=True))
    for name, error in WRONG.items():
        body = {names: (name,), "__annotations__": dict.fromkeys(keys, int), **keys}
        with pytest.raises(error, match=name):
            type("Wrong", (SQLModel, TrackChangesMixin), body, table=True)


# --- reading and purging --------------------------------------------------------------------------


async def test_a_model_that_is_not_tracked(session: AsyncSession) -> None:
    """Its history is neither read nor purged."""
    with pytest.raises(
        ValidationError, match="Cupboard are not recorded; inherit TrackChangesMixin"
    ):
        await get_change_history(1, session, Cupboard)
    with pytest.raises(ValidationError, match="Cupboard are not recorded"):
        await purge_change_history(session, Cupboard, older_than=timedelta(0))


@pytest.mark.shortcuts
@pytest.mark.databases("sqlite", "postgresql")
async def test_other_models_run_the_statements_that_they_ran_before(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """An update by key is one statement."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="?"), session)
    key = hero.id
    session.expunge_all()
    await session.rollback()
    with recorded(engine) as statements:
        await update_row(key, {"age": 48}, session, Hero)
    assert statements == ["UPDATE", "COMMIT"]


async def test_old_changes_are_purged(session: AsyncSession) -> None:
    """Those of the model, from before the moment."""
    key = await new_pallet(session)
    slot = Slot(row=1, place="a")
    await write_row(slot, session)
    assert await purge_change_history(session, Pallet, older_than=timedelta(days=1)) == 0
    assert await purge_change_history(session, Pallet, older_than=timedelta(0)) == 1
    assert await changes_of(session, key, Pallet) == []
    assert len(await changes_of(session, (1, "a"), Slot)) == 1
    with pytest.raises(ValidationError, match="must not be negative"):
        await purge_change_history(session, Pallet, older_than=timedelta(-1))


async def test_observers_hear_of_the_history(session: AsyncSession) -> None:
    """As of the model's other functions: limits and telemetry are for these as well."""
    key = await new_pallet(session)
    with recorded_calls() as recording:
        await get_change_history(key, session, Pallet)
        await purge_change_history(session, Pallet, older_than=timedelta(0))
    assert [(call.name, call.kind, call.model, call.rows) for call in recording.calls] == [
        ("get_change_history", "read", Pallet, 1),
        ("purge_change_history", "write", Pallet, 1),
    ]


async def test_tenants_see_their_own_history_only(session_factory: Opened) -> None:
    """It is recorded with the row's tenant, for every way of writing; without one none is read."""
    keys = {"acme": 1, "globex": 2}
    for tenant, key in keys.items():
        with tenant_scope(tenant):
            session = session_factory()
            await write_row(Lease(id=key, rent=1), session)
            await AsyncQueryBuilder(session, Lease).update(rent=2, everything=True)
            await update_row(key, {"rent": 3}, session, Lease)
            await delete_row(key, session, Lease)
    for tenant, key in keys.items():
        with tenant_scope(tenant):
            reader = session_factory()
            found = await get_change_history(key, reader, Lease)
            assert [each.operation for each in found] == ["create", "update", "update", "delete"]
            assert {each.tenant_id for each in found} == {tenant}
            assert await get_change_history(3 - key, reader, Lease) == []
    with pytest.raises(TenantError):
        await get_change_history(1, session_factory(), Lease)
    with tenant_scope("acme"):
        reader = session_factory()
        assert await purge_change_history(reader, Lease, older_than=timedelta(0)) == 4
    with all_tenants():
        reader = session_factory()
        assert len(await get_change_history(keys["globex"], reader, Lease)) == 4


async def test_tenants_that_differ_in_case(session_factory: Opened) -> None:
    """They see and purge their own history only, where they are different tenants."""
    with tenant_scope("acme"):
        await write_row(Holding(id=1), session_factory())
    with tenant_scope("ACME"):
        session = session_factory()
        assert await get_change_history(1, session, Holding) == []
        assert await purge_change_history(session, Holding, older_than=timedelta(0)) == 0
