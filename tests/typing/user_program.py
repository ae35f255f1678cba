"""A user's program, never run: mypy --strict and pyright must accept it, and refuse its mistakes.

`assert_type` states what a user gets back. A line with an ignore comment is a mistake that both
must report: an ignore comment that is not needed is an error itself.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, assert_type

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession as PlainAsyncSession,
    async_scoped_session,
)
from sqlalchemy.orm import Session as PlainSession, scoped_session
from sqlmodel import Field, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

import sqlmodel_crud_utils as crud
from sqlmodel_crud_utils import a_sync, aio, sync
from sqlmodel_crud_utils.exceptions import ConstraintViolationError, SQLModelCRUDError
from sqlmodel_crud_utils.ext.fastapi import crud_router, session_dependency
from sqlmodel_crud_utils.hooks import (
    OperationHook,
    ValidateOnWrite,
    clear_hooks,
    get_hooks,
    register_hook,
    registered_hook,
    unregister_hook,
)


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    age: int | None = None


Found = tuple[Literal[True], Hero] | tuple[Literal[False], None]


def sync_reads(session: Session) -> None:
    assert_type(sync.get_row("1", session, Hero), Found)
    assert_type(sync.get_row(1, session, Hero, raise_on_error=True), tuple[Literal[True], Hero])
    assert_type(sync.get_row(uuid.uuid4(), session, Hero, pk_field="name"), Found)

    _, hero = sync.get_row(1, session, Hero)
    if hero is not None:
        assert_type(hero.age, int | None)

    _, heroes = sync.get_rows(session, Hero, age__gte=18, team__name="x", sort_field="name")
    assert_type(heroes[0], Hero)
    _, listed = sync.get_rows_within_id_list(["1", 2], session, Hero)
    assert_type(listed[0].name, str)
    sync.get_result_from_query(select(Hero), session)


def sync_writes(session: Session) -> None:
    row, existed = sync.get_one_or_create(session, Hero, {"age": 3}, name="x")
    assert_type(row, Hero)
    assert_type(existed, bool)

    _, written = sync.write_row(Hero(name="x"), session, raise_on_error=True)
    assert_type(written, Hero)
    _, updated = sync.update_row(1, {"age": 3}, session, Hero, raise_on_error=True)
    assert_type(updated, Hero)
    assert_type(sync.delete_row(1, session, Hero), bool)
    _, upserted = sync.bulk_upsert_mappings([{"id": 1, "name": "x"}], session, Hero)
    _, counts = sync.bulk_upsert_mappings([{"id": 1}], session, Hero, return_rows=False)
    assert_type(counts, sync.UpsertCounts)
    assert_type(counts.created, int)
    assert_type(upserted[0], Hero)


def sync_transactions(session: Session) -> None:
    with sync.transaction(session) as tx:
        assert_type(tx, Session)
        sync.on_commit(tx, lambda: None)
    with crud.transaction(session, wrap_errors=False):
        pass


def sync_repository(session: Session) -> None:
    heroes = sync.Repository(session, Hero)
    assert_type(heroes, sync.Repository[Hero])
    assert_type(crud.Repository(session, Hero).model, type[Hero])
    assert_type(heroes.create(name="x"), Hero)
    assert_type(heroes.create(Hero(name="x")).age, int | None)
    assert_type(heroes.get(1), Hero)
    assert_type(heroes.get(name="x", include_deleted=True), Hero)
    assert_type(heroes.get_or_none("1"), Hero | None)
    assert_type(heroes.get_or_none(name="x"), Hero | None)
    assert_type(heroes.update(1, {"age": 3}, expected_version=2), Hero)
    assert_type(heroes.restore((1, 2)), Hero)
    assert_type(heroes.get_or_create({"age": 3}, name="x"), tuple[Hero, bool])
    assert_type(heroes.update_or_create(name="x"), tuple[Hero, bool])
    assert_type(heroes.get_many([1, 2]), list[Hero])
    assert_type(heroes.insert_many([{"name": "x"}]), int)
    assert_type(heroes.upsert_many([{"name": "x"}], "name"), sync.UpsertCounts)
    assert_type(heroes.where(Hero.name == "x", age__gte=18).all(), list[Hero])
    assert_type(heroes.paginate().items[0], Hero)
    heroes.delete(1)


class HeroRepository(sync.Repository[Hero]):
    def __init__(self, session: Session) -> None:
        super().__init__(session, Hero)

    def adults(self) -> list[Hero]:
        return self.where(age__gte=18).all()


async def async_repository(session: AsyncSession) -> None:
    heroes = aio.Repository(session, Hero)
    assert_type(heroes, crud.AsyncRepository[Hero])
    assert_type(await heroes.create(name="x"), Hero)
    assert_type(await heroes.get(1), Hero)
    assert_type(await heroes.get_or_none(name="x"), Hero | None)
    assert_type(await heroes.get_or_create(name="x"), tuple[Hero, bool])
    assert_type(await heroes.order_by("-age").first(), Hero | None)


def repository_mistakes(session: Session, others: AsyncSession) -> None:
    heroes = sync.Repository(session, Hero)
    heroes.create("x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    heroes.get(1, 2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    heroes.get(1, name="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    heroes.get(1)[0]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    sync.Repository(others, Hero)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def add_hero(session: Session, name: str) -> Hero:
    _, hero = sync.write_row(Hero(name=name), session, raise_on_error=True)
    return hero


async def add_hero_later(session: AsyncSession, name: str) -> Hero:
    _, hero = await aio.write_row(Hero(name=name), session, raise_on_error=True)
    return hero


async def repeated_transactions(engine: Engine, async_engine: AsyncEngine) -> None:
    factory = sync.session_factory(engine)
    assert_type(sync.run_transaction(factory, add_hero, "x", attempts=3), Hero)
    sync.run_transaction(factory, lambda session: sync.delete_row(1, session, Hero))
    later = aio.session_factory(async_engine)
    assert_type(await aio.run_transaction(later, add_hero_later, name="x", deadline=1.5), Hero)
    assert_type(sync.is_transient(ValueError()), bool)
    await aio.run_transaction(later, add_hero)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def any_session(
    plain: PlainSession, scoped: scoped_session[Session], registry: scoped_session[PlainSession]
) -> None:
    sync.get_row(1, plain, Hero)
    sync.get_row(1, scoped, Hero)
    sync.get_row(1, registry, Hero)


def sync_connections() -> Callable[[], Iterator[Session]]:
    engine = sync.create_pooled_engine("sqlite://", pool_size=2, echo=True)
    assert_type(engine, Engine)
    with sync.session_factory(engine)() as session:
        sync.get_row(1, session, Hero)
    assert_type(sync.pool_status(engine)["checked_out"], int)
    return sync.get_session(engine)


def sync_query_builder(session: Session) -> None:
    query = sync.QueryBuilder(session, Hero).where(Hero.name == "x", age__gt=3).order_by("-age")
    assert_type(query, sync.QueryBuilder[Hero])
    assert_type(crud.QueryBuilder(session, Hero).all(), list[Hero])
    assert_type(query.all(), list[Hero])
    assert_type(query.first(), Hero | None)
    assert_type(query.selectin("team").one(), Hero)
    assert_type(query.any_of({"age": 1}, Hero.name == "x").one_or_none(), Hero | None)
    assert_type(query.count(), int)
    assert_type(query.exists(), bool)
    assert_type(query.values("name"), list[dict[str, Any]])
    assert_type(query.paginate(), crud.Page[Hero])
    assert_type(query.paginate(2, size=5).items[0].age, int | None)
    assert_type(query.keyset(50).items, list[Hero])
    assert_type(query.keyset(50, after="x").next_cursor, str | None)
    assert_type(query.update(age=3), int)
    assert_type(query.delete(soft=False), int)
    assert_type(query.sql(), str)


async def async_query_builder(session: AsyncSession) -> None:
    query = aio.QueryBuilder(session, Hero).exclude(age=None).limit(5)
    assert_type(query, aio.AsyncQueryBuilder[Hero])
    assert_type(await query.all(), list[Hero])
    assert_type(await crud.AsyncQueryBuilder(session, Hero).first(), Hero | None)
    assert_type(await query.paginate(), aio.Page[Hero])
    assert_type(await query.keyset(5), aio.CursorPage[Hero])


async def async_everything(session: AsyncSession) -> None:
    assert_type(await aio.get_row("1", session, Hero), Found)
    assert_type(await crud.a_get_row("1", session, Hero), Found)
    assert_type(await a_sync.get_row("1", session, Hero), Found)
    _, hero = await aio.get_row(1, session, Hero, raise_on_error=True)
    assert_type(hero, Hero)
    async with aio.transaction(session) as tx:
        assert_type(tx, AsyncSession)
        aio.on_commit(tx, notify)
    async with crud.a_transaction(session):
        row, _ = await aio.get_one_or_create(session, Hero, name="x")
        assert_type(row, Hero)


async def notify() -> None:
    """Callbacks of the async API may be `async def`."""


async def any_async_session(
    plain: PlainAsyncSession, scoped: async_scoped_session[AsyncSession]
) -> None:
    await aio.get_row(1, plain, Hero)
    await aio.get_row(1, scoped, Hero)


async def async_connections() -> Callable[[], AsyncIterator[AsyncSession]]:
    engine = aio.create_pooled_engine("sqlite://")
    assert_type(engine, AsyncEngine)
    async with aio.session_factory(engine)() as session:
        await aio.get_row(1, session, Hero)
    return aio.get_session(engine)


class Stamp:
    """A sync hook; each method may be left out."""

    def before_create(self, instance: Hero) -> Hero:
        instance.name = instance.name.strip()
        return instance

    def before_update(self, instance: Hero, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "name": instance.name}

    def after_delete(self, instance: Hero) -> None: ...


class Index:
    """An async hook."""

    async def before_create(self, instance: Hero) -> Hero | None:
        return instance if instance.age else None

    async def after_create(self, instance: Hero) -> None: ...

    async def before_update(self, instance: Hero, data: dict[str, Any]) -> dict[str, Any]:
        return {"age": instance.age, **data}


class Log:
    """A hook for any model."""

    def before_create(self, instance: SQLModel) -> None: ...

    def after_update(self, instance: SQLModel) -> None: ...


class Quota:
    """A sync hook that asks for the session."""

    def before_create(self, instance: Hero, session: Session) -> Hero:
        session.add(instance)
        return instance

    def before_update(
        self, instance: Hero, data: dict[str, Any], session: Session
    ) -> dict[str, Any]:
        session.add(instance)
        return data

    def after_delete(self, instance: Hero, *, session: Session) -> None: ...


class AsyncQuota:
    """An async hook that asks for the session."""

    async def before_create(self, instance: Hero, session: AsyncSession) -> None: ...

    async def after_create(self, instance: Hero, session: AsyncSession) -> None: ...

    async def before_update(
        self, instance: Hero, data: dict[str, Any], session: AsyncSession
    ) -> dict[str, Any]:
        await session.refresh(instance)
        return data

    async def after_update(self, instance: Hero, session: AsyncSession) -> None: ...

    async def before_delete(self, instance: Hero, session: AsyncSession) -> None: ...


class Misfit:
    """Takes another model's rows."""

    def after_create(self, instance: OtherModel) -> None: ...


