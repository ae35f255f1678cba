"""Bulk operations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col, select

from benchmarks._async.case import Case, refill
from benchmarks._runtime_async import AsyncSession, library
from benchmarks.models import Item, Sizes, core_table

Payload = list[dict[str, Any]]


def payload(count: int) -> Payload:
    """Return the values of rows; those with small numbers may already exist."""
    return [{"name": f"item {n}", "amount": n % 100, "note": "new"} for n in range(1, count + 1)]


class Insert(Case):
    writes_to = Item

    async def prepare(self, session: AsyncSession) -> Payload:
        await refill(session, Item, 0)
        return payload(self.count)

    async def library(self, session: AsyncSession, rows: Payload) -> Any:
        return await library.bulk_insert_rows(rows, session, Item)

    async def by_hand(self, session: AsyncSession, rows: Payload) -> Any:
        connection = await session.connection()
        await connection.execute(insert(core_table(Item)), rows)
        await session.commit()
        return len(rows)


class InsertInstances(Case):
    writes_to = Item

    async def prepare(self, session: AsyncSession) -> list[Item]:
        await refill(session, Item, 0)
        return [Item(**row) for row in payload(self.count)]

    async def library(self, session: AsyncSession, rows: list[Item]) -> Any:
        return (await library.insert_data_rows(rows, session))[1]

    async def by_hand(self, session: AsyncSession, rows: list[Item]) -> Any:
        session.add_all(rows)
        await session.commit()
        return rows


class Upsert(Case):
    """An upsert of rows, the first half of which exist."""

    writes_to = Item

    async def prepare(self, session: AsyncSession) -> Payload:
        await refill(session, Item, self.count // 2)
        return payload(self.count)

    async def library(self, session: AsyncSession, rows: Payload) -> Any:
        return (await library.bulk_upsert_mappings(rows, session, Item, ["name"]))[1]

    async def by_hand(self, session: AsyncSession, rows: Payload) -> Any:
        connection = await session.connection()
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(Item)
        changes = {name: statement.excluded[name] for name in ("amount", "note")}
        statement = statement.on_conflict_do_update(index_elements=["name"], set_=changes)
        await connection.execute(statement, rows)
        names = [row["name"] for row in rows]
        found = (await session.exec(select(Item).where(col(Item.name).in_(names)))).all()
        by_name = {item.name: item for item in found}
        await session.commit()
        return [by_name[name] for name in names]


class IdsCase(Case):
    """Every second row of a table."""

    writes_to = Item

    async def prepare(self, session: AsyncSession) -> list[int]:
        await refill(session, Item, 2 * self.count)
        return list(range(1, 2 * self.count, 2))


class UpdateIds(IdsCase):
    async def library(self, session: AsyncSession, keys: list[int]) -> Any:
        return (await library.bulk_update_rows(keys, {"note": "new"}, session, Item))[1]

    async def by_hand(self, session: AsyncSession, keys: list[int]) -> Any:
        statement = update(Item).where(col(Item.id).in_(keys)).values(note="new")
        options = {"synchronize_session": False}
        result = await session.exec(statement, execution_options=options)
        await session.commit()
        return result.rowcount


class DeleteIds(IdsCase):
    async def library(self, session: AsyncSession, keys: list[int]) -> Any:
        return (await library.delete_rows_within_id_list(keys, session, Item))[1]

    async def by_hand(self, session: AsyncSession, keys: list[int]) -> Any:
        statement = delete(Item).where(col(Item.id).in_(keys))
        options = {"synchronize_session": False}
        result = await session.exec(statement, execution_options=options)
        await session.commit()
        return result.rowcount


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases of this group."""
    return [
        Insert("insert 10k mappings", sizes, sizes.many),
        Insert("insert 100k mappings", sizes, sizes.lots),
        InsertInstances("insert 10k, rows back", sizes, sizes.many),
        Upsert("upsert 10k, half existing, rows back", sizes, sizes.many),
        UpdateIds("update 10k ids", sizes, sizes.many),
        DeleteIds("delete 10k ids", sizes, sizes.many),
    ]
