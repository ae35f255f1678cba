"""A task that is cancelled inside a block: nothing is written, no connection is held.

Each test cancels the same work at its first suspension, its second, its third, … until the work
is done before the cancellation comes. Once the COMMIT is under way a cancellation waits for it and
is raised afterwards: then everything is written, and otherwise nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import event, func, literal
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import (
    bulk_insert_rows,
    bulk_upsert_mappings,
    create_pooled_engine,
    delete_row,
    get_one_or_create,
    get_rows,
    insert_data_rows,
    on_commit,
    purge_rows,
    restore_row,
    session_factory,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import QueryExecutionError, TransactionError
from sqlmodel_crud_utils.hooks import ValidateOnWrite, registered_hook
from tests.databases import Database, prepare
from tests.models import Hero
from tests.models_mixins import Letter
from tests.suspensions import Suspensions, run

Work = Callable[[AsyncSession], Awaitable[None]]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A plain engine; cut-off statements cost it connections."""
    engine = create_async_engine(database.async_url, pool_size=2, max_overflow=0)
    prepare(engine)
    async with engine.connect():
        pass
    yield engine
    await engine.dispose()
    database.clear()


@pytest.fixture
def commits(engine: AsyncEngine) -> list[str]:
    """The commits that were sent: SQLAlchemy fires the event just before the driver's COMMIT."""
    begun: list[str] = []
    event.listen(engine.sync_engine, "commit", lambda _connection: begun.append("COMMIT"))
    return begun


async def names(engine: AsyncEngine) -> list[str]:
    """Return the committed names."""
    async with AsyncSession(engine) as reader:
        return sorted((await reader.exec(select(Hero.name))).all())


async def plain_block(session: AsyncSession) -> None:
    """Two writes and a read."""
    async with transaction(session):
        await write_row(hero("one"), session)
        await get_rows(session, Hero)
        await asyncio.sleep(0)  # cancelled here, the connection is whole and is rolled back
        session.add(hero("two"))


async def nested_blocks(session: AsyncSession) -> None:
    """Blocks in blocks, and a savepoint of the user."""
    async with transaction(session):
        await write_row(hero("one"), session)
        async with transaction(session):
            await write_row(hero("two"), session)
            async with session.begin_nested():
                session.add(hero("three"))
                await asyncio.sleep(0)


async def failing_parts(session: AsyncSession) -> None:
    """Savepoints that are rolled back."""
    async with transaction(session):
        await write_row(hero("one"), session)
        await write_row(hero("one"), session, raise_on_error=False)
        await insert_data_rows([hero("two"), hero("one")], session, raise_on_error=False)
        with pytest.raises(TransactionError):
            async with transaction(session):
                await write_row(hero("two"), session)


async def other_writes(session: AsyncSession) -> None:
    """Every write that one row takes."""
    async with transaction(session):
        row, _ = await get_one_or_create(session, Hero, {"secret_name": "?"}, name="one")
        await update_row(row.id, {"age": 48}, session, Hero)
        await insert_data_rows([hero("two"), hero("three")], session)
        await delete_row("three", session, Hero, "name")


async def one_write(session: AsyncSession) -> None:
    """Outside any block."""
    await write_row(hero("one"), session)


async def many_rows(session: AsyncSession) -> None:
    """All or nothing, outside any block."""
    await insert_data_rows([hero("one"), hero("two")], session, raise_on_error=True)


WRITTEN = {
    plain_block: ["one", "two"],
    nested_blocks: ["one", "three", "two"],
    failing_parts: ["one", "two"],
    other_writes: ["one", "two"],
    one_write: ["one"],
    many_rows: ["one", "two"],
}


