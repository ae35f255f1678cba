"""Every mixin, a hook and a cache on one model: programs leave what a model of dicts says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import delete, update
from sqlmodel import col

from sqlmodel_crud_utils.aio import (
    AsyncRepository,
    get_row,
    purge_rows,
    session_factory as make_session_factory,
    transaction,
    update_row,
)
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConflictError,
    ConstraintViolationError,
    RecordNotFoundError,
    SQLModelCRUDError,
)
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from sqlmodel_crud_utils.ext.history.aio import get_change_history
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as, tenant_scope
from tests._runtime_async import AsyncEngine, AsyncSession, execute
from tests.combined_models import Consignment
from tests.databases import Database
from tests.properties import examples

TENANTS = ("acme", "globex")
NOBODY = 987_654
FIELDS = (
    "name",
    "worth",
    "version",
    "is_deleted",
    "created_by",
    "updated_by",
    "deleted_by",
)
Row = dict[str, Any]

numbers = count(1)


@pytest.fixture(autouse=True)
def _cache() -> Iterator[None]:
    """A cache in memory."""
    configure_cache(InMemoryCache(), ttl=60)
    yield
    configure_cache(None)


class UndoneError(Exception):
    """An exception that undoes a block."""


class Quiet:
    """A hook that changes nothing, but has every write take the way of hooks."""

    def before_create(self, row: Consignment) -> None:
        """Look at the row."""
        assert row.name

    def before_update(self, row: Consignment, data: dict[str, Any]) -> None:
        """Look at the changes."""
        assert row.id is not None
        assert "id" not in data

    def after_delete(self, row: Consignment) -> None:
        """Look at what is left of it."""
        assert row.name


# --- the model ------------------------------------------------------------------------------------


@dataclass
class World:
    """The rows of all tenants by their keys, as they have to be."""

    rows: dict[int, Row] = field(default_factory=dict)

    def of(self, tenant: str, *, deleted: bool | None = None) -> dict[int, Row]:
        """Return the rows of a tenant: all, or only the deleted or the other ones."""
        return {
            key: row
            for key, row in self.rows.items()
            if row["tenant_id"] == tenant and deleted in (None, row["is_deleted"])
        }


@dataclass
class Program:
    """The state that steps work with."""

    session: AsyncSession
    world: World
    tenant: str
    actor: str | None
    number: int
    in_block: bool

    @property
    def consignments(self) -> AsyncRepository[Consignment]:
        """The repository of the session."""
        return AsyncRepository(self.session, Consignment)

    @property
    def visible(self) -> dict[int, Row]:
        """The tenant's rows that are not deleted."""
        return self.world.of(self.tenant, deleted=False)

    @property
    def deleted(self) -> dict[int, Row]:
        """The tenant's deleted rows."""
        return self.world.of(self.tenant, deleted=True)

    @property
    def own(self) -> dict[int, Row]:
        """All rows of the tenant."""
        return self.world.of(self.tenant)

    @property
    def foreign(self) -> list[int]:
        """Keys of other tenants' rows, and one that no row has."""
        return [key for key in self.world.rows if key not in self.own] + [NOBODY]

    def one_of(self, keys: Any) -> Any:
        """Pick one, or return None if there is nothing to pick from."""
        keys = list(keys)
        return keys[self.number % len(keys)] if keys else None

    def some_of(self, keys: Any) -> list[int]:
        """Pick some."""
        return [key for place, key in enumerate(keys) if (place + self.number) % 3]

    def mapping(self) -> dict[str, Any]:
        """Return the values of a new row."""
        number = next(numbers)
        return {"name": f"n{number}", "worth": number}

    def made(self, key: int, **values: Any) -> None:
        """Note a new row."""
        self.world.rows[key] = {
            "tenant_id": self.tenant,
            "version": 1,
            "is_deleted": False,
            "created_by": self.actor,
            "updated_by": None,
            "deleted_by": None,
            **values,
        }

    def changed(self, *keys: int, **values: Any) -> None:
        """Note a change of rows."""
        for key in keys:
            row = self.world.rows[key]
            row.update(values, version=row["version"] + 1, updated_by=self.actor)

    def marked(self, *keys: int) -> None:
        """Note a soft deletion."""
        self.changed(*keys, is_deleted=True, deleted_by=self.actor)

    def removed(self, *keys: int) -> None:
        """Note that rows were removed."""
        for key in keys:
            del self.world.rows[key]

    async def refused(self, kind: type[SQLModelCRUDError], work: Callable[[], Any]) -> None:
        """See that a call is refused; in a block, in a savepoint of its own."""
        with pytest.raises(kind):
            if self.in_block:
                async with transaction(self.session, wrap_errors=False):
                    await work()
            else:
                await work()

    async def end(self) -> None:
        """Write what is pending; commit it outside a block."""
        if self.in_block:
            await self.session.flush()
        else:
            await self.session.commit()

    async def keys_of_new(self, names: list[str]) -> dict[str, int]:
        """Return the keys of rows by their names."""
        rows = await self.consignments.where(name__in=names).values("name", "id")
        return {row["name"]: row["id"] for row in rows}


