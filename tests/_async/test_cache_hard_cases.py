"""The cache in failures and unusual cases: invalidation, and writes of cached rows."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, insert, lambda_stmt, literal, literal_column, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import aliased
from sqlmodel import SQLModel, col

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_row, transaction, update_row
from sqlmodel_crud_utils.exceptions import TransactionError, ValidationError
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from tests._async.test_cache import asked, is_cached, one, row
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    make_engine,
    pause,
    sync_engine,
    together,
)
from tests.cache_models import (
    Bundle,
    Crew,
    Emblem,
    Glider,
    Hangar,
    Novel,
    Pilot,
    Plank,
    PlankNovel,
    Variable,
)
from tests.cache_servers import is_read_under_way
from tests.databases import Database
from tests.recording import recorded


@pytest.fixture(autouse=True)
def _cache() -> Iterator[None]:
    """A cache in memory."""
    configure_cache(InMemoryCache(), ttl=60)
    yield
    configure_cache(None)


def lose_answers_to_commits(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each COMMIT be carried out, and the connection break before the answer."""
    dialect: Any = sync_engine(engine).dialect
    commit = dialect.do_commit

    def broken(connection: Any) -> None:
        commit(connection)
        raise dialect.dbapi.OperationalError("the answer is lost")

    monkeypatch.setattr(dialect, "do_commit", broken)


@pytest.mark.parametrize("in_block", [False, True])
async def test_a_commit_that_nobody_knows_of_ends_entries(
    engine: AsyncEngine, session: AsyncSession, monkeypatch: pytest.MonkeyPatch, in_block: bool
) -> None:
    """The row is written although the program got an error."""
    key = await one(session, Bundle(name="a", stock=1))
    await asked(engine, row(Bundle, key))
    async with AsyncSession(engine) as other:
        held = await other.get(Bundle, key)
        assert held is not None
        await other.rollback()
        with monkeypatch.context() as patched:
            if in_block:
                with pytest.raises(TransactionError):
                    async with transaction(other):
                        held.stock = 2
                        lose_answers_to_commits(engine, patched)
            else:
                held.stock = 2
                lose_answers_to_commits(engine, patched)
                with pytest.raises(OperationalError):
                    await other.commit()
    assert (await asked(engine, row(Bundle, key)))[0].stock == 2


async def test_a_rollback_ends_no_entries(engine: AsyncEngine, session: AsyncSession) -> None:
    """Nobody has seen what was undone."""
    key = await one(session, Bundle(name="a", stock=1))
    await asked(engine, row(Bundle, key))
    async with AsyncSession(engine) as other:
        held = await other.get(Bundle, key)
        assert held is not None
        held.stock = 2
        await other.flush()
        await other.rollback()
    assert await is_cached(engine, row(Bundle, key))


