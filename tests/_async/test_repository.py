"""`Repository`: the functions of one session and one model, which return rows or raise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from sqlmodel_crud_utils import aio
from sqlmodel_crud_utils.aio import AsyncRepository, get_rows, transaction
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    MultipleRecordsError,
    RecordNotFoundError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession, make_engine, sync_engine, together
from tests.databases import Database, prepare, wait_for_locks
from tests.models import Hero, Seat, Team
from tests.models_mixins import Counter, Letter

CALLERS = 8


@pytest.fixture
def heroes(session: AsyncSession) -> AsyncRepository[Hero]:
    """A repository of heroes, without any."""
    return AsyncRepository(session, Hero)


async def fill(heroes: AsyncRepository[Hero], *names: str) -> list[int | None]:
    """Create heroes, all of the same age; return their keys."""
    return [(await heroes.create(name=name, secret_name="?", age=30)).id for name in names]


# --- one row -------------------------------------------------------------------------------------


async def test_a_row_from_the_beginning_to_the_end(heroes: AsyncRepository[Hero]) -> None:
    """Each write is committed, and returns the row itself."""
    hero = await heroes.create(name="Rusty", secret_name="Tommy", age="48")
    assert (hero.age, heroes.session.in_transaction()) == (48, False)
    assert (await heroes.get(str(hero.id))).name == "Rusty"
    assert (await heroes.update(hero.id, {"age": Hero.age + 1})).age == 49
    assert await heroes.delete(hero.id) is None
    assert await heroes.get_or_none(hero.id) is None
    assert not heroes.session.in_transaction() or await heroes.count() == 0


async def test_an_instance_is_created_as_it_is(heroes: AsyncRepository[Hero]) -> None:
    """The returned row is the given one."""
    hero = Hero(name="Rusty", secret_name="Tommy")
    assert await heroes.create(hero) is hero


async def test_a_row_by_values_that_it_alone_has(heroes: AsyncRepository[Hero]) -> None:
    """Filters of all kinds find the one row."""
    await fill(heroes, "Ann", "Bob")
    assert (await heroes.get(name="Ann")).name == "Ann"
    assert (await heroes.get(name__istartswith="B", age=30)).name == "Bob"
    assert await heroes.get_or_none(name="Cyd") is None


async def test_what_is_not_there_raises(heroes: AsyncRepository[Hero]) -> None:
    """The same error for each method that needs the row."""
    for missing in (
        lambda: heroes.get(99),
        lambda: heroes.get(name="nobody"),
        lambda: heroes.update(99, {"age": 1}),
        lambda: heroes.delete(99),
    ):
        with pytest.raises(RecordNotFoundError):
            await missing()


async def test_several_rows_are_an_error(heroes: AsyncRepository[Hero]) -> None:
    """No method takes the first of several; nothing is written."""
    await fill(heroes, "Ann", "Bob", "Cyd")
    for ambiguous in (
        lambda: heroes.get(age=30),
        lambda: heroes.get_or_none(age=30),
        lambda: heroes.get_or_create({"name": "Dee"}, age=30),
        lambda: heroes.update_or_create({"secret_name": "new"}, age=30),
    ):
        with pytest.raises(MultipleRecordsError):
            await ambiguous()
    assert await heroes.where(secret_name="?").count() == 3


async def test_what_the_database_refuses_raises(heroes: AsyncRepository[Hero]) -> None:
    """Outside a block, too; the session can be used at once."""
    [key, _] = await fill(heroes, "Ann", "Bob")
    with pytest.raises(ConstraintViolationError):
        await heroes.create(name="Ann", secret_name="?")
    with pytest.raises(ConstraintViolationError):
        await heroes.update(key, {"name": "Bob"})
    assert await heroes.count() == 2


async def test_mistakes_in_calls_are_refused(heroes: AsyncRepository[Hero]) -> None:
    """Before anything is written."""
    for mistaken in (
        lambda: heroes.create(Hero(name="a", secret_name="?"), name="b"),
        lambda: heroes.create(Team(name="a")),  # type: ignore[call-overload]
        lambda: heroes.create(name="a", secret_name="?", age="old"),
        heroes.get,
        lambda: heroes.get(1, 2),  # type: ignore[call-overload]
        lambda: heroes.get(1, name="a"),  # type: ignore[call-overload]
        heroes.get_or_none,
        lambda: heroes.get_or_create({"name": "a"}),
        lambda: heroes.update_or_create({"name": "a"}),
    ):
        with pytest.raises(ValidationError):
            await mistaken()
    with pytest.raises(UnknownFieldError):
        await heroes.create(name="a", secret_nmae="?")
    assert await heroes.all() == []


async def test_a_repository_needs_a_session_and_a_table(session: AsyncSession) -> None:
    """Anything else is refused when the repository is created."""
    with pytest.raises(ValidationError):
        AsyncRepository("session", Hero)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        AsyncRepository(session, dict)
    assert aio.Repository is AsyncRepository
    assert repr(AsyncRepository(session, Hero)).endswith("Repository of Hero>")


async def test_composite_keys_are_tuples(session: AsyncSession) -> None:
    """In column order, for all methods with a key."""
    seats = AsyncRepository(session, Seat)
    await seats.create(row="A", number=1)
    assert (await seats.update(("A", 1), {"guest": "Ann"})).guest == "Ann"
    seat, created = await seats.update_or_create({"guest": "Bob"}, row="A", number=1)
    assert (seat.guest, created) == ("Bob", False)
    assert len(await seats.get_many([("A", 1), ("B", 2)])) == 1
    await seats.delete(("A", 1))
    assert await seats.count() == 0


async def test_soft_deleted_rows_are_hidden_and_restored(session: AsyncSession) -> None:
    """Unless a method is asked to include them."""
    letters = AsyncRepository(session, Letter)
    key = (await letters.create(text="Hello")).id
    await letters.delete(key, deleted_by="ann")
    assert await letters.get_or_none(key) is None
    assert await letters.get_or_none(text="Hello") is None
    assert (await letters.get(key, include_deleted=True)).deleted_by == "ann"
    assert (await letters.get(text="Hello", include_deleted=True)).id == key
    assert (await letters.update(key, {"text": "Hi"}, include_deleted=True)).text == "Hi"
    assert len(await letters.get_many([key], include_deleted=True)) == 1
    assert await letters.only_deleted().count() == await letters.with_deleted().count() == 1
    assert (await letters.restore(key)).is_deleted is False
    with pytest.raises(RecordNotFoundError):
        await letters.restore(key)
    await letters.delete(key, soft=False)
    assert await letters.with_deleted().count() == 0


async def test_a_version_that_was_seen_is_checked(session: AsyncSession) -> None:
    """By updates and deletions."""
    counters = AsyncRepository(session, Counter)
    key = (await counters.create(value=0)).id
    await counters.update(key, {"value": 1}, expected_version=1)
    with pytest.raises(ConflictError):
        await counters.update(key, {"value": 2}, expected_version=1)
    with pytest.raises(ConflictError):
        await counters.delete(key, expected_version=1)
    assert (await counters.get(key)).value == 1


# --- found, or else created ----------------------------------------------------------------------


async def test_a_row_is_created_once(heroes: AsyncRepository[Hero]) -> None:
    """The flag says whether it was created, as in Django."""
    ann, created = await heroes.get_or_create({"secret_name": "?", "age": "40"}, name="Ann")
    assert (ann.age, created) == (40, True)
    again, created = await heroes.get_or_create({"age": 1}, name="Ann")
    assert (again.age, created) == (40, False)


async def test_a_row_is_updated_or_created(heroes: AsyncRepository[Hero]) -> None:
    """Each call is committed once, with its values; an empty update is not an error."""
    ann, created = await heroes.update_or_create({"secret_name": "?", "age": 40}, name="Ann")
    assert (ann.age, created, heroes.session.in_transaction()) == (40, True, False)
    ann, created = await heroes.update_or_create({"age": "41"}, name="Ann")
    assert (ann.age, created, heroes.session.in_transaction()) == (41, False, False)
    assert (await heroes.update_or_create(name="Ann"))[1] is False
    with pytest.raises(ValidationError):
        await heroes.update_or_create({"secret_name": None}, name="Ann")
    assert (await heroes.get(name="Ann")).secret_name == "?"


@pytest.fixture
async def crowd(engine: AsyncEngine, database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine with a connection for each caller; the tables are emptied after `engine`."""
    assert engine.dialect.name == database.name
    large = make_engine(database.async_url, pool_size=CALLERS, max_overflow=0)
    prepare(large)
    wait_for_locks(large)
    yield large
    await large.dispose()