@pytest.mark.parametrize("repeated", [1, 2, 3])
@pytest.mark.parametrize("work", WRITTEN)
async def test_at_every_suspension(
    database: Database,
    engine: AsyncEngine,
    commits: list[str],
    work: Callable[[AsyncSession], Coroutine[Any, Any, None]],
    repeated: int,
) -> None:
    """All or nothing, the pool is whole, and the same session works at once.

    Cancelled again while it rolls back, the work still ends in order.
    """
    at = 0
    while True:
        at += 1
        async with AsyncSession(engine) as session:
            commits.clear()
            cancelled, count = await run(work(session), *range(at, at + repeated))
            committing = bool(commits)
            assert engine.pool.checkedout() == 0, f"at suspension {at}"
            assert not session.in_transaction()
            expected = WRITTEN[work] if committing else []
            assert await names(engine) == expected, f"at suspension {at}"
            assert (await write_row(hero("afterwards"), session))[0]
            assert await names(engine) == sorted([*expected, "afterwards"])
        database.clear()
        if count < at:
            break
        assert cancelled, f"at suspension {at}"
    assert not cancelled
    assert at > 2  # the statement and the commit at the least


@pytest.mark.parametrize("inside", [True, False], ids=["block", "no block"])
async def test_callbacks_follow_a_commit_that_a_cancellation_waited_for(
    database: Database, engine: AsyncEngine, commits: list[str], inside: bool
) -> None:
    """They belong to what is written; without the commit none runs."""
    at, count = 0, 1
    while count >= at:
        at += 1
        ran: list[str] = []

        async def notify(ran: list[str] = ran) -> None:
            await asyncio.sleep(0)
            ran.append("notified")

        async def work(session: AsyncSession) -> None:
            async with transaction(session) if inside else nullcontext():
                on_commit(session, notify)
                on_commit(session, lambda: ran.append("told"))  # noqa: B023
                await write_row(hero("one"), session)

        async with AsyncSession(engine) as session:
            commits.clear()
            cancelled, count = await run(work(session), at)
            assert cancelled == (count >= at)
            assert ran == (["notified", "told"] if commits else [])
            assert await names(engine) == (["one"] if commits else [])
            assert engine.pool.checkedout() == 0
        database.clear()


@pytest.mark.databases("sqlite")
async def test_a_connection_that_cannot_roll_back(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, logged_errors: list[tuple[str, str, str]]
) -> None:
    """It is given up all the same, its failure is logged, and the cancellation is raised."""

    async def refuse(_connection: object) -> None:
        raise sqlite3.OperationalError("not now")

    async with AsyncSession(engine) as session:
        with monkeypatch.context() as broken:
            broken.setattr(aiosqlite.Connection, "rollback", refuse)
            assert (await run(plain_block(session), 1))[0]
        assert engine.pool.checkedout() == 0
        assert [text for *_, text in logged_errors] == [
            "ending an interrupted statement failed: OperationalError"
        ]
        await plain_block(session)
    assert await names(engine) == ["one", "two"]


