"""The cache with replicas, retries, strict loading and sessions of isolated tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_row,
    run_transaction,
    session_factory,
    strict_loading,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConflictError, RelationshipNotLoadedError
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from sqlmodel_crud_utils.ext.pytest import isolated
from tests._runtime_async import AsyncEngine, AsyncSession, make_tables
from tests.cache_models import Bundle, Loft, Plank

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture(autouse=True)
def _cache() -> Iterator[None]:
    """A cache in memory."""
    configure_cache(InMemoryCache(), ttl=60)
    yield
    configure_cache(None)


async def name_of(session: AsyncSession, key: Any) -> str | None:
    """Return the name of a row, from the cache if it has it."""
    _, row = await get_row(key, session, Bundle, use_cache=True)
    return None if row is None else row.name


async def test_a_replica_never_fills_the_cache(tmp_path: Path) -> None:
    """A miss is read from the primary, even if a replica is outdated."""
    primary = create_pooled_engine(f"sqlite:///{tmp_path}/primary.db")
    replica = create_pooled_engine(f"sqlite:///{tmp_path}/replica.db")
    for engine, name in ((primary, "new"), (replica, "old")):
        await make_tables(engine, Bundle)
        async with AsyncSession(engine) as session:
            session.add(Bundle(id=1, name=name))
            await session.commit()
    try:
        async with session_factory(primary, replicas=[replica])() as session:
            _, uncached = await get_row(1, session, Bundle)
            assert uncached is not None
            assert uncached.name == "old"
        for _ in range(2):
            async with session_factory(primary, replicas=[replica])() as session:
                assert await name_of(session, 1) == "new"
    finally:
        await primary.dispose()
        await replica.dispose()


async def test_only_the_attempt_that_is_committed_ends_entries(engine: AsyncEngine) -> None:
    """Writes of an attempt that was undone and retried are never read."""
    async with AsyncSession(engine) as session:
        await write_row(Bundle(id=1, name="a"), session)
        assert await name_of(session, 1) == "a"
    seen: list[str | None] = []

    async def work(session: AsyncSession) -> None:
        await update_row(1, {"name": f"attempt {len(seen)}"}, session, Bundle)
        async with AsyncSession(engine) as other:
            seen.append(await name_of(other, 1))
        if len(seen) < 3:
            raise ConflictError(Bundle)

    await run_transaction(session_factory(engine), work, attempts=3)
    assert seen == ["a"] * 3
    async with AsyncSession(engine) as session:
        assert await name_of(session, 1) == "attempt 2"


async def test_a_hit_is_strict_about_lazy_loads(engine: AsyncEngine, session: AsyncSession) -> None:
    """A relationship that was not asked for is refused by name, as on any other row."""
    await write_row(Loft(id=1, name="loft"), session)
    await write_row(Plank(id=1, name="plank", loft_id=1), session)
    for _ in range(2):
        async with AsyncSession(engine) as other:
            _, plank = await get_row(1, other, Plank, raise_on_error=True, use_cache=True)
            with strict_loading(other), pytest.raises(RelationshipNotLoadedError, match="loft"):
                _ = plank.loft


async def test_isolated_tests_share_nothing(engine: AsyncEngine) -> None:
    """The writes and reads of one are invisible to the next, and to everybody else."""
    for number in range(2):
        async with isolated(engine) as factory, factory() as session:
            assert await name_of(session, 7) is None
            await write_row(Bundle(id=7, name=f"n{number}"), session)
            await session.commit()
            async with factory() as other:
                for _ in range(2):
                    assert await name_of(other, 7) == f"n{number}"
        async with AsyncSession(engine) as other:
            assert await name_of(other, 7) is None
