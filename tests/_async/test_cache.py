"""Reads that are answered from the cache: what they return, and when the database is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import inspect, text, update

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    AsyncRepository,
    delete_row,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    invalidate_cache,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from sqlmodel_crud_utils.mixins import tenant_scope
from tests._runtime_async import AsyncEngine, AsyncSession, execute, run_sync, sync_session
from tests.cache_models import (
    Bauble,
    Bundle,
    Emblem,
    Jotting,
    Loft,
    Novel,
    Password,
    Pickled,
    Plank,
    PlankNovel,
    Tally,
    new_bauble,
)
from tests.recording import logged, statements_of

Read = Callable[[AsyncSession], Any]


@pytest.fixture(autouse=True)
def cache() -> Iterator[InMemoryCache]:
    """A cache in memory."""
    made = InMemoryCache()
    configure_cache(made, ttl=60)
    yield made
    configure_cache(None)


async def asked(engine: AsyncEngine, read: Read) -> tuple[Any, int]:
    """Return what a read returns in a session of its own, and how many statements it took."""
    with statements_of(engine) as statements:
        async with AsyncSession(engine) as session:
            found = await read(session)
    return found, len(statements)


async def is_cached(engine: AsyncEngine, read: Read) -> bool:
    """Return whether a read is answered without the database."""
    _, count = await asked(engine, read)
    return count == 0


def row(model: type[Any], key: Any, **options: Any) -> Read:
    async def read(session: AsyncSession) -> Any:
        _, found = await get_row(key, session, model, use_cache=True, **options)
        return found

    return read


async def one(session: AsyncSession, made: Any) -> Any:
    """Write a row and return its key."""
    _, written = await write_row(made, session, raise_on_error=True)
    return written.id


# --- hits ----------------------------------------------------------------------------------------


async def test_each_read_hits_the_second_time(  # noqa: C901 - many reads
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Every read with `use_cache` or `cached()` returns the same again until a write."""
    key = await one(session, Bundle(name="a", stock=3))
    await one(session, Bundle(name="b", stock=4))

    def cached(session: AsyncSession) -> AsyncQueryBuilder[Bundle]:
        return AsyncQueryBuilder(session, Bundle).order_by("-name").cached()

    async def page(session: AsyncSession) -> Any:
        found = await cached(session).paginate(2, 1)
        return [found.items[0].name, found.total]

    async def keyset(session: AsyncSession) -> Any:
        found = await cached(session).keyset(1)
        return [found.items[0].name, found.next_cursor]

    async def rows(session: AsyncSession) -> Any:
        _, found = await get_rows(session, Bundle, stock__gte=3, use_cache=True)
        return [each.name for each in found]

    async def listed(session: AsyncSession) -> Any:
        _, found = await get_rows_within_id_list([key, 99], session, Bundle, use_cache=True)
        return [each.name for each in found]

    async def repository(session: AsyncSession) -> Any:
        return (await AsyncRepository(session, Bundle).get(name="b", use_cache=True)).name

    async def many(session: AsyncSession) -> Any:
        found = await AsyncRepository(session, Bundle).get_many([key], use_cache=True)
        return [each.name for each in found]

    async def names(session: AsyncSession) -> Any:
        return [each.name for each in await cached(session).all()]

    async def first(session: AsyncSession) -> Any:
        found = await cached(session).first()
        return found and found.name

    async def only(session: AsyncSession) -> Any:
        return (await cached(session).where(name="a").one()).name

    async def none(session: AsyncSession) -> Any:
        return await cached(session).where(name="c").one_or_none()

    async def values(session: AsyncSession) -> Any:
        return await cached(session).values()

    async def scalars(session: AsyncSession) -> Any:
        return await cached(session).scalars("name")

    of_rows = (page, keyset, rows, listed, repository, many, names, first, only, none)
    for read in (row(Bundle, key), row(Bundle, 99), *of_rows, values, scalars):
        before, count = await asked(engine, read)
        again, count_again = await asked(engine, read)
        assert (count > 0, count_again) == (True, 0), read
        assert again == before or again.model_dump() == before.model_dump()
    await one(session, Bundle(name="z", stock=9))
    for read in (*of_rows, values, scalars):
        after, count = await asked(engine, read)
        assert count > 0, read
        configure_cache(None)
        assert (await asked(engine, read))[0] == after, read
        configure_cache(InMemoryCache(), ttl=60)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        *(("count", ()), ("exists", ()), ("sum", ("stock",)), ("avg", ("stock",))),
        *(("min", ("name",)), ("max", ("stock",)), ("values", ("name", "id"))),
    ],
)
async def test_each_number_hits_the_second_time(
    engine: AsyncEngine, session: AsyncSession, method: str, arguments: Any
) -> None:
    """The same value again, of the same type, without a statement, until a write."""
    await insert_data_rows([Bundle(name="a", stock=3), Bundle(name="b", stock=4)], session)

    async def read(session: AsyncSession) -> Any:
        query = AsyncQueryBuilder(session, Bundle).cached()
        return await getattr(query, method)(*arguments)

    before, count = await asked(engine, read)
    again, none = await asked(engine, read)
    assert (count, again, type(again), none) == (1, before, type(before), 0)
    await insert_data_rows([Bundle(name="0", stock=9)], session)
    after, count = await asked(engine, read)
    assert count == 1
    assert (after != before) is (method != "exists")


