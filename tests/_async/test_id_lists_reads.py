"""Rows whose keys are in a list."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import get_rows_within_id_list, insert_data_rows, transaction
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.crud_models import Product
from tests.models import AllTypes, Currency, Document, Hero, Seat
from tests.recording import recorded


async def write_heroes(session: AsyncSession, number: int = 3) -> list[int]:
    """Write heroes and return their keys."""
    heroes = [Hero(name=f"h{n}", secret_name="?", age=n % 2) for n in range(number)]
    await insert_data_rows(heroes, session)
    keys = [hero.id for hero in heroes if hero.id is not None]
    session.expunge_all()
    return keys


async def test_the_rows_of_the_keys_are_found(session: AsyncSession) -> None:
    """Keys without a row are skipped; the first value says whether there are rows."""
    keys = await write_heroes(session)
    found, rows = await get_rows_within_id_list([keys[0], keys[2], 10**6], session, Hero)
    assert found
    assert sorted(row.name for row in rows) == ["h0", "h2"]
    assert await get_rows_within_id_list([10**6], session, Hero) == (False, [])


async def test_the_list_answers_all(session: AsyncSession) -> None:
    """v0.1.0's result was asked for `.all()`; it stays a list."""
    keys = await write_heroes(session)
    _, rows = await get_rows_within_id_list(keys, session, Hero)
    assert rows.all() == rows
    assert isinstance(rows, list)
    _, nothing = await get_rows_within_id_list([], session, Hero)
    assert nothing.all() == []


@pytest.mark.parametrize("kind", [list, tuple, set, iter, dict.fromkeys])
async def test_any_iterable_of_keys_will_do(session: AsyncSession, kind: Any) -> None:
    """Generators too; keys may come as text, and more than once."""
    keys = await write_heroes(session)
    given = kind([str(key) for key in keys] + keys + keys)
    _, rows = await get_rows_within_id_list(given, session, Hero)
    assert sorted(row.name for row in rows) == ["h0", "h1", "h2"]


@pytest.mark.databases("sqlite", "postgresql")  # a FLOAT of MySQL is not equal to its 0.1
async def test_numbers_that_json_does_not_hold(session: AsyncSession) -> None:
    """Floats and decimals, more of them than a statement of SQLite takes parameters."""
    await insert_data_rows([AllTypes(id=1, real=0.1, amount=Decimal("32999.5"))], session)
    reals = [number + 0.1 for number in range(33_000)]
    assert (await get_rows_within_id_list(reversed(reals), session, AllTypes, "real"))[0]
    amounts = [Decimal(number) + Decimal("0.5") for number in range(33_000)]
    assert (await get_rows_within_id_list(amounts, session, AllTypes, "amount"))[0]


async def test_an_empty_list_asks_nothing(session: AsyncSession, engine: AsyncEngine) -> None:
    """No statement is executed, but a wrong field is still a mistake."""
    with recorded(engine) as words:
        assert await get_rows_within_id_list([], session, Hero) == (False, [])
        with pytest.raises(UnknownFieldError):
            await get_rows_within_id_list([], session, Hero, pk_field="nope")
    assert words == []


async def test_a_hundred_thousand_keys_are_one_statement(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """The databases' bind limits do not apply."""
    keys = await write_heroes(session)
    with recorded(engine) as words:
        _, rows = await get_rows_within_id_list(range(1, 100_001), session, Hero)
    assert words == ["SELECT"]
    assert len(rows) == sum(key <= 100_000 for key in keys)


async def test_many_text_and_uuid_keys(session: AsyncSession) -> None:
    """Keys of other types may be as many."""
    document = Document(title="Deed")
    await insert_data_rows([document, Currency(code="EUR", name="Euro")], session)
    texts = [f"{n:03}" for n in range(1000)] * 40 + ["EUR"]
    assert (await get_rows_within_id_list(texts, session, Currency))[1][0].name == "Euro"
    uuids = [f"00000000-0000-4000-8000-{n:012}" for n in range(40_000)] + [str(document.id)]
    assert (await get_rows_within_id_list(uuids, session, Document))[1] == [document]


async def test_composite_keys_are_tuples(session: AsyncSession) -> None:
    """As many as you like, of any sequence type, more than once."""
    await insert_data_rows([Seat(row=row, number=n) for row in "AB" for n in range(3)], session)
    keys: list[Any] = [("A", 0), ["B", "2"], ("A", 0), ("C", 1)]
    _, rows = await get_rows_within_id_list(keys, session, Seat)
    assert sorted((seat.row, seat.number) for seat in rows) == [("A", 0), ("B", 2)]
    _, rows = await get_rows_within_id_list([("A", n) for n in range(2500)], session, Seat)
    assert len(rows) == 3


async def test_keys_out_of_the_columns_range_are_not_there(session: AsyncSession) -> None:
    """PostgreSQL's drivers would refuse them; the others in the list are found."""
    keys = await write_heroes(session)
    _, rows = await get_rows_within_id_list([keys[0], 2**40, -(2**62)], session, Hero)
    assert [row.name for row in rows] == ["h0"]
    await insert_data_rows([Seat(row="A", number=1)], session)
    _, seats = await get_rows_within_id_list([("A", 1), ("A", 2**40)], session, Seat)
    assert len(seats) == 1


async def test_none_is_the_key_of_no_row(session: AsyncSession) -> None:
    """Not even of those that have NULL in the column."""
    keys = await write_heroes(session)
    _, rows = await get_rows_within_id_list([None, keys[1]], session, Hero)
    assert [row.name for row in rows] == ["h1"]
    assert await get_rows_within_id_list([None], session, Hero, "team_id") == (False, [])
    assert await get_rows_within_id_list([("A", None)], session, Seat) == (False, [])


async def test_another_column_may_be_the_key(session: AsyncSession) -> None:
    """All rows that have the value are found."""
    await write_heroes(session, 5)
    _, rows = await get_rows_within_id_list(["0"], session, Hero, pk_field="age")
    assert sorted(row.name for row in rows) == ["h0", "h2", "h4"]
    await insert_data_rows([Product(sku="A", shelf=4)], session)
    assert (await get_rows_within_id_list([4], session, Product, "shelf"))[0]


@pytest.mark.parametrize("keys", ["12", b"12", 12, None])
async def test_what_is_no_list_is_refused(session: AsyncSession, keys: Any) -> None:
    """A string is one key, not a list of them."""
    with pytest.raises(ValidationError, match="a list of keys of Hero is expected"):
        await get_rows_within_id_list(keys, session, Hero)


async def test_a_key_of_a_wrong_type_is_refused(session: AsyncSession) -> None:
    """The text names the field and not the value."""
    with pytest.raises(ValidationError, match=r"Hero\.id must be a 64-bit integer") as raised:
        await get_rows_within_id_list([1, "s3cret"], session, Hero)
    assert "s3cret" not in str(raised.value)


async def test_the_rows_stay_loaded_after_a_block(session: AsyncSession) -> None:
    """Rows that were returned in a block can be read after its commit."""
    keys = await write_heroes(session)
    async with transaction(session):
        _, rows = await get_rows_within_id_list(keys, session, Hero)
    assert sorted(row.name for row in rows) == ["h0", "h1", "h2"]
