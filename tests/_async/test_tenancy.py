"""Rows of tenants: what is in scope, what a session serves, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    lambda_stmt,
    literal,
    literal_column,
    select,
    table,
    text,
    union,
    update,
    values,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import (
    Bundle,
    aliased,
    joinedload,
    make_transient_to_detached,
    registry,
    selectinload,
)
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError
from sqlalchemy.schema import DropTable
from sqlmodel import Field, SQLModel, col

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    UpsertCounts,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    on_commit,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TenantError,
    TransactionError,
    ValidationError,
)
from sqlmodel_crud_utils.mixins import TenantMixin, all_tenants, current_tenant, tenant_scope
from tests._async.rows import given
from tests._runtime_async import (
    AsyncSession,
    dialect_of,
    execute,
    fetched,
    first_of,
    run_sync,
    sync_session,
)
from tests.recording import logged, statements_of
from tests.tenant_models import (
    Almanac,
    Den,
    Fleet,
    Granary,
    Guild,
    Kennel,
    Mage,
    MageSpell,
    OfSubquery,
    OfTable,
    Pet,
    Port,
    Scroll,
    Ship,
    Spell,
    Stable,
    Wharf,
)

Sessions = Callable[[], AsyncSession]

SPELLS: Any = Spell.__table__  # type: ignore[attr-defined]
SCROLLS: Any = Scroll.__table__  # type: ignore[attr-defined]
ALMANACS: Any = Almanac.__table__  # type: ignore[attr-defined]


async def spells_of(*tenants: str, session: AsyncSession) -> None:
    """Write a spell for each tenant; its id is its place."""
    with all_tenants():
        for number, tenant in enumerate(tenants, 1):
            session.add(Spell(id=number, label=f"of {tenant}", tenant_id=tenant))
        await session.commit()
        await session.close()


async def labels(session: AsyncSession) -> list[str]:
    """Return the spells of all tenants, as the database has them."""
    with all_tenants():
        async with AsyncSession(session.bind) as other:
            rows = fetched(await execute(other, select(Spell).order_by(Spell.id)))
            return [f"{row.label} ({row.tenant_id})" for row in rows]


# --- what is in scope ----------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", [None, "", " a", "a ", "a" * 101, 1.5, True, b"a", ("a",)])
def test_what_is_no_name_of_a_tenant(tenant: Any) -> None:
    """It is refused when it is set, before any query."""
    with pytest.raises(ValidationError) as refused:
        tenant_scope(tenant)
    assert not isinstance(refused.value, TenantError)
    assert current_tenant() is None


def test_scopes_nest() -> None:
    """The innermost counts, and an error closes it as well."""
    with tenant_scope("a"):
        with all_tenants():
            assert current_tenant() is None
        with pytest.raises(ZeroDivisionError), tenant_scope("b"):
            raise ZeroDivisionError
        assert current_tenant() == "a"
    assert current_tenant() is None


def test_all_tenants_is_logged() -> None:
    """At debug level, with the place of the call."""
    with logged("DEBUG") as lines, all_tenants():
        pass
    assert any("all_tenants" in line[-1] for line in lines)


NEEDING_A_TENANT: dict[str, Callable[[AsyncSession], Any]] = {
    "a select": lambda session: execute(session, select(Spell)),
    "a select of a table": lambda session: execute(session, select(SPELLS.c.id)),
    "a count": lambda session: execute(session, select(func.count()).select_from(Spell)),
    "a subquery": lambda session: execute(session, select(Pet).where(Pet.id.in_(select(Mage.id)))),
    "an option": lambda session: execute(session, select(Pet).options(joinedload(Pet.mage))),
    "an update": lambda session: execute(session, update(Spell).values(label="x")),
    "a deletion": lambda session: execute(session, delete(SPELLS)),
    "an insert": lambda session: execute(session, insert(Spell).values(label="x")),
    "a named insert": lambda session: execute(
        session, insert(SPELLS).values(label="x", tenant_id="a")
    ),
    "get": lambda session: session.get(Spell, 1),
    "get_row": lambda session: get_row(1, session, Spell),
    "get_rows": lambda session: get_rows(session, Spell),
    "get_rows by keys": lambda session: get_rows_within_id_list([1], session, Spell),
    "a query": lambda session: QueryBuilder(session, Spell).all(),
    "a count by query": lambda session: QueryBuilder(session, Spell).count(),
    "write_row": lambda session: write_row(Spell(label="x"), session),
    "write_row that names it": lambda session: write_row(Spell(label="x", tenant_id="a"), session),
    "insert_data_rows": lambda session: insert_data_rows([Spell(label="x")], session),
    "update_row": lambda session: update_row(1, {"label": "x"}, session, Spell),
    "delete_row": lambda session: delete_row(1, session, Spell),
    "get_one_or_create": lambda session: get_one_or_create(session, Spell, label="x"),
    "bulk_insert_rows": lambda session: bulk_insert_rows([{"label": "x"}], session, Spell),
    "bulk_update_rows": lambda session: bulk_update_rows([1], {"label": "x"}, session, Spell),
    "bulk_upsert_mappings": lambda session: bulk_upsert_mappings(
        [{"id": 1, "label": "x"}], session, Spell
    ),
}


@pytest.mark.parametrize("what", NEEDING_A_TENANT)
async def test_nothing_is_sent_without_a_tenant(session: AsyncSession, what: str):
    """It is an error, and neither all rows nor none."""
    with statements_of(session.bind) as sent, pytest.raises(TenantError, match="tenant_scope"):
        await NEEDING_A_TENANT[what](session)
    assert sent == []


async def test_a_flush_without_a_tenant(session: AsyncSession):
    """Neither of a new row nor of one that names its tenant."""
    session.add(Spell(label="x", tenant_id="a"))
    with statements_of(session.bind) as sent, pytest.raises(TenantError):
        await session.flush()
    assert sent == []


# --- a session serves one tenant -----------------------------------------------------------------


async def test_a_session_serves_one_tenant(session: AsyncSession):
    """Neither another one nor all of them, before it is closed; a commit does not change that."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        _, row = await get_row(1, session, Spell)
        await session.commit()
    for scope in (tenant_scope("b"), all_tenants()):
        with statements_of(session.bind) as sent, scope:
            with pytest.raises(TenantError, match="a different tenant"):
                await execute(session, select(Spell))
            with pytest.raises(TenantError):
                await get_row(1, session, Spell)
            with pytest.raises(TenantError):
                await session.refresh(row)
        assert sent == []
    await session.rollback()
    with tenant_scope("a"):
        assert (await get_row(1, session, Spell))[0]
    await session.close()
    with tenant_scope("b"):
        assert not (await get_row(1, session, Spell))[0]
        assert (await get_row(2, session, Spell))[0]