async def test_a_hit_is_a_persistent_object(engine: AsyncEngine, session: AsyncSession) -> None:
    """`session.get` finds it, it is in the session, and its relationships load."""
    loft = await one(session, Loft(name="loft"))
    key = await one(session, Plank(name="plank", loft_id=loft))
    await asked(engine, row(Plank, key))
    async with AsyncSession(engine) as other:
        _, plank = await get_row(key, other, Plank, use_cache=True)
        assert plank is not None
        assert plank in other
        assert inspect(plank).persistent
        assert await other.get(Plank, key) is plank
        await other.refresh(plank, ["loft"])
        assert plank.loft is not None
        assert plank.loft.name == "loft"


async def test_a_row_that_the_session_holds_is_returned_as_it_is(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Changes that are pending or flushed included."""
    key = await one(session, Bundle(name="a", stock=1))
    await asked(engine, row(Bundle, key))
    async with AsyncSession(engine) as other:
        held = await other.get(Bundle, key)
        assert held is not None
        assert await row(Bundle, key)(other) is held
        held.stock = 7
        assert (await row(Bundle, key)(other)).stock == 7
        await other.flush()
        assert (await row(Bundle, key)(other)).stock == 7
        await other.rollback()
        assert (await row(Bundle, key)(other)).stock == 1


async def test_related_rows_come_along(engine: AsyncEngine, session: AsyncSession) -> None:
    """Rows loaded by `selectin`, also nested or through links, are cached with their tables."""
    loft = await one(session, Loft(name="loft"))
    key = await one(session, Plank(name="plank", loft_id=loft))
    novel = await one(session, Novel(title="novel"))
    await write_row(PlankNovel(plank_id=key, novel_id=novel), session)
    read = row(Plank, key, selectin=True, select_in_keys=["loft.planks", "novels"])

    async def listed(session: AsyncSession) -> Any:
        query = AsyncQueryBuilder(session, Plank).where(novels__title="novel").joined("loft")
        return [
            (plank.name, plank.loft and plank.loft.name) for plank in await query.cached().all()
        ]

    def seen(plank: Any) -> Any:
        lofts = (plank.loft.name, plank.loft.planks[0] is plank)
        return lofts, [each.title for each in plank.novels]

    for changed in (None, (Loft, loft, {"name": "attic"}), (Novel, novel, {"title": "novel"})):
        if changed is not None:
            await update_row(changed[1], changed[2], session, changed[0])
        for _ in range(2):
            async with AsyncSession(engine) as other:
                plank = await read(other)
                name = "loft" if changed is None else "attic"
                assert seen(plank) == ((name, True), ["novel"])
            assert (await asked(engine, listed))[0] == [("plank", name)]
        assert await is_cached(engine, read)
        assert await is_cached(engine, listed)
    async with transaction(session):
        plank = await session.get(Plank, key)
        assert plank is not None
        await session.refresh(plank, ["novels"])
        plank.novels.clear()
    assert (await asked(engine, read))[0].novels == []
    assert (await asked(engine, listed))[0] == []


async def test_rows_are_told_apart(engine: AsyncEngine, session: AsyncSession) -> None:
    """Tenants, deleted rows, limits and lists of related rows have entries of their own."""
    with tenant_scope("acme"):
        key = await one(session, Jotting(text="acme's"))
        assert (await asked(engine, row(Jotting, key)))[0].text == "acme's"
        await delete_row(key, session, Jotting)
        for _ in range(2):
            assert (await asked(engine, row(Jotting, key)))[0] is None
            marked, _ = await asked(engine, row(Jotting, key, include_deleted=True))
            assert marked.is_deleted
    with tenant_scope("globex"):
        for _ in range(2):
            assert (await asked(engine, row(Jotting, key, include_deleted=True)))[0] is None
    with pytest.raises(ValidationError, match="tenant"):
        await asked(engine, row(Jotting, key))
    for number in range(3):
        await one(session, Bundle(name=f"n{number}"))
    for limit in (1, 2, 1, 2):

        async def limited(session: AsyncSession, limit: int = limit) -> int:
            return len(await AsyncQueryBuilder(session, Bundle).limit(limit).cached().all())

        assert (await asked(engine, limited))[0] == limit


async def test_a_key_of_texts_is_ended_by_any_write(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Databases may take texts for equal that are not."""
    await write_row(Emblem(owner="ann", number=1, label="old"), session)
    read = row(Emblem, ("ann", 1))
    assert (await asked(engine, read))[0].label == "old"
    assert await is_cached(engine, read)
    await update_row(("ann", 1), {"label": "new"}, session, Emblem)
    assert (await asked(engine, read))[0].label == "new"


async def test_other_rows_stay_cached(engine: AsyncEngine, session: AsyncSession) -> None:
    """A write that says which row it is leaves the entries of others; up to 100 of them."""
    first, second = await one(session, Bundle(name="a")), await one(session, Bundle(name="b"))
    await asked(engine, row(Bundle, first))
    await update_row(second, {"stock": 9}, session, Bundle)
    assert await is_cached(engine, row(Bundle, first))
    async with transaction(session):
        rows = [Bundle(name=f"n{number}") for number in range(101)]
        session.add_all(rows)
    assert not await is_cached(engine, row(Bundle, first))


async def test_a_missing_row_is_cached_until_it_is_there(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """A missing row is cached, and an insert of that key invalidates the entry."""
    read = row(Bundle, 4711)
    assert await asked(engine, read) == (None, 1)
    assert await asked(engine, read) == (None, 0)
    await write_row(Bundle(id=4711, name="late"), session)
    assert (await asked(engine, read))[0].name == "late"


# --- hits are for reading ------------------------------------------------------------------------


async def test_a_hit_that_is_changed_is_refused(engine: AsyncEngine, session: AsyncSession) -> None:
    """A flush refuses it, a deletion and `write_row` too, before anything is written."""
    key = await one(session, Bundle(name="a", stock=1))
    await asked(engine, row(Bundle, key))

    async def hit(other: AsyncSession) -> Any:
        with statements_of(engine) as statements:
            found = await row(Bundle, key)(other)
        assert statements == []
        return found

    async with AsyncSession(engine) as other:
        (await hit(other)).stock = 2
        with pytest.raises(ValidationError, match=r"update_row"):
            await other.flush()
    async with AsyncSession(engine) as other:
        await other.delete(await hit(other))
        with pytest.raises(ValidationError, match=r"cache"):
            await other.commit()
    async with AsyncSession(engine) as other:
        changed = await hit(other)
        changed.stock = 2
        with pytest.raises(ValidationError, match=r"cache"):
            await write_row(changed, other)
    assert (await asked(engine, row(Bundle, key)))[0].stock == 1


async def test_a_hit_that_is_read_again_can_be_written(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """`refresh()` and any uncached read make it writable; `update_row` and `delete_row` do so."""
    key = await one(session, Bundle(name="a", stock=1))
    await asked(engine, row(Bundle, key))
    async with AsyncSession(engine) as other:
        held = await row(Bundle, key)(other)
        await other.refresh(held)
        held.stock = 2
        await other.commit()
    await asked(engine, row(Bundle, key))
    async with AsyncSession(engine) as other:
        held = await row(Bundle, key)(other)
        await execute(session, text("UPDATE bundle SET name = 'b'"))
        await session.commit()
        _, updated = await update_row(key, {"stock": 3}, other, Bundle)
        assert updated is held
        assert (held.stock, held.name) == (3, "b")
    async with AsyncSession(engine) as other:
        await row(Bundle, key)(other)
        assert await delete_row(key, other, Bundle)
    assert (await asked(engine, row(Bundle, key)))[0] is None


async def test_a_hit_with_a_version_can_be_written(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Its version reveals whether it was outdated."""
    key = await one(session, Tally(name="a"))
    await asked(engine, row(Tally, key))
    async with AsyncSession(engine) as other:
        held = await row(Tally, key)(other)
        held.name = "b"
        await other.commit()
    assert (await asked(engine, row(Tally, key)))[0].name == "b"


# --- when the database is asked ------------------------------------------------------------------


async def test_a_transaction_that_has_written_is_not_cached(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """It sees uncommitted rows, also after SQL text, which must not be cached."""
    key = await one(session, Bundle(name="a", stock=1))
    for statement in (
        text("UPDATE bundle SET stock = 5"),
        update(Bundle).values(stock=5),
        update(Bundle.__table__).values(stock=5),  # type: ignore[attr-defined]
    ):
        await asked(engine, row(Bundle, key))
        async with AsyncSession(engine) as other:
            await execute(other, statement)
            assert (await row(Bundle, key)(other)).stock == 5
            await other.rollback()
            assert (await row(Bundle, key)(other)).stock == 1
        assert (await asked(engine, row(Bundle, key)))[0].stock == 1


async def test_a_write_on_the_connection_is_not_cached(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """Rows written past the session are not cached for others before the commit."""
    key = await one(session, Bundle(name="a", stock=1))
    await invalidate_cache(Bundle)

    def write(plain: Any) -> None:
        plain.connection().exec_driver_sql("UPDATE bundle SET stock = 5")

    async with AsyncSession(engine) as other:
        await run_sync(other, write, sync_session(other))
        assert (await row(Bundle, key)(other)).stock == 5
        await other.rollback()
    assert (await asked(engine, row(Bundle, key)))[0].stock == 1


async def test_it_works_inside_a_block(engine: AsyncEngine, session: AsyncSession) -> None:
    """If each request is a transaction, reads before the first write are cached."""
    key = await one(session, Bundle(name="a"))
    for expected in (1, 0):
        with statements_of(engine) as statements:
            async with AsyncSession(engine) as other, transaction(other):
                await row(Bundle, key)(other)
        assert len([each for each in statements if each.startswith("SELECT")]) == expected


async def test_an_old_snapshot_says_nothing(engine: AsyncEngine, database: Any) -> None:
    """A transaction that sees an earlier state neither reads from the cache nor fills it."""
    if database.name == "sqlite":
        pytest.skip("its readers hold up its writers")
    async with AsyncSession(engine) as session:
        key = await one(session, Bundle(name="old"))
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with AsyncSession(repeatable) as late:
        await AsyncQueryBuilder(late, Loft).count()
        async with AsyncSession(engine) as session:
            await update_row(key, {"name": "new"}, session, Bundle)
        assert (await row(Bundle, key)(late)).name == "old"
        assert (await asked(engine, row(Bundle, key)))[0].name == "new"
        late.expunge_all()
        assert (await row(Bundle, key)(late)).name == "old"


async def test_sql_as_text_is_told_by_hand(engine: AsyncEngine, session: AsyncSession) -> None:
    """`invalidate_cache` ends a model's entries, or one row's and all lists."""
    first, second = await one(session, Bundle(name="a")), await one(session, Bundle(name="b"))
    reads = row(Bundle, first), row(Bundle, second)
    for read in reads:
        await asked(engine, read)
    await execute(session, text("UPDATE bundle SET name = 'c' WHERE name = 'a'"))
    await session.commit()
    assert (await asked(engine, reads[0]))[0].name == "a"
    await invalidate_cache(Bundle, first)
    assert (await asked(engine, reads[0]))[0].name == "c"
    assert await is_cached(engine, reads[1])
    await invalidate_cache(Bundle)
    assert not await is_cached(engine, reads[1])
    with pytest.raises(ValidationError):
        await invalidate_cache(Bundle, "x")
    with pytest.raises(ValidationError):
        await invalidate_cache(str)


async def test_locks_streams_and_own_statements_ask_the_database(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    """They must see the current rows."""
    await one(session, Bundle(name="a"))

    async def locked(session: AsyncSession) -> Any:
        return await AsyncQueryBuilder(session, Bundle).for_update().cached().all()

    async def streamed(session: AsyncSession) -> Any:
        return [each async for each in AsyncQueryBuilder(session, Bundle).cached().stream()]

    async def with_text(session: AsyncSession) -> Any:
        return await AsyncQueryBuilder(session, Bundle).where(text("name = 'a'")).cached().all()

    for read in (locked, streamed, with_text):
        await asked(engine, read)
        assert not await is_cached(engine, read)


# --- values --------------------------------------------------------------------------------------


async def test_values_come_back_as_they_were(
    engine: AsyncEngine, session: AsyncSession, cache: InMemoryCache
) -> None:
    """Of every type; what a type encrypts is encrypted in the store."""
    key = await one(session, new_bauble())

    async def values(session: AsyncSession) -> Any:
        return await AsyncQueryBuilder(session, Bauble).cached().values()

    for read in (row(Bauble, key), values):
        first, _ = await asked(engine, read)
        again, count = await asked(engine, read)
        assert count == 0
        if read is values:
            assert again == first
        else:
            assert again.model_dump() == first.model_dump()
            kept = again.model_dump()
            for name, value in first.model_dump().items():
                assert isinstance(value, type(kept[name])), name
            assert "drowssap" not in str(vars(cache))


@pytest.mark.parametrize("made", [Password(word="x"), Pickled(thing={"a": 1})])
async def test_what_cannot_be_kept_is_not(
    engine: AsyncEngine, session: AsyncSession, made: Any
) -> None:
    """A type that changes values, or that unpickles them: the row is still right."""
    model = type(made)
    key = await one(session, model(**made.model_dump()))
    expected, _ = await asked(engine, row(model, key))
    again, count = await asked(engine, row(model, key))
    assert count == 1
    assert again.model_dump() == expected.model_dump()


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry[:-7],
        lambda _: b"\x80\x04cposix\nsystem\n.",
        lambda entry: entry.replace(b'"a"', b"17"),
        lambda entry: entry.replace(b'"rows"', b'"sows"'),
        lambda entry: entry.replace(b"cache_models.Bundle", b"models.Hero"),
        lambda entry: entry.replace(b'{"rows": [0]}', b'{"rows": [7]}'),
        lambda _: b"[" * 100_000,
        lambda entry: entry.replace(b'"name"', b'"__class__"'),
    ],
)
async def test_what_no_read_has_stored_is_a_miss(
    engine: AsyncEngine, session: AsyncSession, cache: InMemoryCache, damage: Any
) -> None:
    """Damaged, foreign and hostile entries: the database answers, and one line is logged."""
    key = await one(session, Bundle(name="a"))
    await asked(engine, row(Bundle, key))
    entries = {name: value for name, value in stored(cache).items() if ":e:" in name}
    cache.set_many({name: damage(value) for name, value in entries.items()}, 60)
    with logged("WARNING") as lines:
        found, count = await asked(engine, row(Bundle, key))
    assert (found.name, count, len(lines)) == ("a", 1, 1)
    assert await is_cached(engine, row(Bundle, key))


def stored(cache: InMemoryCache) -> dict[str, bytes]:
    """Return all that a cache holds."""
    return {name: value for name, (_, value) in cache._entries.items()}


# --- configured ----------------------------------------------------------------------------------


async def test_without_a_cache_all_is_as_ever(engine: AsyncEngine, session: AsyncSession) -> None:
    """Not configured, or not asked for: the same statements."""
    key = await one(session, Bundle(name="a"))

    async def plain(session: AsyncSession) -> Any:
        return (await get_row(key, session, Bundle))[1]

    for _ in range(2):
        assert not await is_cached(engine, plain)
    configure_cache(None)
    for _ in range(2):
        assert not await is_cached(engine, row(Bundle, key))
    await invalidate_cache(Bundle)


async def test_entries_end_with_their_time(engine: AsyncEngine, session: AsyncSession) -> None:
    """A query may say for how long."""
    await insert_data_rows([Bundle(name="a")], session)

    def counted(ttl: float) -> Read:
        async def read(session: AsyncSession) -> int:
            return await AsyncQueryBuilder(session, Bundle).cached(ttl).count()

        return read

    for _ in range(2):
        assert (await asked(engine, counted(1e-6)))[1] == 1
    assert (await asked(engine, counted(60)))[1] == 1
    assert await is_cached(engine, counted(60))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("x", 60), "cache"),
        ((InMemoryCache, 60), "cache"),
        ((InMemoryCache(), None), "ttl"),
        ((InMemoryCache(), 0), "ttl"),
        ((InMemoryCache(), "60"), "ttl"),
    ],
)
def test_mistakes_are_named(options: Any, field: str) -> None:
    """A wrong argument is refused, and the previous cache stays."""
    cache, ttl = options
    with pytest.raises(ValidationError) as raised:
        configure_cache(cache, ttl=ttl)
    assert raised.value.field == field