def seen(row: Any) -> Row:
    """Return what the model knows of a row."""
    return {name: getattr(row, name) for name in FIELDS}


def known(row: Row) -> Row:
    """Return what a row has to show."""
    return {name: row[name] for name in FIELDS}


# --- the steps ------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Program], Any]] = {}


def step(function: Callable[[Program], Any]) -> Callable[[Program], Any]:
    """Make a function a step that programs draw."""
    STEPS[function.__name__] = function
    return function


@step
async def create(p: Program) -> None:
    values = p.mapping()
    row = await p.consignments.create(**values)
    p.made(row.id or 0, **values)
    assert seen(row) == known(p.world.rows[row.id or 0])


@step
async def create_twin(p: Program) -> None:
    if key := p.one_of(p.own):
        name = p.own[key]["name"]
        await p.refused(ConstraintViolationError, lambda: p.consignments.create(name=name, worth=1))


@step
async def create_namesake_of_a_foreign_row(p: Program) -> None:
    own = {row["name"] for row in p.own.values()}
    names = [row["name"] for row in p.world.rows.values() if row["name"] not in own]
    if name := p.one_of(names):
        row = await p.consignments.create(name=name, worth=1)
        p.made(row.id or 0, name=name, worth=1)


@step
async def update_one(p: Program) -> None:
    if key := p.one_of(p.visible):
        worth = next(numbers)
        row = await p.consignments.update(key, {"worth": worth})
        p.changed(key, worth=worth)
        assert seen(row) == known(p.world.rows[key])


@step
async def update_one_with_sql(p: Program) -> None:
    if key := p.one_of(p.visible):
        row = await p.consignments.update(key, {"worth": -col(Consignment.worth)})
        p.changed(key, worth=-p.world.rows[key]["worth"])
        assert seen(row) == known(p.world.rows[key])


@step
async def update_nothing(p: Program) -> None:
    if key := p.one_of(p.visible):
        row = await p.consignments.update(key, {})
        assert seen(row) == known(p.world.rows[key])


@step
async def update_the_version_that_was_seen(p: Program) -> None:
    if key := p.one_of(p.visible):
        worth, version = next(numbers), p.own[key]["version"]
        row = await p.consignments.update(key, {"worth": worth}, expected_version=version)
        p.changed(key, worth=worth)
        assert seen(row) == known(p.world.rows[key])


@step
async def update_an_outdated_version(p: Program) -> None:
    if key := p.one_of(p.visible):
        version = p.own[key]["version"] - 1
        await p.refused(
            ConflictError,
            lambda: p.consignments.update(key, {"worth": 1}, expected_version=version),
        )


@step
async def update_to_the_name_of_another(p: Program) -> None:
    if (key := p.one_of(p.visible)) and (other := p.one_of([k for k in p.own if k != key])):
        name = p.own[other]["name"]
        await p.refused(
            ConstraintViolationError, lambda: p.consignments.update(key, {"name": name})
        )