async def test_links_are_ended_where_each_statement_is_a_commit(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """With AUTOCOMMIT a rollback undoes nothing."""
    plank, novel = await one(session, Plank(name="p")), await one(session, Novel(title="n"))
    session.add(PlankNovel(plank_id=plank, novel_id=novel))
    await session.commit()

    async def count(session: AsyncSession) -> int:
        return await AsyncQueryBuilder(session, Plank).where(novels__title="n").cached().count()

    assert await asked(engine, count) == (1, 1)
    at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(at_once) as other:
        held = await other.get(Plank, plank)
        assert held is not None
        await other.refresh(held, ["novels"])
        held.novels.clear()
        await other.flush()
        await other.rollback()
    assert (await asked(engine, count))[0] == 0


async def test_a_variant_that_executes_is_not_kept(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """A harmless type may have a pickled variant for some databases."""
    key = await one(session, Variable(thing={"a": 1}))
    await asked(engine, row(Variable, key))
    found, count = await asked(engine, row(Variable, key))
    assert (found.thing, count) == ({"a": 1}, 1)


async def test_a_hit_is_refused_in_every_session(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Moved to another session, it is still outdated until it is refreshed."""
    key = await one(session, Bundle(name="a", stock=1))
    await asked(engine, row(Bundle, key))
    hit, count = await asked(engine, row(Bundle, key))
    assert count == 0
    async with AsyncSession(engine) as other:
        other.add(hit)
        hit.stock = 2
        with pytest.raises(ValidationError, match="came from the cache"):
            await other.commit()
        await other.rollback()
        await other.refresh(hit)
        hit.stock = 3
        await other.commit()
    assert (await asked(engine, row(Bundle, key)))[0].stock == 3


# --- transactions of the caller's ----------------------------------------------------------------


@pytest.mark.parametrize("in_savepoint", [False, True])
async def test_what_the_caller_rolls_back_is_not_read_again(
    engine: AsyncEngine, in_savepoint: bool
) -> None:
    """On one connection, whose transaction the sessions on it have joined."""

    async def stock(connection: Any) -> int | None:
        async with AsyncSession(connection) as session:
            found = await row(Bundle, 1)(session)
            return found and found.stock

    async with engine.connect() as connection:
        if in_savepoint:
            await connection.begin()
        undone = await (connection.begin_nested() if in_savepoint else connection.begin())
        async with AsyncSession(connection) as session:
            session.add(Bundle(id=1, name="a", stock=1))
            await session.commit()
        assert [await stock(connection) for _ in range(2)] == [1, 1]
        await undone.rollback()
        assert await stock(connection) is None
    assert await asked(engine, row(Bundle, 1)) == (None, 1)


async def test_a_flush_that_fails_ends_entries_where_each_statement_is_a_commit(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """With AUTOCOMMIT nothing undoes the statements before the one that was refused."""
    first, second = await one(session, Bundle(name="a")), await one(session, Bundle(name="b"))
    await asked(engine, row(Bundle, first))
    at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(at_once) as other:
        rows = [await other.get(Bundle, key) for key in (first, second)]
        assert rows[0] is not None
        assert rows[1] is not None
        rows[0].stock, rows[1].name = 5, "a"
        with pytest.raises(IntegrityError):
            await other.commit()
    assert (await asked(engine, row(Bundle, first)))[0].stock == 5


async def test_a_commit_in_autocommit_ends_the_entries_of_its_rows_alone(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """It says which rows it has written, as any other."""
    first, second = await one(session, Bundle(name="a")), await one(session, Bundle(name="b"))
    await asked(engine, row(Bundle, first))
    await asked(engine, row(Bundle, second))
    at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(at_once) as other:
        await update_row(first, {"stock": 5}, other, Bundle)
    assert (await asked(engine, row(Bundle, first)))[0].stock == 5
    assert await is_cached(engine, row(Bundle, second))


@pytest.mark.databases("mysql")
async def test_a_commit_in_two_phases_ends_entries(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Not when it is prepared: others do not see it then."""
    key = await one(session, Bundle(name="a", stock=1))
    await asked(engine, row(Bundle, key))
    async with AsyncSession(engine, twophase=True) as other:
        held = await other.get(Bundle, key)
        assert held is not None
        held.stock = 2
        await other.flush()
        assert await is_cached(engine, row(Bundle, key))
        await other.commit()
    assert (await asked(engine, row(Bundle, key)))[0].stock == 2


async def test_a_pool_that_is_exhausted_is_no_deadlock(
    session: AsyncSession, database: Database
) -> None:
    """The read with the connection waits only a second for the one that waits for it."""
    key = await one(session, Bundle(name="a"))
    narrow = make_engine(
        database.async_url,
        pool_size=1,
        max_overflow=0,
        pool_timeout=5,  # who waits for a connection fails if the other one waits much longer
    )
    names: list[str] = []

    async def read(session: AsyncSession) -> None:
        _, found = await get_row(key, session, Bundle, raise_on_error=True, use_cache=True)
        names.append(found.name)

    async def leader() -> None:
        while not narrow.pool.checkedout():  # type: ignore[attr-defined]
            await pause(0.01)
        async with AsyncSession(narrow) as waiting:
            await read(waiting)

    async def holder() -> None:
        async with AsyncSession(narrow) as holding:
            assert await AsyncQueryBuilder(holding, Hangar).count() == 0
            while not is_read_under_way():
                await pause(0.01)
            await read(holding)
            assert names == ["a"]

    try:
        await together(leader, holder)
    finally:
        await narrow.dispose()
    assert names == ["a", "a"]


# --- what entries are ended by, and what they are found by ---------------------------------------


async def test_tables_that_related_rows_are_computed_from_end_entries(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """A field that counts rows of another table, and links that lead over several tables."""
    hangar, pilot = await one(session, Hangar(name="h")), await one(session, Pilot(name="p"))
    glider = await one(session, Glider(hangar_id=hangar))

    async def crew_size(session: AsyncSession) -> Any:
        found = await row(Glider, glider, selectin=True, select_in_keys=["hangar"])(session)
        return found.hangar.crew_size

    async def flown(session: AsyncSession) -> Any:
        found = await row(Pilot, pilot, selectin=True, select_in_keys=["gliders"])(session)
        return [each.id for each in found.gliders]

    for read, before, after in ((crew_size, 0, 1), (flown, [], [glider])):
        assert (await asked(engine, read))[0] == before
        assert await asked(engine, read) == (before, 0)
        crew = await one(session, Crew(pilot_id=pilot, hangar_id=hangar))
        assert (await asked(engine, read))[0] == after
        async with AsyncSession(engine) as other:
            await AsyncQueryBuilder(other, Crew).where(id=crew).delete()
        assert (await asked(engine, read))[0] == before


async def test_keys_that_a_database_takes_for_equal(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """MySQL finds a row by a text in other case: a write to it ends that entry as well."""
    session.add(Emblem(owner="Ann", number=1, label="old"))
    await session.commit()
    keys = [("Ann", 1), ("ann", 1), ("ANN ", 1)]

    async def labels(use_cache: bool) -> list[str | None]:
        found = []
        for key in keys:
            async with AsyncSession(engine) as other:
                _, emblem = await get_row(key, other, Emblem, use_cache=use_cache)
                found.append(emblem and emblem.label)
        return found

    for label in ("new", "newer"):
        assert await labels(True) == await labels(True) == await labels(False)
        async with AsyncSession(engine) as other:
            await update_row(("ann", 1), {"label": label}, other, Emblem)
            await update_row(("Ann", 1), {"label": label}, other, Emblem)
    assert await labels(True) == await labels(False)
    assert (await labels(True))[0] == "newer"


@pytest.mark.parametrize("key", ["1", 1.0, Decimal(1)])
async def test_one_key_in_several_ways_is_one_entry(
    engine: AsyncEngine, session: AsyncSession, key: Any
) -> None:
    """Keys are what the column makes of them."""
    session.add(Bundle(id=1, name="a"))
    await session.commit()
    await asked(engine, row(Bundle, 1))
    assert await is_cached(engine, row(Bundle, key))
    async with AsyncSession(engine) as other:
        await update_row(key, {"name": "b"}, other, Bundle)
    assert (await asked(engine, row(Bundle, key)))[0].name == "b"
    assert (await asked(engine, row(Bundle, 1)))[0].name == "b"


async def test_a_write_reads_nothing_for_the_cache(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Generated values are not read just to report a write."""
    held = Bundle(name="a", stock=1)
    session.add(held)
    await session.flush()
    held.stock = Bundle.stock + 1  # type: ignore[operator]
    with recorded(engine) as statements:
        await session.commit()
    assert statements == ["UPDATE", "COMMIT"]


def writes_elsewhere(database: str) -> dict[str, Any]:
    """Return statements that write to a table in an unusual place."""
    changed = update(Bundle).values(stock=2).returning(Bundle.id)
    made = insert(Bundle).values(name="b").returning(Bundle)
    in_common = {
        "an alias": update(aliased(Bundle)).values(stock=2),
        "an alias of the table": update(SQLModel.metadata.tables["bundle"].alias("b")).values(
            stock=2
        ),
        "an INSERT that returns rows": select(Bundle).from_statement(made),
        "a lambda": lambda_stmt(lambda: update(Bundle).values(stock=2)),
    }
    if database == "sqlite":
        changed_row = changed.returning(Bundle)
        return {**in_common, "an UPDATE of rows": select(Bundle).from_statement(changed_row)}
    if database == "postgresql":
        own = changed.cte("changed")
        other = update(Plank).values(name="q")
        return {
            **in_common,
            "a CTE": other.add_cte(own),
            "a CTE in a condition": delete(Plank).where(Plank.id == own.c.id),
            "a CTE in an INSERT": insert(Plank).from_select(
                ["name"], select(literal("q")).where(own.c.id > 0)
            ),
        }
    both = update(Plank).where(Plank.name != Bundle.name)
    planks, bundles = (SQLModel.metadata.tables[name] for name in ("plank", "bundle"))
    joined = update(planks.join(bundles, planks.c.name != bundles.c.name))
    return {
        **in_common,
        "several tables": both.values({Plank.name: "q", Bundle.stock: 2}),
        "a join": joined.values({bundles.c.stock: 2}),
    }


@pytest.mark.databases("sqlite", "postgresql", "mysql")
async def test_a_write_ends_entries_wherever_it_stands(
    engine: AsyncEngine, session: AsyncSession, database: Database
) -> None:
    """To an alias, to several tables at once, in a CTE or a lambda, as the source of rows."""
    key = await one(session, Bundle(name="a", stock=1))
    await one(session, Plank(name="p"))

    async def count(session: AsyncSession) -> int:
        return await AsyncQueryBuilder(session, Bundle).where(stock__lt=2).cached().count()

    for name, statement in writes_elsewhere(database.name).items():
        await asked(engine, count)
        await asked(engine, row(Bundle, key))
        assert await is_cached(engine, count), name
        async with AsyncSession(engine) as other:
            await execute(other, statement.execution_options(synchronize_session=False))
            await other.commit()
        assert not await is_cached(engine, count), name
        async with AsyncSession(engine) as other:
            await execute(other, delete(Bundle).where(col(Bundle.id) != key))
            await execute(other, update(Bundle).values(stock=1))
            await other.commit()


SUBQUERY = "(SELECT count(*) FROM plank)"


@pytest.mark.parametrize(
    "condition",
    [literal_column(SUBQUERY) > 0, col(Bundle.stock).op(f"* {SUBQUERY} >")(0)],
    ids=["a literal column", "an operator"],
)
async def test_sql_as_text_asks_the_database(
    engine: AsyncEngine, session: AsyncSession, condition: Any
) -> None:
    """It may read any table; a plain name or value may not."""
    await one(session, Bundle(name="a", stock=1))

    async def among_all(session: AsyncSession) -> int:
        return await AsyncQueryBuilder(session, Bundle).where(condition).cached().count()

    async def of_a_name(session: AsyncSession) -> int:
        name = literal_column("stock")
        return await AsyncQueryBuilder(session, Bundle).where(name > 0).cached().count()

    assert (await asked(engine, among_all))[0] == 0
    await one(session, Plank(name="p"))
    assert (await asked(engine, among_all))[0] == 1
    await asked(engine, of_a_name)
    assert await is_cached(engine, of_a_name)
