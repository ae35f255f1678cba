"""`transaction()` with every kind of session: what stays loaded, and what is given back."""

from __future__ import annotations

import gc
import weakref

import pytest
from sqlalchemy import inspect, text
from sqlmodel import SQLModel, select

from sqlmodel_crud_utils.aio import (
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
)
from tests._async.transacting import (
    SessionFactory,
    assert_usable,
    hero,
    loaded,
    names,
)
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    PlainSession,
    scoped,
)
from tests.models import Hero, Setting, Team


class TestRows:
    """Rows returned inside a block stay loaded after its commit."""

    async def test_rows_of_every_function(self, session: AsyncSession) -> None:
        """They can be read without a query, with their last values."""
        await write_row(Team(name="Preventers"), session)
        async with transaction(session):
            _, written = await write_row(hero("written"), session)
            _, (inserted,) = await insert_data_rows([hero("inserted")], session)
            _, updated = await update_row(written.id, {"age": 48}, session, Hero)
            _, got = await get_row("Preventers", session, Team, pk_field="name")
            _, listed = await get_rows(session, Hero)
            created, _ = await get_one_or_create(session, Hero, {"secret_name": "?"}, name="new")
            _, (upserted,) = await bulk_upsert_mappings(
                [{"name": "upserted", "secret_name": "?"}], session, Hero, ["name"]
            )
            inserted.age = 1
            got.city = "Somewhere"
        for row in (written, inserted, updated, got, *listed, created, upserted):
            assert loaded(row)
            assert not inspect(row).modified
        assert (written.age, inserted.age, got.city) == (48, 1, "Somewhere")

    async def test_others_expire_as_configured(self, session: AsyncSession) -> None:
        """Objects that the user loaded himself are his own affair."""
        await write_row(hero("Rusty"), session)
        await write_row(hero("Nova"), session)
        session.expunge_all()
        async with transaction(session) as tx:
            own = (await tx.exec(select(Hero).where(Hero.name == "Rusty"))).one()
            _, kept = await get_row("Nova", session, Hero, pk_field="name")
        assert inspect(own).expired
        assert "name" not in own.__dict__
        assert loaded(kept)

    async def test_with_expire_on_commit_off(self, engine: AsyncEngine) -> None:
        """With `expire_on_commit=False` nothing expires."""
        async with AsyncSession(engine, expire_on_commit=False) as session:
            async with transaction(session) as tx:
                own = hero("own")
                tx.add(own)
                _, row = await write_row(hero("Rusty"), session)
                row.age = 48
            assert loaded(own)
            assert (row.name, row.age) == ("Rusty", 48)

    async def test_server_defaults(self, session: AsyncSession) -> None:
        """Also of a row whose defaults were not asked for in the block."""
        async with transaction(session):
            _, row = await write_row(Setting(key="a"), session)
            _, (other,) = await insert_data_rows([Setting(key="b")], session)
        for setting in (row, other):
            assert loaded(setting)
            assert (setting.priority, setting.state, setting.source) == (5, "new", "python")

    async def test_selectin_loaded_relationships(self, session: AsyncSession) -> None:
        """The related rows are loaded as well as the relationship itself."""
        _, team = await write_row(Team(name="Preventers"), session)
        await insert_data_rows(
            [hero("Rusty", team_id=team.id), hero("Nova", team_id=team.id)], session
        )
        session.expunge_all()
        async with transaction(session):
            _, found = await get_row("Preventers", session, Team, True, ["heroes"], pk_field="name")
            found.heroes[0].age = 48
        assert sorted(row.name for row in found.heroes) == ["Nova", "Rusty"]
        assert found.heroes[0].age == 48
        assert all(loaded(row) for row in found.heroes)

    async def test_a_row_that_was_undone_in_a_savepoint(self, session: AsyncSession) -> None:
        """It is as the database has it."""
        async with transaction(session):
            _, row = await write_row(hero("Rusty", age=1), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await update_row(row.id, {"age": 2}, session, Hero)
                    raise RuntimeError
        assert loaded(row)
        assert row.age == 1

    async def test_a_row_that_is_gone(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It must not make the commit fail."""
        async with transaction(session) as tx:
            _, row = await write_row(hero("Rusty"), session)
            await write_row(hero("Nova"), session)
            tx.expire(row)
            await tx.exec(text("DELETE FROM hero WHERE name = 'Rusty'"))
        assert await names(engine) == ["Nova"]

    async def test_a_row_that_was_deleted(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """There is nothing to keep loaded."""
        async with transaction(session):
            _, row = await write_row(hero("Rusty"), session)
            assert await delete_row(row.id, session, Hero)
        assert row.name == "Rusty"
        assert await names(engine) == []

    async def test_rows_that_nobody_holds_are_not_kept(self, session: AsyncSession) -> None:
        """A block that reads a million rows does not hold them all."""
        async with transaction(session):
            _, row = await write_row(hero("Rusty"), session)
            watched = weakref.ref(row)
            del row
            gc.collect()
            assert watched() is None


class TestSessions:
    async def test_one_that_is_in_use(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """Changes that were pending before the block are committed with it."""
        await session.exec(select(Hero))
        session.add(hero("pending"))
        await session.flush()
        session.add(hero("not flushed"))
        async with transaction(session):
            await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Rusty", "not flushed", "pending"]

    async def test_one_that_is_in_use_and_fails(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """They are rolled back with it."""
        await session.exec(select(Hero))
        session.add(hero("pending"))
        await session.flush()
        with pytest.raises(TransactionError):
            async with transaction(session):
                raise RuntimeError
        assert await names(engine) == []
        await assert_usable(session, engine)

    async def test_one_with_an_open_savepoint(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """It is taken over with the rest."""
        await session.begin_nested()
        session.add(hero("pending"))
        await session.flush()
        async with transaction(session):
            await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Rusty", "pending"]
        await session.begin_nested()
        session.add(hero("more"))
        await session.flush()
        with pytest.raises(TransactionError):
            async with transaction(session):
                raise RuntimeError
        assert await names(engine) == ["Rusty", "pending"]
        await assert_usable(session, engine)

    async def test_sqlalchemys_own(self, engine: AsyncEngine) -> None:
        """A session of SQLAlchemy's own will do, without any of SQLModel's methods."""
        async with PlainSession(engine) as session:
            async with transaction(session) as tx:
                _, row = await write_row(hero("Rusty"), session)
                tx.add(hero("Nova"))
            assert row.name == "Rusty"
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("Sid"), session)
                    await write_row(hero("Rusty"), session)
            assert await names(engine) == ["Nova", "Rusty"]
            await assert_usable(session, engine)

    async def test_scoped(self, engine: AsyncEngine) -> None:
        """The registry is yielded; blocks of it and of its session are the same."""
        registry = scoped(engine)
        async with transaction(registry) as tx:
            assert tx is registry
            await write_row(hero("Rusty"), registry)
            async with transaction(registry()):
                await write_row(hero("Nova"), registry())
            assert await names(engine) == []
        with pytest.raises(TransactionError):
            async with transaction(registry):
                await write_row(hero("Sid"), registry)
                raise RuntimeError
        assert await names(engine) == ["Nova", "Rusty"]
        await registry.remove()

    async def test_a_bind_per_model(self, engine: AsyncEngine) -> None:
        """It has no connection before the first statement."""
        async with AsyncSession(binds={SQLModel: engine}) as session:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                async with transaction(session):
                    await write_row(Team(name="Preventers"), session)
                assert await names(engine) == []
            with pytest.raises(TransactionError):
                async with transaction(session):
                    async with transaction(session):
                        await write_row(hero("Nova"), session)
                    raise RuntimeError
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    await write_row(hero("Nova"), session)
                    with pytest.raises(ConstraintViolationError):
                        await write_row(hero("Rusty"), session)
            assert await names(engine) == ["Rusty"]
            await assert_usable(session, engine)

    @pytest.mark.parametrize("mode", ["conditional_savepoint", "create_savepoint", "rollback_only"])
    async def test_bound_to_a_connection(self, engine: AsyncEngine, mode: str) -> None:
        """Its transaction belongs to the connection's owner, who undoes all of it."""
        async with engine.connect() as connection:
            outside = await connection.begin()
            async with AsyncSession(connection, join_transaction_mode=mode) as session:
                async with transaction(session):
                    await write_row(hero("Rusty"), session)
                    with pytest.raises(TransactionError):
                        async with transaction(session):
                            await write_row(hero("Nova"), session)
                            raise RuntimeError
                assert [row.name for row in (await get_rows(session, Hero))[1]] == ["Rusty"]
            await outside.rollback()
        assert await names(engine) == []
        assert engine.pool.checkedout() == 0

    async def test_bound_to_a_connection_without_a_transaction(self, engine: AsyncEngine) -> None:
        """The session begins and ends it then."""
        async with engine.connect() as connection, AsyncSession(connection) as session:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    async with transaction(session):
                        await write_row(hero("Nova"), session)
                    raise RuntimeError
        assert await names(engine) == ["Rusty"]

    async def test_without_autobegin(self, engine: AsyncEngine) -> None:
        """With `autobegin=False` opening a block begins."""
        async with AsyncSession(engine, autobegin=False) as session:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write_row(hero("Nova"), session)
                    raise RuntimeError
            assert await names(engine) == ["Rusty"]

    async def test_without_autoflush(self, engine: AsyncEngine) -> None:
        """The exit flushes what is pending."""
        session = AsyncSession(engine, autoflush=False)
        async with transaction(session) as tx:
            tx.add(hero("Rusty"))
            async with transaction(session):
                tx.add(hero("Nova"))
        assert await names(engine) == ["Nova", "Rusty"]

    @pytest.mark.databases("postgresql", "mysql")
    async def test_blocks_of_two_sessions(
        self, session: AsyncSession, session_factory: SessionFactory, engine: AsyncEngine
    ) -> None:
        """They never see each other's blocks, also where one is inside the other."""
        other = session_factory()
        async with transaction(session):
            await write_row(hero("Rusty"), session)
            await write_row(Team(name="outside"), other)
            assert (await get_rows(session_factory(), Team))[0]
            with pytest.raises(TransactionError):
                async with transaction(other):
                    await write_row(Team(name="inside"), other)
                    raise RuntimeError
        assert await names(engine) == ["Rusty"]
        _, (team,) = await get_rows(session, Team)
        assert team.name == "outside"


class TestResources:
    async def test_listeners_do_not_pile_up(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A hundred blocks listen once to the session and once to the engine."""

        def listeners() -> list[int]:
            plain, bind = getattr(session, "sync_session", session), session.get_bind()
            return [
                len(list(plain.dispatch.after_begin)),
                len(list(plain.dispatch.after_commit)),
                len(list(plain.dispatch.after_transaction_end)),
                len(list(bind.dialect.dispatch.handle_error)),
            ]

        async with transaction(session):
            pass
        before = listeners()
        for _ in range(100):
            async with transaction(session):
                pass
        async with AsyncSession(engine) as another, transaction(another):
            pass
        assert listeners() == before

    async def test_sessions_are_not_kept_alive(self, engine: AsyncEngine) -> None:
        """By nothing that the library remembers, after success and failure."""

        async def use() -> weakref.ref[AsyncSession]:
            async with AsyncSession(engine) as session:
                async with transaction(session):
                    await write_row(hero("Rusty"), session)
                with pytest.raises(TransactionError):
                    async with transaction(session):
                        await write_row(hero("Rusty"), session)
                return weakref.ref(session)

        session = await use()
        gc.collect()
        assert session() is None

    async def test_the_state_goes_with_the_block(self, session: AsyncSession) -> None:
        """After the block a write commits again."""
        before = {**session.info}
        async with transaction(session), transaction(session):
            assert session.info != before
        assert session.info == before
        with pytest.raises(TransactionError):
            async with transaction(session):
                raise RuntimeError
        assert session.info == before