async def test_lazy_loads_of_another_scope_are_refused(session: AsyncSession):
    """A row that was kept beyond its scope brings in nothing."""
    with tenant_scope("a"):
        await given(session, Guild(id=1, name="Reds"), Mage(id=1, name="Ann", guild_id=1))
        mage = await session.get(Mage, 1)
    with tenant_scope("b"), pytest.raises(TenantError):
        await run_sync(session, lambda: mage.guild)
    with pytest.raises(TenantError, match="no tenant"):
        await run_sync(session, lambda: mage.guild)


async def test_a_stream_that_is_half_read(session: AsyncSession):
    """In another scope it ends with an error."""
    with all_tenants():
        await given(session, *(Spell(id=n, label="x", tenant_id="a") for n in range(1, 5)))
        await session.close()
    seen = []
    with ExitStack() as scopes, pytest.raises(TenantError):
        scopes.enter_context(tenant_scope("a"))
        async for row in QueryBuilder(session, Spell).stream(batch_size=1):
            seen.append(row.id)
            scopes.enter_context(tenant_scope("b"))
    assert seen == [1]


async def test_models_of_nobody_need_no_tenant(session: AsyncSession):
    """Their statements are unchanged."""
    with statements_of(session.bind) as sent:
        await write_row(Pet(id=1, name="Rex"), session)
        _, pets = await get_rows(session, Pet)
        await execute(session, update(Pet).where(Pet.id == 1).values(name="Pip"))
    assert [pet.name for pet in pets] == ["Pip"]
    assert not any("tenant" in each for each in sent)


async def test_a_type_that_does_not_fit(session: AsyncSession):
    """MySQL would find that most texts are equal to 0."""
    await spells_of("a", session=session)
    with tenant_scope(0), pytest.raises(TenantError, match="str"):
        await get_rows(session, Spell)


async def test_names_are_compared_letter_by_letter(session: AsyncSession):
    """Regardless of the database's collation."""
    await spells_of("acme", "ACME", "äcme", session=session)
    for tenant in ("acme", "ACME", "äcme"):
        with tenant_scope(tenant):
            found = fetched(await execute(session, select(Spell.label)))
            assert found == [f"of {tenant}"]
        await session.close()


async def test_a_tenant_id_of_another_type(session: AsyncSession):
    """A model may declare the column again; what fills it in is the same."""
    with tenant_scope(7):
        await write_row(Port(id=1, name="Rome"), session)
        _, ports = await get_rows(session, Port)
        assert [port.tenant_id for port in ports] == [7]
    await session.close()
    with tenant_scope(8):
        assert (await get_rows(session, Port))[1] == []


async def test_one_compiled_statement_serves_all_tenants(session: AsyncSession):
    """The tenant is a parameter."""
    await spells_of("a", "b", session=session)
    texts = set()
    for tenant in ("a", "b", "c"):
        with statements_of(session.bind) as sent, tenant_scope(tenant):
            found = fetched(await execute(session, select(Spell.label)))
            assert found == ([f"of {tenant}"] if tenant != "c" else [])
        texts.update(sent)
        await session.close()
    assert len(texts) == 1


# --- rows that are written -----------------------------------------------------------------------


async def flushed(session: AsyncSession, row: Any) -> None:
    """Write a row with plain SQLAlchemy."""
    session.add(row)
    await session.flush()


async def moved(session: AsyncSession) -> None:
    """Move a row to another tenant."""
    row = await session.get(Spell, 1)
    row.tenant_id = "b"
    await session.flush()