SEARCHES: dict[str, Work] = {
    "get_one_or_create": lambda session: get_one_or_create(session, Hero, name="Nova"),
    "update_row": lambda session: update_row("Nova", {"age": 1}, session, Hero, "name"),
    "delete_row": lambda session: delete_row("Nova", session, Hero, "name"),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
async def test_a_search_that_a_write_begins_with(engine: AsyncEngine, search: Work) -> None:
    """Cut off while it still searches, a write leaves a session that can be used at once."""

    def cancel(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and not task.done():
            task.cancel()

    async with AsyncSession(engine) as session:
        await write_row(hero("Nova"), session)
        await get_rows(session, Hero)  # leaves a transaction open
        with registered_hook(Hero, ValidateOnWrite()):
            event.listen(engine.sync_engine, "before_cursor_execute", cancel)
            task = asyncio.ensure_future(search(session))
            with pytest.raises(asyncio.CancelledError):
                await task
            event.remove(engine.sync_engine, "before_cursor_execute", cancel)
        assert (await write_row(hero("Max"), session))[0]
    assert engine.pool.checkedout() == 0


async def test_a_timeout(engine: AsyncEngine) -> None:
    """`asyncio.timeout` cancels, and turns that into its own error behind the block."""
    async with AsyncSession(engine) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                async with transaction(session):
                    await write_row(hero("one"), session)
                    await asyncio.sleep(60)
        assert engine.pool.checkedout() == 0
        assert await names(engine) == []
        async with transaction(session):
            await write_row(hero("two"), session)
    assert await names(engine) == ["two"]


async def test_a_timeout_inside_of_the_block(engine: AsyncEngine) -> None:
    """Caught in the block it is the user's affair: no statement was cut off."""
    async with AsyncSession(engine) as session, transaction(session):
        await write_row(hero("one"), session)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit, transaction(session):
                await write_row(hero("two"), session)
                limit.reschedule(0)
                await asyncio.sleep(60)
    assert await names(engine) == ["one"]


async def test_the_cancellation_itself_is_raised(engine: AsyncEngine) -> None:
    """Unwrapped, with its message, so that task groups and servers understand it."""
    waiting = asyncio.Event()

    async def work() -> None:
        async with AsyncSession(engine) as session, transaction(session), transaction(session):
            await write_row(hero("one"), session)
            waiting.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await waiting.wait()
    task.cancel("stop")
    with pytest.raises(asyncio.CancelledError, match="stop"):
        await task
    assert engine.pool.checkedout() == 0
    assert await names(engine) == []


async def test_an_abandoned_generator(engine: AsyncEngine) -> None:
    """Closing it raises GeneratorExit in the block, which is rolled back."""

    async def stream(session: AsyncSession) -> AsyncIterator[int]:
        async with transaction(session):
            await write_row(hero("one"), session)
            yield 1

    async with AsyncSession(engine) as session:
        rows = stream(session)
        assert await anext(rows) == 1
        await rows.aclose()  # type: ignore[attr-defined]
        assert engine.pool.checkedout() == 0
        assert await names(engine) == []


async def test_while_it_waits_for_a_connection(database: Database) -> None:
    """The block has not begun; the pool keeps its count."""
    engine = create_async_engine(database.async_url, pool_size=1, max_overflow=0)
    async with AsyncSession(engine) as holder, AsyncSession(engine) as session:
        await holder.exec(select(Hero))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), transaction(session):
                pytest.fail("the block must not run")
        assert engine.pool.checkedout() == 1
        await holder.rollback()
        assert engine.pool.checkedout() == 0
        async with transaction(session):
            pass
    await engine.dispose()


async def insert_many(session: AsyncSession) -> None:
    """With statements that go to the driver itself."""
    await bulk_insert_rows(
        [{"name": str(n), "secret_name": "?"} for n in range(5000)], session, Hero
    )


async def upsert_many(session: AsyncSession) -> None:
    """The same, with a key."""
    rows = [{"name": str(n), "secret_name": "?"} for n in range(5000)]
    await bulk_upsert_mappings(rows, session, Hero, ["name"])


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("work", [insert_many, upsert_many])
async def test_sqlite_is_not_locked_by_a_bulk_write_that_was_cut_off(
    database: Database, work: Callable[[AsyncSession], Coroutine[Any, Any, None]]
) -> None:
    """Whoever holds the exception; the engine has not had a block before."""
    held: list[BaseException] = []
    at = 0
    while True:
        at += 1
        engine = create_async_engine(database.async_url, connect_args={"timeout": 0.2})
        async with AsyncSession(engine) as session:
            driver = Suspensions(work(session), {at})
            try:
                await asyncio.create_task(driver.run())
            except asyncio.CancelledError as error:
                held.append(error)
        if driver.cancelled:
            async with AsyncSession(engine) as other:
                assert (await write_row(hero("next"), other))[0], f"at suspension {at}"
        await engine.dispose()
        database.clear()
        if not driver.cancelled:
            break
    assert held


async def find_or_create(session: AsyncSession) -> None:
    """It looks first."""
    await get_one_or_create(session, Hero, {"secret_name": "?"}, name="one")


async def change_by_key(session: AsyncSession) -> None:
    """With a hook it looks first; without, only on MySQL."""
    with registered_hook(Hero, ValidateOnWrite()):
        await update_row("there", {"age": 5}, session, Hero, "name")
    await delete_row("there", session, Hero, "name")


async def restore(session: AsyncSession) -> None:
    """Soft deletion, and back."""
    await delete_row(1, session, Letter)
    await restore_row(1, session, Letter)


async def read(session: AsyncSession) -> None:
    """All rows at once."""
    await get_rows(session, Hero)


@pytest.mark.parametrize("work", [find_or_create, change_by_key, restore, read])
async def test_the_session_goes_on_after_a_call_that_was_cut_off(
    database: Database,
    engine: AsyncEngine,
    work: Callable[[AsyncSession], Coroutine[Any, Any, None]],
) -> None:
    """While it looks for the row that it writes to, too."""
    at, count = 0, 1
    while count >= at:
        at += 1
        async with AsyncSession(engine) as session:
            await write_row(hero("there"), session)
            await write_row(Letter(id=1, text="?"), session)
            _, count = await run(work(session), at)
            assert (await write_row(hero("next"), session, raise_on_error=True))[0]
            assert engine.pool.checkedout() == 0
        database.clear()


@pytest.mark.databases("sqlite")
async def test_a_timeout_of_a_purge_is_a_timeout(database: Database, engine: AsyncEngine) -> None:
    """It is raised at any moment, even while a cursor is closed, and no other error instead."""
    at, count = 0, 1
    while count >= at:
        at += 1
        async with AsyncSession(engine) as session:
            letters = [{"text": "?", "is_deleted": True, "deleted_at": LONG_AGO} for _ in range(30)]
            await bulk_insert_rows(letters, session, Letter)
            work = purge_rows(session, Letter, older_than=timedelta(0), chunk_size=10)
            _, count = await run(work, at)
        database.clear()


async def failing_block(session: AsyncSession) -> None:
    """Everything is undone at the exit."""
    with suppress(TransactionError):
        async with transaction(session):
            await write_row(hero("one"), session)
            raise ValueError


async def failing_savepoint(session: AsyncSession) -> None:
    """The inner part is undone, then the outer one."""
    with suppress(TransactionError):
        async with transaction(session):
            await write_row(hero("one"), session)
            async with transaction(session):
                await write_row(hero("two"), session)
                raise ValueError


async def failing_write(session: AsyncSession) -> None:
    """A single call that fails when it has written something."""

    def fail(_done: int, _total: int | None) -> None:
        raise ValueError

    with suppress(ValueError):
        await bulk_insert_rows([hero("one")], session, Hero, progress=fail)


async def refused_search(session: AsyncSession) -> None:
    """A statement is refused before anything is written."""

    def refuse(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("refused"))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", refuse)
    try:
        with suppress(QueryExecutionError):
            await get_one_or_create(session, Hero, {"secret_name": "?"}, name="one")
    finally:
        event.remove(engine, "before_cursor_execute", refuse)


@pytest.mark.parametrize("work", [failing_block, failing_savepoint, failing_write, refused_search])
async def test_a_rollback_that_is_under_way_is_carried_out(
    engine: AsyncEngine,
    work: Callable[[AsyncSession], Coroutine[Any, Any, None]],
) -> None:
    """A cancellation waits for it, so that it does not cost the connection."""
    connected: list[object] = []
    async with AsyncSession(engine) as session:
        task = asyncio.create_task(work(session))

        def cancel(*_: object) -> None:
            asyncio.get_running_loop().call_soon(task.cancel)

        for name in ("rollback", "rollback_savepoint"):
            event.listen(engine.sync_engine, name, cancel, once=True)
        event.listen(engine.sync_engine, "connect", lambda *_: connected.append(None))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await write_row(hero("next"), session))[0]
    assert connected == []


@pytest.mark.databases("postgresql")
async def test_a_replica_is_not_to_blame(database: Database) -> None:
    """A session whose read was cancelled goes on at the primary; others still read the replica."""
    primary, replica = (create_pooled_engine(database.async_url) for _ in range(2))
    reads: list[str] = []
    event.listen(replica.sync_engine, "before_cursor_execute", lambda *args: reads.append(args[2]))
    new_session = session_factory(primary, replicas=[replica])
    async with new_session() as session:
        reading = asyncio.create_task(session.exec(select(func.pg_sleep(5))))
        await asyncio.sleep(0.3)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await session.exec(select(literal(1)))).one() == 1
    reads.clear()
    async with new_session() as session:
        await session.exec(select(literal(1)))
    assert len(reads) == 1
    await primary.dispose()
    await replica.dispose()
