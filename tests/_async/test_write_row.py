"""Writing one row."""

from __future__ import annotations

from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, PlainSession
from tests.crud_models import Dock, Draft, Price, Product
from tests.models import DeferredChild, Hero, Seat, Setting, Tag, Team


def a_hero(name: str = "Rusty", **values: Any) -> Hero:
    """Return a hero that is not written yet."""
    return Hero(name=name, secret_name="Tommy", **values)


async def test_a_row_is_written_and_committed(session: AsyncSession, session_factory: Any) -> None:
    """The answer is `(True, row)`, and others see the row."""
    hero = a_hero()
    assert await write_row(hero, session) == (True, hero)
    assert (await get_row(hero.id, session_factory(), Hero))[0]
    assert not session.in_transaction()


async def test_what_was_added_before_is_written_in_its_order(session: AsyncSession) -> None:
    """A row is written after a pending row that it refers to."""
    session.add(Team(id=5, name="t"))
    written, hero = await write_row(a_hero(team_id=5), session)
    assert written
    assert hero is not None
    assert hero.team_id == 5


async def test_a_refused_row_is_no_row(session: AsyncSession, session_factory: Any) -> None:
    """The answer is `(False, None)`; the session can be used, and the refused row too."""
    await write_row(a_hero(), session)
    twin = a_hero()
    assert await write_row(twin, session) == (False, None)
    assert twin not in session
    twin.name = "Nova"
    assert await write_row(twin, session) == (True, twin)
    _, rows = await get_rows(session_factory(), Hero)
    assert sorted(row.name for row in rows) == ["Nova", "Rusty"]


async def test_a_refusal_raises_on_request(session: AsyncSession) -> None:
    """The driver's error is the cause; no value is in the text; the session can be used."""
    await write_row(a_hero("s3cret"), session)
    with pytest.raises(ConstraintViolationError) as raised:
        await write_row(a_hero("s3cret"), session, raise_on_error=True)
    assert (raised.value.kind, raised.value.columns) == ("unique", ("name",))
    assert raised.value.__cause__ is not None
    assert "s3cret" not in str(raised.value)
    assert (await write_row(a_hero(), session))[0]


@pytest.mark.parametrize("flag", [None, True])
async def test_a_refusal_raises_in_a_block(session: AsyncSession, flag: bool | None) -> None:
    """All or nothing is what a block promises, so the block is undone."""
    await write_row(a_hero(), session)
    with pytest.raises(TransactionError) as raised:
        async with transaction(session):
            await write_row(Team(name="Gone"), session)
            await write_row(a_hero(), session, raise_on_error=flag)
    assert isinstance(raised.value.original_error, ConstraintViolationError)
    assert await get_rows(session, Team) == (False, [])


async def test_a_refusal_that_is_caught_dooms_the_block(session: AsyncSession) -> None:
    """PostgreSQL would commit nothing without a word."""
    await write_row(a_hero(), session)
    with pytest.raises(TransactionError, match="the database refused a statement"):
        async with transaction(session):
            await write_row(Team(name="Gone"), session)
            with pytest.raises(ConstraintViolationError):
                await write_row(a_hero(), session)
    assert await get_rows(session, Team) == (False, [])


async def test_false_in_a_block_undoes_just_the_row(session: AsyncSession) -> None:
    """The block continues, and earlier and later writes are kept."""
    await write_row(a_hero(), session)
    async with transaction(session):
        _, before = await write_row(Team(name="before"), session)
        assert await write_row(a_hero(), session, raise_on_error=False) == (False, None)
        assert before.name == "before"
        _, after = await write_row(a_hero("Nova", team=before), session, raise_on_error=False)
    assert (after.name, after.team_id) == ("Nova", before.id)
    _, teams = await get_rows(session, Team)
    assert [team.name for team in teams] == ["before"]


@pytest.mark.parametrize("inside", [False, True])
async def test_a_refused_row_leaves_its_related_rows_alone(
    session: AsyncSession, inside: bool
) -> None:
    """It does not come back with the next write through a row that it refers to."""
    _, team = await write_row(Team(name="Preventers"), session)
    await write_row(a_hero(), session)

    async def write() -> None:
        twin = a_hero(team=team)
        assert await write_row(twin, session, raise_on_error=False) == (False, None)
        assert twin not in session
        written, _ = await write_row(Team(name="next"), session, raise_on_error=True)
        assert written

    if inside:
        async with transaction(session):
            await write()
    else:
        await write()
    _, rows = await get_rows(session, Hero)
    assert len(rows) == 1


# --- rows that can be used -----------------------------------------------------------------------


async def test_related_rows_are_written_along(session: AsyncSession) -> None:
    """New rows that the row refers to, or that refer to it, are written with it."""
    team = Team(name="Preventers")
    hero = a_hero(team=team, tags=[Tag(label="old"), Tag(label="wise")])
    await write_row(hero, session)
    assert hero.team_id is not None
    assert hero.team is team
    session.expunge_all()
    _, hero = await get_row(hero.id, session, Hero, True, ["team", "tags"])
    assert hero.team.name == "Preventers"
    assert sorted(tag.label for tag in hero.tags) == ["old", "wise"]