NEW_SPELL = insert(SPELLS).returning(SPELLS.c.id)
BY_ANOTHER: dict[str, Callable[[AsyncSession], Any]] = {
    "write_row": lambda session: write_row(Spell(id=9, label="x", tenant_id="b"), session),
    "insert_data_rows": lambda session: insert_data_rows(
        [Spell(id=n, label="x", tenant_id="b" if n == 130 else "a") for n in range(10, 200)],
        session,
    ),
    "bulk_insert_rows": lambda session: bulk_insert_rows(
        [{"id": 8, "label": "x"}, {"id": 9, "label": "x", "tenant_id": "b"}], session, Spell
    ),
    "bulk_insert_rows of a thousand": lambda session: bulk_insert_rows(
        ({"id": n, "label": "x", "tenant_id": "ab"[n == 1200]} for n in range(300, 1300)),
        session,
        Spell,
    ),
    "bulk_upsert_mappings": lambda session: bulk_upsert_mappings(
        [{"id": 9, "label": "x", "tenant_id": "b"}], session, Spell
    ),
    "get_one_or_create": lambda session: get_one_or_create(
        session, Spell, {"tenant_id": "b"}, label="x"
    ),
    "an insert": lambda session: execute(
        session, insert(Spell).values(id=9, label="x", tenant_id="b")
    ),
    "an insert into a table": lambda session: execute(
        session, insert(SPELLS).values({SPELLS.c.id: 9, SPELLS.c.tenant_id: "b"})
    ),
    "an insert of parameters": lambda session: execute(
        session, insert(Spell), [{"id": 9, "label": "x", "tenant_id": "b"}]
    ),
    "an insert of one": lambda session: execute(
        session, insert(SPELLS), {"id": 9, "label": "x", "tenant_id": "b"}
    ),
    "an insert of parameters in a lambda": lambda session: execute(
        session,
        lambda_stmt(lambda: insert(SPELLS)),
        {"id": 9, "label": "x", "tenant_id": "b"},
    ),
    "an insert of parameters that returns rows": lambda session: execute(
        session,
        select(Spell).from_statement(insert(Spell).returning(Spell)),
        {"id": 9, "label": "x", "tenant_id": "b"},
    ),
    "an insert of many values": lambda session: execute(
        session, insert(SPELLS).values([{"id": 9, "label": "x", "tenant_id": "b"}])
    ),
    "an insert of tuples": lambda session: execute(
        session, insert(SPELLS).values([("b", 9, "x"), ("a", 10, "x")])
    ),
    "an insert of an expression": lambda session: execute(
        session, insert(Spell).values(id=9, label="x", tenant_id=func.lower("B"))
    ),
    "an insert of a parameter": lambda session: execute(
        session,
        insert(SPELLS).values(id=9, label="x", tenant_id=bindparam("whose")),
        {"whose": "b"},
    ),
    "an insert from a select": lambda session: execute(
        session, insert(Spell).from_select(["label", "tenant_id"], select(Spell.label, Spell.label))
    ),
    "an insert in a CTE": lambda session: execute(
        session, select(literal(1)).add_cte(NEW_SPELL.values(tenant_id="b").cte())
    ),
    "an insert of many values in a CTE": lambda session: execute(
        session, select(NEW_SPELL.values([{"tenant_id": "b"}]).cte().c.id)
    ),
    "a flush": lambda session: flushed(session, Spell(id=9, label="x", tenant_id="b")),
    "a flush of an expression": lambda session: flushed(
        session, Spell(id=9, label="x", tenant_id=func.lower("B"))
    ),
    "a related row": lambda session: flushed(
        session, Pet(name="Rex", mage=Mage(id=9, name="x", tenant_id="b"))
    ),
    "update_row": lambda session: update_row(1, {"tenant_id": "b"}, session, Spell),
    "bulk_update_rows": lambda session: bulk_update_rows([1], {"tenant_id": "b"}, session, Spell),
    "a query's update": lambda session: (
        QueryBuilder(session, Spell).where(id=1).update(tenant_id="b")
    ),
    "an update": lambda session: execute(session, update(Spell).values(tenant_id="b")),
    "an update of a table": lambda session: execute(session, update(SPELLS).values(tenant_id="b")),
    "an update in order": lambda session: execute(
        session, update(SPELLS).ordered_values((SPELLS.c.tenant_id, "b"))
    ),
    "an update in an expression": lambda session: execute(
        session,
        select(literal(1)).add_cte(update(Spell).values(tenant_id="b").returning(Spell.id).cte()),
    ),
    "an update of parameters": lambda session: execute(
        session, update(SPELLS).where(SPELLS.c.id == 1), {"tenant_id": "b"}
    ),
    "an update of parameters in a lambda": lambda session: execute(
        session, lambda_stmt(lambda: update(SPELLS)), {"tenant_id": "b"}
    ),
    "an assignment": moved,
}


@pytest.mark.parametrize("what", BY_ANOTHER)
@pytest.mark.usefixtures("_hooks_change_nothing")
async def test_no_row_gets_another_tenant(session: AsyncSession, what: str):
    """Neither a new one nor an existing one; nothing is written, and no tenant is named."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"), pytest.raises(TenantError) as refused:
        await BY_ANOTHER[what](session)
    assert "'b'" not in str(refused.value)
    await session.rollback()
    assert await labels(session) == ["of a (a)", "of b (b)"]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        (insert(Wharf).values(name="x", tenant_id="b"), None),
        (insert(Wharf), [{"name": "x", "tenant_id": "b"}]),
        (insert(Wharf.__table__).values(name="x", org="b"), None),  # type: ignore[attr-defined]
        (update(Wharf).values(tenant_id="b"), None),
        (update(Wharf.__table__).values(org="b"), None),  # type: ignore[attr-defined]
    ],
)
async def test_a_column_of_another_name(session: AsyncSession, statement: Any, rows: Any):
    """It is the tenant's all the same, by its own name and by that of the field."""
    with tenant_scope("a"):
        await write_row(Wharf(name="x"), session)
        with pytest.raises(TenantError):
            await execute(session, statement, rows)
        await session.rollback()
        _, [wharf] = await get_rows(session, Wharf)
        assert wharf.tenant_id == "a"


@pytest.mark.parametrize("what", ["update_row", "bulk_update_rows", "a query's update"])
async def test_the_field_is_named(session: AsyncSession, what: str):
    """For calls with values by name."""
    await spells_of("a", session=session)
    with tenant_scope("a"), pytest.raises(TenantError) as refused:
        await BY_ANOTHER[what](session)
    assert refused.value.field == "tenant_id"


async def test_rows_may_name_their_own_tenant(session: AsyncSession):
    """Wherever it may also be omitted."""
    with tenant_scope("a"):
        await write_row(Spell(id=1, label="x", tenant_id="a"), session)
        await bulk_insert_rows([{"id": 2, "label": "x", "tenant_id": "a"}], session, Spell)
        await bulk_upsert_mappings([{"id": 3, "label": "x", "tenant_id": "a"}], session, Spell)
        await execute(session, insert(Spell).values(id=4, label="x", tenant_id="a"))
        await execute(session, insert(Spell).values(id=5, label="x"))
        await session.commit()
        assert (await update_row(1, {"tenant_id": "a", "label": "y"}, session, Spell))[0]
    assert await labels(session) == ["y (a)", *["x (a)"] * 4]


