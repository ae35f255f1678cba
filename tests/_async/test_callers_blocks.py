"""In the caller's own `with session.begin()` the library flushes and commits nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import text

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    on_commit,
    session_factory as new_factory,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    QueryExecutionError,
    RecordNotFoundError,
    TransactionError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.transacting import assert_usable, hero, names
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.models import Hero


async def write_everything(session: AsyncSession) -> None:
    """Call every function that writes."""
    _, one = await write_row(hero("one"), session)
    await update_row(one.id, {"age": 1}, session, Hero)
    await insert_data_rows([hero("two"), hero("three")], session)
    await get_one_or_create(session, Hero, {"secret_name": "?"}, name="four")
    await get_one_or_create(session, Hero, {"secret_name": "?"}, name="four")
    await bulk_insert_rows([hero("five"), hero("six")], session, Hero)
    rows = [{"name": "seven", "secret_name": "?"}, {"name": "six", "age": 6}]
    _, [seven, six] = await bulk_upsert_mappings(rows, session, Hero, ["name"])
    await bulk_update_rows([seven.id], {"age": 7}, session, Hero)
    await AsyncQueryBuilder(session, Hero).where(name="five").update(age=5)
    await delete_row("three", session, Hero, "name")
    await delete_rows_within_id_list([six.id], session, Hero)
    assert (await get_row("one", session, Hero, pk_field="name"))[0]
    assert (await get_rows(session, Hero, age__gt=0))[0]


WRITTEN = ["five", "four", "one", "seven", "two"]


@pytest.fixture
def commits(session: AsyncSession) -> list[str]:
    """The commits of the session."""
    seen: list[str] = []
    event.listen(session.get_bind(), "commit", lambda _connection: seen.append("COMMIT"))
    return seen


class TestOneTransaction:
    """The block is written as a whole or not at all."""

    async def test_begin(
        self, session: AsyncSession, engine: AsyncEngine, commits: list[str]
    ) -> None:
        """It is committed once, at the exit."""
        async with session.begin():
            await write_everything(session)
            assert commits == []
        assert len(commits) == 1
        assert await names(engine) == WRITTEN
        await assert_usable(session, engine)

    async def test_begin_of_the_factory(self, engine: AsyncEngine) -> None:
        """The session is closed as well."""
        async with new_factory(engine).begin() as session:
            await write_everything(session)
        assert await names(engine) == WRITTEN
        assert engine.pool.checkedout() == 0

    async def test_begin_nested(
        self, session: AsyncSession, engine: AsyncEngine, commits: list[str]
    ) -> None:
        """Around it is a transaction that the caller commits."""
        async with session.begin_nested():
            await write_everything(session)
        assert commits == []
        await session.commit()
        assert await names(engine) == WRITTEN
        await assert_usable(session, engine)

    @pytest.mark.parametrize("how", ["begin", "begin_nested"])
    async def test_a_failure(self, session: AsyncSession, engine: AsyncEngine, how: str) -> None:
        """Nothing is written, and the exception propagates unchanged."""
        with pytest.raises(KeyError):
            async with getattr(session, how)():
                await write_everything(session)
                raise KeyError
        await session.rollback()
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_with_hooks(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """Their writes are part of it."""

        class Shadows:
            async def after_create(self, instance: Hero) -> None:
                if not instance.name.startswith("shadow"):
                    await write_row(hero(f"shadow of {instance.name}"), session)

        with registered_hook(Hero, Shadows()):
            async with session.begin():
                await write_row(hero("one"), session)
                assert await names(engine) == []
        assert await names(engine) == ["one", "shadow of one"]

    async def test_the_callers_own_begin_without_a_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """Nothing says where that ends, so the library commits."""
        await session.begin()
        await write_row(hero("one"), session)
        assert not session.in_transaction()
        assert await names(engine) == ["one"]


class TestFailures:
    """A failed write raises, and only that write is undone; the caller decides what follows."""

    @pytest.fixture(autouse=True)
    async def _rusty(self, session: AsyncSession) -> None:
        await write_row(hero("Rusty"), session)

    async def test_one_that_is_caught(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """After a caught failure, the block continues."""

        async def update() -> Any:
            return await update_row("Nova", {"name": "Rusty"}, session, Hero, "name")

        refused: list[Callable[[], Any]] = [
            lambda: write_row(hero("Rusty"), session),
            lambda: insert_data_rows([hero("Sid"), hero("Rusty")], session),
            lambda: bulk_insert_rows([hero("Sid"), hero("Rusty")], session, Hero),
            update,
        ]
        async with session.begin():
            await write_row(hero("Nova"), session)
            for call in refused:
                with pytest.raises((ConstraintViolationError, BulkOperationError)):
                    await call()
            with pytest.raises(RecordNotFoundError):
                await update_row(999_999, {"age": 1}, session, Hero)
            await write_row(hero("Zoe"), session)
        assert await names(engine) == ["Nova", "Rusty", "Zoe"]
        await assert_usable(session, engine)

    async def test_one_that_is_not_caught(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A failure that is not caught undoes the whole block."""
        with pytest.raises(ConstraintViolationError):
            async with session.begin():
                await write_row(hero("Nova"), session)
                await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Rusty"]
        await assert_usable(session, engine)

    async def test_one_that_returns(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A write with `raise_on_error=False` returns its failure."""
        async with session.begin():
            assert await write_row(hero("Rusty"), session, raise_on_error=False) == (False, None)
            await write_row(hero("Nova"), session)
        assert await names(engine) == ["Nova", "Rusty"]

    async def test_a_transaction_that_is_lost(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """If MySQL ends it in a deadlock, the remaining statements are not committed alone."""
        with pytest.raises(QueryExecutionError, match="leave the block first"):
            async with session.begin():
                await write_row(hero("Nova"), session)
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await session.exec(text("ROLLBACK"))
                        raise RuntimeError
                await write_row(hero("Sid"), session)
        assert await names(engine) == ["Rusty"]
        await assert_usable(session, engine)


class TestTransactionInside:
    """A `transaction()` in it is a savepoint."""

    async def test_it_is_written_with_the_rest(
        self, session: AsyncSession, engine: AsyncEngine, commits: list[str]
    ) -> None:
        """Only the exit of the caller's block commits."""
        async with session.begin():
            await write_row(hero("one"), session)
            async with transaction(session):
                await write_row(hero("two"), session)
                async with transaction(session):
                    await write_row(hero("three"), session)
            assert commits == []
        assert await names(engine) == ["one", "three", "two"]
        await assert_usable(session, engine)

    async def test_its_failure(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A failing `transaction()` undoes the inner part alone."""
        async with session.begin():
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("two"), session)
                    raise RuntimeError
            await write_row(hero("one"), session)
        assert await names(engine) == ["one"]
        await assert_usable(session, engine)

    async def test_a_failure_around_it(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A released savepoint is not a commit, on SQLite neither."""
        with pytest.raises(RuntimeError):
            async with session.begin():
                async with transaction(session):
                    await write_row(hero("two"), session)
                raise RuntimeError
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_it_is_doomed_like_any_other(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A refusal that is caught in it undoes it."""
        async with session.begin():
            await write_row(hero("one"), session)
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    await write_row(hero("two"), session)
                    with pytest.raises(ConstraintViolationError):
                        await write_row(hero("one"), session)
        assert await names(engine) == ["one"]

    async def test_callbacks_wait_for_the_callers_commit(self, session: AsyncSession) -> None:
        """They run with the next commit of the library after it; after a rollback never."""
        ran: list[str] = []
        async with session.begin():
            async with transaction(session):
                on_commit(session, lambda: ran.append("kept"))
            assert ran == []
        with pytest.raises(KeyError):
            async with session.begin():
                async with transaction(session):
                    on_commit(session, lambda: ran.append("lost"))
                raise KeyError
        await write_row(hero("one"), session)
        assert ran == ["kept"]
