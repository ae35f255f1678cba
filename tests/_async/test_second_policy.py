"""A policy that holds for every statement of a session, beside soft deletion.

Whatever is run in one realm comes to what it comes to where no other realm has any rows: so each
way to read or to write is judged. Without the policy it comes to something else.
"""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import Row, delete, exists, func, insert, inspect, literal, select, union, update
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    immediateload,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    with_polymorphic,
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
    purge_rows,
    restore_row,
    soft_delete_row,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from tests._async.rows import given
from tests._runtime_async import AsyncSession, execute, fetched, run_sync
from tests.policy_models import (
    Castle,
    Guild,
    Mage,
    MageSpell,
    Pet,
    Place,
    Spell,
    realms_apart,
    ruling,
)

Sessions = Callable[[], AsyncSession]
Run = Callable[[AsyncSession], Any]

GUILDS, MAGES, LINKS, PETS, SPELLS = (
    model.__table__  # type: ignore[attr-defined]
    for model in (Guild, Mage, MageSpell, Pet, Spell)
)
OTHER_GUILD, OTHER_MAGE = aliased(Guild), aliased(Mage)
MODELS = (Guild, Mage, Spell, MageSpell, Pet, Place)
TABLES = [inspect(each).local_table for each in (Castle, Place, Pet, MageSpell, Spell, Mage, Guild)]


