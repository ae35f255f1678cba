"""Every public function, cancelled at each of its suspensions: nothing is half written or held.

After each cancellation the same session writes again, and a new one does; the rows are those from
before the call or those from after it, and no connection stays out.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from sqlmodel_crud_utils import aio
from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    create_pooled_engine,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    invalidate_cache,
    on_commit,
    pool_status,
    purge_rows,
    replication_token,
    restore_row,
    run_transaction,
    session_factory,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConflictError, TransactionError
from sqlmodel_crud_utils.ext.fastapi import session_dependency
from sqlmodel_crud_utils.hooks import registered_hook
from tests.chaos_models import Entry
from tests.databases import Database
from tests.models import Team
from tests.suspensions import run

pytestmark = pytest.mark.chaos

MANY = 120  # from 100 rows on they are written past the flush
names = count()
Work = Callable[[Any], Awaitable[Any]]


def entry(name: str, **values: Any) -> Entry:
    """Return a row that is not written yet."""
    return Entry(name=name, **values)


def mappings(how_many: int) -> list[dict[str, Any]]:
    """Return rows for the bulk functions."""
    return [{"name": f"new {number}"} for number in range(how_many)]


class Asking:
    """A hook that queries, so that it can be cut off."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def before_create(self, _instance: Any) -> None:
        await get_rows(self._session, Team)

    async def after_update(self, _instance: Any) -> None:
        await get_rows(self._session, Team)

    async def before_delete(self, _instance: Any) -> None:
        await get_rows(self._session, Team)


async def streamed(session: Any) -> None:
    """Read a stream to its end."""
    async for _ in QueryBuilder(session, Entry).stream(batch_size=2):
        pass


async def asked_how_far(session: Any) -> None:
    """Ask for a token; only PostgreSQL has them."""
    if session.bind.dialect.name == "postgresql":
        await replication_token(session)


async def in_a_block(session: Any) -> None:
    """Write in blocks."""
    async with transaction(session):
        await write_row(entry("one"), session)
        async with transaction(session):
            await update_row("b", {"size": 7}, session, Entry, "name")
        await write_row(entry("two"), session)


async def hooked(session: Any, function: Work) -> None:
    """Call a function with a hook."""
    with registered_hook(Entry, Asking(session)):
        await function(session)


async def with_a_callback(session: Any) -> None:
    """Write with a callback that waits."""

    async def callback() -> None:
        await asyncio.sleep(0)

    on_commit(session, callback)
    await write_row(entry("one"), session)


class Shadowing:
    """A hook that writes a row of its own."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def after_create(self, instance: Any) -> None:
        if not instance.name.startswith("shadow"):
            await write_row(entry(f"shadow of {instance.name}"), self._session)


async def shadowed(session: Any, function: Work) -> None:
    """Call a function with a hook that writes."""
    with registered_hook(Entry, Shadowing(session)):
        await function(session)


async def in_a_repeatable_function(session: Any) -> None:
    """Write in a function that may run again, and does."""
    runs = count(1)

    async def work(own: Any) -> None:
        await write_row(entry("one"), own)
        if next(runs) == 1:
            raise ConflictError(Entry)
        await update_row("b", {"size": 7}, own, Entry, "name")

    await run_transaction(session_factory(session.bind), work)


async def in_failing_blocks(session: Any) -> None:
    """Undo parts of a block: one call, a nested block, an explicit savepoint."""
    async with transaction(session):
        await write_row(entry("a"), session, raise_on_error=False)
        with suppress(TransactionError):
            async with transaction(session):
                await write_row(entry("one"), session)
                raise ValueError
        savepoint = await session.begin_nested()
        await update_row("b", {"size": 7}, session, Entry, "name")
        await savepoint.rollback()
        await write_row(entry("two"), session)


async def in_the_callers_block(session: Any) -> None:
    """Write in a transaction of the caller's own."""
    async with session.begin():
        await write_row(entry("one"), session)
        async with transaction(session):
            await update_row("b", {"size": 7}, session, Entry, "name")


async def aggregated(session: Any) -> None:
    """Ask for every kind of number."""
    query = builder(session)
    await query.sum("size")
    await query.avg("size")
    await query.min("size")
    await query.max("size")


