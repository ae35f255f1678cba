"""PostgreSQL's row security: the second lock, behind the policy of the library."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
from sqlalchemy import MetaData, literal, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    UpsertCounts,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    create_pooled_engine,
    delete_row,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    insert_data_rows,
    run_transaction,
    session_factory as make_session_factory,
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
from sqlmodel_crud_utils.ext.history.aio import get_change_history
from sqlmodel_crud_utils.mixins import TenantMixin, all_tenants, row_security, tenant_scope
from tests._runtime_async import AsyncEngine, execute, fetched, run_on_connection
from tests.databases import Database
from tests.history_models import Estate, Lease
from tests.recording import statements_of
from tests.secured import Secured, secured_tables
from tests.tenant_models import Fleet, Guild, Pet, Port, Ship, Spell, Wharf

pytestmark = [pytest.mark.databases("postgresql"), pytest.mark.usefixtures("database")]

LABELS = text("SELECT label FROM spell ORDER BY id")
NAME = text("SELECT current_setting('sqlmodel_crud_utils.tenant', true)")


@pytest.fixture(scope="module")
def made(database: Database, worker_id: str) -> Iterator[Secured]:
    """The tables, for all tests."""
    with secured_tables(database.sync_url, f"rows_{worker_id}_{os.getpid()}") as secured:
        yield secured


@pytest.fixture
def secured(made: Secured) -> Iterator[Secured]:
    """The database, with a spell for each of two tenants."""
    made.ask(
        "INSERT INTO spell VALUES ('a', 1, 'of a', 0), ('b', 2, 'of b', 0)",
        "SELECT setval(pg_get_serial_sequence('spell', 'id'), 2)",
    )
    yield made
    made.clear()


@pytest.fixture
async def engine(secured: Secured) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection, so that what stays on it is seen by the next."""
    engine = create_pooled_engine(secured.url, 1, 0, pool_timeout=5, row_security=True)
    yield engine
    await engine.dispose()


@pytest.fixture
def session_factory(engine: AsyncEngine) -> Callable[[], Any]:
    """A factory of sessions."""
    return make_session_factory(engine)


@pytest.fixture
async def session(session_factory: Callable[[], Any]) -> AsyncIterator[Any]:
    """A session."""
    async with session_factory() as session:
        yield session


async def seen_by(session: Any) -> list[str]:
    """Return the labels that PostgreSQL itself shows to the session's connection."""
    return await run_on_connection(session, lambda found: [*found.execute(LABELS).scalars()])


def first_words(sent: list[str]) -> list[str]:
    """Return the first words of statements, "set_config" for those that set the tenant."""
    return ["set_config" if "set_config" in each else each.split(maxsplit=1)[0] for each in sent]


# --- visible rows --------------------------------------------------------------------------------


async def test_a_read_has_a_transaction(secured: Secured, session: Any):
    """The tenant is set per transaction, so no read is sent without one, even without a scope."""
    question = f"SELECT state FROM pg_stat_activity WHERE usename = '{secured.role}'"
    await get_result_from_query(select(literal(1)), session)
    assert secured.ask(question) == [("idle in transaction",)]
    await session.rollback()
    with tenant_scope("a"):
        await get_rows(session, Spell)
    assert secured.ask(question) == [("idle in transaction",)]


async def test_what_goes_past_the_session_sees_the_rows_of_the_tenant(session: Any):
    """PostgreSQL adds a criterion where the library does not."""
    with tenant_scope("a"):
        assert await seen_by(session) == ["of a"]
        said = LABELS.execution_options(any_tenant=True)
        assert fetched(await execute(session, said)) == ["of a"]
    await session.close()
    with tenant_scope("b"):
        assert await seen_by(session) == ["of b"]


