"""Rows of tenants with versions, history, hooks, retries and replicas; and what errors say."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from sqlmodel_crud_utils.aio import (
    AsyncRepository,
    QueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    get_row,
    get_rows,
    insert_data_rows,
    on_commit,
    purge_rows,
    restore_row,
    run_transaction,
    session_factory as make_session_factory,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    RecordNotFoundError,
    SQLModelCRUDError,
    TenantError,
)
from sqlmodel_crud_utils.ext.history.aio import get_change_history
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import all_tenants, tenant_scope
from tests._runtime_async import AsyncEngine, AsyncSession, execute, make_engine
from tests.databases import Database, prepare
from tests.recording import logged, recorded, statements_of
from tests.tenant_models import Deed

Sessions = Callable[[], AsyncSession]

OTHER, SECRET = "globex-4711", "s3cr3t"


async def deeds(session: AsyncSession) -> None:
    """Write a deed for each of two tenants."""
    for number, tenant in ((1, "acme"), (2, OTHER)):
        with tenant_scope(tenant):
            deed = Deed(id=number, name=f"of {tenant}", code=f"{SECRET}{number}")
            await write_row(deed, session, raise_on_error=True)
        await session.close()


async def worths(session: AsyncSession) -> list[tuple[int, int, int]]:
    """Return the deeds of all tenants: keys, worths and versions."""
    with all_tenants():
        async with AsyncSession(session.bind) as other:
            rows = (await get_rows(other, Deed, include_deleted=True))[1]
            return sorted((row.id, row.worth, row.version) for row in rows)


# --- pairs ---------------------------------------------------------------------------------------


async def test_versions(session: AsyncSession, session_factory: Sessions):
    """A conflict is only reported for the tenant's own row; another tenant's is missing."""
    await deeds(session)
    with tenant_scope("acme"):
        assert (await update_row(1, {"worth": 5}, session, Deed, expected_version=1))[0]
        with pytest.raises(ConflictError):
            await update_row(
                1, {"worth": 6}, session, Deed, expected_version=1, raise_on_error=True
            )
        assert await update_row(2, {"worth": 6}, session, Deed, expected_version=1) == (False, None)
        held = (await session_factory().get(Deed, 1)), (await get_row(1, session, Deed))[1]
        assert held[0].version == held[1].version == 2
        await QueryBuilder(session, Deed).update(everything=True, worth=7)
        await bulk_upsert_mappings([{"id": 1, "worth": 8}], session, Deed)
    assert await worths(session) == [(1, 8, 4), (2, 0, 1)]


async def test_the_history_names_the_tenant(session: AsyncSession):
    """Of each way of writing; another tenant sees none of it."""
    await deeds(session)
    with tenant_scope("acme"):
        await update_row(1, {"worth": 5}, session, Deed, raise_on_error=True)
        await QueryBuilder(session, Deed).update(everything=True, worth=6)
        await bulk_update_rows([1, 2], {"worth": 7}, session, Deed)
        await bulk_upsert_mappings([{"id": 1, "worth": 8}], session, Deed)
        await delete_row(1, session, Deed)
        await restore_row(1, session, Deed)
        found = await get_change_history(1, session, Deed)
        assert {each.tenant_id for each in found} == {"acme"}
        worth = [each.changes["worth"] for each in found if "worth" in each.changes]
        assert worth == [[None, 0], [0, 5], [5, 6], [6, 7], [7, 8]]
        assert await get_change_history(2, session, Deed) == []
    await session.close()
    with tenant_scope(OTHER):
        assert len(await get_change_history(2, session, Deed)) == 1
        assert await get_change_history(1, session, Deed) == []


@pytest.mark.parametrize("statement", [update(Deed).values(worth=5), delete(Deed)])
async def test_the_callers_own_writes_to_rows_with_a_history(
    session: AsyncSession, engine: AsyncEngine, statement: Any
):
    """They read and lock the tenant's rows alone; without a tenant, nothing is sent."""
    await deeds(session)
    with recorded(engine) as sent, pytest.raises(TenantError):
        await execute(session, statement)
    assert sent == []
    await session.close()
    with tenant_scope("acme"), statements_of(engine) as statements:
        await execute(session, statement)
        await session.rollback()
    read = [each for each in statements if each.startswith("SELECT")]
    assert read
    assert "tenant_id = " in read[0]


async def test_old_marked_rows_are_purged(session: AsyncSession):
    """Those of the tenant alone."""
    await deeds(session)
    for number, tenant in ((1, "acme"), (2, OTHER)):
        with tenant_scope(tenant):
            assert await delete_row(number, session, Deed)
        await session.close()
    with tenant_scope("acme"):
        assert await restore_row(2, session, Deed) == (False, None)
        assert await purge_rows(session, Deed, older_than=timedelta(0)) == 1
    assert [key for key, *_ in await worths(session)] == [2]


async def test_hooks(session: AsyncSession):
    """A hook reads the tenant's rows, and cannot move a row to another tenant."""
    await deeds(session)
    seen: list[int] = []

    class Look:
        async def before_update(self, _deed: Deed, data: Any, session: AsyncSession) -> Any:
            seen.extend([row.id for row in (await get_rows(session, Deed))[1]])
            return data | ({"tenant_id": OTHER} if data["worth"] == 9 else {})

    with registered_hook(Deed, Look()), tenant_scope("acme"):
        await update_row(1, {"worth": 5}, session, Deed, raise_on_error=True)
        with pytest.raises(TenantError):
            await update_row(1, {"worth": 9}, session, Deed, raise_on_error=True)
    assert seen == [1, 1]
    assert await worths(session) == [(1, 5, 2), (2, 0, 1)]


