"""Rows of one tenant never lead to those of another: the matrix of ways to read and to write.

Whatever one tenant runs comes to what it comes to where no other tenant has any rows: so each way
is judged. For all tenants together it comes to something else, so that none of the ways is judged
for nothing. The rows are written once for many ways, each of which is undone before the next.
"""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlalchemy import (
    Row,
    delete,
    exists,
    func,
    insert,
    inspect,
    literal,
    select,
    tablesample,
    union,
    update,
)
from sqlalchemy.orm import (
    Bundle,
    aliased,
    contains_eager,
    immediateload,
    join as orm_join,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    with_loader_criteria,
    with_parent,
)

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    purge_rows,
    restore_row,
    soft_delete_row,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.mixins import all_tenants, tenant_scope
from tests._runtime_async import AsyncEngine, AsyncSession, dialect_of, execute, fetched, run_sync
from tests.tenant_models import Guild, Hall, Mage, MageSpell, Pet, Spell

Run = Callable[[AsyncSession], Any]
Scope = Callable[[], AbstractContextManager[None]]

GUILDS, MAGES, LINKS, PETS, SPELLS = (
    model.__table__  # type: ignore[attr-defined]
    for model in (Guild, Mage, MageSpell, Pet, Spell)
)
OTHERS = MAGES.alias("others")
MAGE_IN_GUILD = MAGES.outerjoin(GUILDS, MAGES.c.guild_id == GUILDS.c.id)
OTHER_GUILD, OTHER_MAGE = aliased(Guild), aliased(Mage)
MODELS = (Guild, Mage, Spell, MageSpell, Pet, Hall)