async def test_nothing_is_seen_without_a_tenant(session: Any):
    """Nor in the scope of all tenants: maintenance needs a separate role."""
    assert await seen_by(session) == []
    with all_tenants():
        assert await seen_by(session) == []
        assert (await get_rows(session, Spell))[1] == []
        with pytest.raises(ConstraintViolationError, match="row policy"):
            await write_row(Spell(label="x", tenant_id="a"), session, raise_on_error=True)
    with pytest.raises(TenantError):
        await get_rows(session, Spell)


async def test_no_row_of_another_tenant_is_written(session: Any, secured: Secured):
    """Not even by statements that bypass the session."""
    foreign = text("INSERT INTO spell (label, power, tenant_id) VALUES ('x', 0, 'b')")
    with tenant_scope("a"):
        with pytest.raises(ProgrammingError):
            await run_on_connection(session, lambda found: found.execute(foreign))
        await session.rollback()
        for statement in ("UPDATE spell SET label = 'mine'", "DELETE FROM spell WHERE id = 2"):
            await run_on_connection(session, lambda found, sql=statement: found.execute(text(sql)))
        with pytest.raises(ProgrammingError):
            move = text("UPDATE spell SET tenant_id = 'b'")
            await run_on_connection(session, lambda found: found.execute(move))
        await session.rollback()
    assert secured.ask("SELECT label FROM spell ORDER BY id") == [("of a",), ("of b",)]


@pytest.mark.parametrize(
    ("make", "question", "tenants"),
    [
        (lambda: Port(name="Rome"), "SELECT tenant_id FROM port", (1, 2)),
        (Estate, "SELECT tenant_id FROM estate", (uuid.UUID(int=1), uuid.UUID(int=2))),
        (lambda: Wharf(name="Rome"), "SELECT org FROM wharf", ("a", "b")),
    ],
)
async def test_other_columns(session: Any, make: Any, question: str, tenants: Any):
    """Numbers and UUIDs are compared as such, and the column may have another name."""
    for tenant in tenants:
        with tenant_scope(tenant):
            await write_row(make(), session, raise_on_error=True)
            asked = text(question)
            found = await run_on_connection(session, lambda c, sql=asked: c.execute(sql).all())
            assert found == [(tenant,)]
        await session.close()


async def test_the_history_of_a_row_is_that_of_its_tenant(session: Any):
    """History entries are separated by tenant like the rows."""
    history = text("SELECT tenant_id FROM change_history")
    for tenant in ("a", "b"):
        with tenant_scope(tenant):
            key = 1 if tenant == "a" else 2
            await write_row(Lease(id=key, rent=1), session, raise_on_error=True)
            await update_row(key, {"rent": 2}, session, Lease, raise_on_error=True)
            await AsyncQueryBuilder(session, Lease).update(everything=True, rent=Lease.rent + 1)
            changes = await get_change_history(key, session, Lease)
            assert [each.changes.get("rent") for each in changes] == [[None, 1], [1, 2], [2, 3]]
            seen = await run_on_connection(session, lambda found: [*found.execute(history)])
            assert seen == [(tenant,)] * 3
        await session.close()


# --- setting the tenant --------------------------------------------------------------------------


async def test_a_transaction_is_told_once(session: Any, engine: AsyncEngine):
    """Before its first statement only, also with a savepoint."""
    with tenant_scope("a"), statements_of(engine) as sent:
        async with transaction(session):
            await write_row(Spell(label="x"), session)
            async with transaction(session):
                await update_row(1, {"power": 5}, session, Spell)
            await get_rows(session, Spell)
        assert first_words(sent).count("set_config") == 1
        assert first_words(sent)[0] == "set_config"
        del sent[:]
        await session.exec(select(Spell.id))
        await session.exec(select(Spell.id))
        assert first_words(sent) == ["set_config", "SELECT", "SELECT"]


async def test_models_of_nobody_are_told_nothing(session: Any, engine: AsyncEngine):
    """Without a tenant in scope, none is set."""
    with statements_of(engine) as sent:
        await write_row(Pet(name="Rex"), session, raise_on_error=True)
    assert "set_config" not in first_words(sent)


