"""A session that two tasks use at once: refused before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    get_one_or_create,
    get_rows,
    on_commit,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import SQLModelCRUDError, TransactionError, ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests.databases import Database, prepare
from tests.models import Hero


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A plain engine."""
    engine = create_async_engine(database.async_url)
    prepare(engine)
    yield engine
    await engine.dispose()
    database.clear()


async def names(engine: AsyncEngine) -> list[str]:
    """Return the committed names."""
    async with AsyncSession(engine) as reader:
        return sorted((await reader.exec(select(Hero.name))).all())


CALLS: dict[str, Callable[[AsyncSession], Awaitable[object]]] = {
    "write_row": lambda session: write_row(hero("Nova"), session),
    "update_row": lambda session: update_row(1, {"age": 1}, session, Hero),
    "get_rows": lambda session: get_rows(session, Hero),
    "get_one_or_create": lambda session: get_one_or_create(session, Hero, name="Nova"),
    "bulk_insert_rows": lambda session: bulk_insert_rows([hero("Nova")], session, Hero),
    "count": lambda session: AsyncQueryBuilder(session, Hero).count(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_the_second_task_is_refused(
    engine: AsyncEngine, call: Callable[[AsyncSession], Awaitable[object]]
) -> None:
    """The message says what to do; the first task continues, and the session stays usable."""
    async with AsyncSession(engine) as session:
        first, second = await asyncio.gather(
            write_row(hero("Rusty"), session), call(session), return_exceptions=True
        )
        assert not isinstance(first, BaseException)
        assert isinstance(second, ValidationError)
        assert second.field == "session"
        assert "one session per task" in str(second)
        assert (await write_row(hero("Sid"), session))[0]
    assert await names(engine) == ["Rusty", "Sid"]
    assert engine.pool.checkedout() == 0


async def test_blocks_of_two_tasks(engine: AsyncEngine) -> None:
    """The second block does not become a savepoint of the first as long as that begins."""

    async def work(name: str) -> None:
        async with transaction(session, wrap_errors=False):
            await write_row(hero(name), session)

    async with AsyncSession(engine) as session:
        outcomes = await asyncio.gather(work("Rusty"), work("Nova"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), ValidationError]
    assert await names(engine) == ["Rusty"]


async def test_the_callers_own_statement_at_the_same_time(engine: AsyncEngine) -> None:
    """Errors of SQLAlchemy or the driver are translated to the same message."""
    async with AsyncSession(engine) as session:
        outcomes = await asyncio.gather(
            session.exec(select(Hero)), get_rows(session, Hero), return_exceptions=True
        )
        told = [each for each in outcomes if isinstance(each, ValidationError)]
        assert len(told) == 1
        assert "one session per task" in str(told[0])
        await session.rollback()


async def test_tasks_of_the_same_work(engine: AsyncEngine) -> None:
    """Tasks that a hook or a block starts and awaits are not a second user."""

    class Asks:
        async def after_create(self, instance: Hero) -> None:
            if instance.name == "Rusty":
                row = hero("Nova")
                await asyncio.wait_for(write_row(row, session), 10)
                on_commit(session, later)

    async def later() -> None:
        await write_row(hero("later"), session)

    async with AsyncSession(engine) as session:
        with registered_hook(Hero, Asks()):
            await write_row(hero("Rusty"), session)
        async with transaction(session):
            await asyncio.wait_for(write_row(hero("Sid"), session), 10)
    assert await names(engine) == ["Nova", "Rusty", "Sid", "later"]


async def test_a_block_whose_body_uses_two_tasks(engine: AsyncEngine) -> None:
    """The refusal is an error of the block, which also undoes the other task's write."""
    for _ in range(10):  # how far the other task is by then differs
        async with AsyncSession(engine) as session:
            with pytest.raises(TransactionError) as caught:
                async with transaction(session):
                    await asyncio.gather(
                        write_row(hero("Rusty"), session), write_row(hero("Nova"), session)
                    )
            assert isinstance(caught.value.original_error, ValidationError)
        assert await names(engine) == []
    assert engine.pool.checkedout() == 0


async def test_an_inner_block_whose_body_uses_two_tasks(engine: AsyncEngine) -> None:
    """The connection is discarded with the other task's write, and the outer block is lost."""
    for _ in range(5):
        async with AsyncSession(engine) as session:
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("Sid"), session)
                    with pytest.raises(TransactionError):
                        async with transaction(session):
                            await asyncio.gather(
                                write_row(hero("Rusty"), session), write_row(hero("Nova"), session)
                            )
                    await asyncio.sleep(0.01)
                    await write_row(hero("Max"), session)
        assert await names(engine) == []
    assert engine.pool.checkedout() == 0


async def test_such_a_block_in_the_callers_own(engine: AsyncEngine) -> None:
    """However the caller's transaction ends, nothing of the block is in it."""
    for _ in range(5):
        with suppress(SQLAlchemyError, SQLModelCRUDError):
            async with AsyncSession(engine) as session, session.begin():
                await write_row(hero("Sid"), session)
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await asyncio.gather(
                            write_row(hero("Rusty"), session), write_row(hero("Nova"), session)
                        )
                await asyncio.sleep(0.01)
                await write_row(hero("Max"), session)
        assert not {"Rusty", "Nova"} & set(await names(engine))
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("end", ["rollback", "close", "commit"])
async def test_a_transaction_that_is_ended_while_another_task_writes(
    engine: AsyncEngine, end: str
) -> None:
    """At any moment, exactly the rows reported as written are written."""
    written = []
    for moment in range(16):

        async def other(session: AsyncSession, moment: int) -> None:
            for _ in range(moment):
                await asyncio.sleep(0)
            await getattr(session, end)()

        async with AsyncSession(engine) as session:
            name = f"hero {moment:02}"
            outcome, _ = await asyncio.gather(
                write_row(hero(name), session), other(session, moment), return_exceptions=True
            )
            if not isinstance(outcome, BaseException) and outcome[0]:
                written.append(name)
            else:
                assert not isinstance(outcome, BaseException) or isinstance(
                    outcome, SQLModelCRUDError
                )
        assert await names(engine) == written
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("in_block", [False, True])
async def test_connections_that_are_invalidated_while_another_task_writes(
    engine: AsyncEngine, in_block: bool
) -> None:
    """Until the driver has answered, the session shows a new transaction; nothing is in it."""
    written = asyncio.Event()

    async def invalidated(session: AsyncSession) -> None:
        await written.wait()
        await session.invalidate()

    def waits(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT"):
            written.set()
            await_only(asyncio.sleep(0.02))

    def answers_late(*_: object) -> None:
        await_only(asyncio.sleep(0.2))

    async with AsyncSession(engine) as session:
        other = asyncio.create_task(invalidated(session))
        event.listen(engine.sync_engine, "after_cursor_execute", waits)
        event.listen(
            engine.sync_engine.pool, "invalidate", lambda *_: await_only(asyncio.sleep(0.2))
        )
        with pytest.raises((ValidationError, TransactionError), match="another task"):
            if in_block:
                async with transaction(session):
                    await write_row(hero("Rusty"), session)
            else:
                await write_row(hero("Rusty"), session)
        await other
        event.remove(engine.sync_engine, "after_cursor_execute", waits)
    assert await names(engine) == []
    assert engine.pool.checkedout() == 0
    async with AsyncSession(engine) as session:
        assert (await write_row(hero("Nova"), session))[0]


async def test_a_cancellation_is_not_replaced(engine: AsyncEngine) -> None:
    """If another task ends a cancelled task's transaction, the cancellation still propagates."""

    class Waits:
        async def after_create(self, _instance: Hero) -> None:
            reached.set()
            await asyncio.sleep(60)

    reached = asyncio.Event()
    async with AsyncSession(engine) as session:
        with registered_hook(Hero, Waits()):
            task = asyncio.create_task(write_row(hero("Rusty"), session))
            await reached.wait()
            await session.rollback()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert await names(engine) == []
    assert engine.pool.checkedout() == 0
