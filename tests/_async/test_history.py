"""The content of the history, and its visibility for tenants."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    func,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
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
    TrackChangesMixin,
    get_change_history,
    purge_change_history,
)
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as, all_tenants, tenant_scope
from tests._async.histories import changes_of, new_pallet
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    together,
)
from tests.history_models import (
    Baker,
    BakerLoaf,
    Cupboard,
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
    Tome,
    Vault,
    Waybill,
)
from tests.models import Hero
from tests.observing import recorded_calls
from tests.recording import recorded

WRONG = {"pni": UnknownFieldError, "id": ValidationError, "number": ValidationError}
Opened = Callable[[], AsyncSession]


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