async def test_each_attempt_of_a_transaction_is_told(session_factory: Any, engine: AsyncEngine):
    """The next one is another transaction."""
    attempts = []

    async def work(session: Any) -> Any:
        attempts.append(await seen_by(session))
        if len(attempts) == 1:
            error = text("DO $$ BEGIN RAISE serialization_failure; END $$")
            await execute(session, error.execution_options(any_tenant=True))
        return (await get_rows(session, Spell))[1]

    with tenant_scope("a"), statements_of(engine) as sent:
        [row] = await run_transaction(session_factory, work)
    assert (row.id, attempts) == (1, [["of a"]] * 2)
    assert first_words(sent).count("set_config") == 2


async def test_nothing_outlives_a_transaction(session: Any, engine: AsyncEngine):
    """The connection's next user gets the tenant of its own scope, or none."""
    with tenant_scope("a"):
        await write_row(Spell(label="x"), session, raise_on_error=True)
        await get_rows(session, Spell)
        await session.rollback()
    async with engine.connect() as connection:
        assert (await connection.execute(LABELS)).all() == []
        assert (await connection.execute(NAME)).scalar_one() in (None, "")


async def test_a_scope_that_opens_in_a_transaction(session: Any):
    """The scope at the statement counts, even if a savepoint's rollback resets the setting."""
    async with transaction(session):
        await get_rows(session, Pet)
        with tenant_scope("a"):
            rows = [{"id": n, "label": "x"} for n in range(10, 400)]
            await bulk_insert_rows(rows, session, Spell)
            assert (await get_rows(session, Spell))[1][0].label == "of a"


async def test_a_savepoint_forgets_what_it_was_told(engine: AsyncEngine):
    """Then the tenant is set again."""
    async with engine.connect() as connection:
        with tenant_scope("a"):
            assert (await connection.execute(LABELS)).scalars().all() == ["of a"]
        savepoint = await connection.begin_nested()
        with tenant_scope("b"):
            assert (await connection.execute(LABELS)).scalars().all() == ["of b"]
            await savepoint.rollback()
            assert (await connection.execute(LABELS)).scalars().all() == ["of b"]
        assert (await connection.execute(LABELS)).scalars().all() == []


@pytest.mark.parametrize("begins", ["in scope", "before", "by itself"])
async def test_a_connection_that_died_is_replaced(
    session: Any, engine: AsyncEngine, secured: Secured, begins: str
):
    """Before its first statement, which sets the tenant; no error surfaces."""
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'"
    await session.exec(select(Pet))
    await session.rollback()
    with ExitStack() as scopes:
        if begins == "before":
            await session.connection()
        scopes.enter_context(tenant_scope("a"))
        secured.ask(kill.format(secured.role))
        if begins == "by itself":
            async with engine.connect() as connection:
                assert (await connection.execute(LABELS)).scalars().all() == ["of a"]
        else:
            assert await seen_by(session) == ["of a"]


async def test_the_modes_of_a_transaction_come_first(session_factory: Any):
    """PostgreSQL takes them before the first query only."""
    level = text("SHOW transaction_isolation")

    async def work(session: Any) -> Any:
        assert await seen_by(session) == ["of a"]
        return await run_on_connection(session, lambda found: found.execute(level).scalar_one())

    with tenant_scope("a"):
        modes = {"isolation_level": "SERIALIZABLE", "read_only": True}
        assert await run_transaction(session_factory, work, **modes) == "serializable"


# --- with every way ------------------------------------------------------------------------------