@pytest.mark.usefixtures("_hooks_change_nothing")
async def test_in_the_scope_of_all_rows_name_their_tenant(session: AsyncSession):
    """It cannot be derived from the scope."""
    ways: list[Callable[[], Any]] = [
        lambda: write_row(Spell(label="x"), session),
        lambda: insert_data_rows([Spell(label="x")], session),
        lambda: bulk_insert_rows([{"label": "x"}], session, Spell),
        lambda: bulk_upsert_mappings([{"id": 1, "label": "x"}], session, Spell),
        lambda: execute(session, insert(Spell).values(label="x")),
    ]
    with all_tenants():
        for way in ways:
            with pytest.raises(TenantError, match="must set its tenant_id"):
                await way()
            await session.rollback()
        rows = [{"id": n, "label": "x", "tenant_id": "ab"[n % 2]} for n in (1, 2)]
        await bulk_upsert_mappings(rows, session, Spell)
        await bulk_upsert_mappings(rows, session, Spell)
        row = await session.get(Spell, 1)
        row.label = "y"
        await session.commit()
    assert await labels(session) == ["y (b)", "x (a)"]


MOVES = [
    "an assignment",
    "update_row",
    "bulk_update_rows",
    "a query's update",
    "an update",
    "an update of a table",
    "an update in order",
    "an update in an expression",
    "an update of parameters",
    "an update of parameters in a lambda",
]


@pytest.mark.parametrize("what", MOVES)
async def test_in_the_scope_of_all_no_row_changes_its_tenant(session: AsyncSession, what: str):
    """In no way."""
    await spells_of("a", "b", session=session)
    with all_tenants(), pytest.raises(TenantError, match="cannot be changed"):
        await BY_ANOTHER[what](session)
    await session.rollback()
    assert await labels(session) == ["of a (a)", "of b (b)"]


async def test_an_expired_row_may_name_its_tenant(session: AsyncSession):
    """The session does not know its old tenant; the flush only reaches this tenant's row."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        row = await session.get(Spell, 1)
        await run_sync(session, lambda: sync_session(session).expire(row))
        row.tenant_id, row.label = "a", "named"
        await session.commit()
    assert await labels(session) == ["named (a)", "of b (b)"]


OF_OTHERS = select(SPELLS.c.label).where(SPELLS.c.id == 2).scalar_subquery()


async def assigned(session: AsyncSession, row: Any, name: str, value: Any) -> None:
    """Write a row with SQL as a value."""
    setattr(row, name, value)
    await flushed(session, row)


IN_VALUES: dict[str, Callable[[AsyncSession], Any]] = {
    "a new row": lambda session: assigned(session, Pet(), "name", OF_OTHERS),
    "a new row's text": lambda session: assigned(
        session, Pet(), "name", text("(SELECT label FROM spell WHERE id = 2)")
    ),
    "a new row with a model": lambda session: assigned(
        session, Pet(), "name", select(Spell.label).where(Spell.id == 2).scalar_subquery()
    ),
    "update_row": lambda session: update_row(1, {"label": OF_OTHERS}, session, Spell),
    "update_row of nobody's": lambda session: update_row(1, {"name": OF_OTHERS}, session, Pet),
}


@pytest.mark.parametrize("what", IN_VALUES)
async def test_a_value_that_reads_rows_is_refused(session: AsyncSession, what: str):
    """A flush's SQL cannot be limited; SQL on the row's own columns is allowed."""
    await spells_of("a", "b", session=session)
    await write_row(Pet(id=1, name="Rex"), session)
    with tenant_scope("a"):
        with pytest.raises(TenantError, match="update"):
            await IN_VALUES[what](session)
        await session.rollback()
        found, spell = await update_row(1, {"power": Spell.power + 1}, session, Spell)
        assert found
        assert spell.power == 1
    assert await labels(session) == ["of a (a)", "of b (b)"]


TEXT = text("1 = 1 OR 1 = 1")
TO_FUNCTIONS: dict[str, Callable[[AsyncSession], Any]] = {
    "a condition": lambda session: QueryBuilder(session, Spell).where(TEXT).all(),
    "a condition of a count": lambda session: QueryBuilder(session, Spell).where(TEXT).count(),
    "a column": lambda session: (
        QueryBuilder(session, Spell).where(literal_column("(SELECT 1 FROM spell) = 1")).all()
    ),
    "an order": lambda session: (
        QueryBuilder(session, Spell).order_by(literal_column("(SELECT max(id) FROM spell)")).all()
    ),
    "an option": lambda session: (
        QueryBuilder(session, Guild).options(selectinload(Guild.mages.and_(TEXT))).all()
    ),
    "an update": lambda session: QueryBuilder(session, Spell).where(TEXT).update(power=9),
    "a deletion": lambda session: QueryBuilder(session, Spell).where(TEXT).delete(),
    "a statement": lambda session: get_rows(session, Spell, stmnt=select(Spell).where(TEXT)),
    "a query": lambda session: get_result_from_query(select(Spell).where(TEXT), session),
}


@pytest.mark.parametrize("what", TO_FUNCTIONS)
async def test_text_in_a_call_of_the_library_is_refused(session: AsyncSession, what: str):
    """As in a statement of the caller's; nothing is sent."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        with statements_of(session.bind) as sent, pytest.raises(TenantError, match="text"):
            await TO_FUNCTIONS[what](session)
        assert sent == []
        allowed = select(Spell).where(text("power = 0")).execution_options(any_tenant=True)
        _, found = await get_rows(session, Spell, stmnt=allowed)
    assert [spell.id for spell in found] == [1]


