"""One row by its key."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy.exc import MultipleResultsFound

from sqlmodel_crud_utils.aio import get_row, insert_data_rows, transaction, write_row
from sqlmodel_crud_utils.exceptions import (
    MultipleRecordsError,
    RecordNotFoundError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._runtime_async import AsyncSession
from tests.crud_models import Cabinet, Drawer, Product, Ticket
from tests.models import Currency, Document, Hero, Invoice, Seat, Team


async def test_a_row_is_found_by_its_key(session: AsyncSession) -> None:
    """The answer is `(True, row)`."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
    assert await get_row(hero.id, session, Hero) == (True, hero)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("flag", [None, False, True])
async def test_a_missing_row_raises_only_on_request(
    session: AsyncSession, flag: bool | None, inside: bool
) -> None:
    """A read raises with `raise_on_error=True` alone, inside a block as outside."""

    async def read() -> Any:
        if not inside:
            return await get_row(7, session, Hero, raise_on_error=flag)
        async with transaction(session, wrap_errors=False):
            return await get_row(7, session, Hero, raise_on_error=flag)

    if not flag:
        assert await read() == (False, None)
        return
    with pytest.raises(RecordNotFoundError, match=r"^Hero with id=7 not found$") as raised:
        await read()
    assert (raised.value.model, raised.value.id_value) == (Hero, 7)


async def test_not_found_dooms_no_block(session: AsyncSession) -> None:
    """An error that never reached the database can be caught inside the block."""
    async with transaction(session):
        await write_row(Team(name="Kept"), session)
        with pytest.raises(RecordNotFoundError):
            await get_row(7, session, Hero, raise_on_error=True)
    assert (await get_row("Kept", session, Team, pk_field="name"))[0]


async def test_not_found_is_wrapped_by_the_block_it_leaves(session: AsyncSession) -> None:
    """A block raises a `TransactionError` with the original error."""
    with pytest.raises(TransactionError) as raised:
        async with transaction(session):
            await get_row(7, session, Hero, raise_on_error=True)
    assert isinstance(raised.value.original_error, RecordNotFoundError)


@pytest.mark.parametrize("key", ["{}", " {} ", "{}.0", "+{}"])
async def test_a_number_may_come_as_text(session: AsyncSession, key: str) -> None:
    """'5' finds 5, on PostgreSQL too."""
    _, hero = await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
    assert (await get_row(key.format(hero.id), session, Hero))[1] is hero


async def test_a_uuid_may_come_as_text(session: AsyncSession) -> None:
    """A UUID key is found by the UUID, its text and its hex digits."""
    _, document = await write_row(Document(title="Deed"), session)
    for key in (document.id, str(document.id), document.id.hex.upper()):
        assert (await get_row(key, session, Document))[1] is document
    assert await get_row(uuid.uuid4(), session, Document) == (False, None)


async def test_keys_that_are_not_named_id_are_found_without_pk_field(session: AsyncSession) -> None:
    """The model's own primary key is used, a string or a number."""
    _, euro = await write_row(Currency(code="EUR", name="Euro"), session)
    _, invoice = await write_row(Invoice(customer="Ann"), session)
    assert (await get_row("EUR", session, Currency))[1] is euro
    assert (await get_row(str(invoice.number), session, Invoice))[1] is invoice
    with pytest.raises(RecordNotFoundError, match="Currency with code='USD' not found"):
        await get_row("USD", session, Currency, raise_on_error=True)


async def test_a_composite_key_is_a_tuple_in_column_order(session: AsyncSession) -> None:
    """Each part is coerced; a list does as well, a bare value does not."""
    _, seat = await write_row(Seat(row="A", number=1, guest="Ann"), session)
    assert (await get_row(("A", "1"), session, Seat))[1] is seat
    assert (await get_row(["A", 1], session, Seat))[1] is seat
    assert (await get_row((1, "A"), session, Seat, pk_field=("number", "row")))[1] is seat
    assert await get_row(("A", 2), session, Seat) == (False, None)
    for wrong in ("A", ("A",), ("A", 1, 2)):
        with pytest.raises(ValidationError, match=r"the key of Seat is \(row, number\)"):
            await get_row(wrong, session, Seat)