def rows_of(*realms: str) -> list[Any]:
    """Return the rows of some realms, which refer to each other across them."""
    gone = {"is_deleted": True, "deleted_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}
    rows: list[Any] = [
        Guild(id=1, name="Reds", wealth=10, realm="north"),
        Guild(id=2, name="Blues", wealth=20, realm="south"),
        Guild(id=3, name="Greys", wealth=30, realm="north", **gone),
        Guild(id=4, name="Blacks", wealth=40, realm="south", **gone),
        Guild(id=5, name="Reds", wealth=50, realm="south"),
        Mage(id=1, name="Ann", level=1, guild_id=1, realm="north"),
        Mage(id=2, name="Bob", level=2, guild_id=1, realm="south"),
        Mage(id=3, name="Cid", level=3, guild_id=2, mentor_id=2, realm="north"),
        Mage(id=4, name="Dee", level=4, guild_id=1, realm="north", **gone),
        Mage(id=5, name="Eve", level=5, guild_id=3, mentor_id=1, realm="north"),
        Mage(id=6, name="Fay", level=6, guild_id=2, mentor_id=1, realm="south", **gone),
        Mage(id=7, name="Ann", level=7, guild_id=5, mentor_id=3, realm="south"),
        Spell(id=1, label="fire", realm="north"),
        Spell(id=2, label="ice", realm="south"),
        Spell(id=3, label="air", realm="north"),
        MageSpell(mage_id=1, spell_id=1, realm="north"),
        MageSpell(mage_id=1, spell_id=2, realm="north"),
        MageSpell(mage_id=1, spell_id=3, realm="south"),
        MageSpell(mage_id=2, spell_id=3, realm="north"),
        Place(id=1, name="Hill", realm="north"),
        Place(id=2, name="Lake", realm="south"),
        Castle(id=3, name="Keep", towers=4, realm="north"),
        Castle(id=4, name="Fort", towers=8, realm="south"),
    ]
    pets = [Pet(id=number, name=f"Pet {number}", mage_id=number) for number in range(1, 8)]
    return [row for row in rows if row.realm in realms] + pets


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


async def contents(session: AsyncSession, realm: str) -> dict[str, Any]:
    """Return all rows of a realm."""
    found: dict[str, Any] = {}
    async with AsyncSession(session.bind) as other:
        for model in (Guild, Mage, Spell, MageSpell, Place):
            rows = fetched(await execute(other, select(model).where(model.realm == realm)))
            found[model.__name__] = sorted(map(_values, rows))
        pets = fetched(await execute(other, select(Pet))) if realm == "north" else []
        found["Pet"] = sorted(map(_values, pets))
    return found


async def outcome(session: AsyncSession, run: Run, *realms: str, ruled: bool) -> Any:
    """Run it in the north, with the rows of these realms there; return all that comes of it."""
    for table in TABLES:
        await execute(session, delete(table))
    await given(session, *rows_of(*realms))
    before = await contents(session, "south")
    with ruling("north"), realms_apart() if ruled else nullcontext():
        found = plain(await run(session))
        await session.commit()
    session.expunge_all()
    after = await contents(session, "south")
    return found, await contents(session, "north"), after == before


async def judged(session: AsyncSession, run: Run) -> None:
    """Check that it comes to the same with the rows of the south there and without them.

    They stay as they are; and without the policy it would come to something else.
    """
    unruled = await outcome(session, run, "north", "south", ruled=False)
    alone = await outcome(session, run, "north", ruled=True)
    together = await outcome(session, run, "north", "south", ruled=True)
    assert together == alone
    assert together[2]
    assert unruled != alone


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
    "a join from a model of no realm": select(Pet.id, Mage.id).join(Pet.mage),
    "an outer join from a model of no realm": select(Pet.id, Mage.id).outerjoin(Pet.mage),
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
    "an inheritance": select(Place),
    "a subclass": select(Castle.id, Castle.towers, Castle.name),
    "all subclasses": select(with_polymorphic(Place, [Castle])),
    "a lateral join": select(Guild.id, OF_GUILD.lateral().c[0]),
    "a table": select(MAGES.c.id),
    "an alias of a table": select(MAGES.alias("m").c.id),
    "a count of a table": select(func.count()).select_from(MAGES),
    "a join of tables": select(MAGES.c.id, GUILDS.c.id).join_from(
        MAGES, GUILDS, MAGES.c.guild_id == GUILDS.c.id
    ),
    "an outer join of tables": select(MAGES.c.id, GUILDS.c.id).select_from(
        MAGES.outerjoin(GUILDS, MAGES.c.guild_id == GUILDS.c.id)
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
}
NO_LATERAL = ("a lateral join",)


@pytest.mark.parametrize("what", [what for what in SELECTS if what not in NO_LATERAL])
async def test_no_select_leads_to_another_realm(session: AsyncSession, what: str):
    """With models and with tables, and however they are combined."""
    await judged(session, got(SELECTS[what]))


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("what", NO_LATERAL)
async def test_no_lateral_join_does(session: AsyncSession, what: str):
    """What not every database has."""
    await judged(session, got(SELECTS[what]))


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
        ["id", "label", "realm"], select(Mage.id + 100, Mage.name, literal("north"))
    ),
    "an insert from a table": insert(SPELLS).from_select(
        ["id", "label", "realm"], select(MAGES.c.id + 100, MAGES.c.name, literal("north"))
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


@pytest.mark.parametrize("what", WRITES)
async def test_no_write_reaches_another_realm(session: AsyncSession, what: str):
    """The unit of work has nothing to do with these statements."""
    await judged(session, wrote(WRITES[what]))


@pytest.mark.parametrize("how", ["fetch", "evaluate", "auto", False])
@pytest.mark.parametrize("what", ["an update of some rows", "a deletion of some rows"])
async def test_however_the_session_is_told(session: AsyncSession, what: str, how: Any):
    """SQLAlchemy finds the objects that are concerned with the same criteria."""
    await judged(session, wrote(WRITES[what], synchronize_session=how))


@pytest.mark.parametrize("what", FROM_OTHERS)
async def test_updates_that_look_at_other_tables(session: AsyncSession, what: str):
    """Rows of another realm say nothing about those that are written to."""
    await judged(session, wrote(FROM_OTHERS[what], synchronize_session=False))


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.parametrize("what", USING_OTHERS)
async def test_deletions_that_look_at_other_tables(session: AsyncSession, what: str):
    """SQLite has none of them."""
    await judged(session, wrote(USING_OTHERS[what], synchronize_session=False))


async def test_an_update_by_keys_is_refused(session: AsyncSession):
    """SQLAlchemy takes no criteria there; it is refused before anything is sent."""
    with ruling("north"), realms_apart():
        with pytest.raises(ValidationError, match="bulk_update_rows"):
            await execute(session, update(Mage), [{"id": 2, "level": 9}])
        await execute(session, update(Pet), [])
        await given(session, Pet(id=1, name="Pip"))
        await execute(session, update(Pet), [{"id": 1, "name": "Rex"}])
        assert fetched(await execute(session, select(Pet.name))) == ["Rex"]


@pytest.mark.databases("postgresql")
async def test_writes_in_a_common_table_expression(session: AsyncSession):
    """A SELECT of what an UPDATE returns."""
    written = update(MAGES).values(NEWER).returning(MAGES.c.id).cte()
    await judged(session, got(select(written.c.id)))
    removed = delete(Pet).where(Pet.mage_id.in_(select(Mage.id))).returning(Pet.id).cte()
    await judged(session, got(select(func.count(removed.c.id))))


# --- related rows --------------------------------------------------------------------------------

LOADERS = [selectinload, joinedload, subqueryload, immediateload, lazyload]
RELATED = [(Guild, "mages"), (Mage, "guild"), (Mage, "mentor"), (Mage, "spells"), (Pet, "mage")]


def related(model: Any, name: str, *options: Any) -> Run:
    """Return what looks at related rows, which may query the database."""

    async def run(session: AsyncSession) -> Any:
        rows = fetched((await execute(session, select(model).options(*options))).unique())
        return await run_sync(session, lambda: [(row.id, getattr(row, name)) for row in rows])

    return run


@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__)
@pytest.mark.parametrize(
    ("model", "name"), RELATED, ids=lambda each: getattr(each, "__name__", each)
)
async def test_no_relationship_leads_to_another_realm(
    session: AsyncSession, model: Any, name: str, load: Any
):
    """In a statement of the caller's, however the relationship is loaded."""
    if load is joinedload and name == "spells":
        pytest.skip("SQLAlchemy joins the link table; the library's own joined() knows of it")
    await judged(session, related(model, name, load(getattr(model, name))))