@step
async def update_what_is_not_there(p: Program) -> None:
    for key in (p.one_of(p.foreign), p.one_of(p.deleted) or NOBODY):
        with pytest.raises(RecordNotFoundError):
            await p.consignments.update(key, {"worth": 1})


@step
async def update_unless_refused(p: Program) -> None:
    if (key := p.one_of(p.visible)) and (other := p.one_of([k for k in p.own if k != key])):
        data = {"name": p.own[other]["name"]}
        done, _ = await update_row(key, data, p.session, Consignment, raise_on_error=False)
        assert not done


@step
async def mark(p: Program) -> None:
    if key := p.one_of(p.visible):
        await p.consignments.delete(key)
        p.marked(key)


@step
async def mark_an_outdated_version(p: Program) -> None:
    if key := p.one_of(p.visible):
        await p.refused(ConflictError, lambda: p.consignments.delete(key, expected_version=99_999))


@step
async def mark_what_is_not_there(p: Program) -> None:
    for key in (p.one_of(p.foreign), p.one_of(p.deleted) or NOBODY):
        with pytest.raises(RecordNotFoundError):
            await p.consignments.delete(key)


@step
async def restore(p: Program) -> None:
    if key := p.one_of(p.deleted):
        row = await p.consignments.restore(key)
        p.changed(key, is_deleted=False, deleted_by=None)
        assert seen(row) == known(p.world.rows[key])


@step
async def restore_what_is_not_deleted(p: Program) -> None:
    for key in (p.one_of(p.foreign), p.one_of(p.visible) or NOBODY):
        with pytest.raises(RecordNotFoundError):
            await p.consignments.restore(key)


@step
async def remove(p: Program) -> None:
    if key := p.one_of(p.own):
        await p.consignments.delete(key, soft=False)
        p.removed(key)


@step
async def purge(p: Program) -> None:
    gone = list(p.deleted)
    assert await purge_rows(p.session, Consignment, older_than=timedelta(0)) == len(gone)
    p.removed(*gone)


@step
async def get_or_create(p: Program) -> None:
    values = p.mapping()
    row, created = await p.consignments.get_or_create(
        {"worth": values["worth"]}, name=values["name"]
    )
    assert created
    p.made(row.id or 0, **values)
    row, created = await p.consignments.get_or_create({"worth": 1}, name=values["name"])
    assert not created
    assert seen(row) == known(p.world.rows[row.id or 0])


@step
async def get_or_create_what_is_deleted(p: Program) -> None:
    if key := p.one_of(p.deleted):
        name = p.own[key]["name"]
        await p.refused(ConstraintViolationError, lambda: p.consignments.get_or_create(name=name))


@step
async def update_or_create(p: Program) -> None:
    worth = next(numbers)
    if key := p.one_of(p.visible):
        name = p.own[key]["name"]
        row, created = await p.consignments.update_or_create({"worth": worth}, name=name)
        assert not created
        p.changed(key, worth=worth)
        assert seen(row) == known(p.world.rows[key])


@step
async def insert_some(p: Program) -> None:
    await _insert(p, 3)


@step
async def insert_many(p: Program) -> None:
    if len(p.own) < 50:
        await _insert(p, 120)  # from 100 rows on they are written past the flush


async def _insert(p: Program, how_many: int) -> None:
    rows = [p.mapping() for _ in range(how_many)]
    assert await p.consignments.insert_many(rows) == how_many
    keys = await p.keys_of_new([row["name"] for row in rows])
    for row in rows:
        p.made(keys[row["name"]], **row)


@step
async def insert_a_twin_among_others(p: Program) -> None:
    if key := p.one_of(p.own):
        twin = {"name": p.own[key]["name"], "worth": 1}
        rows = [p.mapping(), twin, p.mapping()]
        await p.refused(BulkOperationError, lambda: p.consignments.insert_many(rows))


