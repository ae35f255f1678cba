"""Every kind of write is recorded: replayed from the start, the history gives the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import delete, insert, select, update

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    insert_data_rows,
    purge_rows,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.ext.history import ChangeHistory
from tests._runtime_async import AsyncEngine, AsyncSession, execute
from tests.databases import Database
from tests.history_models import Docket, Pallet
from tests.properties import examples

MODELS: tuple[type[Any], ...] = (Pallet, Docket)
MANY = 120  # from 100 rows on they are written past the flush
Rows = dict[str, dict[str, Any]]

names = count()


# --- what is there, and what the history says -------------------------------------------------


async def replayed(session: AsyncSession, model: type[Any]) -> Rows:
    """Return the rows that the history makes; each change has to go on where the last one ended."""
    of_model = ChangeHistory.table_name == model.__tablename__
    found = await execute(session, select(ChangeHistory).where(of_model).order_by("id"))
    rows: Rows = {}
    for change in found.scalars():
        row = rows.setdefault(change.row_key, {}) if change.operation == "create" else None
        row = rows[change.row_key] if row is None else row
        for name, (old, new) in change.changes.items():
            assert old != new
            assert row.get(name) == old, (change, row)
            row[name] = new
        if change.operation == "delete":
            assert set(rows.pop(change.row_key).values()) <= {None}
    return rows


async def stored(session: AsyncSession, model: type[Any]) -> Rows:
    """Return the rows of a table by their keys."""
    rows = (await execute(session, select(*model.__table__.c))).mappings().all()
    return {str(row["id"]): {name: text_of(row[name]) for name in row} for row in rows}


def text_of(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value


async def compare(session: AsyncSession) -> None:
    """Check all tables."""
    for model in MODELS:
        made = await replayed(session, model)
        expected = await stored(session, model)
        assert made == {
            key: {
                name: value for name, value in row.items() if value is not None or name in made[key]
            }
            for key, row in expected.items()
        }
    await session.rollback()


# --- the ways of writing --------------------------------------------------------------------------


@dataclass
class Program:
    """The state that steps work with."""

    session: AsyncSession
    model: type[Any]
    number: int
    in_block: bool

    def new(self, **values: Any) -> Any:
        return self.model(**self.mapping(), **values)

    def mapping(self) -> dict[str, Any]:
        return {"name": f"n{next(names)}", "stock": self.number}

    def mappings(self, how_many: int) -> list[dict[str, Any]]:
        return [self.mapping() for _ in range(how_many)]

    async def ids(self) -> list[int]:
        """The keys that the table has."""
        statement = select(self.model.id).order_by(self.model.id)
        return list((await execute(self.session, statement)).scalars())

    async def some(self) -> list[int]:
        """Keys of rows, and one that no row has."""
        return [*(await self.ids())[: 1 + self.number % 5], 987_654]

    async def one(self) -> int:
        """The key of a row if there is any."""
        ids = await self.ids()
        return ids[self.number % len(ids)] if ids else 987_654

    async def row(self) -> Any:
        """A row if there is any."""
        return await self.session.get(self.model, await self.one())

    @property
    def query(self) -> AsyncQueryBuilder[Any]:
        """A query for some rows."""
        return AsyncQueryBuilder(self.session, self.model).where(stock__lte=self.number)

    async def end(self) -> None:
        """Write what is pending; commit it outside a block."""
        if self.in_block:
            await self.session.flush()
        else:
            await self.session.commit()


STEPS: dict[str, Callable[[Program], Any]] = {}


def step(function: Callable[[Program], Any]) -> Callable[[Program], Any]:
    """Make a function a way of writing that programs draw."""
    STEPS[function.__name__] = function
    return function


@step
async def write_new(p: Program) -> None:
    await write_row(p.new(), p.session, raise_on_error=False)


@step
async def write_twice(p: Program) -> None:
    _, row = await write_row(p.new(), p.session, raise_on_error=False)
    row.stock += 1
    await write_row(row, p.session, raise_on_error=False)


@step
async def write_refused(p: Program) -> None:
    row = p.new()
    twin = p.model(name=row.name)
    await write_row(row, p.session, raise_on_error=False)
    assert await write_row(twin, p.session, raise_on_error=False) == (False, None)


@step
async def insert_some(p: Program) -> None:
    await insert_data_rows([p.new(), p.new()], p.session, raise_on_error=False)


@step
async def insert_many(p: Program) -> None:
    await insert_data_rows([p.new() for _ in range(MANY)], p.session, raise_on_error=False)


@step
async def insert_partly(p: Program) -> None:
    row = p.new()
    rows = [p.new(), row, p.model(name=row.name)]
    await insert_data_rows(rows, p.session, raise_on_error=False)


@step
async def get_or_create(p: Program) -> None:
    name = f"n{next(names)}"
    await get_one_or_create(p.session, p.model, {"stock": p.number}, name=name)
    await get_one_or_create(p.session, p.model, {"stock": 77}, name=name)


@step
async def update_one(p: Program) -> None:
    key = await p.one()
    await update_row(key, {"stock": p.number}, p.session, p.model, raise_on_error=False)


@step
async def update_one_with_sql(p: Program) -> None:
    key = await p.one()
    await update_row(key, {"stock": p.model.stock + 1}, p.session, p.model, raise_on_error=False)


@step
async def update_one_that_is_held(p: Program) -> None:
    row = await p.row()
    key = await p.one()
    await update_row(key, {"stock": p.number}, p.session, p.model, raise_on_error=False)
    assert row is None or row.id == key


@step
async def delete_one(p: Program) -> None:
    await delete_row(await p.one(), p.session, p.model, raise_on_error=False)


@step
async def remove_one(p: Program) -> None:
    await delete_row(await p.one(), p.session, p.model, soft=False, raise_on_error=False)


@step
async def mark_and_restore(p: Program) -> None:
    if p.model is Docket:
        key = await p.one()
        await soft_delete_row(key, p.session, p.model, raise_on_error=False)
        await restore_row(key, p.session, p.model, raise_on_error=False)


@step
async def purge(p: Program) -> None:
    if p.model is Docket:
        await delete_row(await p.one(), p.session, p.model, raise_on_error=False)
        await purge_rows(p.session, p.model, older_than=timedelta(0))


@step
async def bulk_insert(p: Program) -> None:
    await bulk_insert_rows(p.mappings(3), p.session, p.model)


@step
async def bulk_insert_many(p: Program) -> None:
    await bulk_insert_rows(p.mappings(MANY), p.session, p.model)


@step
async def bulk_insert_ignoring(p: Program) -> None:
    rows = p.mappings(2)
    await bulk_insert_rows([*rows, rows[0]], p.session, p.model, on_conflict="ignore")


@step
async def bulk_update(p: Program) -> None:
    await bulk_update_rows(await p.some(), {"stock": p.number}, p.session, p.model)


@step
async def bulk_delete(p: Program) -> None:
    await delete_rows_within_id_list(await p.some(), p.session, p.model)


@step
async def bulk_remove(p: Program) -> None:
    await delete_rows_within_id_list(await p.some(), p.session, p.model, soft=False)


@step
async def upsert(p: Program) -> None:
    rows = p.mappings(2)
    await bulk_upsert_mappings(rows, p.session, p.model, ["name"])
    again = [{**rows[0], "stock": 5}, *p.mappings(1)]
    await bulk_upsert_mappings(again, p.session, p.model, ["name"])


@step
async def upsert_leaving_alone(p: Program) -> None:
    rows = p.mappings(2)
    await bulk_upsert_mappings(rows[:1], p.session, p.model, ["name"], return_rows=False)
    again = [{**row, "stock": 99} for row in rows]
    await bulk_upsert_mappings(again, p.session, p.model, ["name"], update_columns=[])


@step
async def upsert_many(p: Program) -> None:
    rows = p.mappings(MANY)
    await bulk_upsert_mappings(rows, p.session, p.model, ["name"], return_rows=False)
    again = [{**row, "stock": index} for index, row in enumerate(rows)]
    await bulk_upsert_mappings(again, p.session, p.model, ["name"], return_rows=False)


@step
async def query_update(p: Program) -> None:
    await p.query.update(stock=p.number)


@step
async def query_update_to_null(p: Program) -> None:
    await p.query.update(stock=None)


@step
async def query_update_with_sql(p: Program) -> None:
    await p.query.update(stock=p.model.stock + 1)


@step
async def query_delete(p: Program) -> None:
    await p.query.delete()


@step
async def query_remove(p: Program) -> None:
    await p.query.delete(soft=False)


@step
async def flush_new(p: Program) -> None:
    p.session.add_all([p.new(), p.new()])
    await p.end()


@step
async def flush_changed(p: Program) -> None:
    row = await p.row()
    if row is not None:
        row.stock = (row.stock or 0) + 1
        row.name = f"n{next(names)}"
    await p.end()


@step
async def flush_expired(p: Program) -> None:
    row = await p.row()
    if row is not None:
        p.session.expire(row)
        row.stock = 41
    await p.end()


@step
async def flush_deleted(p: Program) -> None:
    row = await p.row()
    if row is not None:
        await p.session.delete(row)
    await p.end()


@step
async def orm_update(p: Program) -> None:
    statement = update(p.model).where(p.model.stock > 1).values(stock=p.number)
    await execute(p.session, statement)
    await p.end()


@step
async def orm_update_by_keys(p: Program) -> None:
    rows = [{"id": key, "stock": p.number} for key in (await p.ids())[:2]]
    if p.model is Pallet and rows:  # versions are for rows that are flushed
        await execute(p.session, update(p.model), rows)
    await p.end()


@step
async def orm_delete(p: Program) -> None:
    await execute(p.session, delete(p.model).where(p.model.stock == p.number))
    await p.end()


@step
async def orm_insert(p: Program) -> None:
    await execute(p.session, insert(p.model).values(**p.mapping()))
    rows = await execute(p.session, insert(p.model).returning(p.model), p.mappings(2))
    assert [row.stock for row in rows.scalars()] == [p.number] * 2
    await p.end()


@step
async def core_insert(p: Program) -> None:
    table = p.model.__table__
    result = await execute(p.session, insert(table), p.mapping())
    assert result.inserted_primary_key[0] is not None  # type: ignore[attr-defined]
    await execute(p.session, insert(table), p.mappings(2))
    await execute(p.session, insert(table).values(p.mappings(2)))
    await p.end()


@step
async def core_update(p: Program) -> None:
    table = p.model.__table__
    await execute(p.session, update(table).where(table.c.stock > 1).values(stock=p.number))
    await p.end()


@step
async def core_delete(p: Program) -> None:
    table = p.model.__table__
    await execute(p.session, delete(table).where(table.c.stock < p.number))
    await p.end()


# --- the programs ---------------------------------------------------------------------------------

Step = tuple[str, type[Any], int]
steps = st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(MODELS), st.integers(0, 9))
blocks = st.tuples(
    st.sampled_from(["block", "savepoint", "failing block", "failing savepoint"]),
    st.lists(steps, min_size=1, max_size=4),
)


class UndoneError(Exception):
    """An exception that undoes a block."""


async def run(session: AsyncSession, each: Step, *, in_block: bool = False) -> None:
    name, model, number = each
    await STEPS[name](Program(session, model, number, in_block))


async def run_block(session: AsyncSession, how: str, program: Sequence[Step]) -> None:
    """Run steps in a block, or in a savepoint in it; a failing one is undone."""

    async def inner() -> None:
        for each in program:
            await run(session, each, in_block=True)
        if how.startswith("failing"):
            raise UndoneError

    with suppress(UndoneError):
        async with transaction(session, wrap_errors=False):
            if "savepoint" not in how:
                await inner()
                return
            with suppress(UndoneError):
                async with transaction(session, wrap_errors=False):
                    await inner()


@pytest.mark.parametrize("name", sorted(STEPS))
async def test_each_way_is_recorded(session: AsyncSession, name: str) -> None:
    """For every write, the history matches the rows; undone changes are not in it."""
    for model in MODELS:
        await write_row(model(name="first", stock=2), session)
        await write_row(model(name="second", stock=3), session)
        await run(session, (name, model, 4))
        await compare(session)
        await run_block(session, "failing savepoint", [(name, model, 4)])
        await compare(session)


@examples(40)
@given(program=st.lists(steps | blocks, max_size=6))
async def test_the_history_replayed_gives_the_table(
    engine: AsyncEngine, database: Database, program: list[Any]
) -> None:
    """For any writes and rollbacks of a program."""
    try:
        async with AsyncSession(engine) as session:
            for each in program:
                if len(each) == 2:
                    await run_block(session, *each)
                else:
                    await run(session, each)
                await compare(session)
    finally:
        database.clear()