async def test_an_upsert_leaves_the_row_of_another_tenant_alone(session: AsyncSession):
    """It is a broken constraint, whichever way it is written; the text names no row."""
    await spells_of("a", "b", session=session)
    rows = [{"id": 7, "label": "new"}, {"id": 2, "label": "mine"}]
    with tenant_scope("a"):
        for payload in (rows, [{"id": n, "label": "mine"} for n in range(300, 1, -1)]):
            for returning in (True, False):
                with (
                    statements_of(session.bind) as sent,
                    pytest.raises(ConstraintViolationError, match="same id") as refused,
                ):
                    await bulk_upsert_mappings(
                        payload, session, Spell, return_rows=returning, raise_on_error=True
                    )
                assert refused.value.columns == ("id",)
                # It is not written to first, and taken back.
                [upsert] = [each for each in sent if "UPDATE" in each]
                assert "tenant_id =" in upsert.partition("UPDATE")[2]
        with pytest.raises(ConstraintViolationError):
            await get_one_or_create(session, Spell, {"id": 2}, label="mine")
        with pytest.raises(ConstraintViolationError):
            await write_row(Spell(id=2, label="mine"), session, raise_on_error=True)
    assert await labels(session) == ["of a (a)", "of b (b)"]


async def test_a_partial_upsert_leaves_it_alone_too(session: AsyncSession):
    """Also with too few values for a new row."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        await bulk_upsert_mappings([{"id": 1, "power": 5}], session, Spell)
        with pytest.raises(ConstraintViolationError):
            await bulk_upsert_mappings([{"id": 2, "power": 5}], session, Spell, raise_on_error=True)
        assert (await get_row(1, session, Spell))[1].power == 5
    with all_tenants():
        async with AsyncSession(session.bind) as other:
            assert (await other.get(Spell, 2)).power == 0


async def test_an_upsert_of_ones_own_rows(session: AsyncSession):
    """By the primary key: some exist, some are new."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        rows = [{"id": 1, "label": "mine"}, {"id": 3, "label": "mine"}]
        counts = await bulk_upsert_mappings(rows, session, Spell, return_rows=False)
    assert counts == (True, UpsertCounts(1, 1))
    assert await labels(session) == ["mine (a)", "of b (b)", "mine (a)"]


async def test_rows_that_are_there_are_skipped(session: AsyncSession):
    """On MySQL the statement counts them, which takes SQL as text of the library's own."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        rows = [{"id": number, "label": "new"} for number in (1, 2, 3)]
        assert await bulk_insert_rows(rows, session, Spell, on_conflict="ignore") == 1
    assert await labels(session) == ["of a (a)", "of b (b)", "new (a)"]


# --- rows that a session was given ---------------------------------------------------------------


async def test_a_row_of_another_session(session: AsyncSession, session_factory: Sessions):
    """A row read by another tenant's session is neither refreshed nor written."""
    await spells_of("a", "b", session=session)
    theirs = session_factory()
    with tenant_scope("b"):
        row = await theirs.get(Spell, 2)
        theirs.expunge(row)
    with tenant_scope("a"):
        await session.get(Spell, 1)
        session.add(row)
        row.label = "mine"
        with pytest.raises(TenantError):
            await session.flush()
        with pytest.raises(InvalidRequestError):
            await session.refresh(row)
        await session.close()
    assert await labels(session) == ["of a (a)", "of b (b)"]


@pytest.mark.filterwarnings("ignore:DELETE statement on table")
async def test_a_stand_in_reaches_no_row_of_another_tenant(session: AsyncSession):
    """An object that the program made with a foreign key; the session does not know its tenant."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        for number, error in ((2, StaleDataError), (1, None)):
            row = Spell(id=number)
            make_transient_to_detached(row)
            row.__dict__.pop("tenant_id", None)
            row.label = "mine"
            session.add(row)
            if error is None:
                await session.flush()
            else:
                with pytest.raises(error):
                    await session.flush()
                await session.rollback()
                session.expunge(row)
        await session.commit()
        gone = Spell(id=2)
        make_transient_to_detached(gone)
        session.add(gone)
        await session.delete(gone)
        await session.flush()
        await session.rollback()
    assert await labels(session) == ["mine (a)", "of b (b)"]


async def test_an_expired_row_of_another_tenant_is_not_there(session: AsyncSession):
    """Its columns are not loaded."""
    await spells_of("a", "b", session=session)
    row = Spell(id=2)
    make_transient_to_detached(row)
    session.add(row)
    session.expire(row)
    with tenant_scope("a"), pytest.raises(ObjectDeletedError):
        await run_sync(session, lambda: row.label)


# --- related rows --------------------------------------------------------------------------------


async def ships_of(session: AsyncSession) -> None:
    """Write a fleet with a ship for each of two tenants."""
    with all_tenants():
        for number, tenant in ((1, "a"), (2, "b")):
            session.add(Fleet(id=number, name="First", tenant_id=tenant))
            await session.flush()
            session.add(Ship(id=number, name="Nina", fleet_id=number, tenant_id=tenant))
        await session.commit()
        await session.close()


async def test_no_row_of_another_tenant_can_be_related(
    session: AsyncSession, session_factory: Sessions
):
    """Neither a loaded one, nor one of which only the key is known."""
    await ships_of(session)
    theirs = session_factory()
    with tenant_scope("b"):
        fleet = await theirs.get(Fleet, 2)
        theirs.expunge(fleet)
    stand_in = Fleet(id=2)
    make_transient_to_detached(stand_in)
    with tenant_scope("a"):
        for related in (fleet, stand_in):
            ship = await session.get(Ship, 1)
            ship.fleet = related
            with pytest.raises(TenantError):
                await session.flush()
            await session.rollback()
            session.expunge_all()
        session.add(Ship(id=9, name="Pinta", fleet=Fleet(id=9, name="Third")))
        await session.commit()


@pytest.mark.parametrize("count", [1, 2, 150])
async def test_a_new_row_may_be_related_to_one_that_a_commit_expired(
    session: AsyncSession, count: int
) -> None:
    """Its tenant is read again, without a flush that would meet the new row."""
    with tenant_scope("a"):
        _, fleet = await write_row(Fleet(name="North"), session)
        await write_row(Fleet(name="South"), session)
        ships = [Ship(name=f"Ship {number}", fleet=fleet) for number in range(count)]
        if count == 1:
            await write_row(ships[0], session, raise_on_error=True)
        else:
            await insert_data_rows(ships, session, raise_on_error=True)
        assert await QueryBuilder(session, Ship).where(fleet__name="North").count() == count


async def test_in_the_scope_of_all_related_rows_are_of_one_tenant(session: AsyncSession):
    """Also where everybody's rows are visible."""
    await ships_of(session)
    with all_tenants():
        ship, fleet = await session.get(Ship, 1), await session.get(Fleet, 2)
        ship.fleet = fleet
        with pytest.raises(TenantError, match="refer to a row"):
            await session.flush()


