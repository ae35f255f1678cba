"""Any content of the store is an answer or a miss, and never an error for the caller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_row, write_row
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.cache_models import Bauble, Loft, Plank, new_bauble
from tests.properties import examples

pytestmark = pytest.mark.databases("sqlite")


async def planks(session: AsyncSession) -> Any:
    """Read rows with related ones."""
    query = AsyncQueryBuilder(session, Plank).selectin("loft", "loft.planks")
    return [plank.loft and plank.loft.planks for plank in await query.cached().all()]


async def values(session: AsyncSession) -> Any:
    """Read values."""
    return await AsyncQueryBuilder(session, Bauble).cached().values()


async def one(session: AsyncSession) -> Any:
    """Read a row with values of every kind."""
    _, row = await get_row(1, session, Bauble, use_cache=True)
    return row and row.model_dump()


async def numbers(session: AsyncSession) -> Any:
    """Read one field of every row."""
    return await AsyncQueryBuilder(session, Plank).cached().values("id")


async def count(session: AsyncSession) -> Any:
    """Count rows."""
    return await AsyncQueryBuilder(session, Plank).cached().count() + 1


async def total(session: AsyncSession) -> Any:
    """Add up a field."""
    return await AsyncQueryBuilder(session, Plank).cached().sum("id")


async def page(session: AsyncSession) -> Any:
    """Read a page with its total."""
    return (await AsyncQueryBuilder(session, Plank).cached().paginate(1, 1)).pages


async def page_after(session: AsyncSession) -> Any:
    """Read a page by cursor, with the cursor of the next one."""
    return await AsyncQueryBuilder(session, Plank).order_by("name").cached().keyset(1)


async def edges(session: AsyncSession) -> Any:
    """Read a page by cursor, sorted by values of many kinds."""
    query = AsyncQueryBuilder(session, Bauble).order_by(*SORTED)
    return await query.cached().keyset(1)


SORTED = ("code", "-price", "is_sold", "made_on", "made_at", "sold_at", "lasts", "picture")

READS = (planks, values, one, numbers, count, total, page, page_after, edges)

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths to all that is nested in a value."""
    yield path
    if isinstance(node, dict | list):
        for key, each in node.items() if isinstance(node, dict) else enumerate(node):
            yield from paths(each, (*path, key))


def replaced(node: Any, path: tuple[Any, ...], by: Any) -> Any:
    """Return a value with the part at a path replaced; `...` means the old part, twice."""
    if path:
        node[path[0]] = replaced(node[path[0]], path[1:], by)
        return node
    return [node, node] if by is ... else by


@examples(400)
@given(data=st.data())
async def test_an_entry_that_was_tampered_with(
    engine: AsyncEngine, session: AsyncSession, data: Any
) -> None:
    """Anything else in the place of any part of an entry."""
    if await session.get(Bauble, 1) is None:
        await write_row(Loft(id=1, name="loft"), session)
        await write_row(Plank(id=1, name="a", loft_id=1), session)
        await write_row(Plank(id=2, name="b", loft_id=1), session)
        await write_row(new_bauble(id=1), session)
        await write_row(new_bauble(id=2), session)
    await session.rollback()
    read = data.draw(st.sampled_from(READS))
    cache = InMemoryCache()
    configure_cache(cache, ttl=60)
    try:
        async with AsyncSession(engine) as other:
            await read(other)
        name = data.draw(st.sampled_from([each for each in cache._entries if ":e:" in each]))
        entry = json.loads(cache._entries[name][1])
        path = data.draw(st.sampled_from(list(paths(entry[2]))))
        entry[2] = replaced(entry[2], path, data.draw(junk | st.just(...)))
        cache.set_many({name: json.dumps(entry).encode()}, 60)
        async with AsyncSession(engine) as other:
            await read(other)
            await other.rollback()
            assert await other.get(Bauble, 1) is not None
    finally:
        configure_cache(None)