async def test_refused_related_rows_leave_nothing(session: AsyncSession) -> None:
    """Neither of the two is written; keys that were given meanwhile are taken back."""
    await write_row(a_hero(), session)
    team = Team(name="Preventers")
    twin = a_hero(team=team)
    assert await write_row(twin, session) == (False, None)
    assert await get_rows(session, Team) == (False, [])
    assert (team.id, twin.id) == (None, None)
    await write_row(Team(name="first"), session, raise_on_error=True)
    twin.name = "Nova"
    assert await write_row(twin, session, raise_on_error=True) == (True, twin)
    assert (await get_row(twin.team_id, session, Team))[1] is team


async def test_server_defaults_can_be_read(session: AsyncSession) -> None:
    """Generated values are loaded at once, also after the commit."""
    _, setting = await write_row(Setting(key="theme"), session)
    assert (setting.priority, setting.state, setting.source) == (5, "new", "python")
    async with transaction(session):
        _, product = await write_row(Product(sku="A"), session)
        assert product.state == "new"
    assert (product.state, product.stock) == ("new", 0)


async def test_a_row_that_is_there_already_is_changed(session: AsyncSession) -> None:
    """Writing a row of the session again writes its changes; an expired row can be read."""
    _, hero = await write_row(a_hero(), session)
    hero.age = 48
    await write_row(hero, session)
    assert hero.age == 48
    session.expire_all()
    assert await write_row(hero, session) == (True, hero)
    assert hero.age == 48


async def test_a_detached_row_is_taken_over(session: AsyncSession, session_factory: Any) -> None:
    """A row of a closed session belongs to no session."""
    other = session_factory()
    _, hero = await write_row(a_hero(), other)
    await other.close()
    hero.age = 48
    assert (await write_row(hero, session))[0]
    session.expunge_all()
    assert (await get_row(hero.id, session, Hero))[1].age == 48


async def test_a_row_of_another_session_is_refused(
    session: AsyncSession, session_factory: Any
) -> None:
    """Two sessions must not write one object."""
    _, hero = await write_row(a_hero(), session_factory())
    with pytest.raises(ValidationError, match="belongs to another session"):
        await write_row(hero, session)


@pytest.mark.parametrize("thing", [None, 5, "row", {"name": "x"}, Hero, object()])
async def test_what_is_no_row_is_refused(session: AsyncSession, thing: Any) -> None:
    """The error names the type; a flag makes no difference."""
    with pytest.raises(ValidationError, match="a row must be an instance of a SQLModel class"):
        await write_row(thing, session, raise_on_error=False)


async def test_a_class_in_place_of_a_row_is_named(session: AsyncSession) -> None:
    """The class is a table model: the error says that a row of it is missing."""
    with pytest.raises(ValidationError, match=r"not the class Hero$"):
        await write_row(Hero, session)
    with pytest.raises(ValidationError, match=r"not dict$"):
        await insert_data_rows([{"name": "x"}], session)


async def test_other_objects_expire_as_configured(engine: AsyncEngine) -> None:
    """The row itself stays loaded; the others only with `expire_on_commit=False`."""
    for expire in (True, False):
        async with PlainSession(engine, expire_on_commit=expire) as session:
            _, other = await write_row(Team(name=f"t{expire}"), session)
            _, hero = await write_row(a_hero(f"h{expire}"), session)
            assert hero.name == f"h{expire}"
            assert ("name" in other.__dict__) is not expire


@pytest.mark.usefixtures("_hooks_change_nothing")
async def test_a_failing_commit_is_a_refusal(session: AsyncSession) -> None:
    """A constraint that is checked at commit; the key that was given is taken back."""
    if session.get_bind().dialect.name == "mysql":
        pytest.skip("MySQL has no deferred constraints")
    child = DeferredChild(parent_id=10**6)
    assert await write_row(child, session) == (False, None)
    assert child.id is None
    with pytest.raises(ConstraintViolationError) as raised:
        await write_row(child, session, raise_on_error=True)
    assert raised.value.kind == "foreign_key"
    assert (await write_row(a_hero(), session))[0]


async def test_what_else_was_pending_is_committed_or_rolled_back(session: AsyncSession) -> None:
    """As in v0.1.0: the session as a whole is committed."""
    session.add(Team(name="along"))
    await write_row(a_hero(), session)
    session.add(Team(name="gone"))
    await write_row(a_hero(), session)
    _, teams = await get_rows(session, Team)
    assert [team.name for team in teams] == ["along"]


async def test_two_rows_of_one_key_are_a_refusal(session: AsyncSession) -> None:
    """The second is refused, and the first is unchanged."""
    await write_row(Seat(row="A", number=1, guest="Ann"), session)
    assert await write_row(Seat(row="A", number=1), session) == (False, None)
    assert (await get_row(("A", 1), session, Seat))[1].guest == "Ann"


async def test_a_missing_reference_is_a_refusal(session: AsyncSession) -> None:
    """A foreign key without its row."""
    with pytest.raises(ConstraintViolationError) as raised:
        await write_row(Dock(warehouse_code="W1"), session, raise_on_error=True)
    assert raised.value.kind == "foreign_key"


async def test_one_column_is_left_to_the_database(session: AsyncSession) -> None:
    """The returned row has the database's values, for any kind of key."""
    for number in range(2):  # MariaDB's dialect learns of RETURNING with the first connection
        draft = Draft(title=f"draft {number}")
        assert await write_row(draft, session) == (True, draft)
        assert draft.created_at is not None
        price = Price(shop="a", item=f"item {number}", net=4)
        assert await write_row(price, session) == (True, price)
        assert price.gross == 5
    row, existed = await get_one_or_create(session, Draft, title="draft 2")
    assert not existed
    assert row.created_at is not None