@step
async def upsert(p: Program) -> None:
    old = [p.own[key]["name"] for key in p.some_of(p.visible)]
    rows = [{"name": name, "worth": next(numbers)} for name in old] + [p.mapping(), p.mapping()]
    counts = await p.consignments.upsert_many(rows, unique_fields=["name"])
    assert (counts.created, counts.updated) == (2, len(old))
    keys = await p.keys_of_new([row["name"] for row in rows])
    for row in rows:
        if row["name"] in old:
            p.changed(keys[row["name"]], worth=row["worth"])
        else:
            p.made(keys[row["name"]], **row)


@step
async def update_some(p: Program) -> None:
    keys, worth = p.some_of(p.own), next(numbers)
    found = [key for key in keys if key in p.visible]
    assert await p.consignments.update_many([*keys, *p.foreign], {"worth": worth}) == len(found)
    p.changed(*found, worth=worth)


@step
async def mark_some(p: Program) -> None:
    keys = p.some_of(p.own)
    found = [key for key in keys if key in p.visible]
    assert await p.consignments.delete_many([*keys, *p.foreign]) == len(found)
    p.marked(*found)


@step
async def remove_some(p: Program) -> None:
    keys = p.some_of(p.own)
    assert await p.consignments.delete_many([*keys, *p.foreign], soft=False) == len(keys)
    p.removed(*keys)


@step
async def update_where(p: Program) -> None:
    limit, worth = next(numbers) // 2, next(numbers)
    found = [key for key, row in p.visible.items() if row["worth"] >= limit]
    assert await p.consignments.where(worth__gte=limit).update(worth=worth) == len(found)
    p.changed(*found, worth=worth)


@step
async def mark_where(p: Program) -> None:
    limit = next(numbers) // 2
    found = [key for key, row in p.visible.items() if row["worth"] >= limit]
    assert await p.consignments.where(worth__gte=limit).delete() == len(found)
    p.marked(*found)


@step
async def remove_where(p: Program) -> None:
    limit = next(numbers) // 2
    found = [key for key, row in p.own.items() if row["worth"] >= limit]
    query = p.consignments.with_deleted().where(worth__gte=limit)
    assert await query.delete(soft=False) == len(found)
    p.removed(*found)


@step
async def flush_new(p: Program) -> None:
    values = p.mapping()
    row = Consignment(**values)
    p.session.add(row)
    await p.session.flush()
    p.made(row.id or 0, **values)
    await p.end()


@step
async def flush_changed(p: Program) -> None:
    if key := p.one_of(p.visible):
        row = await p.consignments.get(key)
        row.worth = next(numbers)
        p.changed(key, worth=row.worth)
        await p.end()


@step
async def flush_deleted(p: Program) -> None:
    if key := p.one_of(p.visible):
        await p.session.delete(await p.consignments.get(key))
        await p.end()
        p.removed(key)


@step
async def update_by_statement(p: Program) -> None:
    worth = next(numbers)
    await execute(p.session, update(Consignment).values(worth=worth))
    await p.end()
    p.changed(*p.own, worth=worth)


@step
async def delete_by_statement(p: Program) -> None:
    limit = next(numbers) // 2
    found = [key for key, row in p.own.items() if row["worth"] >= limit]
    await execute(p.session, delete(Consignment).where(col(Consignment.worth) >= limit))
    await p.end()
    p.removed(*found)


# --- the checks -----------------------------------------------------------------------------------


async def compare(session: AsyncSession, world: World, tenant: str) -> None:
    """Check what a session reads of its tenant's rows, from the database and from the cache."""
    everything = world.of(tenant)
    expected = {key: known(row) for key, row in everything.items() if not row["is_deleted"]}
    consignments = AsyncRepository(session, Consignment)
    rows = await consignments.with_deleted().order_by("id").all()
    assert {row.id: seen(row) for row in rows} == {
        key: known(row) for key, row in everything.items()
    }
    for query in (consignments.query, consignments.query.cached()):
        assert {row.id: seen(row) for row in await query.all()} == expected
        assert await query.count() == len(expected)
    for key in [*list(everything)[:3], NOBODY]:
        _, row = await get_row(key, session, Consignment, use_cache=True)
        assert (None if row is None else seen(row)) == expected.get(key)