class OtherModel(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


HeroHook = OperationHook[Hero]


def hooks(extra: OperationHook[Hero]) -> None:
    mine: list[OperationHook[Hero]] = [Stamp(), Index(), Log(), ValidateOnWrite(), extra]
    mine += [Quota(), AsyncQuota()]
    every: HeroHook = Stamp()
    for hook in (*mine, every):
        register_hook(Hero, hook)
        unregister_hook(Hero, hook)
    register_hook(SQLModel, Log())
    with registered_hook(Hero, Index()), crud.registered_hook(Hero, extra) as same:
        assert_type(same, OperationHook[Hero])
    assert_type(get_hooks(Hero), tuple[Any, ...])
    clear_hooks(Hero)


def mistaken_hooks() -> None:
    register_hook(Hero, object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    register_hook(Hero, Misfit())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    _: OperationHook[Hero] = Misfit()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class HeroPublic(SQLModel):
    id: int


class Untabled:
    id: int


def routes(engine: Engine, async_engine: AsyncEngine) -> None:
    opened = session_dependency(engine)
    assert_type(opened, Callable[..., Session])
    assert_type(session_dependency(async_engine), Callable[..., AsyncSession])
    crud_router(Hero, opened, public=HeroPublic, create=HeroPublic, operations=["list", "bulk"])


def mistaken_routes(engine: Engine) -> None:
    opened = session_dependency(engine)
    crud_router(Untabled, opened, public=HeroPublic)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    crud_router(Hero, opened, public=Untabled)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    crud_router(Hero, opened, public=HeroPublic, create=Untabled)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    crud_router(Hero, opened, public=HeroPublic, operations=["lst"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    crud_router(Hero, opened)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def errors(error: SQLModelCRUDError) -> Any:
    if isinstance(error, ConstraintViolationError):
        assert_type(error.columns, tuple[str, ...])
        return error.constraint
    return crud.RecordNotFoundError(Hero, 5, pk_field="id")


def mistakes(session: Session, async_session: AsyncSession) -> None:
    sync.get_row(1, async_session, Hero)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    sync.delete_row(1, session, "Hero")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sync.QueryBuilder(async_session, Hero)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sync.QueryBuilder(session, Hero).limit("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sync.get_rows(session)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    _ = sync.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    _ = crud.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
