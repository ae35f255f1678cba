"""Updating one row."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import delete, event
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import (
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    MultipleRecordsError,
    RecordNotFoundError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, sync_session
from tests.crud_models import Product
from tests.models import Account, AllTypes, Colour, Currency, Document, Hero, Seat, Tag, Team
from tests.recording import recorded


class HeroPatch(BaseModel):
    """The body of a PATCH request, with all fields optional."""

    name: str | None = None
    age: int | None = 18
    secret_name: str = "reset"


class HeroForm(SQLModel):
    """The same as a SQLModel that is not a table."""

    name: str = "reset"
    age: int | None = None


async def write_hero(session: AsyncSession, name: str = "Rusty") -> Hero:
    """Write a hero of 30 years."""
    hero = Hero(name=name, secret_name="Tommy", age=30)
    await write_row(hero, session, raise_on_error=True)
    return hero


async def test_an_update_writes_what_is_given(session: AsyncSession, session_factory: Any) -> None:
    """It returns `(True, row)`; the rest of the row is unchanged, and others see the update."""
    hero = await write_hero(session)
    assert await update_row(str(hero.id), {"age": "48"}, session, Hero) == (True, hero)
    assert (hero.age, hero.name) == (48, "Rusty")
    assert not session.in_transaction()
    _, seen = await get_row(hero.id, session_factory(), Hero)
    assert (seen.age, seen.secret_name) == (48, "Tommy")


@pytest.mark.parametrize("patch", [HeroPatch(age=48), HeroForm(age=48), Hero(age=48)])
async def test_of_an_object_only_what_was_set_is_written(session: AsyncSession, patch: Any) -> None:
    """A PATCH must not reset the other fields to their defaults."""
    hero = await write_hero(session)
    await update_row(hero.id, patch, session, Hero, raise_on_error=True)
    assert (hero.name, hero.age, hero.secret_name) == ("Rusty", 48, "Tommy")


@pytest.mark.parametrize("patch", [{"age": None}, HeroPatch(age=None), HeroForm(age=None)])
async def test_none_that_was_set_is_written(session: AsyncSession, patch: Any) -> None:
    """Unset is not None, and None is a value."""
    hero = await write_hero(session)
    await update_row(hero.id, patch, session, Hero, raise_on_error=True)
    assert (hero.name, hero.age) == ("Rusty", None)


@pytest.mark.parametrize("data", [{}, HeroPatch(), HeroForm()])
async def test_no_data_change_nothing(
    session: AsyncSession, engine: AsyncEngine, data: Any
) -> None:
    """The row is looked up all the same."""
    hero = await write_hero(session)
    with recorded(engine) as words:
        assert await update_row(hero.id, data, session, Hero) == (True, hero)
        assert await update_row(10**6, data, session, Hero) == (False, None)
    assert "UPDATE" not in words


@pytest.mark.parametrize("flag", [None, False])
async def test_a_missing_row_is_false_outside_a_block(
    session: AsyncSession, flag: bool | None
) -> None:
    """As in v0.1.0."""
    answer = await update_row(7, {"age": 1}, session, Hero, raise_on_error=flag)
    assert answer == (False, None)
    with pytest.raises(RecordNotFoundError, match="Hero with id=7 not found"):
        await update_row(7, {"age": 1}, session, Hero, raise_on_error=True)


async def test_a_missing_row_raises_in_a_block(session: AsyncSession) -> None:
    """A block that promises all or nothing must not swallow it; False lets it go on."""
    with pytest.raises(TransactionError) as raised:
        async with transaction(session):
            await write_row(Team(name="Gone"), session)
            await update_row(7, {"age": 1}, session, Hero)
    assert isinstance(raised.value.original_error, RecordNotFoundError)
    async with transaction(session):
        await write_row(Team(name="Kept"), session)
        assert await update_row(7, {"age": 1}, session, Hero, raise_on_error=False) == (False, None)
    _, teams = await get_rows(session, Team)
    assert [team.name for team in teams] == ["Kept"]


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [None, False, True])
async def test_an_unknown_field_writes_nothing(session: AsyncSession, flag: bool | None) -> None:
    """Regardless of the flag; the error lists the fields."""
    hero = await write_hero(session)
    with pytest.raises(UnknownFieldError, match="did you mean 'age'") as raised:
        await update_row(hero.id, {"name": "x", "agee": 1}, session, Hero, raise_on_error=flag)
    assert "secret_name" in raised.value.choices
    session.expire_all()
    assert (await get_row("Rusty", session, Hero, pk_field="name"))[0]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("stock", -1, "greater than or equal to 0"),
        ("stock", "1001", "less than or equal to 1000"),
        ("stock", "many", "must be a 32-bit integer"),
        ("stock", None, "valid integer"),
        ("sku", "x" * 11, "at most 10 characters"),
        ("sku", 5.5, "must be a string"),
        ("released_date", "someday", "must be a date"),
    ],
)
async def test_values_are_validated_against_the_fields(
    session: AsyncSession, field: str, value: Any, reason: str
) -> None:
    """Constraints, types and NULL; nothing is written, and the message contains no value."""
    _, product = await write_row(Product(sku="A-1", stock=5), session)
    for flag in (None, False, True):
        with pytest.raises(ValidationError, match=reason) as raised:
            await update_row(
                product.id, {"shelf": 3, field: value}, session, Product, raise_on_error=flag
            )
        assert raised.value.field == field
        assert not isinstance(raised.value, ConstraintViolationError)
        assert "many" not in str(raised.value)
    assert (product.shelf, product.stock) == (None, 5)


async def test_a_mistake_in_a_block_dooms_nothing(session: AsyncSession) -> None:
    """It never reached the database."""
    hero = await write_hero(session)
    async with transaction(session):
        await update_row(hero.id, {"age": 31}, session, Hero)
        with pytest.raises(ValidationError):
            await update_row(hero.id, {"age": "old"}, session, Hero)
    assert hero.age == 31


@pytest.mark.parametrize("data", [None, 5, "age", [("age", 5)], object()])
async def test_data_are_a_mapping_or_an_object(session: AsyncSession, data: Any) -> None:
    """Anything else is refused before anything is asked."""
    with pytest.raises(ValidationError, match="data must be a mapping or a Pydantic object"):
        await update_row(1, data, session, Hero)


async def test_the_primary_key_is_never_changed(session: AsyncSession) -> None:
    """Its own value may be among the data, as text too."""
    hero = await write_hero(session)
    key = hero.id
    assert (await update_row(key, {"id": str(key), "age": 31}, session, Hero))[0]
    for other in (10**6, None):
        with pytest.raises(ValidationError, match=r"primary key of Hero cannot be changed|valid"):
            await update_row(key, {"id": other, "age": 99}, session, Hero)
    assert (hero.id, hero.age) == (key, 31)


async def test_composite_and_other_keys(session: AsyncSession) -> None:
    """A tuple, a UUID as text, a string, another column."""
    document = Document(title="Deed")
    key = document.id
    await insert_data_rows(
        [Seat(row="A", number=1), document, Currency(code="EUR", name="?")], session
    )
    _, seat = await update_row(("A", "1"), {"guest": "Ann", "row": "A"}, session, Seat)
    assert seat is not None
    assert seat.guest == "Ann"
    with pytest.raises(ValidationError, match="primary key of Seat"):
        await update_row(("A", 1), {"row": "B"}, session, Seat)
    assert (await update_row(str(key), {"title": "Will"}, session, Document))[0]
    assert (await update_row("EUR", {"name": "Euro"}, session, Currency))[0]
    assert (await update_row("Euro", {"numeric": "978"}, session, Currency, "name"))[0]
    assert await update_row(2**40, {"age": 1}, session, Hero) == (False, None)
    assert await update_row(None, {"age": 1}, session, Hero) == (False, None)


async def test_several_rows_for_one_key_raise(session: AsyncSession) -> None:
    """None of them is updated."""
    await write_hero(session, "a")
    await write_hero(session, "b")
    with pytest.raises(MultipleRecordsError):
        await update_row(30, {"secret_name": "x"}, session, Hero, "age", raise_on_error=False)
    _, rows = await get_rows(session, Hero)
    assert {row.secret_name for row in rows} == {"Tommy"}


# --- refusals ------------------------------------------------------------------------------------


async def test_a_refused_update_returns_the_row_as_it_is(session: AsyncSession) -> None:
    """`(False, row)`: its columns can be read at once, and the session can be used."""
    await write_hero(session, "Nova")
    hero = await write_hero(session)
    changes = {"name": "Nova", "age": 99}
    assert await update_row(hero.id, changes, session, Hero) == (False, hero)
    assert (hero.name, hero.age) == ("Rusty", 30)
    assert (await update_row(hero.id, {"age": 31}, session, Hero))[0]


async def test_a_refused_update_raises_on_request(session: AsyncSession) -> None:
    """The error names the constraint but not the value; nothing is partly written."""
    _, account = await write_row(Account(owner="Ann", balance=5), session)
    with pytest.raises(ConstraintViolationError) as raised:
        await update_row(
            account.id, {"owner": "Bob", "balance": -77}, session, Account, raise_on_error=True
        )
    assert raised.value.kind == "check"
    assert "77" not in str(raised.value)
    session.expunge_all()
    _, rows = await get_rows(session, Account)
    assert [(row.owner, row.balance) for row in rows] == [("Ann", 5)]


async def test_false_in_a_block_undoes_just_the_update(session: AsyncSession) -> None:
    """The row can be read in the block, and after it."""
    await write_hero(session, "Nova")
    hero = await write_hero(session)
    async with transaction(session):
        await update_row(hero.id, {"age": 31}, session, Hero)
        answer = await update_row(
            hero.id, {"name": "Nova", "age": 99}, session, Hero, raise_on_error=False
        )
        assert answer == (False, hero)
        assert (hero.name, hero.age) == ("Rusty", 31)
        await update_row(hero.id, {"secret_name": "known"}, session, Hero)
    assert (hero.name, hero.age, hero.secret_name) == ("Rusty", 31, "known")


async def test_a_refusal_undoes_the_block(session: AsyncSession) -> None:
    """Caught or not."""
    await write_hero(session, "Nova")
    hero = await write_hero(session)
    with pytest.raises(TransactionError):
        async with transaction(session):
            await update_row(hero.id, {"age": 31}, session, Hero)
            with pytest.raises(ConstraintViolationError):
                await update_row(hero.id, {"name": "Nova"}, session, Hero)
    session.expunge_all()
    assert (await get_row("Rusty", session, Hero, pk_field="name"))[1].age == 30


def remove_heroes(session: Any, _ended: object) -> None:
    """Remove all rows, as another transaction may at this moment."""
    session.connection().execute(delete(Hero))


async def test_a_row_that_vanished_is_told_as_it_was(session: AsyncSession) -> None:
    """Looking at the row after a failed update costs the block nothing of what was written."""
    await write_hero(session, "Nova")
    hero = await write_hero(session)
    async with transaction(session):
        await write_row(Team(name="Kept"), session)
        _, hero = await get_row(hero.id, session, Hero, raise_on_error=True)
        event.listen(sync_session(session), "after_soft_rollback", remove_heroes, once=True)
        taken = {"name": "Nova"}
        found = await update_row(hero.id, taken, session, Hero, raise_on_error=False)
        assert found == (False, hero)
        assert hero.name == "Rusty"
        session.expunge(hero)
    _, teams = await get_rows(session, Team)
    assert [team.name for team in teams] == ["Kept"]


# --- more than columns ---------------------------------------------------------------------------


async def test_relationships_can_be_written(session: AsyncSession) -> None:
    """A row or a list of rows, also where the old ones were not loaded."""
    hero = await write_hero(session)
    key = hero.id
    _, team = await write_row(Team(name="Preventers"), session)
    tags = [Tag(label="old"), Tag(label="wise")]
    await update_row(key, {"team": team, "tags": tags}, session, Hero, raise_on_error=True)
    assert hero.team_id is not None
    session.expunge_all()
    _, hero = await update_row(key, {"tags": [], "team": None}, session, Hero, raise_on_error=True)
    session.expunge_all()
    _, hero = await get_row(key, session, Hero, True, ["tags", "team"])
    assert (hero.tags, hero.team) == ([], None)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("team", "Preventers", "takes a Team row or None, not str"),
        ("team", Tag(label="x"), "takes a Team row or None, not Tag"),
        ("tags", ["x"], "takes a list of Tag rows"),
        ("tags", Tag(label="x"), "takes a list of Tag rows, not Tag"),
        ("tags", None, "takes a list of Tag rows"),
    ],
)
async def test_relationships_take_rows(
    session: AsyncSession, name: str, value: Any, expected: str
) -> None:
    """Anything else is a mistake, and nothing is written."""
    hero = await write_hero(session)
    with pytest.raises(ValidationError, match=expected):
        await update_row(hero.id, {"age": 1, name: value}, session, Hero)
    assert hero.age == 30


async def test_strings_become_the_columns_types(session: AsyncSession) -> None:
    """As filters do, so do updates."""
    _, row = await write_row(AllTypes(), session)
    data = {
        "amount": "12.5",
        "flag": "yes",
        "day": "1 March 2024",
        "moment": "2024-03-01T10:30:00",
        "clock": "10:30",
        "token": "00000000-0000-4000-8000-000000000000",
        "colour": "green",
        "payload": {"a": [1]},
    }
    _, row = await update_row(row.id, data, session, AllTypes, raise_on_error=True)
    assert (row.amount, row.flag, row.colour) == (Decimal("12.5"), True, Colour.GREEN)
    assert row.moment is not None
    assert row.moment.utcoffset() is not None
    assert row.payload == {"a": [1]}


async def test_column_and_attribute_may_have_two_names(session: AsyncSession) -> None:
    """The attribute's name counts."""
    _, product = await write_row(Product(sku="A-1"), session)
    _, product = await update_row(product.id, {"shelf": "7"}, session, Product, raise_on_error=True)
    assert product.shelf == 7
    with pytest.raises(UnknownFieldError):
        await update_row(product.id, {"shelf_no": 7}, session, Product)