async def test_a_column_named_id_wins_over_another_key(session: AsyncSession) -> None:
    """v0.1.0's default is the column "id" if it exists; a tuple is the composite key."""
    _, ticket = await write_row(Ticket(venue="Hall", number=1, id=40), session)
    assert (await get_row(40, session, Ticket))[1] is ticket
    assert (await get_row(("Hall", 1), session, Ticket))[1] is ticket


async def test_any_column_can_be_the_key(session: AsyncSession) -> None:
    """`pk_field` names it by its attribute, which the column's own name may differ from."""
    _, product = await write_row(Product(sku="A-1", shelf=9), session)
    assert (await get_row("9", session, Product, pk_field="shelf"))[1] is product
    assert (await get_row("A-1", session, Product, pk_field="sku"))[1] is product


@pytest.mark.parametrize("key", [2**31, -(2**40), 2**63 - 1])
async def test_a_key_out_of_the_columns_range_is_not_there(session: AsyncSession, key: int) -> None:
    """PostgreSQL's drivers would refuse it; no row has it, on every database."""
    assert await get_row(key, session, Hero) == (False, None)
    assert await get_row(("A", key), session, Seat) == (False, None)


async def test_none_is_the_key_of_no_row(session: AsyncSession) -> None:
    """As in v0.1.0, and not even the rows that have NULL in the column."""
    await write_row(Hero(name="Rusty", secret_name="Tommy"), session)
    assert await get_row(None, session, Hero) == (False, None)
    assert await get_row(None, session, Hero, pk_field="team_id") == (False, None)
    assert await get_row(("A", None), session, Seat) == (False, None)


@pytest.mark.parametrize("flag", [None, False, True])
async def test_several_rows_for_one_key_raise_always(
    session: AsyncSession, flag: bool | None
) -> None:
    """As in v0.1.0, whose programs catch SQLAlchemy's error."""
    heroes = [Hero(name=name, secret_name="?", age=30) for name in ("Rusty", "Nova")]
    await insert_data_rows(heroes, session)
    with pytest.raises(MultipleRecordsError, match=r"Expected 1 Hero, found 2 \(filters on age\)"):
        await get_row(30, session, Hero, pk_field="age", raise_on_error=flag)
    with pytest.raises(MultipleResultsFound):
        await get_row(30, session, Hero, pk_field="age", raise_on_error=flag)


async def team_of_two(session: AsyncSession) -> Hero:
    """Write a team with two heroes, and return one of them."""
    team = Team(name="Preventers", city="Oslo")
    heroes = [Hero(name=name, secret_name="?", team=team) for name in ("Rusty", "Nova")]
    await insert_data_rows(heroes, session)
    return heroes[0]


@pytest.mark.parametrize("names", [["team"], "team", ("team", "tags"), {"team": 1}])
async def test_selectin_loads_relationships(session: AsyncSession, names: Any) -> None:
    """Names may be one or any iterable; the related row can be read at once."""
    key = (await team_of_two(session)).id
    session.expunge_all()
    _, hero = await get_row(key, session, Hero, True, names)
    assert hero.team.city == "Oslo"


async def test_selectin_loads_for_a_row_that_the_session_holds(session: AsyncSession) -> None:
    """Rows of the identity map get the relationship too."""
    key = (await team_of_two(session)).id
    session.expunge_all()
    _, held = await get_row(key, session, Hero)
    assert "team" not in held.__dict__
    _, hero = await get_row(key, session, Hero, True, ["team"])
    assert hero is held
    assert hero.team.city == "Oslo"


@pytest.mark.parametrize("path", ["team.heroes", "team__heroes"])
async def test_selectin_follows_paths(session: AsyncSession, path: str) -> None:
    """Nested relationships are named with dots or two underscores."""
    key = (await team_of_two(session)).id
    session.expunge_all()
    _, hero = await get_row(key, session, Hero, selectin=True, select_in_keys=[path])
    assert {mate.name for mate in hero.team.heroes} == {"Rusty", "Nova"}