async def test_what_the_caller_joined(session: AsyncSession):
    """`contains_eager` takes what the join lets through."""
    statement = select(Mage).join(Mage.spells).options(contains_eager(Mage.spells))

    async def run(session: AsyncSession) -> Any:
        rows = fetched((await execute(session, statement)).unique())
        return [(row.id, list(row.spells)) for row in rows]

    await judged(session, run)


async def test_lazy_loads_of_rows_that_were_there_before(session: AsyncSession):
    """Rows that the program made itself, or that went through pickle, load as all others do."""

    async def run(session: AsyncSession) -> Any:
        ann, cid = fetched(await execute(session, select(Mage).where(Mage.id.in_([1, 3]))))
        session.expunge(ann)
        copy = pickle.loads(pickle.dumps(ann))
        session.add_all([copy, new := Mage(id=99, name="New", mentor_id=2)])
        await session.flush()
        return await run_sync(session, lambda: [copy.spells, new.mentor, cid.mentor, cid.guild])

    await judged(session, run)


async def test_a_row_by_its_key(session: AsyncSession):
    """`get` queries the database for what the session doesn't hold."""

    async def run(session: AsyncSession) -> Any:
        return [await session.get(Mage, key) for key in (1, 2, 4)]

    await judged(session, run)


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


@pytest.mark.parametrize("what", READS)
async def test_no_read_of_the_library_leads_to_another_realm(session: AsyncSession, what: str):
    """Deleted rows are brought in on request, those of another realm are not."""
    await judged(session, READS[what])


@pytest.mark.parametrize("how", ["selectin", "joined"])
@pytest.mark.parametrize(
    ("model", "name"), RELATED, ids=lambda each: getattr(each, "__name__", each)
)
async def test_no_relationship_of_a_query_does(
    session: AsyncSession, model: Any, name: str, how: str
):
    """Also where deleted related rows are asked for."""

    async def run(session: AsyncSession) -> Any:
        found = []
        for deleted in (True, False):
            query = getattr(QueryBuilder(session, model), how)(name, include_deleted=deleted)
            found += [(row.id, getattr(row, name)) for row in await query.all()]
            session.expunge_all()
        return plain(found)

    await judged(session, run)


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
        session, Mage, {"id": 50, "realm": "north"}, name="Bob"
    ),
}