async def test_every_way_of_writing(session: Any, secured: Secured):
    """They do what they do without it."""
    with tenant_scope("a"):
        await write_row(Guild(id=1, name="Reds"), session, raise_on_error=True)
        await insert_data_rows([Spell(id=n, label="x") for n in range(10, 200)], session)
        many = ({"id": n, "label": "x"} for n in range(1000, 4000))
        assert await bulk_insert_rows(many, session, Spell) == 3000
        assert await bulk_insert_rows([{"id": 4000, "label": "x"}], session, Spell) == 1
        rows = [{"id": n, "label": "y"} for n in (1, *range(4000, 4200))]
        counted = await bulk_upsert_mappings(rows, session, Spell, return_rows=False)
        assert counted == (True, UpsertCounts(199, 2))
        assert (await bulk_update_rows([1, 2], {"power": 7}, session, Spell))[1] == 1
        await get_one_or_create(session, Spell, {"label": "z"}, id=5000)
        assert await delete_row(5000, session, Spell)
        assert await AsyncQueryBuilder(session, Spell).where(id__gte=10).delete() == 3390
        assert await delete_row(1, session, Guild)
    assert secured.ask("SELECT id, label, power FROM spell ORDER BY id") == [
        *((1, "y", 7), (2, "of b", 0))
    ]


async def test_every_way_of_reading(session: Any):
    """Streams too, which have a cursor on the server."""
    with tenant_scope("a"):
        query = AsyncQueryBuilder(session, Spell)
        assert [row.id async for row in query.stream(batch_size=1)] == [1]
        assert (await query.count(), await query.sum("id")) == (1, 1)
        assert (await query.paginate()).total == 1
        assert await get_row(2, session, Spell) == (False, None)
        assert await session.get(Spell, 2) is None


async def test_a_key_that_another_tenant_has(session: Any, secured: Secured):
    """It is a broken constraint as without, though PostgreSQL words it otherwise."""
    rows = [{"id": 7, "label": "new"}, {"id": 2, "label": "mine"}]
    with tenant_scope("a"):
        for payload in (rows, [{"id": n, "label": "mine"} for n in range(110, 1, -1)]):
            for returning in (True, False):
                with pytest.raises(ConstraintViolationError, match="same id") as refused:
                    await bulk_upsert_mappings(
                        payload, session, Spell, return_rows=returning, raise_on_error=True
                    )
                assert refused.value.columns == ("id",)
        with pytest.raises(ConstraintViolationError):
            await get_one_or_create(session, Spell, {"id": 2}, label="mine")
        with pytest.raises(ConstraintViolationError):
            await write_row(Spell(id=2, label="mine"), session, raise_on_error=True)
    assert secured.ask("SELECT label FROM spell ORDER BY id") == [("of a",), ("of b",)]


async def test_keys_that_lead_to_rows(session: Any):
    """The database's own checks of foreign keys see all rows, and the tenant is part of the key."""
    with tenant_scope("b"):
        await write_row(Fleet(id=2, name="First"), session, raise_on_error=True)
    await session.close()
    with tenant_scope("a"):
        await write_row(Fleet(id=1, name="First"), session, raise_on_error=True)
        await write_row(Ship(name="Nina", fleet_id=1), session, raise_on_error=True)
        with pytest.raises(ConstraintViolationError) as refused:
            await write_row(Ship(name="Pinta", fleet_id=2), session, raise_on_error=True)
        assert refused.value.kind == "foreign_key"


# --- roles ---------------------------------------------------------------------------------------


async def refused(url: Any) -> str:
    """Return why an engine with this URL is refused at its first connection."""
    engine = create_pooled_engine(url, row_security=True)
    async with make_session_factory(engine)() as session:
        with tenant_scope("a"), pytest.raises(TenantError) as failed:
            await get_rows(session, Spell)
        with pytest.raises(TransactionError):  # it is refused each time
            async with transaction(session):
                await get_rows(session, Pet)
    await engine.dispose()
    return str(failed.value)


async def test_roles_for_which_row_security_does_not_hold(secured: Secured):
    """A superuser, and a role with BYPASSRLS, are refused before anything is read."""
    assert "superuser" in await refused(secured.owners_url)
    secured.ask(f"ALTER ROLE {secured.role} BYPASSRLS")
    try:
        assert secured.role in await refused(secured.url)
    finally:
        secured.ask(f"ALTER ROLE {secured.role} NOBYPASSRLS")