@pytest.mark.parametrize(
    ("model", "unique", "field"),
    [(Counter, {"id": 1}, "value"), (Team, {"name": "Owls"}, "city")],
    ids=["with a version", "without"],
)
async def test_callers_that_race_end_with_one_row(
    crowd: AsyncEngine, model: Any, unique: dict[str, Any], field: str
) -> None:
    """One of them creates it, all of them write to it, none of them fails."""
    answers: list[bool] = []

    async def call(number: int) -> None:
        async with AsyncSession(crowd) as session:
            rows = AsyncRepository(session, model)
            row, created = await rows.update_or_create({field: f"{number}"}, **unique)
            assert str(getattr(row, field)) == f"{number}"
            answers.append(created)

    await together(*((lambda number=number: call(number)) for number in range(CALLERS)))
    assert sorted(answers) == [False] * (CALLERS - 1) + [True]
    async with AsyncSession(crowd) as session:
        assert len((await get_rows(session, model))[1]) == 1


async def test_the_key_of_a_row_is_never_changed(heroes: AsyncRepository[Hero]) -> None:
    """An existing row keeps its own, and a new one takes what it is given."""
    assert (await heroes.update_or_create({"id": 5, "secret_name": "?"}, name="Ann"))[0].id == 5
    with pytest.raises(ValidationError):
        await heroes.update_or_create({"id": 6}, name="Ann")
    assert (await heroes.get(name="Ann")).id == 5