async def test_a_bare_key_of_another_tenant_is_refused(session: AsyncSession):
    """By the composite foreign key."""
    await ships_of(session)
    with tenant_scope("a"):
        with pytest.raises(ConstraintViolationError) as refused:
            await write_row(Ship(id=9, name="Pinta", fleet_id=2), session, raise_on_error=True)
        assert refused.value.kind == "foreign_key"
        with pytest.raises(IntegrityError):
            await execute(session, update(Ship).values(fleet_id=2))
        await session.rollback()
        assert (await update_row(1, {"fleet_id": None}, session, Ship))[0]


async def test_a_relationship_along_a_composite_key(session: AsyncSession):
    """It can be cleared and loaded; the tenant stays."""
    await ships_of(session)
    with tenant_scope("a"):
        statement = select(Ship).options(selectinload(Ship.fleet))
        ship = first_of(await execute(session, statement))
        assert ship.fleet.name == "First"
        ship.fleet = None
        await session.commit()
        await session.refresh(ship)
        assert (ship.tenant_id, ship.fleet_id) == ("a", None)


async def test_a_value_that_another_tenant_has(session: AsyncSession):
    """`tenant_unique` counts the rows of a tenant."""
    await ships_of(session)
    with tenant_scope("a"):
        with pytest.raises(ConstraintViolationError):
            await write_row(Fleet(name="First"), session, raise_on_error=True)
        rows = [{"name": "First", "size": 7}, {"name": "Second", "size": 8}]
        await bulk_upsert_mappings(rows, session, Fleet, pk_fields=["name"])
        _, fleets = await get_rows(session, Fleet, sort_field="name")
        assert [fleet.size for fleet in fleets] == [7, 8]
    await session.close()
    with tenant_scope("b"):
        _, fleets = await get_rows(session, Fleet)
        assert [fleet.size for fleet in fleets] == [0]


# --- models that cannot be kept to one tenant ----------------------------------------------------


def test_a_table_without_tenants_of_its_own() -> None:
    """A subclass with a table of its own is refused: a statement may name that table alone."""
    mappers = registry()

    class Base(SQLModel, registry=mappers):
        metadata = MetaData()

    class Vessel(Base, TenantMixin, table=True):
        id: int | None = Field(default=None, primary_key=True)

    class Boat(Vessel):
        pass

    class Canoe(Vessel):
        pass

    key = Column("id", ForeignKey("vessel.id"), primary_key=True)
    try:
        mappers.map_imperatively(Canoe, None, inherits=Vessel)
        with pytest.raises(ValidationError, match="Boat has no tenant_id in the table 'boat'"):
            mappers.map_imperatively(Boat, Table("boat", Base.metadata, key), inherits=Vessel)
    finally:
        mappers.dispose()


# --- statements that cannot be kept to one tenant ------------------------------------------------

PETS: Any = Pet.__table__  # type: ignore[attr-defined]
SHIPS: Any = Ship.__table__  # type: ignore[attr-defined]
IDS = select(SPELLS.c.id).cte("ids")
_REFLECTED = Table("spell", MetaData(), Column("id", Integer), Column("label", String(20)))

LAST_LABEL = select(func.max(SPELLS.c.label)).scalar_subquery()

LABELS = values(column("label", String), name="labels").data([("a",), (LAST_LABEL,)])