async def test_tables_for_which_row_security_does_not_hold(secured: Secured):
    """Owners bypass it unless it is forced, and everybody does unless it is enabled."""
    owner = f"ALTER TABLE spell OWNER TO {secured.role}"
    for off, on in (("NO FORCE", "FORCE"), ("DISABLE", "ENABLE")):
        secured.ask(owner, f"ALTER TABLE spell {off} ROW LEVEL SECURITY")
        try:
            assert "spell" in await refused(secured.url)
        finally:
            secured.ask(f"ALTER TABLE spell {on} ROW LEVEL SECURITY")


async def test_the_owner_of_a_table_is_no_exception(secured: Secured, session: Any):
    """The statements force row security upon the owner as well."""
    secured.ask(
        f"ALTER TABLE spell OWNER TO {secured.role}",
        "ALTER TABLE spell NO FORCE ROW LEVEL SECURITY",
    )
    secured.secure()
    with tenant_scope("a"):
        assert await seen_by(session) == ["of a"]


async def test_tables_that_are_made_later(secured: Secured, engine: AsyncEngine):
    """As long as tables are missing, every new connection is asked for them."""
    secured.ask("ALTER TABLE port RENAME TO later")
    try:
        async with make_session_factory(engine)() as session:
            with tenant_scope("a"):
                assert len((await get_rows(session, Spell))[1]) == 1
        await engine.dispose()
    finally:
        secured.ask("ALTER TABLE later RENAME TO port")
    secured.ask("ALTER TABLE port DISABLE ROW LEVEL SECURITY")
    try:
        async with make_session_factory(engine)() as session:
            with tenant_scope("a"), pytest.raises(TenantError, match="port"):
                await get_rows(session, Spell)
    finally:
        secured.ask("ALTER TABLE port ENABLE ROW LEVEL SECURITY")


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite://", "mysql://root@localhost/x"])
def test_other_databases_have_no_row_security(url: str) -> None:
    """The engine is not made."""
    with pytest.raises(ValidationError, match="PostgreSQL") as failed:
        create_pooled_engine(url, row_security=True)
    assert failed.value.field == "row_security"


def test_a_replica_has_to_have_it_too(secured: Secured) -> None:
    """Else what is read there would pass it."""
    primary = create_pooled_engine(secured.url, row_security=True)
    for engines in ((primary, create_pooled_engine(secured.url)),) * 2:
        with pytest.raises(ValidationError, match="row_security"):
            make_session_factory(engines[0], replicas=[engines[1]])
        with pytest.raises(ValidationError, match="row_security"):
            make_session_factory(engines[1], replicas=[engines[0]])


async def test_autocommit_is_refused(engine: AsyncEngine, secured: Secured):
    """There is no transaction to set the tenant in, and no row is visible without it."""
    with pytest.raises(ValidationError, match="AUTOCOMMIT"):
        create_pooled_engine(secured.url, isolation_level="AUTOCOMMIT", row_security=True)
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        with tenant_scope("a"), pytest.raises(TenantError, match="AUTOCOMMIT"):
            await connection.execute(LABELS)
        assert (await connection.execute(LABELS)).all() == []


async def test_the_statements_can_be_executed_again(secured: Secured, session: Any):
    """A migration that adds a table may execute all of them."""
    secured.secure()
    with tenant_scope("a"):
        assert await seen_by(session) == ["of a"]


def test_odd_names_are_quoted() -> None:
    """Of schemas, tables and columns."""

    class Base(SQLModel, registry=registry()):
        metadata = MetaData()

    class Odd(Base, TenantMixin, table=True):
        __tablename__ = "odd 'table' 5%"
        __table_args__: ClassVar[Any] = {"schema": "My Schema"}
        id: int | None = Field(default=None, primary_key=True)

    enable, _, policy = (str(each) for each in row_security(Base.metadata))
    assert enable.startswith('ALTER TABLE "My Schema"."odd \'table\' 5%%" ENABLE')
    assert 'ON "My Schema"."odd \'table\' 5%%" USING (tenant_id = (SELECT' in policy