@pytest.mark.databases("postgresql", "mysql")
async def test_a_row_that_is_deleted_meanwhile_is_created(
    engine: AsyncEngine, session: AsyncSession, database: Database
) -> None:
    """Between the moment it is found and the one it is locked; in a block that is an error."""
    teams = AsyncRepository(session, Team)
    other = create_engine(database.sync_url)

    def delete(_connection: Any, _cursor: Any, statement: str, *_rest: object) -> None:
        if "FOR UPDATE" in statement:
            with other.begin() as connection:
                connection.execute(text("DELETE FROM team"))

    await teams.create(name="Owls", city="Oslo")
    event.listen(sync_engine(engine), "before_cursor_execute", delete)
    try:
        team, created = await teams.update_or_create({"city": "Rome"}, name="Owls")
        assert (team.city, created) == ("Rome", True)
        with pytest.raises(RecordNotFoundError):
            async with transaction(session, wrap_errors=False):
                await teams.update_or_create({"city": "Bonn"}, name="Owls")
    finally:
        event.remove(sync_engine(engine), "before_cursor_execute", delete)
    assert await teams.count() == 0
    other.dispose()


# --- blocks and hooks ----------------------------------------------------------------------------


async def test_a_block_is_all_or_nothing(heroes: AsyncRepository[Hero]) -> None:
    """As for the functions."""
    await fill(heroes, "Ann")
    with pytest.raises(TransactionError):
        async with transaction(heroes.session):
            await heroes.create(name="Bob", secret_name="?")
            await heroes.create(name="Ann", secret_name="?")
    assert await heroes.count() == 1


async def test_hooks_run_with_each_write(heroes: AsyncRepository[Hero]) -> None:
    """Those of a creation, or else those of an update."""
    ran: list[str] = []

    class Noted:
        def after_create(self, instance: Hero) -> None:
            ran.append(f"created {instance.name}")

        def after_update(self, instance: Hero) -> None:
            ran.append(f"updated {instance.name}")

    with registered_hook(Hero, Noted()):
        await heroes.create(name="Ann", secret_name="?")
        await heroes.update_or_create({"secret_name": "?"}, name="Bob")
        await heroes.update_or_create({"age": 3}, name="Bob")
        await heroes.get_or_create(name="Bob")
    assert ran == ["created Ann", "created Bob", "updated Bob"]


# --- many rows and queries -----------------------------------------------------------------------


async def test_many_rows(heroes: AsyncRepository[Hero]) -> None:
    """Inserted, upserted, updated, read and deleted; numbers come back, or rows."""
    rows = [{"name": name, "secret_name": "?"} for name in "abc"]
    assert await heroes.insert_many(rows) == 3
    assert await heroes.insert_many(rows, on_conflict="ignore") == 0
    counts = await heroes.upsert_many(
        [{"name": "c", "age": 3, "secret_name": "new"}, {"name": "d", "secret_name": "?"}],
        "name",
        update_fields=["age"],
    )
    assert counts == (1, 1)
    assert (await heroes.get(name="c")).secret_name == "?"
    keys = [hero.id for hero in await heroes.all()]
    assert await heroes.update_many([*keys, 999], {"age": 5}) == 4
    assert sorted(hero.age or 0 for hero in await heroes.get_many(keys)) == [5] * 4
    assert await heroes.delete_many(keys[:3]) == 3
    assert await heroes.count() == 1


async def test_the_query_builder_takes_over(heroes: AsyncRepository[Hero]) -> None:
    """Each entrance leads to a query of the same model and session."""
    teams = AsyncRepository(heroes.session, Team)
    team = await teams.create(name="Owls")
    await heroes.create(name="Ann", secret_name="?", age=40, team_id=team.id)
    await fill(heroes, "Bob", "Cyd")
    queries = {
        "where": heroes.where(Hero.name != "Cyd", age__gte=18).order_by("-age"),
        "exclude": heroes.exclude(name="Cyd"),
        "any_of": heroes.any_of({"name": "Ann"}, Hero.name == "Bob"),
        "order_by": heroes.order_by("name").limit(2),
        "query": heroes.query.limit(2),
    }
    for name, query in queries.items():
        assert [hero.name for hero in await query.all()] == ["Ann", "Bob"], name
    for loading in (heroes.selectin("team"), heroes.joined("team")):
        heroes.session.expunge_all()
        loaded = (await loading.where(name="Ann").one()).team
        assert loaded is not None
        assert loaded.name == "Owls"
    page = await heroes.paginate(2, 2)
    assert ([hero.name for hero in page.items], page.total) == (["Cyd"], 3)
    first = await heroes.keyset(2)
    assert [hero.name for hero in (await heroes.keyset(2, first.next_cursor)).items] == ["Cyd"]
