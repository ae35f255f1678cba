"""For any writes and rollbacks, the cache's answers equal the database's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_row, insert_data_rows, transaction
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from tests._async.test_history_properties import STEPS, Program, UndoneError
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.cache_models import Bundle
from tests.databases import Database
from tests.history_models import Docket
from tests.properties import examples

MODELS: tuple[type[Any], ...] = (Bundle, Docket)


@pytest.fixture(autouse=True)
def _cache() -> Iterator[None]:
    """A cache in memory."""
    configure_cache(InMemoryCache(), ttl=60)
    yield
    configure_cache(None)


def as_data(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [row.model_dump() for row in rows]


async def compare(session: AsyncSession, *models: type[Any]) -> None:
    """Check by keys, lists and counts, each as the cache and as the database answers it."""
    for model in models or MODELS:
        query = AsyncQueryBuilder(session, model).order_by("-id").limit(12)
        values = await query.values()
        assert await query.cached().count() == await query.count()
        assert as_data(await query.cached().all()) == values
        found = {row["id"]: row for row in values}
        for key in ([*found] or [987_654])[:1]:
            _, row = await get_row(key, session, model, use_cache=True)
            assert (None if row is None else row.model_dump()) == found.get(key)


async def compare_in_new_session(engine: AsyncEngine, *models: type[Any]) -> None:
    """Check with a session that holds nothing."""
    async with AsyncSession(engine) as session:
        await compare(session, *models)


async def run_block(engine: AsyncEngine, session: AsyncSession, how: str, steps: Any) -> None:
    """Run steps in a block, or in a savepoint in it, with checks in between."""

    async def inner() -> None:
        for name, model, number in steps:
            await STEPS[name](Program(session, model, number, True))
            await compare(session)
            await compare_in_new_session(engine)
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
            await compare(session)


async def test_each_way_of_writing_ends_entries(engine: AsyncEngine) -> None:
    """For every kind of write, earlier entries are invalid after the commit."""
    async with AsyncSession(engine) as session:
        for model in MODELS:
            await insert_data_rows([model(name=f"row {n}", stock=n) for n in range(9)], session)
    for name in sorted(STEPS):
        for model in MODELS:
            await compare_in_new_session(engine, model)
            async with AsyncSession(engine) as session:
                await STEPS[name](Program(session, model, 4, False))
            await compare_in_new_session(engine, model)


steps = st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(MODELS), st.integers(0, 9))
blocks = st.tuples(
    st.sampled_from(["block", "savepoint", "failing block", "failing savepoint"]),
    st.lists(steps, min_size=1, max_size=3),
)


@examples(16)
@given(program=st.lists(steps | blocks, min_size=1, max_size=4))
async def test_a_program_is_answered_as_by_the_database(
    engine: AsyncEngine, database: Database, program: list[Any]
) -> None:
    """For any writes and rollbacks of a program in one session, while others read."""
    try:
        async with AsyncSession(engine) as session:
            for each in program:
                if len(each) == 2:
                    await run_block(engine, session, *each)
                else:
                    name, model, number = each
                    await STEPS[name](Program(session, model, number, False))
                await compare(session)
                await session.rollback()
                await compare_in_new_session(engine)
    finally:
        database.clear()
        configure_cache(InMemoryCache(), ttl=60)
