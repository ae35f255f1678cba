"""Every function of the library once, on rows that are one caller's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    on_commit,
    purge_rows,
    restore_row,
    run_transaction,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from tests._runtime_async import AsyncSession, execute
from tests.chaos_models import Entry

MANY = 110  # so many that rows go past the flush, with COPY where there is one


def entries(prefix: str, count: int) -> list[Entry]:
    """Return rows that are not written yet."""
    return [Entry(name=f"{prefix}{number}") for number in range(count)]


def mappings(prefix: str, count: int) -> list[dict[str, Any]]:
    """Return rows for the bulk functions."""
    return [{"name": f"{prefix}{number}", "size": number} for number in range(count)]


async def everything(new_session: Any, caller: str) -> None:
    """Call every function; a caller's rows begin with its name."""
    async with new_session() as session:
        await _single_rows(session, f"{caller}-single-")
        await _many_rows(session, f"{caller}-many-")
        await _queries(session, f"{caller}-many-")
        await _deletions(session, f"{caller}-many-")
        await _blocks(session, f"{caller}-block-")

    async def work(session: AsyncSession) -> int:
        await write_row(Entry(name=f"{caller}-again"), session)
        return await QueryBuilder(session, Entry).where(name=f"{caller}-again").count()

    assert await run_transaction(new_session, work, isolation_level="REPEATABLE READ") == 1


async def _single_rows(session: AsyncSession, name: str) -> None:
    _, entry = await write_row(Entry(name=name), session, raise_on_error=True)
    key = entry.id
    assert (await update_row(key, {"size": Entry.size + 1}, session, Entry))[1].size == 1
    assert (await update_row(name, {"size": 5}, session, Entry, "name"))[1].size == 5
    assert (await get_row(key, session, Entry))[0]
    assert (await get_one_or_create(session, Entry, name=name))[1]
    assert not (await get_one_or_create(session, Entry, name=f"{name}new"))[1]
    assert await soft_delete_row(key, session, Entry)
    assert await restore_row(key, session, Entry)
    assert await write_row(Entry(name=name), session) == (False, None)
    assert await delete_row(key, session, Entry, soft=False)


async def _many_rows(session: AsyncSession, prefix: str) -> None:
    assert (await insert_data_rows(entries(f"{prefix}a", 3), session))[0]
    assert (await insert_data_rows(entries(f"{prefix}b", MANY), session))[0]
    assert await bulk_insert_rows(mappings(f"{prefix}c", 3), session, Entry) == 3
    assert await bulk_insert_rows(mappings(f"{prefix}d", MANY), session, Entry) == MANY
    again = mappings(f"{prefix}c", 4)
    assert await bulk_insert_rows(again, session, Entry, on_conflict="ignore") == 1
    for rows in (mappings(f"{prefix}c", 5), mappings(f"{prefix}d", MANY)):
        assert (await bulk_upsert_mappings(rows, session, Entry, ["name"]))[0]
    names = [f"{prefix}a{number}" for number in range(3)]
    assert await bulk_update_rows(names, {"size": 9}, session, Entry, "name") == (True, 3)


async def _queries(session: AsyncSession, prefix: str) -> None:
    query = QueryBuilder(session, Entry).where(name__startswith=f"{prefix}d")
    assert len(await query.all()) == await query.count() == MANY
    assert await query.exists()
    assert await query.order_by("size").first() is not None
    assert (await query.paginate(2, 50)).total == MANY
    page = await query.order_by("size").keyset(50)
    assert len((await query.order_by("size").keyset(50, after=page.next_cursor)).items) == 50
    assert await query.max("size") == MANY - 1
    assert len(await query.scalars("name")) == MANY
    assert len([entry async for entry in query.stream(50)]) == MANY
    async with transaction(session):
        assert len(await query.limit(3).for_update(skip_locked=True).all()) <= 3
    assert await query.where(size__lt=10).update(size=0) == 10
    assert len((await get_rows(session, Entry, name__startswith=prefix, page_size=7))[1]) == 7
    names: Sequence[str] = [f"{prefix}d{number}" for number in range(30)]
    assert len((await get_rows_within_id_list(names, session, Entry, "name"))[1]) == 30
    own = select(Entry).where(Entry.name == f"{prefix}d1")
    assert await get_result_from_query(own, session) is not None
    assert await session.scalar(own) is not None
    await session.commit()


async def _deletions(session: AsyncSession, prefix: str) -> None:
    names = [f"{prefix}d{number}" for number in range(90)]
    assert await delete_rows_within_id_list(names, session, Entry, "name") == (True, 90)
    query = QueryBuilder(session, Entry).where(name__startswith=f"{prefix}d")
    assert await query.delete() == MANY - 90
    await purge_rows(session, Entry, older_than=timedelta(days=1))


async def _blocks(session: AsyncSession, prefix: str) -> None:
    told: list[int] = []
    async with transaction(session):
        await write_row(Entry(name=f"{prefix}1"), session)
        on_commit(session, lambda: told.append(1))
        async with transaction(session):
            await update_row(f"{prefix}1", {"size": 3}, session, Entry, "name")
        await write_row(Entry(name=f"{prefix}1"), session, raise_on_error=False)
        await execute(session, text("SELECT 1"))
    assert told == [1]