def rows_of(*tenants: str) -> list[Any]:
    """Return the rows of some tenants, which refer to each other across them."""
    gone = {"is_deleted": True, "deleted_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}
    rows: list[Any] = [
        Guild(id=1, name="Reds", wealth=10, tenant_id="north"),
        Guild(id=2, name="Blues", wealth=20, tenant_id="south"),
        Guild(id=3, name="Greys", wealth=30, tenant_id="north", **gone),
        Guild(id=4, name="Blacks", wealth=40, tenant_id="south", **gone),
        Guild(id=5, name="Reds", wealth=50, tenant_id="south"),
        Mage(id=1, name="Ann", level=1, guild_id=1, tenant_id="north"),
        Mage(id=2, name="Bob", level=2, guild_id=1, tenant_id="south"),
        Mage(id=3, name="Cid", level=3, guild_id=2, mentor_id=2, tenant_id="north"),
        Mage(id=4, name="Dee", level=4, guild_id=1, tenant_id="north", **gone),
        Mage(id=5, name="Eve", level=5, guild_id=3, mentor_id=1, tenant_id="north"),
        Mage(id=6, name="Fay", level=6, guild_id=2, mentor_id=1, tenant_id="south", **gone),
        Mage(id=7, name="Ann", level=7, guild_id=5, mentor_id=3, tenant_id="south"),
        Spell(id=1, label="fire", tenant_id="north"),
        Spell(id=2, label="ice", tenant_id="south"),
        Spell(id=3, label="air", tenant_id="north"),
        MageSpell(mage_id=1, spell_id=1, tenant_id="north"),
        MageSpell(mage_id=1, spell_id=2, tenant_id="north"),
        MageSpell(mage_id=1, spell_id=3, tenant_id="south"),
        MageSpell(mage_id=2, spell_id=3, tenant_id="north"),
    ]
    nobodys = [Pet(id=number, name=f"Pet {number}", mage_id=number) for number in range(1, 8)]
    return [row for row in rows if row.tenant_id in tenants] + [*nobodys, Hall(id=1)]


# --- how a way is judged -------------------------------------------------------------------------


def plain(found: Any) -> Any:
    """Return what can be compared: rows as their values, and lists in an order of their own."""
    if isinstance(found, list):
        return sorted(map(plain, found), key=repr)
    if isinstance(found, tuple | Row):
        return tuple(map(plain, found))
    return _values(found) if isinstance(found, MODELS) else found


def _values(row: Any) -> str:
    names = inspect(type(row)).column_attrs.keys()
    return str([getattr(row, name) for name in names if name != "deleted_at"])


@dataclass(frozen=True)
class Outcome:
    """The outcome of one way to reach rows.

    Attributes:
        found: What it returns, or the error that it raises.
        own: The rows of the north afterwards, and those of nobody.
        others: The rows of the south afterwards.
    """

    found: Any
    own: Any = None
    others: Any = None


async def contents(connection: Any, tenant: str | None = None) -> list[Any]:
    """Return all rows of a tenant, or without one, read without a session."""
    found: list[Any] = []
    for model in MODELS:
        table = inspect(model).local_table
        columns = [column for column in table.columns if column.key != "deleted_at"]
        statement = select(*columns)
        if "tenant_id" in table.c and tenant is not None:
            statement = statement.where(table.c.tenant_id == tenant)
        if ("tenant_id" in table.c) == (tenant is not None):
            found += [(table.name, *row) for row in await connection.execute(statement)]
    return sorted(found, key=repr)


async def outcome(connection: Any, run: Run, scope: Scope, *, writes: bool) -> Outcome:
    """Run it in a session of its own."""
    with scope():
        async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            try:
                found = plain(await run(session))
                await session.commit()
            except Exception as error:  # noqa: BLE001 - raised by the test of this way
                found = error
    if not writes:
        return Outcome(found)
    own = await contents(connection, "north") + await contents(connection)
    return Outcome(found, own, await contents(connection, "south"))


async def outcomes(
    engine: AsyncEngine, ways: Mapping[str, Run], scope: Scope, *tenants: str, writes: bool
) -> dict[str, Outcome]:
    """Return what each way comes to where these tenants have rows; all of it is undone."""
    found = {}
    async with engine.connect() as connection, connection.begin() as whole:
        with all_tenants():
            async with AsyncSession(connection) as session:
                session.add_all(rows_of(*tenants))
                await session.commit()
        for what, run in ways.items():
            async with connection.begin_nested() as savepoint:
                found[what] = await outcome(connection, run, scope, writes=writes)
                await savepoint.rollback()
        found["nothing"] = await outcome(connection, _nothing, scope, writes=writes)
        await whole.rollback()
    return found


async def _nothing(_session: AsyncSession) -> None: ...


_judged: dict[tuple[str, int], list[dict[str, Outcome]]] = {}


async def judge(
    session: AsyncSession, ways: Mapping[str, Run], what: str, *, writes: bool = False
) -> None:
    """Check that a way comes to the same with the rows of the south there and without them.

    They stay as they are; and for all tenants together it would come to something else.
    """
    key = dialect_of(session).name, id(ways)
    if key not in _judged:
        run: Any = partial(outcomes, session.bind, ways, writes=writes)
        north = partial(tenant_scope, "north")
        _judged[key] = [
            await run(all_tenants, "north", "south"),
            await run(north, "north"),
            await run(north, "north", "south"),
        ]
    all_of_them, alone, together = (found[what] for found in _judged[key])
    if isinstance(alone.found, Exception):
        raise alone.found
    assert together.found == alone.found
    assert together.own == alone.own
    assert together.others == _judged[key][2]["nothing"].others
    assert (all_of_them.found, all_of_them.own) != (alone.found, alone.own)


# --- statements of the caller's ------------------------------------------------------------------


def got(statement: Any) -> Run:
    """Return what runs a statement."""

    async def run(session: AsyncSession) -> Any:
        return list((await execute(session, statement)).unique().all())

    return run


IN_GUILD = select(Mage.id, Mage.guild_id).where(Mage.level > 1)
OF_GUILD = select(func.count(Mage.id)).where(Mage.guild_id == Guild.id)
CHAIN = (
    select(Mage.id, literal(0).label("depth")).where(Mage.mentor_id.is_(None)).cte(recursive=True)
)
CHAIN = CHAIN.union_all(
    select(Mage.id, CHAIN.c.depth + 1).join(CHAIN, Mage.mentor_id == CHAIN.c.id)
)

SELECTS: dict[str, Any] = {
    "a model": select(Mage),
    "columns": select(Mage.id, Mage.name),
    "an alias": select(OTHER_MAGE.id),
    "a count": select(func.count()).select_from(Mage),
    "an aggregate by group": select(Mage.name, func.sum(Mage.level)).group_by(Mage.name),
    "a window": select(Mage.id, func.count().over()),
    "a join by relationship": select(Mage.id, Guild.id).join(Mage.guild),
    "a join by condition": select(Mage.id, Guild.id).join(Guild, Guild.id == Mage.guild_id),
    "an outer join": select(Mage.id, Guild.id).outerjoin(Mage.guild),
    "a join with itself": select(Mage.id, OTHER_MAGE.id).join(Mage.mentor.of_type(OTHER_MAGE)),
    "a join from a model of no tenant": select(Pet.id, Mage.id).join(Pet.mage),
    "an outer join from a model of no tenant": select(Pet.id, Mage.id).outerjoin(Pet.mage),
    "a join through links": select(Mage.id, Spell.id).join(Mage.spells),
    "a cross join": select(Mage.id, Guild.id).where(Mage.guild_id == Guild.id),
    "a subquery": select(func.count()).select_from(select(Mage).subquery()),
    "an alias of a subquery": select(aliased(Mage, select(Mage).subquery()).id),
    "a common table expression": select(func.sum(IN_GUILD.cte().c.id)),
    "a recursive one": select(CHAIN.c.id, CHAIN.c.depth),
    "a scalar subquery": select(Guild.id, OF_GUILD.scalar_subquery()),
    "in a subquery": select(Guild.id).where(Guild.id.in_(select(Mage.guild_id))),
    "not in a subquery": select(Guild.id).where(
        Guild.id.not_in(select(Mage.guild_id).where(Mage.name != "Ann"))
    ),
    "exists": select(Pet.id).where(exists(select(Mage.id).where(Mage.id == Pet.mage_id))),
    "exists without a select": select(Pet.id).where(exists().where(Mage.id == Pet.mage_id)),
    "any": select(Guild.id).where(Guild.mages.any(Mage.name == "Bob")),
    "not any": select(Guild.id).where(~Guild.mages.any(Mage.name == "Bob")),
    "any through links": select(Mage.id).where(Mage.spells.any(Spell.label != "fire")),
    "any in any": select(Guild.id).where(Guild.mages.any(Mage.spells.any(Spell.label == "ice"))),
    "has": select(Pet.id).where(Pet.mage.has()),
    "has of its own kind": select(Mage.id).where(Mage.mentor.has()),
    "a union": union(select(Mage.id), select(Guild.id)),
    "a union of rows": select(Mage).from_statement(union(select(Mage), select(Mage))),
    "a lateral join": select(Guild.id, OF_GUILD.lateral().c[0]),
    "a table": select(MAGES.c.id),
    "an alias of a table": select(MAGES.alias("m").c.id),
    "an alias of an alias": select(OTHERS.alias("m").c.id),
    "a count of a table": select(func.count()).select_from(MAGES),
    "a join of tables": select(MAGES.c.id, GUILDS.c.id).join_from(
        MAGES, GUILDS, MAGES.c.guild_id == GUILDS.c.id
    ),
    "an outer join of tables": select(MAGES.c.id, GUILDS.c.id).select_from(
        MAGES.outerjoin(GUILDS, MAGES.c.guild_id == GUILDS.c.id)
    ),
    "an outer join of joined tables": select(PETS.c.id, MAGES.c.id, GUILDS.c.id).select_from(
        PETS.outerjoin(MAGE_IN_GUILD, MAGES.c.id == PETS.c.mage_id)
    ),
    "an outer join of an alias that is joined": select(PETS.c.id, OTHERS.c.id).select_from(
        PETS.outerjoin(
            OTHERS.join(MAGE_IN_GUILD, OTHERS.c.id == MAGES.c.mentor_id),
            OTHERS.c.id == PETS.c.mage_id,
        )
    ),
    "an outer join of a model and joined tables": select(Pet.id, MAGES.c.id).outerjoin(
        MAGE_IN_GUILD, MAGES.c.id == Pet.mage_id
    ),
    "a bundle of columns of a table": select(Bundle("b", MAGES.c.id, Bundle("c", MAGES.c.name))),
    "a bundle of columns of a model and a table": select(Bundle("b", Pet.id, MAGES.c.id)).where(
        Pet.mage_id == MAGES.c.id
    ),
    "a cross join of tables": select(MAGES.c.id).where(MAGES.c.guild_id == GUILDS.c.id),
    "a subquery of a table": select(func.count()).select_from(select(MAGES).subquery()),
    "an expression of a table": select(select(MAGES.c.id).cte().c.id),
    "exists in tables": select(PETS.c.id).where(
        exists(select(MAGES.c.id).where(MAGES.c.id == PETS.c.mage_id))
    ),
    "in a subquery of a table": select(PETS.c.id).where(PETS.c.mage_id.in_(select(MAGES.c.id))),
    "a scalar subquery of a table": select(
        PETS.c.id,
        select(MAGES.c.name).where(MAGES.c.id == PETS.c.mage_id).scalar_subquery(),
    ),
    "a union of tables": union(select(MAGES.c.id), select(SPELLS.c.id)),
    "a model and a table": select(Pet.id, MAGES.c.id).join(MAGES, MAGES.c.id == Pet.mage_id),
    "a link table": select(LINKS.c.spell_id).where(LINKS.c.mage_id == 1),
    "a function": func.max(Mage.level),
    "a function of a table": func.count(MAGES.c.id),
    "an option with a condition": select(Pet).options(
        with_loader_criteria(Pet, lambda pet: pet.mage_id.in_(select(Mage.id)))
    ),
    "a column that counts rows": select(Hall),
    "a table that only a condition names": select(Pet.id).where(Pet.mage_id == MAGES.c.id),
    "an alias that only a condition names": select(Pet.id).where(Pet.mage_id == OTHERS.c.id),
    "a model that only a condition names": select(Pet.id).where(Pet.mage_id == Mage.id),
    "a table that only a condition of exists names": select(Hall.id).where(
        exists(select(Pet.id).where(Pet.mage_id == MAGES.c.id, MAGES.c.level == 2))
    ),
    "contains": select(Mage.id).where(Mage.spells.contains(Spell(id=3))),
    "with_parent": select(Spell.id).where(with_parent(Mage(id=1), Mage.spells)),
    "a join of models": select(Pet.id).select_from(orm_join(Pet, Mage, Pet.mage)),
    "a join of models by condition": select(func.count(Pet.id)).select_from(
        orm_join(Pet, Mage, Pet.mage_id == Mage.id)
    ),
    "a join of three models": select(Pet.id).select_from(
        orm_join(orm_join(Pet, Mage, Pet.mage), Guild, Mage.guild)
    ),
    "a join of a model and an alias": select(Pet.id).select_from(
        orm_join(Pet, OTHER_MAGE, Pet.mage_id == OTHER_MAGE.id)
    ),
    "a count of joined models": select(func.count()).select_from(orm_join(Pet, Mage, Pet.mage)),
    "a subquery that may correlate all": select(
        select(func.count(MAGES.c.id)).correlate_except(None).scalar_subquery()
    ),
    "a subquery that may correlate all but another table": select(
        Pet.id, select(func.count(MAGES.c.id)).correlate_except(GUILDS).scalar_subquery()
    ),
    "exists that may correlate all but another table": select(Pet.id).where(
        exists().where(MAGES.c.id == PETS.c.mage_id).correlate_except(GUILDS)
    ),
    "a part of a table": select(func.count()).select_from(tablesample(MAGES, 100)),
    "a part of a model": select(aliased(Mage, tablesample(Mage, 100)).id),
}
NOT_EVERYWHERE = ("a lateral join", "a part of a table", "a part of a model")
SELECTING: dict[str, Run] = {what: got(statement) for what, statement in SELECTS.items()}


@pytest.mark.parametrize("what", [what for what in SELECTS if what not in NOT_EVERYWHERE])
async def test_no_select_leads_to_another_tenant(session: AsyncSession, what: str):
    """With models and with tables, and however they are combined."""
    await judge(session, SELECTING, what)


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("what", NOT_EVERYWHERE)
async def test_nothing_that_some_databases_lack_does(session: AsyncSession, what: str):
    """Lateral joins, TABLESAMPLE."""
    await judge(session, SELECTING, what)


def wrote(statement: Any, **options: Any) -> Run:
    """Return what runs a statement that writes."""

    async def run(session: AsyncSession) -> Any:
        # What the session holds is written to as well.
        fetched(await execute(session, select(Mage)))
        result: Any = await execute(session, statement.execution_options(**options))
        return result.rowcount

    return run


NEWER = {"level": 9}
WRITES: dict[str, Any] = {
    "an update of a model": update(Mage).values(NEWER),
    "an update of some rows": update(Mage).where(Mage.name == "Ann").values(NEWER),
    "an update of an expression": update(Mage).values(level=Mage.level + 1),
    "an update by a subquery": update(Mage)
    .where(Mage.guild_id.in_(select(Guild.id).where(Guild.name == "Blues")))
    .values(NEWER),
    "an update by exists": update(Pet)
    .where(exists(select(Mage.id).where(Mage.id == Pet.mage_id)))
    .values(name="Rex"),
    "an update by any": update(Guild).where(Guild.mages.any(Mage.level > 1)).values(wealth=0),
    "an update to a subquery": update(Guild).values(
        wealth=select(func.count(Mage.id)).where(Mage.guild_id == Guild.id).scalar_subquery()
    ),
    "a deletion of a model": delete(Mage),
    "a deletion of some rows": delete(Mage).where(Mage.name == "Ann"),
    "a deletion by a subquery": delete(Pet).where(Pet.mage_id.in_(select(Mage.id))),
    "a deletion by exists": delete(Pet).where(
        exists(select(Mage.id).where(Mage.id == Pet.mage_id))
    ),
    "an update of a table": update(MAGES).values(NEWER),
    "an update of an alias": update(OTHERS).values(NEWER),
    "an update of an alias of an alias": update(OTHERS.alias("m")).values(NEWER),
    "an update of some rows of a table": update(MAGES).where(MAGES.c.name == "Ann").values(NEWER),
    "an update of a table by another": update(PETS)
    .where(PETS.c.mage_id.in_(select(MAGES.c.id)))
    .values(name="Rex"),
    "a deletion of a table": delete(MAGES),
    "a deletion of some rows of a table": delete(MAGES).where(MAGES.c.name == "Ann"),
    "a deletion of a table by another": delete(PETS).where(
        exists(select(MAGES.c.id).where(MAGES.c.id == PETS.c.mage_id))
    ),
    "an update of a table by a model": update(PETS)
    .where(PETS.c.mage_id.in_(select(Mage.id)))
    .values(name="Rex"),
    "a deletion of links by a model": delete(LINKS).where(LINKS.c.mage_id.in_(select(Mage.id))),
    "a deletion of links": delete(LINKS).where(LINKS.c.mage_id == 1),
    "an insert from a select": insert(Spell).from_select(
        ["id", "label"], select(Mage.id + 100, Mage.name)
    ),
    "an insert from a table": insert(SPELLS).from_select(
        ["id", "label"], select(MAGES.c.id + 100, MAGES.c.name)
    ),
}
FROM_OTHERS: dict[str, Any] = {
    "an update from another model": update(Pet)
    .where(Mage.id == Pet.mage_id, Mage.level > 0)
    .values(name=Mage.name),
    "an update from another table": update(PETS)
    .where(MAGES.c.id == PETS.c.mage_id)
    .values(name=MAGES.c.name),
    "an update from its own kind": update(Mage)
    .where(Mage.mentor_id == OTHER_MAGE.id)
    .values(NEWER),
}
USING_OTHERS: dict[str, Any] = {
    "a deletion using another model": delete(Pet).where(Mage.id == Pet.mage_id),
    "a deletion using another table": delete(PETS).where(MAGES.c.id == PETS.c.mage_id),
}


HOW_TOLD = ["fetch", "evaluate", "auto", False]
IN_EXPRESSIONS = {
    "an update in an expression": select(
        update(MAGES).values(NEWER).returning(MAGES.c.id).cte().c.id
    ),
    "an insert in an expression": select(
        insert(SPELLS).values(id=100, label="x", power=0).returning(SPELLS.c.id).cte().c.id
    ),
    "a deletion in an expression": select(
        func.count(delete(Pet).where(Pet.mage_id.in_(select(Mage.id))).returning(Pet.id).cte().c.id)
    ),
}
WRITING: dict[str, Run] = {
    **{what: wrote(statement) for what, statement in WRITES.items()},
    **{
        f"{what} told by {how}": wrote(WRITES[what], synchronize_session=how)
        for what in ("an update of some rows", "a deletion of some rows")
        for how in HOW_TOLD
    },
    **{
        what: wrote(statement, synchronize_session=False)
        for what, statement in (FROM_OTHERS | USING_OTHERS).items()
    },
    **{what: got(statement) for what, statement in IN_EXPRESSIONS.items()},
}


@pytest.mark.parametrize(
    "what", [what for what in WRITING if what not in USING_OTHERS | IN_EXPRESSIONS]
)
async def test_no_write_reaches_another_tenant(session: AsyncSession, what: str):
    """The unit of work has nothing to do with these statements."""
    await judge(session, WRITING, what, writes=True)


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.parametrize("what", USING_OTHERS)
async def test_no_deletion_that_looks_at_other_tables_does(session: AsyncSession, what: str):
    """SQLite has none of them."""
    await judge(session, WRITING, what, writes=True)


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("what", IN_EXPRESSIONS)
async def test_no_write_in_a_common_table_expression_does(session: AsyncSession, what: str):
    """A SELECT of what an UPDATE returns."""
    await judge(session, WRITING, what, writes=True)


# --- related rows --------------------------------------------------------------------------------

LOADERS = [selectinload, joinedload, subqueryload, immediateload, lazyload]
RELATED = [(Guild, "mages"), (Mage, "guild"), (Mage, "mentor"), (Mage, "spells"), (Pet, "mage")]


def related(model: Any, name: str, *options: Any) -> Run:
    """Return what looks at related rows, which may query the database."""

    async def run(session: AsyncSession) -> Any:
        rows = fetched((await execute(session, select(model).options(*options))).unique())
        return await run_sync(session, lambda: [(row.id, getattr(row, name)) for row in rows])

    return run


async def _joined_by_the_caller(session: AsyncSession) -> Any:
    statement = select(Mage).join(Mage.spells).options(contains_eager(Mage.spells))
    rows = fetched((await execute(session, statement)).unique())
    return [(row.id, list(row.spells)) for row in rows]


async def _loaded_lazily(session: AsyncSession) -> Any:
    ann, cid = fetched(await execute(session, select(Mage).where(Mage.id.in_([1, 3]))))
    session.expunge(ann)
    copy = pickle.loads(pickle.dumps(ann))
    session.add_all([copy, new := Mage(id=99, name="New", mentor_id=2, tenant_id="north")])
    await session.flush()
    return await run_sync(session, lambda: [copy.spells, new.mentor, cid.mentor, cid.guild])


async def _got(session: AsyncSession) -> Any:
    return [await session.get(Mage, key) for key in (1, 2, 4)]


RELATING: dict[str, Run] = {
    **{
        f"{load.__name__}({model.__name__}.{name})": related(
            model, name, load(getattr(model, name))
        )
        for load in LOADERS
        for model, name in RELATED
        if not (load is joinedload and name == "spells")
    },
    "what the caller joined": _joined_by_the_caller,
    "rows that the program made itself, or that went through pickle": _loaded_lazily,
    "get": _got,
}


@pytest.mark.parametrize("what", RELATING)
async def test_no_relationship_leads_to_another_tenant(session: AsyncSession, what: str):
    """In a statement of the caller's, however the relationship is loaded."""
    await judge(session, RELATING, what)


# --- the library ---------------------------------------------------------------------------------


def built(model: Any, call: Callable[[Any], Any]) -> Run:
    """Return what uses the query builder."""

    async def run(session: AsyncSession) -> Any:
        return await call(QueryBuilder(session, model).with_deleted()), await call(
            QueryBuilder(session, model)
        )

    return run


async def _streamed(query: Any) -> Any:
    return [row async for row in query.stream(batch_size=2)]


async def _page(query: Any) -> Any:
    page = await query.paginate(1, 2)
    return page.items, page.total


async def _keyset(query: Any) -> Any:
    return (await query.order_by("-level").keyset(3)).items


async def _each(calls: Any) -> Any:
    return [plain(await call) for call in calls]


async def _with_related(session: AsyncSession) -> Any:
    found = []
    for deleted in (True, False):
        _, mage = await get_row(
            1, session, Mage, selectin=True, select_in_keys=["spells"], include_deleted=deleted
        )
        found.append(list(mage.spells))
        session.expunge_all()
    return found


# The mage of that level is another tenant's.
GUILDS_OF_BOB = select(MAGES.c.guild_id).where(MAGES.c.level == 2)
BOBS = (
    select(func.count()).where(MAGES.c.guild_id == Guild.id, MAGES.c.level == 2).scalar_subquery()
)
READS: dict[str, Run] = {
    **{
        f"get_row, include_deleted={deleted}": (
            lambda session, deleted=deleted: _each(
                get_row(key, session, Mage, include_deleted=deleted) for key in range(1, 8)
            )
        )
        for deleted in (True, False)
    },
    "get_row with related rows": _with_related,
    "get_rows": lambda session: get_rows(session, Mage),
    "get_rows of deleted ones": lambda session: get_rows(session, Mage, include_deleted=True),
    "get_rows by filter": lambda session: get_rows(session, Mage, name="Ann"),
    "get_rows by path": lambda session: get_rows(session, Pet, mage__level__gt=0),
    "get_rows by longer path": lambda session: get_rows(session, Pet, mage__spells__label="ice"),
    "get_rows without a related row": lambda session: get_rows(session, Mage, mentor__is_null=True),
    "get_rows by statement": lambda session: get_rows(session, Mage, stmnt=select(Mage)),
    "get_rows by any": lambda session: get_rows(
        session, Guild, stmnt=select(Guild).where(Guild.mages.any(Mage.level > 1))
    ),
    "get_rows by deleted any": lambda session: get_rows(
        session,
        Guild,
        stmnt=select(Guild).where(Guild.mages.any(Mage.level > 1)),
        include_deleted=True,
    ),
    "get_rows with a column that counts": lambda session: get_rows(session, Hall),
    "get_rows by keys": lambda session: get_rows_within_id_list(range(1, 8), session, Mage),
    "a query": lambda session: get_result_from_query(select(func.count(Mage.id)), session),
    "a query of a table": lambda session: get_result_from_query(
        select(func.sum(MAGES.c.level)), session, include_deleted=True
    ),
    "built rows": built(Mage, lambda query: query.all()),
    "built rows by path": built(Mage, lambda query: query.where(guild__name="Blues").all()),
    "built rows by exclusion": built(Mage, lambda query: query.exclude(guild__name="Reds").all()),
    "built rows by alternatives": built(
        Mage, lambda query: query.any_of({"mentor__name": "Bob"}, {"name": "Ann"}).all()
    ),
    "built rows by expression": built(Pet, lambda query: query.where(Pet.mage.has()).all()),
    "built rows by a query of a table": built(
        Guild, lambda query: query.where(id__in=GUILDS_OF_BOB).all()
    ),
    "built rows in the order of a query of a table": built(
        Guild, lambda query: query.order_by(BOBS.desc(), "-id").limit(1).all()
    ),
    "built rows in the order of others": built(
        Pet, lambda query: query.order_by("mage__name", "id").limit(3).scalars("id")
    ),
    "a built count": built(Mage, lambda query: query.count()),
    "a built sum": built(Mage, lambda query: query.sum("level")),
    "built, whether there are any": built(Mage, lambda query: query.where(name="Bob").exists()),
    "built values": built(Mage, lambda query: query.scalars("name")),
    "a built page": built(Mage, _page),
    "a built page by cursor": built(Mage, _keyset),
    "a built stream": built(Mage, _streamed),
    "only deleted ones": lambda session: QueryBuilder(session, Mage).only_deleted().all(),
}


def loaded_by_the_library(model: Any, name: str, how: str) -> Run:
    """Return what asks the query builder for related rows."""

    async def run(session: AsyncSession) -> Any:
        found = []
        for deleted in (True, False):
            query = getattr(QueryBuilder(session, model), how)(name, include_deleted=deleted)
            found += [(row.id, getattr(row, name)) for row in await query.all()]
            session.expunge_all()
        return plain(found)

    return run


READS |= {
    f"{how}({model.__name__}.{name})": loaded_by_the_library(model, name, how)
    for how in ("selectin", "joined")
    for model, name in RELATED
}


@pytest.mark.parametrize("what", READS)
async def test_no_read_of_the_library_leads_to_another_tenant(session: AsyncSession, what: str):
    """Deleted rows are brought in on request, those of another tenant are not."""
    await judge(session, READS, what)


async def _flushed(session: AsyncSession) -> Any:
    ann = await session.get(Mage, 1)
    session.add(Spell(id=80, label="dust"))
    ann.level = 9
    await session.delete(await session.get(Mage, 3))
    await session.flush()


WRITTEN: dict[str, Run] = {
    "update_row": lambda session: _each(
        update_row(key, {"level": 9}, session, Mage) for key in range(1, 8)
    ),
    "update_row of a deleted one": lambda session: _each(
        update_row(key, {"level": 9}, session, Mage, include_deleted=True) for key in range(1, 8)
    ),
    "delete_row": lambda session: _each(delete_row(key, session, Mage) for key in range(1, 8)),
    "delete_row for good": lambda session: _each(
        delete_row(key, session, Mage, soft=False) for key in range(1, 8)
    ),
    "soft_delete_row": lambda session: _each(
        soft_delete_row(key, session, Mage) for key in range(1, 8)
    ),
    "restore_row": lambda session: _each(restore_row(key, session, Mage) for key in range(1, 8)),
    "purge_rows": lambda session: purge_rows(session, Guild, older_than=dt.timedelta(0)),
    "bulk_update_rows": lambda session: bulk_update_rows(range(1, 8), {"level": 9}, session, Mage),
    "delete_rows_within_id_list": lambda session: delete_rows_within_id_list(
        range(1, 8), session, Mage
    ),
    "the same for good": lambda session: delete_rows_within_id_list(
        range(1, 8), session, Mage, soft=False
    ),
    "a built update": lambda session: (
        QueryBuilder(session, Mage).where(level__gt=0).update(level=9)
    ),
    "a built update by path": lambda session: (
        QueryBuilder(session, Mage).where(guild__name="Blues").update(level=9)
    ),
    "a built update by expression": lambda session: (
        QueryBuilder(session, Guild).where(Guild.mages.any(Mage.level > 1)).update(wealth=0)
    ),
    "a built deletion": lambda session: QueryBuilder(session, Mage).delete(everything=True),
    "a built deletion for good": lambda session: (
        QueryBuilder(session, Spell).where(label__ne="").delete()
    ),
    "get_one_or_create": lambda session: get_one_or_create(
        session, Mage, {"id": 50, "tenant_id": "north"}, name="Bob"
    ),
    "bulk_upsert_mappings by a key of the tenant": lambda session: bulk_upsert_mappings(
        [{"id": 60, "name": "Blues", "wealth": 1}, {"name": "Reds", "wealth": 2}],
        session,
        Guild,
        pk_fields=["name"],
    ),
    "bulk_upsert_mappings by a key of visible rows": lambda session: bulk_upsert_mappings(
        [{"name": "Ann", "level": 8}, {"id": 61, "name": "Bob", "level": 9}],
        session,
        Mage,
        pk_fields=["name"],
    ),
    "write_row": lambda session: write_row(Spell(label="ice", id=70), session),
    "insert_data_rows": lambda session: insert_data_rows(
        [Spell(label=str(key), id=key) for key in range(100, 300)], session
    ),
    "bulk_insert_rows": lambda session: bulk_insert_rows(
        [{"label": str(key), "id": key} for key in range(100, 300)], session, Spell
    ),
    "a flush": _flushed,
}


@pytest.mark.parametrize("what", WRITTEN)
async def test_no_write_of_the_library_reaches_another_tenant(session: AsyncSession, what: str):
    """A row of another tenant is a missing one; a new one gets the tenant."""
    await judge(session, WRITTEN, what, writes=True)