async def test_callbacks_of_a_commit(session: AsyncSession, session_factory: Sessions):
    """They see the tenant's rows with a session of their own."""
    await deeds(session)
    seen: list[int] = []

    async def look() -> None:
        async with session_factory() as other:
            seen.extend([row.id for row in (await get_rows(other, Deed))[1]])

    with tenant_scope("acme"):
        async with transaction(session):
            await update_row(1, {"worth": 5}, session, Deed)
            on_commit(session, look)
    assert seen == [1]


async def test_attempts_of_a_transaction(session: AsyncSession, session_factory: Sessions):
    """Each is the tenant's, and the history has the one that was committed."""
    await deeds(session)
    attempts: list[int] = []

    async def work(session: AsyncSession) -> Any:
        attempts.append(len((await get_rows(session, Deed))[1]))
        await update_row(1, {"worth": len(attempts)}, session, Deed)
        if len(attempts) == 1:
            raise ConflictError(Deed, 1)
        return (await session.get(Deed, 1)).worth

    with tenant_scope("acme"):
        assert await run_transaction(session_factory, work) == 2
        [_, change] = await get_change_history(1, session, Deed)
        assert change.changes["worth"] == [0, 2]

    async def astray(session: AsyncSession) -> None:
        await get_rows(session, Deed)
        with tenant_scope(OTHER):
            await get_rows(session, Deed)

    with tenant_scope("acme"), pytest.raises(TenantError):
        await run_transaction(session_factory, astray)
    assert attempts == [1, 1]


async def test_replicas(session: AsyncSession, engine: AsyncEngine, database: Database):
    """A session serves one tenant wherever it reads, and what it reads there is the tenant's."""
    await deeds(session)
    replica = make_engine(database.async_url)
    prepare(replica)
    new_session: Any = make_session_factory(engine, replicas=[replica])
    async with new_session() as routed:
        with tenant_scope("acme"):
            assert [row.id for row in (await get_rows(routed, Deed))[1]] == [1]
            assert (await get_row(2, routed, Deed)) == (False, None)
        with tenant_scope(OTHER), pytest.raises(TenantError):
            await get_rows(routed, Deed)
        with tenant_scope("acme"):
            await update_row(1, {"worth": 5}, routed, Deed, raise_on_error=True)
            assert [row.worth for row in (await get_rows(routed, Deed))[1]] == [5]
    await replica.dispose()


# --- what errors and logs say --------------------------------------------------------------------

REFUSED: dict[str, Callable[[AsyncSession], Any]] = {
    "a row of another tenant": lambda session: write_row(
        Deed(id=9, name="x", tenant_id=OTHER), session, raise_on_error=True
    ),
    "rows of another tenant": lambda session: insert_data_rows(
        [Deed(id=9, name="x", tenant_id=OTHER)], session, raise_on_error=True
    ),
    "a mapping of another tenant": lambda session: bulk_insert_rows(
        [{"name": "x", "tenant_id": OTHER}], session, Deed
    ),
    "a change of the tenant": lambda session: update_row(
        1, {"tenant_id": OTHER}, session, Deed, raise_on_error=True
    ),
    "a key that is taken": lambda session: bulk_upsert_mappings(
        [{"id": 2, "name": "x"}], session, Deed, raise_on_error=True
    ),
    "a secret that is taken": lambda session: update_row(
        1, {"code": f"{SECRET}2"}, session, Deed, raise_on_error=True
    ),
    "new rows with a secret that is taken": lambda session: bulk_insert_rows(
        [{"name": "x", "code": f"{SECRET}2"}], session, Deed
    ),
    "an upsert with a secret that is taken": lambda session: bulk_upsert_mappings(
        [{"id": 9, "name": "x", "code": f"{SECRET}2"}], session, Deed, raise_on_error=True
    ),
    "a secret of a wrong type": lambda session: update_row(
        1, {"code": [SECRET]}, session, Deed, raise_on_error=True
    ),
    "a secret that is too long": lambda session: write_row(
        Deed(name="x", code=SECRET * 9, worth="x"), session, raise_on_error=True
    ),
    "a missing row": lambda session: AsyncRepository(session, Deed).get(2),
}


@pytest.mark.databases("sqlite")  # the texts are the library's
@pytest.mark.parametrize("what", REFUSED)
async def test_no_text_names_another_tenant_or_a_secret(session: AsyncSession, what: str):
    """Neither the error nor what is logged, not even what the caller gave; nothing is written."""
    await deeds(session)
    with (
        tenant_scope("acme"),
        logged("DEBUG") as lines,
        pytest.raises(SQLModelCRUDError) as failed,
    ):
        await REFUSED[what](session)
    error = failed.value
    told = [str(error), repr(error), *(text for *_, text in lines)]
    told += traceback.format_exception_only(error)
    for text in told:
        assert OTHER not in text
        assert SECRET not in text
    if what == "a missing row":
        assert isinstance(error, RecordNotFoundError)
    await session.rollback()
    assert await worths(session) == [(1, 0, 1), (2, 0, 1)]


async def test_a_redacted_value_is_in_no_entry(session: AsyncSession):
    """Of none of the ways of writing."""
    await deeds(session)
    with tenant_scope("acme"):
        await update_row(1, {"code": f"{SECRET}3"}, session, Deed, raise_on_error=True)
        await QueryBuilder(session, Deed).update(everything=True, code=f"{SECRET}4")
        await bulk_update_rows([1], {"code": f"{SECRET}5"}, session, Deed)
        await bulk_upsert_mappings([{"id": 1, "code": f"{SECRET}6"}], session, Deed)
        await delete_row(1, session, Deed, soft=False)
        found = await get_change_history(1, session, Deed)
    assert [each.changes["code"] for each in found] == [["…", "…"]] * 6
    assert not any(SECRET in each.model_dump_json() for each in found)
