"""Sessions that send reads to a replica: all parts of a write go to the primary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Delete, Update, event, func, select

from sqlmodel_crud_utils.aio import (
    AsyncRepository,
    QueryBuilder,
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
    update_row,
    write_row,
)
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.hooking import block
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    make_engine,
    make_sqlite,
    routing,
    sync_engine,
)
from tests.databases import Database
from tests.models import Hero
from tests.models_mixins import Player, Visit
from tests.upsert_models import Article

_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET default_transaction_read_only = on",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}


@pytest.fixture
async def session(engine: AsyncEngine, database: Database) -> AsyncIterator[AsyncSession]:
    """A session as SQLAlchemy's guide has it, whose follower refuses to write."""
    follower = make_engine(database.async_url)

    @event.listens_for(sync_engine(follower), "connect")
    def refuse_writes(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(_READ_ONLY[database.name])
        cursor.close()
        connection.commit()

    def choose(session: Any, _mapper: Any, clause: Any) -> Any:
        writes = session._flushing or isinstance(clause, Update | Delete)
        return sync_engine(engine if writes else follower)

    async with routing(choose) as session:
        yield session
    await follower.dispose()


def rows(count: int) -> list[dict[str, Any]]:
    """Return heroes to be written."""
    return [{"name": f"hero {number}", "secret_name": "?"} for number in range(count)]


async def count_of(engine: AsyncEngine, model: type[Any]) -> int:
    """Return how many rows there are for everybody."""
    async with AsyncSession(engine) as other:
        found = await execute(other, select(func.count()).select_from(model))
        return int(found.scalar_one())


@pytest.mark.parametrize("count", [1, 2, 150])
@pytest.mark.parametrize("inside", [False, True])
async def test_rows_are_inserted(
    session: AsyncSession, engine: AsyncEngine, count: int, inside: bool
) -> None:
    """In all ways of writing many rows."""
    async with block(session, inside):
        heroes = [Hero(**row) for row in rows(count)]
        assert (await insert_data_rows(heroes, session))[0]
        more = [row | {"name": f"more {row['name']}"} for row in rows(count)]
        assert await bulk_insert_rows(more, session, Hero) == count
    assert await count_of(engine, Hero) == 2 * count
    again = [*more, {"name": "new", "secret_name": "?"}]
    assert await bulk_insert_rows(again, session, Hero, on_conflict="ignore") == 1


@pytest.mark.parametrize("count", [1, 2, 150])
@pytest.mark.parametrize("inside", [False, True])
async def test_rows_are_upserted(
    session: AsyncSession, engine: AsyncEngine, count: int, inside: bool
) -> None:
    """And read back from the primary, new rows and existing ones."""
    payload = [{"slug": f"s{number}", "title": "x"} for number in range(count)]
    async with block(session, inside):
        _, written = await bulk_upsert_mappings(payload, session, Article, ["slug"])
        assert [row.slug for row in written] == [row["slug"] for row in payload]
        changed = [row | {"title": "y"} for row in payload]
        _, written = await bulk_upsert_mappings(changed, session, Article, ["slug"])
        assert {row.title for row in written} == {"y"}
        partial = [{"slug": row["slug"], "views": 8} for row in payload]
        _, written = await bulk_upsert_mappings(partial, session, Article, ["slug"])
        assert {(row.title, row.views) for row in written} == {("y", 8)}
    assert await count_of(engine, Article) == count


async def test_keys_are_made_by_the_leader(session: AsyncSession, engine: AsyncEngine) -> None:
    """Also for rows of an upsert without a key."""
    _, written = await bulk_upsert_mappings(rows(3), session, Hero)
    assert all(row.id for row in written)
    assert await count_of(engine, Hero) == 3


async def test_single_rows(session: AsyncSession, engine: AsyncEngine) -> None:
    """Columns that the database fills in are read back where the row is."""
    assert (await write_row(Visit(place="x"), session))[0]
    _, article = await write_row(Article(slug="a"), session)
    assert article.state == "new"
    hero, existed = await get_one_or_create(session, Hero, {"secret_name": "?"}, name="Ann")
    assert not existed
    assert (await update_row(hero.id, {"age": 5}, session, Hero))[0]
    assert await delete_row(hero.id, session, Hero)
    assert await count_of(engine, Hero) == 0


async def test_many_rows_by_their_keys(session: AsyncSession, engine: AsyncEngine) -> None:
    """Also where the rows have to be looked for."""
    await bulk_insert_rows(rows(5), session, Hero)
    names = [row["name"] for row in rows(5)]
    assert await bulk_update_rows(names, {"age": 5}, session, Hero, "name") == (True, 5)
    changed = await bulk_update_rows(
        [5, 6], {"age": Hero.age + 1}, session, Hero, "age", chunk_size=1
    )
    assert changed == (True, 5)
    query = QueryBuilder(session, Hero).where(age=6)
    assert await query.update(age=7) == 5
    assert await delete_rows_within_id_list(names[:2], session, Hero, "name") == (True, 2)
    assert await count_of(engine, Hero) == 3


async def test_deleted_rows_are_purged(session: AsyncSession, engine: AsyncEngine) -> None:
    """They are searched for in the primary."""
    players = [{"id": number, "name": "Ann"} for number in (1, 2)]
    await bulk_insert_rows(players, session, Player)
    assert await delete_rows_within_id_list([1], session, Player) == (True, 1)
    assert await purge_rows(session, Player, older_than=timedelta(0)) == 1
    assert await count_of(engine, Player) == 1


_BY_KEY: dict[str, Any] = {
    "update_row": lambda s: update_row(1, {"age": 5}, s, Hero, raise_on_error=True),
    "update_row by another": lambda s: update_row(
        "Rusty", {"age": 5}, s, Hero, "name", raise_on_error=True
    ),
    "get_one_or_create": lambda s: get_one_or_create(s, Hero, {"age": 9}, name="Rusty"),
    "update_or_create": lambda s: AsyncRepository(s, Hero).update_or_create(
        {"age": 5}, name="Rusty"
    ),
    "delete_row": lambda s: delete_row(1, s, Hero, raise_on_error=True),
    "bulk_update_rows": lambda s: bulk_update_rows([1], {"age": 5}, s, Hero),
}


class _Hook:
    def before_update(self, _instance: Any, data: dict[str, Any]) -> dict[str, Any]:
        return data


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("call", _BY_KEY)
async def test_a_row_to_be_written_is_searched_for_in_the_leader(
    engine: AsyncEngine, tmp_path: Path, call: str, inside: bool
) -> None:
    """The follower lags: it has no rows yet. What is pending is flushed before the search."""
    follower = make_sqlite(str(tmp_path / "follower.db"))
    async with AsyncSession(engine) as other:
        await write_row(Hero(id=1, name="Rusty", secret_name="?"), other)

    def choose(session: Any, _mapper: Any, clause: Any) -> Any:
        writes = session._flushing or isinstance(clause, Update | Delete)
        return sync_engine(engine if writes else follower)

    async with routing(choose) as session, block(session, inside):
        session.add(Hero(id=2, name="Nova", secret_name="?"))
        with registered_hook(Hero, _Hook()):  # the rows of a list are read for it
            await _BY_KEY[call](session)
        if not inside:
            await session.commit()
    await follower.dispose()
    async with AsyncSession(engine) as other:
        ages = (await execute(other, select(Hero.age).where(Hero.name == "Rusty"))).scalars().all()
    expected = {"delete_row": [], "get_one_or_create": [None]}
    assert ages == expected.get(call, [5])
    assert await count_of(engine, Hero) == (1 if call == "delete_row" else 2)


@pytest.mark.databases("sqlite")
async def test_a_deleted_row_is_restored_in_the_leader(engine: AsyncEngine, tmp_path: Path) -> None:
    """It is marked in the one, and not yet in the other."""
    follower = make_sqlite(str(tmp_path / "follower.db"))
    async with AsyncSession(engine) as other:
        await write_row(Player(id=1, name="Ann"), other)

    def choose(session: Any, _mapper: Any, clause: Any) -> Any:
        writes = session._flushing or isinstance(clause, Update | Delete)
        return sync_engine(engine if writes else follower)

    async with routing(choose) as session:
        assert await soft_delete_row(1, session, Player) is not None
        assert (await restore_row(1, session, Player))[0]
    await follower.dispose()
