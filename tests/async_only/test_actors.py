"""`acting_as` among tasks: each has its own name, also while others run in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from sqlmodel_crud_utils.aio import (
    bulk_upsert_mappings,
    get_rows,
    insert_data_rows,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.mixins import acting_as, current_actor
from tests.databases import Database, wait_for_locks
from tests.models_mixins import Letter, Memo

TASKS = 200


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine whose connections the tasks have to wait for."""
    engine = create_async_engine(database.async_url, pool_size=5, max_overflow=0, pool_timeout=120)
    wait_for_locks(engine)
    yield engine
    await engine.dispose()
    database.clear()


async def test_two_hundred_tasks_write_with_their_own_names(engine: AsyncEngine) -> None:
    """Inserts, updates, soft deletes and Core statements, all of them interleaved."""

    async def work(number: int) -> None:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            with acting_as(f"writer {number}"):
                letter = Letter(text=str(number))
                session.add(letter)
                await session.flush()
                await asyncio.sleep(0)
                with acting_as(f"editor {number}"):
                    letter.text = f"{number}!"
                    await session.flush()
                await session.execute(insert(Memo).values(text=str(number)))
                await asyncio.sleep(0)
                letter.soft_delete()
                await session.commit()
                assert letter.updated_by == f"writer {number}"

    with acting_as("main"):
        await asyncio.gather(*(work(number) for number in range(TASKS)))
        assert current_actor() == "main"

    async with AsyncSession(engine) as session:
        letters = (await session.execute(select(Letter))).scalars().all()
        memos = (await session.execute(select(Memo))).scalars().all()
    assert len(letters) == len(memos) == TASKS
    for letter in letters:
        name = f"writer {letter.text.removesuffix('!')}"
        assert (letter.created_by, letter.updated_by, letter.deleted_by) == (name, name, name)
    assert {memo.created_by for memo in memos} == {f"writer {n}" for n in range(TASKS)}


async def test_two_hundred_tasks_use_the_library_with_their_own_names(engine: AsyncEngine) -> None:
    """Its functions write the task's name, set-based ones and soft deletions included."""
    # They are there already: transactions that insert side by side deadlock on MySQL.
    async with AsyncSession(engine) as session:
        await insert_data_rows([Memo(id=n + 1, text="") for n in range(TASKS)], session)

    async def work(number: int) -> None:
        async with AsyncSession(engine) as session:
            with acting_as(f"writer {number}"):
                async with transaction(session):
                    _, letter = await write_row(Letter(text=str(number)), session)
                    key = letter.id
                    await asyncio.sleep(0)
                    with acting_as(f"editor {number}"):
                        await update_row(key, {"text": f"{number}!"}, session, Letter)
                    rows = [{"id": number + 1, "text": str(number)}]
                    await bulk_upsert_mappings(rows, session, Memo)
                with acting_as(f"remover {number}"):
                    assert await soft_delete_row(key, session, Letter)

    async with asyncio.TaskGroup() as tasks:
        for number in range(TASKS):
            tasks.create_task(work(number))

    async with AsyncSession(engine) as session:
        letters = (await get_rows(session, Letter, page_size=TASKS, include_deleted=True))[1]
        memos = (await get_rows(session, Memo, page_size=TASKS))[1]
    assert len(letters) == TASKS
    for letter in letters:
        number = letter.text.removesuffix("!")
        assert letter.created_by == f"writer {number}"
        assert letter.deleted_by == letter.updated_by == f"remover {number}"
    assert [memo.updated_by for memo in memos] == [f"writer {memo.text}" for memo in memos]
    assert len(memos) == TASKS


async def test_a_task_that_is_started_inside_carries_the_name() -> None:
    """It keeps the name that held when it was started."""

    async def name() -> str | None:
        await asyncio.sleep(0)
        return current_actor()

    with acting_as("alice"):
        task = asyncio.create_task(name())
    assert current_actor() is None
    assert await task == "alice"


async def test_a_dependency_may_hold_the_name_around_a_request() -> None:
    """As an async generator of FastAPI does, also when it is closed in another task."""

    async def dependency() -> AsyncGenerator[None, None]:
        with acting_as("alice"):
            yield

    async def request() -> str | None:
        held = dependency()
        await anext(held)
        name = current_actor()
        await asyncio.create_task(held.aclose())
        return name

    assert await asyncio.create_task(request()) == "alice"
    assert current_actor() is None