REFUSED: dict[str, Any] = {
    "text": text("SELECT id FROM spell"),
    "text with columns": text("SELECT id FROM spell").columns(column("id")),
    "a model from text": select(Spell).from_statement(text("SELECT * FROM spell")),
    "text in a condition": select(Pet.id).where(text("1 = 1")),
    "a table by name": select(column("id")).select_from(table("spell")),
    "a table of other metadata": select(_REFLECTED.c.label),
    "a deletion by name": delete(table("spell")),
    "an insert that replaces": insert(SPELLS).prefix_with("OR REPLACE").values(id=2, label="x"),
    "an insert of several rows that reads some": insert(Pet).values(
        [{"name": "Rex"}, {"name": func.coalesce(LAST_LABEL, "")}]
    ),
    "an insert that overwrites with what it reads": sqlite.insert(PETS)
    .values(id=1, name="x")
    .on_conflict_do_update(index_elements=["id"], set_={"name": LAST_LABEL}),
    "an insert that overwrites where it reads": postgresql.insert(PETS)
    .values(id=1, name="x")
    .on_conflict_do_update(
        index_elements=["id"], set_={"name": "x"}, where=exists(select(SPELLS.c.id))
    ),
    "an insert that overwrites with text": sqlite.insert(PETS)
    .values(id=1, name="x")
    .on_conflict_do_update(
        index_elements=["id"], set_={"name": text("(SELECT max(label) FROM spell)")}
    ),
    "an insert with what it reads for duplicate keys": mysql.insert(PETS)
    .values(id=1, name="x")
    .on_duplicate_key_update(name=LAST_LABEL),
    "an insert of tuples that reads rows": insert(PETS).values([(1, LAST_LABEL, None)]),
    "an insert of several rows that reads a model": insert(PETS).values(
        [{"name": select(func.max(Spell.label)).scalar_subquery()}]
    ),
    "an insert of several rows with text": insert(PETS).values(
        [{"name": text("(SELECT max(label) FROM spell)")}]
    ),
    "an insert of several rows in a CTE": select(
        insert(PETS).values([{"name": LAST_LABEL}]).returning(PETS.c.id).cte().c.id
    ),
    "values that read rows": select(LABELS.c.label),
    "values that read rows in a condition": select(Pet.id).where(Pet.name == LABELS.c.label),
    "values of one column that read rows": select(Pet.id).where(
        Pet.name.in_(select(LABELS.scalar_values()))
    ),
    "values with text": select(
        values(column("label", String), name="labels")
        .data([(text("(SELECT max(label) FROM spell)"),)])
        .c.label
    ),
    "an update from values that read rows": update(PETS)
    .values(name=LABELS.c.label)
    .where(PETS.c.id == 1),
    "a bundle that reads a table": select(Bundle("b", Pet.id, LAST_LABEL.label("label"))),
    "a relationship through joined tables": select(Stable),
    "a relationship by a table": select(Kennel),
    "a relationship in the order of a table": select(Den),
    "an update in a CTE": select(literal(1)).add_cte(
        update(Spell).values(tenant_id="b").returning(Spell.id).cte("moved")
    ),
    "a join of links": select(Mage).options(joinedload(Mage.spells)),
    "text for a column": select(literal_column("(SELECT max(label) FROM spell)")),
    "text in an operator": select(Pet.id).where(
        col(Pet.id).op("IN (SELECT id FROM spell) AND 1 =")(1)
    ),
    "text behind a statement": select(Spell.id).suffix_with("UNION SELECT id FROM spell"),
    "text as a hint": select(Spell.id).with_statement_hint("UNION SELECT id FROM spell"),
    "a table in capitals": select(column("id")).select_from(table("SPELL")),
    "a full join": select(Pet.id, Mage.id).join_from(Pet, Mage, Pet.id == Mage.id, full=True),
    "a full join of tables": select(literal(1)).select_from(
        PETS.join(SPELLS, PETS.c.id == SPELLS.c.id, full=True)
    ),
    "a join without a condition": select(Fleet.id, SHIPS.c.name).join(SHIPS),
    "an update of an alias": update(aliased(Spell)).values(power=9),
    "a deletion of an alias": delete(aliased(Spell)),
    "a tenant for an alias of a table": update(SPELLS.alias("s")).values(tenant_id="b"),
    "a tenant for another table": update(PETS)
    .where(PETS.c.id == SPELLS.c.id)
    .values({SPELLS.c.tenant_id: "b"}),
    "an update by a CTE": update(Pet)
    .where(Pet.id == IDS.c.id)
    .values(name="x")
    .execution_options(synchronize_session=False),
    "an update to a CTE": update(Pet)
    .values(mage_id=IDS.c.id)
    .execution_options(synchronize_session=False),
    "an option that names a table": select(Guild).options(
        selectinload(Guild.mages.and_(exists(select(SPELLS.c.id))))
    ),
    "an alias of a model for a subquery of a table": select(
        aliased(
            Pet,
            select(
                SPELLS.c.id, SPELLS.c.label.label("name"), literal(1).label("mage_id")
            ).subquery(),
            adapt_on_names=True,
        )
    ),
    "an alias of a model for a CTE of a table": select(
        aliased(Spell, select(SPELLS).limit(1).cte()).id
    ),
    "an alias of a model for a union of tables": select(
        aliased(
            Pet, union(select(SPELLS.c.id), select(SHIPS.c.id)).subquery(), adapt_on_names=True
        ).id
    ),
    "an alias of a model for a table": select(aliased(Pet, SPELLS.alias(), adapt_on_names=True).id),
    "a model without tenants of a table": select(OfTable),
    "a column of a model of a table": select(func.count(OfTable.label)),  # type: ignore[attr-defined]
    "an update of a model of a table": update(OfTable).values(power=9),
    "a deletion of a model of a table": delete(OfTable),
    "a model of a subquery of a table": select(OfSubquery),
    "text behind a CTE": select(
        select(SPELLS.c.id).cte().suffix_with(", leak AS (SELECT * FROM spell)").c.id
    ),
    "the definition of a table": DropTable(SPELLS),
    "a column that counts in a table": select(Granary),
    "a column of a model that counts in a table": select(Granary.spell_count),
    "a default that counts": insert(Scroll).values(label="x"),
    "a default of a table that counts": insert(SCROLLS).values(label="x"),
    "a default of updates that counts": update(Almanac).values(label="x"),
    "a default of a table's updates that counts": update(ALMANACS).values(label="x"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_kept_to_one_tenant_is_refused(session: AsyncSession, what: str):
    """Nothing is sent."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"), statements_of(session.bind) as sent, pytest.raises(TenantError):
        await execute(session, REFUSED[what])
    assert sent == []


async def test_an_update_by_key_is_refused(session: AsyncSession):
    """No criterion can be added to it."""
    await spells_of("a", "b", session=session)
    for statement in (update(Spell), lambda_stmt(lambda: update(Spell))):
        with tenant_scope("a"), pytest.raises(ValidationError, match="use bulk_update_rows"):
            await execute(session, statement, [{"id": 2, "label": "x"}])
    assert await labels(session) == ["of a (a)", "of b (b)"]


async def test_a_default_that_reads_rows_of_others(session: AsyncSession):
    """No way of writing sends it, but where the rows of all tenants are in scope."""
    await spells_of("a", "b", session=session)
    with all_tenants():
        await given(session, Almanac(id=1, label="old"))
    await session.close()
    with tenant_scope("a"):
        for write in (
            lambda: write_row(Scroll(label="x"), session),
            lambda: bulk_insert_rows([{"label": "x"}], session, Scroll),
            lambda: bulk_upsert_mappings([{"id": 1, "label": "x"}], session, Scroll),
            lambda: update_row(1, {"label": "new"}, session, Almanac),
        ):
            with pytest.raises(TenantError, match="a default that reads rows of tenants"):
                await write()
        session.add(Scroll(label="x"))
        with pytest.raises(TenantError, match=r"scroll.number has a default"):
            await session.flush()
    await session.close()
    with all_tenants():
        scroll = (await write_row(Scroll(label="x", tenant_id="a"), session))[1]
        assert scroll is not None
        assert scroll.number == 2


async def test_an_insert_that_writes_to_rows_which_are_there(session: AsyncSession):
    """The library has a function for it; to do nothing is harmless."""
    await spells_of("a", "b", session=session)
    statement: Any
    if dialect_of(session).name == "mysql":
        statement = mysql.insert(Spell).values(id=2, label="mine")
        statement = statement.on_duplicate_key_update(label="mine")
        harmless = insert(Spell).prefix_with("IGNORE")
    else:
        dialect: Any = {"postgresql": postgresql, "sqlite": sqlite}[dialect_of(session).name]
        upsert = dialect.insert(Spell).values(id=2, label="mine")
        statement = upsert.on_conflict_do_update(index_elements=["id"], set_={"label": "mine"})
        harmless = dialect.insert(Spell).on_conflict_do_nothing()
    with tenant_scope("a"):
        with pytest.raises(TenantError, match="bulk_upsert_mappings"):
            await execute(session, statement)
        await execute(session, harmless.values(id=2, label="mine"))
        await session.commit()
    assert await labels(session) == ["of a (a)", "of b (b)"]


async def test_text_that_says_that_it_may(session: AsyncSession):
    """In the scope of all tenants it needs to say nothing."""
    await spells_of("a", "b", session=session)
    count = text("SELECT count(*) FROM spell")
    with tenant_scope("a"):
        said = count.execution_options(any_tenant=True)
        assert first_of(await execute(session, said)) == 2
        condition = select(Spell.id).where(text("1 = 1")).execution_options(any_tenant=True)
        assert fetched(await execute(session, condition)) == [1]
    await session.close()
    with all_tenants():
        assert first_of(await execute(session, count)) == 2


async def test_text_without_a_tenant(session: AsyncSession):
    """It is refused if it names a tenants' table, and in a session that serves a tenant."""
    assert first_of(await execute(session, text("SELECT 1"))) == 1
    for named in ("SELECT id FROM spell", 'SELECT id FROM "SPELL" AS s'):
        with pytest.raises(TenantError):
            await execute(session, text(named))
    with tenant_scope("a"):
        await get_rows(session, Spell)
    with pytest.raises(TenantError):
        await execute(session, text("SELECT 1"))


# --- with what else there is ---------------------------------------------------------------------


async def test_rows_that_are_merged(session: AsyncSession):
    """A row without a tenant gets the one in scope, whether it exists or not."""
    await spells_of("a", "b", session=session)
    with tenant_scope("a"):
        for number in (1, 3):
            merged = await session.merge(Spell(id=number, label="merged"))
            await session.flush()
            assert merged.tenant_id == "a"
            await session.commit()
        await session.merge(Spell(id=1, label="theirs", tenant_id="b"))
        with pytest.raises(TenantError, match="cannot be changed"):
            await session.commit()
        await session.rollback()
        await session.merge(Spell(id=2, label="theirs"))
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
    await session.close()
    with all_tenants():
        await session.merge(Spell(id=1, label="whose"))
        with pytest.raises(TenantError, match="must set its tenant_id"):
            await session.commit()
        await session.rollback()
    assert await labels(session) == ["merged (a)", "of b (b)", "merged (a)"]


async def test_callbacks_run_in_the_scope_of_the_commit(session: AsyncSession):
    """As they do with `acting_as`."""
    seen = []
    with tenant_scope("a"):
        async with transaction(session):
            await write_row(Spell(id=1, label="x"), session)
            on_commit(session, lambda: seen.append(current_tenant()))
    assert seen == ["a"]


async def test_an_error_in_a_block_undoes_it(session: AsyncSession):
    """A refusal of the tenancy is an error like others."""
    with tenant_scope("a"), pytest.raises(TransactionError) as failed:
        async with transaction(session):
            await write_row(Spell(id=1, label="x"), session)
            await write_row(Spell(id=2, label="x", tenant_id="b"), session)
    assert isinstance(failed.value.original_error, TenantError)
    assert await labels(session) == []


async def test_link_rows_get_the_tenant(session: AsyncSession):
    """This applies to rows that a many-to-many relationship writes."""
    with tenant_scope("a"):
        session.add(Mage(id=1, name="Ann", spells=[Spell(id=1, label="fire")]))
        await session.commit()
        links = fetched(await execute(session, select(MageSpell)))
    assert [link.tenant_id for link in links] == ["a"]


async def test_the_session_is_usable_after_a_refusal(session: AsyncSession):
    """Nothing was sent, so nothing is broken."""
    with tenant_scope("a"):
        with pytest.raises(TenantError):
            await write_row(Spell(label="x", tenant_id="b"), session)
        await write_row(Spell(id=1, label="y"), session)
        assert sync_session(session).is_active
    assert await labels(session) == ["y (a)"]