def builder(session: Any) -> QueryBuilder[Entry]:
    """Return a query for two rows."""
    return QueryBuilder(session, Entry).where(name__startswith="b")


WORKS: dict[str, Work] = {
    "write_row": lambda s: write_row(entry("one"), s),
    "insert_data_rows": lambda s: insert_data_rows([entry("one"), entry("two")], s),
    "insert_data_rows, many": lambda s: insert_data_rows(
        [entry(f"new {number}") for number in range(MANY)], s
    ),
    "write_row, refused": lambda s: write_row(entry("a"), s),
    "insert_data_rows, some refused": lambda s: insert_data_rows([entry("one"), entry("a")], s),
    "insert_data_rows, all or none": lambda s: insert_data_rows(
        [entry("one"), entry("two")], s, raise_on_error=True
    ),
    "get_one_or_create": lambda s: get_one_or_create(s, Entry, {"size": 1}, name="one"),
    "get_one_or_create, there": lambda s: get_one_or_create(s, Entry, {"size": 1}, name="a"),
    "update_row": lambda s: update_row("a", {"size": 5}, s, Entry, "name"),
    "invalidate_cache": lambda _s: invalidate_cache(Entry),
    "delete_row": lambda s: delete_row("a", s, Entry, "name", soft=False),
    "soft_delete_row": lambda s: soft_delete_row("a", s, Entry, "name"),
    "restore_row": lambda s: restore_row("gone", s, Entry, "name"),
    "purge_rows": lambda s: purge_rows(s, Entry, older_than=timedelta(0)),
    "bulk_insert_rows": lambda s: bulk_insert_rows(mappings(3), s, Entry),
    "bulk_insert_rows, many": lambda s: bulk_insert_rows(mappings(2000), s, Entry),
    "bulk_insert_rows, ignore": lambda s: bulk_insert_rows(
        [{"name": "a"}, *mappings(3)], s, Entry, on_conflict="ignore"
    ),
    "bulk_update_rows": lambda s: bulk_update_rows(["a", "b"], {"size": 3}, s, Entry, "name"),
    "delete_rows_within_id_list": lambda s: delete_rows_within_id_list(
        ["a", "b"], s, Entry, "name"
    ),
    "bulk_upsert_mappings": lambda s: bulk_upsert_mappings(
        [{"name": "a", "size": 8}, *mappings(2)], s, Entry, ["name"]
    ),
    "bulk_upsert_mappings, many": lambda s: bulk_upsert_mappings(mappings(500), s, Entry, ["name"]),
    "QueryBuilder.update": lambda s: builder(s).update(size=4),
    "QueryBuilder.delete": lambda s: builder(s).delete(),
    "QueryBuilder.all": lambda s: builder(s).all(),
    "QueryBuilder.first": lambda s: builder(s).first(),
    "QueryBuilder.one": lambda s: builder(s).where(name="b").one(),
    "QueryBuilder.one_or_none": lambda s: builder(s).where(name="b").one_or_none(),
    "QueryBuilder.count": lambda s: builder(s).count(),
    "QueryBuilder.exists": lambda s: builder(s).exists(),
    "QueryBuilder.values": lambda s: builder(s).values("name"),
    "QueryBuilder.scalars": lambda s: builder(s).scalars("name"),
    "QueryBuilder.sum, avg, min, max": aggregated,
    "QueryBuilder.paginate": lambda s: builder(s).paginate(),
    "QueryBuilder.keyset": lambda s: builder(s).order_by("name").keyset(2),
    "QueryBuilder.stream": streamed,
    "get_row": lambda s: get_row("a", s, Entry, pk_field="name"),
    "get_rows": lambda s: get_rows(s, Entry),
    "get_rows_within_id_list": lambda s: get_rows_within_id_list(["a"], s, Entry, "name"),
    "get_result_from_query": lambda s: get_result_from_query(select(Entry), s),
    "transaction": in_a_block,
    "run_transaction": in_a_repeatable_function,
    "replication_token": asked_how_far,
    "transaction, failing parts": in_failing_blocks,
    "begin": in_the_callers_block,
    "on_commit": with_a_callback,
    "a hook of write_row": lambda s: hooked(s, WORKS["write_row"]),
    "a hook of update_row": lambda s: hooked(s, WORKS["update_row"]),
    "a hook of delete_row": lambda s: hooked(s, WORKS["delete_row"]),
    "a hook of insert_data_rows": lambda s: hooked(s, WORKS["insert_data_rows"]),
    "a hook of get_one_or_create": lambda s: hooked(s, WORKS["get_one_or_create"]),
    "a hook that writes": lambda s: shadowed(s, WORKS["write_row"]),
}

