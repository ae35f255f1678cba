"""Passed values are checked, converted and stored according to the model's types."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from pydantic import BaseModel, HttpUrl, SecretStr
from sqlalchemy import select

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_rows,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession, execute
from tests.databases import Database
from tests.models import AllTypes, Colour, Hero, Team
from tests.models_mixins import Letter
from tests.recording import recorded
from tests.value_models import (
    Address,
    AddressIn,
    Carton,
    Configured,
    Device,
    Gateway,
    Later,
    Point,
    Typed,
)

Write = Callable[[AsyncSession, dict[str, Any]], Any]


async def by_write_row(session: AsyncSession, values: dict[str, Any]) -> None:
    """A new row, whose table model validates nothing."""
    await write_row(Typed(**values), session, raise_on_error=True)


async def by_rewriting(session: AsyncSession, values: dict[str, Any]) -> None:
    """A row that the session holds."""
    row = await session.get(Typed, 1000)
    for name, value in values.items():
        setattr(row, name, value)
    await write_row(row, session, raise_on_error=True)


async def by_insert_data_rows(session: AsyncSession, values: dict[str, Any]) -> None:
    """Few new rows, for a flush."""
    await insert_data_rows([Typed(), Typed(**values)], session, raise_on_error=True)


async def by_many_insert_data_rows(session: AsyncSession, values: dict[str, Any]) -> None:
    """Many new rows, for the quick way."""
    rows = [*(Typed() for _ in range(120)), Typed(**values)]
    await insert_data_rows(rows, session)


async def by_update_row(session: AsyncSession, values: dict[str, Any]) -> None:
    """A row by its key."""
    await update_row(1000, values, session, Typed, raise_on_error=True)


async def by_bulk_update(session: AsyncSession, values: dict[str, Any]) -> None:
    """Rows by their keys."""
    await bulk_update_rows([1000], values, session, Typed)


async def by_builder(session: AsyncSession, values: dict[str, Any]) -> None:
    """Rows by a query."""
    await AsyncQueryBuilder(session, Typed).where(id=1000).update(**values)


async def by_bulk_insert(session: AsyncSession, values: dict[str, Any]) -> None:
    """Rows past the ORM."""
    await bulk_insert_rows([{"id": 2001}, {"id": 2002} | values], session, Typed)


async def by_upsert(session: AsyncSession, values: dict[str, Any]) -> None:
    """Rows that may be there."""
    await bulk_upsert_mappings([{"id": 1000} | values], session, Typed, raise_on_error=True)


async def by_many_upserts(session: AsyncSession, values: dict[str, Any]) -> None:
    """Many of them."""
    rows = [{"id": number} | values for number in range(1000, 1120)]
    await bulk_upsert_mappings(rows, session, Typed, raise_on_error=True)


async def by_creating(session: AsyncSession, values: dict[str, Any]) -> None:
    """A row that is not found."""
    await get_one_or_create(session, Typed, values, id=2000)


WRITES: list[Write] = [
    by_write_row,
    by_rewriting,
    by_insert_data_rows,
    by_many_insert_data_rows,
    by_update_row,
    by_bulk_update,
    by_builder,
    by_bulk_insert,
    by_upsert,
    by_many_upserts,
    by_creating,
]
writes = pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)


@pytest.fixture
async def row(session: AsyncSession) -> None:
    """The row that updates change."""
    session.add(Typed(id=1000))
    await session.commit()


async def last(session: AsyncSession, name: str) -> Any:
    """Return what the database has in the row that was written."""
    column = getattr(Typed, name)
    statement = select(column).where(column.is_not(None)).order_by(Typed.id)
    return (await execute(session, statement)).scalars().first()


@writes
@pytest.mark.usefixtures("row")
@pytest.mark.parametrize(
    "values",
    [
        {"code": "abcdef"},
        {"code": "a\0b"},
        {"code": "\ud800"},
        {"small": 2**15},
        {"small": "many"},
        {"whole": -(2**31) - 1},
        {"whole": 1.5},
        {"amount": "9999.999"},
        {"amount": "1e9999999"},
        {"amount": float("nan")},
        {"loose": {"a": [float("inf")]}},
        {"loose": {"a\0": 1}},
        {"loose": {"a": "\udcff"}},
    ],
    ids=str,
)
async def test_what_a_column_cannot_take_is_refused(
    session: AsyncSession, engine: AsyncEngine, write: Write, values: dict[str, Any]
) -> None:
    """By every function that writes, on every database, before a statement changes anything."""
    with recorded(engine) as words, pytest.raises(ValidationError) as caught:
        await write(session, values)
    assert {word.partition(" ")[0] for word in words} <= {"SELECT", "ROLLBACK"}
    assert caught.value.field in values
    assert "Typed." in str(caught.value)
    await session.rollback()
    assert await last(session, next(iter(values))) is None


@writes
@pytest.mark.usefixtures("row")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"whole": "5"}, 5),
        ({"code": 12345}, "12345"),
        ({"small": True}, 1),
        ({"small": -(2**15)}, -(2**15)),
        ({"real": "1.5"}, 1.5),
        ({"ip": IPv4Address("10.0.0.1")}, "10.0.0.1"),
        ({"site": HttpUrl("https://example.com/")}, "https://example.com/"),
        ({"secret": SecretStr("s3cret")}, "s3cret"),
        ({"loose": {"a": [AddressIn(street="s")]}}, {"a": [{"street": "s"}]}),
        ({"address": Address(street="s")}, {"street": "s", "since": None, "site": None}),
    ],
    ids=str,
)
async def test_what_stands_for_a_value_of_the_column_is_stored_as_one(
    session: AsyncSession, write: Write, values: dict[str, Any], expected: Any
) -> None:
    """By every function that writes, and on every database alike."""
    await write(session, values)
    found = await last(session, next(iter(values)))
    assert (found, type(found)) == (expected, type(expected))


async def test_an_ip_address_is_found_as_it_was_written(session: AsyncSession) -> None:
    """Also by psycopg, which would write a network."""
    await write_row(Typed(ip=IPv4Address("10.0.0.1")), session)
    assert (await get_rows(session, Typed, ip=IPv4Address("10.0.0.1")))[0]
    assert (await get_rows(session, Typed, ip__in=[IPv4Address("10.0.0.1")]))[0]


_MANY: dict[str, Callable[[AsyncSession, list[dict[str, Any]]], Any]] = {
    "insert_data_rows": lambda session, rows: insert_data_rows(
        [Device(**row) for row in rows], session, raise_on_error=True
    ),
    "bulk_insert_rows": lambda session, rows: bulk_insert_rows(rows, session, Device),
    "instances": lambda session, rows: bulk_insert_rows(
        [Device(**row) for row in rows], session, Device
    ),
    "bulk_upsert_mappings": lambda session, rows: bulk_upsert_mappings(rows, session, Device),
}


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("number", [1, 3, 150, 300])
@pytest.mark.parametrize("write", _MANY)
async def test_many_rows_hold_what_one_row_does(
    session: AsyncSession, write: str, number: int
) -> None:
    """Types of the database's own, whichever way the rows take to it."""
    rows = [
        {
            "id": place + 1,
            "ip": IPv4Address("10.0.0.1") + place,
            "network": IPv4Network("10.1.0.0/24"),
            "hardware": "08:00:2b:01:02:03",
        }
        for place in range(number)
    ]
    await _MANY[write](session, rows)
    found = await AsyncQueryBuilder(session, Device).order_by("id").values()
    assert found == rows