@pytest.mark.parametrize("what", WRITTEN)
async def test_no_write_of_the_library_reaches_another_realm(session: AsyncSession, what: str):
    """A row of another realm is a missing one."""
    await judged(session, WRITTEN[what])


async def test_a_row_of_another_realm_holds_no_unique_value(session: AsyncSession):
    """The columns that a key has because of policies are left out of its name."""

    async def run(session: AsyncSession) -> Any:
        guilds = [{"id": 60, "name": "Blues", "wealth": 1}, {"name": "Reds", "wealth": 2}]
        mages = [{"name": "Ann", "level": 8}, {"id": 61, "name": "Bob", "level": 9}]
        await bulk_upsert_mappings(guilds, session, Guild, pk_fields=["name"])
        await bulk_upsert_mappings(mages, session, Mage, pk_fields=["name"])

    session.add_all(rows_of("north", "south"))
    await session.commit()
    south = await contents(session, "south")
    with ruling("north"), realms_apart():
        await run(session)
    assert await contents(session, "south") == south
    async with AsyncSession(session.bind) as other:
        names = (await execute(other, select(Guild.name, Guild.wealth, Guild.realm))).all()
    assert {tuple(row) for row in names} == {
        ("Reds", 2, "north"),
        ("Blues", 1, "north"),
        ("Greys", 30, "north"),
        ("Blues", 20, "south"),
        ("Blacks", 40, "south"),
        ("Reds", 50, "south"),
    }


async def test_a_stamp_stays_as_it_is(session: AsyncSession):
    """An upsert moves no row to another realm, and cannot be asked to."""
    await given(session, *rows_of("north"))
    row = {"id": 1, "name": "Reds", "realm": "south", "wealth": 7}
    with ruling("north"), realms_apart():
        await bulk_upsert_mappings([row], session, Guild)
        with pytest.raises(ValidationError, match="realm"):
            await bulk_upsert_mappings([row], session, Guild, update_columns=["realm"])
        _, reds = await get_row(1, session, Guild)
    assert (reds.realm, reds.wealth) == ("north", 7)


async def test_new_rows_get_the_realm(session: AsyncSession):
    """By every way in: one row, many, and those that are looked for first."""
    with ruling("north"), realms_apart():
        await write_row(Spell(id=1, label="fire"), session)
        await bulk_insert_rows(
            [{"id": 2, "label": "ice"}, {"id": 3, "label": "air"}], session, Spell
        )
        await get_one_or_create(session, Spell, {"id": 4}, label="earth")
        _, spells = await get_rows(session, Spell)
    assert {spell.realm for spell in spells} == {"north"}
    assert len(spells) == 4


# --- one statement for all -----------------------------------------------------------------------


async def test_the_value_is_no_part_of_a_compiled_statement(session: AsyncSession):
    """What one realm has compiled serves the next one with its own rows."""
    await given(session, *rows_of("north", "south"))
    found = {}
    with realms_apart():
        for realm in ("north", "south", "north"):
            with ruling(realm):
                found[realm] = fetched(await execute(session, select(Spell.id).order_by(Spell.id)))
                _, rows = await get_rows(session, Spell, sort_field="id")
                assert [row.id for row in rows] == found[realm]
    assert found == {"north": [1, 3], "south": [2]}


async def test_a_policy_that_comes_later_holds_too(session: AsyncSession):
    """What was compiled without it is not taken for a statement with it."""
    await given(session, *rows_of("north", "south"))
    statement = select(Mage.id).order_by(Mage.id)
    with ruling("north"):
        assert len((await get_rows(session, Mage))[1]) == 5
        with realms_apart():
            assert fetched(await execute(session, statement)) == [1, 3, 4, 5]
            assert len((await get_rows(session, Mage))[1]) == 3
        assert len(fetched(await execute(session, statement))) == 7
        assert len((await get_rows(session, Mage))[1]) == 5