# What queries more than once: a later query finds a transaction under way, which is the caller's.
_SEVERAL = {
    "QueryBuilder.sum, avg, min, max",
    "QueryBuilder.paginate",
    "QueryBuilder.stream",
}


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine with few connections, so that one that stays out is missed."""
    engine = create_pooled_engine(database.async_url, 2, 0, 5)
    yield engine
    await engine.dispose()
    database.clear()


async def fill(new_session: Any, database: Database) -> None:
    """Restart with four rows, one of them deleted."""
    database.clear()
    rows = [entry("a"), entry("b"), entry("bb"), entry("gone")]
    async with new_session() as session:
        await insert_data_rows(rows, session, raise_on_error=True)
        await soft_delete_row("gone", session, Entry, "name", raise_on_error=True)


async def stored(new_session: Any) -> list[Any]:
    """Return what is in the table, without what is never twice the same."""
    async with new_session() as session:
        rows = await QueryBuilder(session, Entry).with_deleted().order_by("name").all()
        return [(row.name, row.size, row.is_deleted) for row in rows]


@pytest.mark.parametrize("name", WORKS)
async def test_cancelled_at_each_suspension(
    engine: AsyncEngine, database: Database, name: str
) -> None:
    """The call takes effect as a whole or not at all, and others can continue."""
    work, new_session = WORKS[name], session_factory(engine)
    await fill(new_session, database)
    before = await stored(new_session)
    async with new_session() as session:
        await work(session)
    after = await stored(new_session)

    for suspension in count(1):
        if before != after or suspension == 1:
            await fill(new_session, database)
        async with new_session() as session:
            cancelled, _ = await run(_called(work, session), suspension)
            found = await stored(new_session)
            assert found in (before, after), (suspension, "half written")
            if name in _SEVERAL and cancelled:
                await session.rollback()
            written, _ = await write_row(Team(name=f"t{next(names)}"), session)
            assert written, (suspension, "the session cannot be used")
        async with new_session() as session:
            written, _ = await write_row(Team(name=f"t{next(names)}"), session)
            assert written, (suspension, "another session cannot write")
        assert pool_status(engine)["checked_out"] == 0, (suspension, "a connection stays out")
        if not cancelled:
            return


async def _called(work: Work, session: Any) -> None:
    await work(session)


async def test_a_request_that_is_cancelled(engine: AsyncEngine, database: Database) -> None:
    """The session of a request is closed, and its work undone, wherever the request is cut off."""
    dependency = session_dependency(engine)
    opened = asynccontextmanager(dependency.__defaults__[0].dependency)  # type: ignore[index]

    async def request() -> None:
        async with opened() as session:
            await write_row(entry("one"), session)
            await write_row(entry("two"), session)

    new_session = session_factory(engine)
    for suspension in count(1):
        await fill(new_session, database)
        cancelled, _ = await run(request(), suspension)
        assert len(await stored(new_session)) in (4, 6)
        assert pool_status(engine)["checked_out"] == 0
        if not cancelled:
            return


def test_nothing_public_is_forgotten() -> None:
    """A new function is cancelled here, too."""
    functions = [name for name in aio.__all__ if inspect.iscoroutinefunction(getattr(aio, name))]
    methods = [
        name
        for name, _ in inspect.getmembers(QueryBuilder, inspect.iscoroutinefunction)
        if not name.startswith("_")
    ]
    tried = ", ".join(WORKS)
    assert [name for name in [*functions, *methods] if name not in tried] == []