async def _by_one_each(session: AsyncSession, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        await write_row(Gateway(**row), session, raise_on_error=True)


async def _by_flush(session: AsyncSession, rows: list[dict[str, Any]]) -> None:
    async with transaction(session):
        session.add_all([Gateway(**row) for row in rows])


async def _by_update(session: AsyncSession, rows: list[dict[str, Any]]) -> None:
    _, gateways = await insert_data_rows([Gateway() for _ in rows], session, raise_on_error=True)
    for key, row in zip([gateway.id for gateway in gateways], rows, strict=True):
        await bulk_update_rows([key], row, session, Gateway)


_GATEWAYS: dict[str, Callable[[AsyncSession, list[dict[str, Any]]], Any]] = {
    "write_row": _by_one_each,
    "insert_data_rows": lambda session, rows: insert_data_rows(
        [Gateway(**row) for row in rows], session, raise_on_error=True
    ),
    "bulk_insert_rows": lambda session, rows: bulk_insert_rows(rows, session, Gateway),
    "bulk_upsert_mappings": lambda session, rows: bulk_upsert_mappings(
        rows, session, Gateway, ["ip"]
    ),
    "bulk_update_rows": _by_update,
    "flush": _by_flush,
}


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("number", [1, 3, 150])
@pytest.mark.parametrize("write", _GATEWAYS)
@pytest.mark.parametrize("as_text", [False, True])
async def test_addresses_and_networks_are_written_as_objects_and_as_texts(
    session: AsyncSession, write: str, number: int, as_text: bool
) -> None:
    """Whether the driver takes one row or many, and found again by the object and by its text."""
    rows = [
        {"ip": IPv4Address("10.0.0.1") + place, "network": IPv4Network("10.1.0.0/24")}
        for place in range(number)
    ]
    texts = [{name: str(value) for name, value in row.items()} for row in rows]
    await _GATEWAYS[write](session, texts if as_text else rows)
    found = await AsyncQueryBuilder(session, Gateway).order_by("id").values("ip", "network")
    assert found == rows
    first = rows[0]["ip"]
    for wanted in (first, str(first)):
        assert await AsyncQueryBuilder(session, Gateway).where(ip=wanted).count() == 1
        assert await AsyncQueryBuilder(session, Gateway).where(ip__in=[wanted]).count() == 1


class Shouting:
    """A hook that puts something of a wrong type into a row."""

    def before_create(self, instance: Any) -> None:
        """Set something that is not a number."""
        instance.whole = "many"

    def before_update(self, _instance: Any, data: dict[str, Any]) -> dict[str, Any]:
        """Set something that is not a number."""
        return data | {"whole": "many"}


@pytest.mark.parametrize("write", WRITES[:5], ids=lambda write: write.__name__)
@pytest.mark.usefixtures("row")
async def test_what_hooks_put_in_is_checked_too(session: AsyncSession, write: Write) -> None:
    """It is refused, and nothing of the operation is written."""
    with registered_hook(Typed, Shouting()), pytest.raises(ValidationError, match=r"Typed\.whole"):
        await write(session, {"code": "a"})
    await session.rollback()
    assert await last(session, "code") is None


class Silent:
    """A hook that changes nothing."""

    def before_update(self, _instance: Any, data: dict[str, Any]) -> dict[str, Any]:
        """Return the changes unmodified."""
        return data


async def test_a_validator_is_applied_once(session: AsyncSession) -> None:
    """Also where a hook looks at the changes: one that hashes must not hash its own result."""
    await write_row(Typed(id=1), session)
    with registered_hook(Typed, Silent()):
        await update_row(1, {"doubled": 2}, session, Typed)
        assert await last(session, "doubled") == 4
        row = await session.get(Typed, 1)
        assert row is not None
        row.doubled = 3
        await write_row(row, session)
    assert await last(session, "doubled") == 3  # as without a hook: no class validates attributes


async def test_related_rows_are_checked_too(session: AsyncSession, engine: AsyncEngine) -> None:
    """A flush writes the new ones along."""
    hero = Hero(name="Ann", secret_name="?", team=Team(name="x" * 101))
    for call in (lambda: write_row(hero, session), lambda: insert_data_rows([hero], session)):
        with recorded(engine) as words, pytest.raises(ValidationError, match=r"Team\.name must"):
            await call()
        assert words == []


@pytest.mark.usefixtures("_hooks_change_nothing")
async def test_the_first_bad_row_of_many_is_named(session: AsyncSession) -> None:
    """By its place, regardless of the flag; nothing is written."""
    rows = [Team(name="a"), Hero(name="b", secret_name="?"), Team(name="x" * 101)]
    for flag in (None, True, False):
        with pytest.raises(ValidationError, match=r"row 2: Team\.name must have at most 100"):
            await insert_data_rows(rows, session, raise_on_error=flag)
    assert await get_rows(session, Team) == (False, [])


async def test_a_refused_row_leaves_a_block_as_it_was(session: AsyncSession) -> None:
    """Nothing reached the database, so the block continues."""
    async with transaction(session):
        await write_row(Team(name="a"), session)
        with pytest.raises(ValidationError):
            await write_row(Team(name="x" * 101), session)
        await write_row(Team(name="b"), session)
    assert len((await get_rows(session, Team))[1]) == 2


async def test_a_row_that_is_there_is_checked_for_what_changed(session: AsyncSession) -> None:
    """Old values that are no longer valid do not matter."""
    await write_row(Typed(id=1, code="abc"), session)
    row = await session.get(Typed, 1)
    assert row is not None
    row.__dict__["code"] = "longer than it may be"  # as if the database had it
    row.whole = "7"
    await write_row(row, session)
    assert await last(session, "whole") == 7


async def test_values_of_all_types_stay_as_they_are(session: AsyncSession) -> None:
    """Enums by value or by name, expressions of SQL, and None."""
    _, row = await write_row(AllTypes(colour="red", flag="yes", day="2024-03-01"), session)
    assert (row.colour, row.flag, row.day.isoformat()) == (Colour.RED, True, "2024-03-01")
    row.integer = AllTypes.id + 1
    _, row = await write_row(row, session)
    assert row.integer == row.id + 1
    _, row = await update_row(row.id, {"integer": AllTypes.integer + 5}, session, AllTypes)
    assert row.integer == row.id + 6


async def test_who_deletes_has_to_fit_too(session: AsyncSession) -> None:
    """Before anything is marked."""
    _, note = await write_row(Letter(text="a"), session)
    with pytest.raises(ValidationError, match=r"Letter\.deleted_by must have at most 100"):
        await delete_row(note.id, session, Letter, deleted_by="x" * 101)
    assert (await get_rows(session, Letter))[0]


# --- as the model validates ----------------------------------------------------------------------


class PersonUpdate(BaseModel):
    """The body of a PATCH, with a class of its own for what is nested."""

    address: AddressIn | Address | None = None
    places: list[Address] | None = None


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"tidy": "  ANN "}, "tidy", "ann"),
        ({"doubled": "2"}, "doubled", 4),
        ({"words": ["a", "b"]}, "words", "a+b"),
        ({"site": "https://Example.com"}, "site", "https://example.com/"),
        ({"secret": "s3cret"}, "secret", "s3cret"),
        ({"parsed": "[1, 2]"}, "parsed", "[1, 2]"),
        ({"days": {"a": "2024-03-01"}}, "days", {"a": "2024-03-01"}),
        ({"address": {"street": "s", "since": "2024-03-01"}}, "address", "2024-03-01"),
        (PersonUpdate(address=AddressIn(street="s")), "address", None),
        (PersonUpdate(places=[Address(street="s")]), "places", None),
    ],
    ids=str,
)
async def test_what_pydantic_makes_of_a_value_is_stored(
    session: AsyncSession, values: Any, name: str, expected: Any
) -> None:
    """In updates of one row and of many, and in bulk inserts; as JSON where that is the column."""
    given = values if isinstance(values, dict) else {name: getattr(values, name)}
    await write_row(Typed(id=1), session)
    calls: list[Callable[[], Any]] = [
        lambda: update_row(1, values, session, Typed),
        lambda: bulk_update_rows([1], values, session, Typed),
        lambda: bulk_insert_rows([{"id": 2} | given], session, Typed),
    ]
    for call in calls:
        await call()
        statement = select(getattr(Typed, name)).order_by(Typed.id.desc())
        [found] = (await execute(session, statement.limit(1))).scalars().all()
        if name == "address":
            assert (found["street"], found["since"]) == ("s", expected)
        elif name == "places":
            assert [place["street"] for place in found] == ["s"]
        else:
            assert found == expected
        await update_row(1, {name: None}, session, Typed)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"label": "  ANN "}, {"label": "ann"}),
        ({"pattern": "ab"}, {"pattern": "ab"}),
        ({"at": Point(3, 4)}, {"at": Point(3, 4)}),
        ({"later": {"n": "1"}}, {"later": {"n": 1}}),
        ({"later": Later(n=1)}, {"later": {"n": 1}}),
        ({"checked": "a"}, {"checked": "<a>"}),
        ({"high": 1}, {"high": 1}),
    ],
    ids=str,
)
async def test_the_configuration_of_the_model_holds(
    session: AsyncSession, values: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Its types, its engine for patterns, what it does to texts, and its own validators."""
    await write_row(Configured(id=1), session)
    [name] = values
    assert (await update_row(1, values, session, Configured))[0]
    await bulk_insert_rows([{"id": 2} | values], session, Configured)
    statement = select(getattr(Configured, name)).order_by(Configured.id)
    assert list((await execute(session, statement)).scalars()) == [expected[name]] * 2


@pytest.mark.parametrize(
    "values", [{"label": "x" * 11}, {"pattern": "xa"}, {"at": "3,4"}, {"later": {"n": "one"}}]
)
async def test_what_the_model_refuses_is_refused(
    session: AsyncSession, engine: AsyncEngine, values: dict[str, Any]
) -> None:
    """By updates and bulk inserts."""
    await write_row(Configured(id=1), session)
    with recorded(engine) as words:
        with pytest.raises(ValidationError):
            await update_row(1, values, session, Configured)
        with pytest.raises(ValidationError, match="row 1: "):
            await bulk_insert_rows([{"id": 2}, {"id": 3} | values], session, Configured)
    assert words == []


# --- what is not a column ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["area", "outline", "asked"])
async def test_what_is_computed_cannot_be_written(
    session: AsyncSession, engine: AsyncEngine, name: str
) -> None:
    """A generated column, and attributes that are expressions of a query."""
    await write_row(Carton(width=2), session)
    values = {name: 5}
    calls: list[Callable[[], Any]] = [
        lambda: update_row(1, values, session, Carton),
        lambda: bulk_update_rows([1], values, session, Carton),
        lambda: AsyncQueryBuilder(session, Carton).where(id=1).update(**values),
        lambda: bulk_insert_rows([{"width": 1} | values], session, Carton),
        lambda: bulk_upsert_mappings([{"id": 1, "width": 1} | values], session, Carton),
        lambda: get_one_or_create(session, Carton, {"width": 1} | values, id=9),
    ]
    with recorded(engine) as words:
        for call in calls:
            with pytest.raises(ValidationError):
                await call()
    assert words == []


async def test_a_row_cannot_give_what_is_computed(session: AsyncSession) -> None:
    """The error names the column."""
    rows = [Carton(width=3, area=5)]
    for call in (lambda: write_row(rows[0], session), lambda: insert_data_rows(rows, session)):
        with pytest.raises(ValidationError, match=r"Carton\.area is computed by the database"):
            await call()


async def test_what_is_computed_is_read(session: AsyncSession) -> None:
    """Written rows are returned with computed columns, and can be written again."""
    _, row = await write_row(Carton(width=2, height=3), session)
    assert (row.area, row.outline, row.asked) == (6, 10, None)
    row.width = 5
    _, row = await write_row(row, session)
    assert (row.area, row.outline) == (15, 16)
    _, row = await write_row(row, session)
    _, row = await update_row(row.id, {"width": 4}, session, Carton)
    assert row.area == 12
    assert [each.id for each in (await get_rows(session, Carton, area=12, outline=14))[1]] == [
        row.id
    ]
    _, rows = await insert_data_rows([Carton(width=number) for number in range(1, 4)], session)
    assert [each.area for each in rows] == [1, 2, 3]


# --- what the database refuses after all ---------------------------------------------------------


@pytest.mark.databases("mysql")
async def test_numbers_that_mysql_does_not_know(session: AsyncSession, database: Database) -> None:
    """Infinity is a mistake in filters and rows, and no failure of the query."""
    assert database.name == "mysql"
    for number in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises(ValidationError):
            await get_rows(session, Typed, real=number)
        with pytest.raises(ValidationError):
            await write_row(Typed(real=number), session)


@pytest.mark.databases("mysql")
async def test_a_text_that_only_the_database_finds_too_long(session: AsyncSession) -> None:
    """SQLModel limits text without a length to 255 characters on MySQL; the error has the field."""
    with pytest.raises(ValidationError) as caught:
        await write_row(Hero(name="a", secret_name="x" * 300), session)
    assert caught.value.field == "secret_name"


class Unwritable:
    """No driver knows how to write this."""


WRITES: dict[str, Callable[[AsyncSession, Any], Any]] = {
    "write_row": lambda session, value: write_row(Typed(loose=value), session),
    "update_row": lambda session, value: update_row(1, {"loose": value}, session, Typed),
    "bulk_update_rows": lambda session, value: bulk_update_rows(
        [1], {"loose": value, "code": "x"}, session, Typed
    ),
    "bulk_upsert_mappings": lambda session, value: bulk_upsert_mappings(
        [{"id": 1, "loose": value}], session, Typed
    ),
    "builder": lambda session, value: (
        AsyncQueryBuilder(session, Typed).where(id=1).update(loose=value, code="x")
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_value_that_no_json_can_hold_names_its_column(
    session: AsyncSession, database: Database, write: Callable[[AsyncSession, Any], Any]
) -> None:
    """It is detected when the statement is built; only psycopg does not say where."""
    await write_row(Typed(id=1), session)
    with pytest.raises(ValidationError) as caught:
        await write(session, {"a": Unwritable()})
    assert caught.value.field == "loose" or database.name == "postgresql"