async def compare_histories(session: AsyncSession, world: World, tenant: str) -> None:
    """Check that the history of each row of a tenant ends with what there is."""
    own = world.of(tenant)
    for key, row in own.items():
        made: Row = {}
        changes = await get_change_history(key, session, Consignment)
        for change in changes:
            for name, (old, new) in change.changes.items():
                assert made.get(name) == old
                made[name] = new
        last = changes[-1]
        by = row["created_by"] if last.operation == "create" else row["updated_by"]
        assert last.changed_by == by
        assert {name: made.get(name) for name in FIELDS} == known(row)
    for key in world.rows.keys() - own.keys():
        # SQLite gives the key of a removed row to the next one, which may be another tenant's.
        changes = await get_change_history(key, session, Consignment)
        assert [each.operation for each in changes[-1:]] in ([], ["delete"])


# --- the programs ---------------------------------------------------------------------------------

Step = tuple[str, int]
steps = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9))
parts = st.tuples(
    st.sampled_from(["alone", "block", "savepoint", "failing block", "failing savepoint"]),
    st.sampled_from(TENANTS),
    st.sampled_from(["ann", "bob", None]),
    st.lists(steps, min_size=1, max_size=4),
)


@dataclass
class Run:
    """A running program: a session for each tenant, and the expected rows."""

    engine: AsyncEngine
    sessions: dict[str, AsyncSession]
    world: World = field(default_factory=World)

    async def part(self, how: str, tenant: str, actor: str | None, program: list[Step]) -> None:
        """Run steps for one tenant."""
        session = self.sessions[tenant]

        async def each(name: str, number: int) -> None:
            p = Program(session, self.world, tenant, actor, number, how != "alone")
            await STEPS[name](p)
            await compare(session, self.world, tenant)

        async def inner() -> None:
            for name, number in program:
                await each(name, number)
            if how.startswith("failing"):
                raise UndoneError

        before = deepcopy(self.world.rows)
        with tenant_scope(tenant), acting_as(actor):
            if how == "alone":
                await inner()
            else:
                with suppress(UndoneError):
                    await self.block(session, how, inner)
            if how.startswith("failing"):
                self.world.rows = before
            await compare(session, self.world, tenant)
        await session.rollback()

    async def block(self, session: AsyncSession, how: str, inner: Callable[[], Any]) -> None:
        """Run steps in a block, or in a savepoint in it."""
        async with transaction(session, wrap_errors=False):
            if "savepoint" not in how:
                await inner()
                return
            with suppress(UndoneError):
                async with transaction(session, wrap_errors=False):
                    await inner()

    async def compare_in_new_session(self) -> None:
        """Check with sessions that hold nothing."""
        for tenant in TENANTS:
            with tenant_scope(tenant):
                async with AsyncSession(self.engine) as session:
                    await compare(session, self.world, tenant)
                    await compare_histories(session, self.world, tenant)


@examples(60)
@given(program=st.lists(parts, min_size=1, max_size=6), hooked=st.booleans())
async def test_a_program_leaves_what_the_model_says(
    engine: AsyncEngine, database: Database, program: list[Any], hooked: bool
) -> None:
    """For anything that two tenants write and undo, alone and in blocks, with hooks and without."""
    new_session = make_session_factory(engine)
    try:
        async with new_session() as one, new_session() as two:
            run = Run(engine, dict(zip(TENANTS, (one, two), strict=True)))
            for each in program:
                if hooked:
                    with registered_hook(Consignment, Quiet()):
                        await run.part(*each)
                else:
                    await run.part(*each)
                await run.compare_in_new_session()
    finally:
        database.clear()
        configure_cache(InMemoryCache(), ttl=60)
