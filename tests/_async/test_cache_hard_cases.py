"""What ends entries, and what may be written, where things go wrong or are unusual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, transaction
from sqlmodel_crud_utils.exceptions import TransactionError, ValidationError
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from tests._async.test_cache import asked, is_cached, one, row
from tests._runtime_async import AsyncEngine, AsyncSession, sync_engine
from tests.cache_models import Bundle, Novel, Plank, PlankNovel, Variable


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
    """The row is written, though the program was told of an error."""
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
    """A type that is harmless by itself may be pickled on some databases."""
    key = await one(session, Variable(thing={"a": 1}))
    await asked(engine, row(Variable, key))
    found, count = await asked(engine, row(Variable, key))
    assert (found.thing, count) == ({"a": 1}, 1)


async def test_a_hit_is_refused_in_every_session(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """One that is moved to another session is no newer there, until it is read again."""
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