async def test_names_count_only_with_their_flag(session: AsyncSession) -> None:
    """As in v0.1.0: without `selectin` the names are nothing, without names the flag is."""
    hero = await team_of_two(session)
    key = hero.id
    session.expunge_all()
    _, hero = await get_row(key, session, Hero, select_in_keys=["team"])
    assert "team" not in hero.__dict__
    _, hero = await get_row(key, session, Hero, selectin=True)
    assert "team" not in hero.__dict__


async def test_lazy_leaves_relationships_for_later(session: AsyncSession) -> None:
    """A relationship that the model joins by default is skipped on request."""
    _, cabinet = await write_row(Cabinet(label="Oak", drawers=[Drawer(name="top")]), session)
    key = cabinet.id
    session.expunge_all()
    _, cabinet = await get_row(key, session, Cabinet, lazy=True, lazy_load_keys=["drawers"])
    assert "drawers" not in cabinet.__dict__


@pytest.mark.parametrize("names", [["team"], ["team", "team.heroes"], ["team", "tags"]])
async def test_of_both_ways_to_load_a_relationship_the_later_one_counts(
    session: AsyncSession, names: list[str]
) -> None:
    """A relationship that is named for both is lazy; others are loaded as requested."""
    hero = await team_of_two(session)
    key = hero.id
    session.expunge_all()
    _, hero = await get_row(
        key, session, Hero, selectin=True, select_in_keys=names, lazy=True, lazy_load_keys=["team"]
    )
    assert "team" not in hero.__dict__
    assert ("tags" in hero.__dict__) == ("tags" in names)


async def test_what_lies_behind_a_loaded_relationship_can_be_left(session: AsyncSession) -> None:
    """The team is loaded with the hero, but not its heroes."""
    hero = await team_of_two(session)
    key = hero.id
    session.expunge_all()
    _, hero = await get_row(key, session, Hero, True, "team", True, "team.heroes")
    assert "heroes" not in hero.__dict__["team"].__dict__


async def test_a_model_that_joins_a_collection_comes_once(session: AsyncSession) -> None:
    """The join repeats the parent; that is one row, not several."""
    drawers = [Drawer(name="top"), Drawer(name="bottom")]
    _, cabinet = await write_row(Cabinet(label="Oak", drawers=drawers), session)
    key = cabinet.id
    session.expunge_all()
    found, cabinet = await get_row(key, session, Cabinet)
    assert found
    assert sorted(drawer.name for drawer in cabinet.drawers) == ["bottom", "top"]


@pytest.mark.parametrize("names", ["nope", ["team.nope"], ["name"], ["team.city"]])
async def test_unknown_relationships_are_refused(session: AsyncSession, names: Any) -> None:
    """The error names the relationships that there are."""
    with pytest.raises(UnknownFieldError, match="has no relationship") as raised:
        await get_row(1, session, Hero, True, names)
    assert set(raised.value.choices) in ({"team", "tags"}, {"heroes"})
    with pytest.raises(AttributeError):
        await get_row(1, session, Hero, lazy=True, lazy_load_keys=names)


@pytest.mark.parametrize("names", [5, True, [5], [Hero.team]])
async def test_relationships_are_given_by_name(session: AsyncSession, names: Any) -> None:
    """Anything but names is a mistake."""
    with pytest.raises(
        ValidationError, match="'select_in_keys': relationships must be given by name"
    ):
        await get_row(1, session, Hero, True, names)
    with pytest.raises(
        ValidationError, match="'lazy_load_keys': relationships must be given by name"
    ):
        await get_row(1, session, Hero, lazy=True, lazy_load_keys=names)


@pytest.mark.parametrize("pk_field", [5, (), [], {"id"}])
async def test_pk_field_is_a_name_or_a_list_of_names(session: AsyncSession, pk_field: Any) -> None:
    """Without any column, every row would fit."""
    with pytest.raises(ValidationError, match="pk_field is the name of a column"):
        await get_row((), session, Hero, pk_field=pk_field)


async def test_an_unknown_pk_field_is_refused(session: AsyncSession) -> None:
    """The error names the fields that there are."""
    with pytest.raises(UnknownFieldError, match="did you mean 'name'"):
        await get_row(1, session, Hero, pk_field="nmae")
    with pytest.raises(UnknownFieldError):
        await get_row(1, session, Hero, pk_field="team")
