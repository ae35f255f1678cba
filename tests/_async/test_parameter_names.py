"""Columns may have any name; they are never confused with parameters of statements."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from sqlalchemy import Connection, delete, insert, select

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from tests._runtime_async import AsyncSession, execute, run_on_connection
from tests.databases import Database
from tests.name_models import Lookalike, LookalikeLink, OnlyPercents, Percent
from tests.properties import examples

EXAMPLES = examples(40)
Row = dict[str, Any]

NAMES = [name for name in Lookalike.__mapper__.column_attrs.keys() if name not in ("id", "email")]
NUMBERS = st.integers(0, 3)
# Half of the columns, so that a name and its lookalike often are not both among them.
VALUES = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, NUMBERS)).filter(bool)
EMPTY: Row = dict.fromkeys(NAMES)
ADA: Row = {"id": 1, "email": "ada", **EMPTY}
BOB: Row = {"id": 2, "email": "bob", **EMPTY}


def _fill(connection: Connection, rows: list[Row]) -> None:
    connection.execute(delete(Lookalike))
    columns = Lookalike.__mapper__.column_attrs
    connection.execute(
        insert(Lookalike.__table__),
        [{columns[name].columns[0].key: value for name, value in row.items()} for row in rows],
    )


def _row(row: Any) -> Row:
    return {name: getattr(row, name) for name in ADA}


async def _start(session: AsyncSession, *rows: Row) -> None:
    session.expunge_all()
    await run_on_connection(session, lambda connection: _fill(connection, list(rows)))
    await session.commit()


async def _stored(session: AsyncSession) -> list[Row]:
    """Return the rows as plain SQLAlchemy reads them, and forget them."""
    names = list(ADA)
    columns = [getattr(Lookalike, name) for name in names]
    found = await execute(session, select(*columns).order_by(Lookalike.id))
    rows = [dict(zip(names, row, strict=True)) for row in found.all()]
    await session.rollback()
    return rows


@EXAMPLES
@given(values=VALUES)
@example(values={"size": 1})  # beside new_size
async def test_a_row_is_changed(values: Row, session: AsyncSession) -> None:
    """By its key, by another one, in a list, by a query: just these columns of it."""
    expected = [ADA | values, BOB]
    await _start(session, ADA, BOB)
    assert (await update_row(1, values, session, Lookalike))[0]
    assert await _stored(session) == expected

    await _start(session, ADA, BOB)
    assert (await update_row("ada", values, session, Lookalike, "email"))[0]
    assert await _stored(session) == expected

    for key, field in ((1, "id"), ("ada", "email")):
        await _start(session, ADA, BOB)
        written = await bulk_update_rows([key], values, session, Lookalike, field)
        assert written == (True, 1)
        assert await _stored(session) == expected

    for criteria in ({"id": 1}, {"email": "ada"}, {"id__in": [1]}, {"email__in": ["ada"]}):
        await _start(session, ADA, BOB)
        query = QueryBuilder(session, Lookalike).where(**criteria)
        assert await query.update(**values) == 1
        assert await _stored(session) == expected


@EXAMPLES
@given(values=VALUES, others=VALUES)
async def test_a_row_is_upserted(values: Row, others: Row, session: AsyncSession) -> None:
    """Complete rows and those that can only update, with the same columns and with others."""
    for key in ("id", "email"):
        await _start(session, ADA, BOB)
        rows = [{key: ADA[key], **values}, {key: BOB[key], **others}]
        await bulk_upsert_mappings(rows, session, Lookalike, key)
        assert await _stored(session) == [ADA | values, BOB | others]

        await _start(session, ADA)
        rows = [{"id": 1, "email": "ada", **values}, {"id": 2, "email": "bob", **others}]
        await bulk_upsert_mappings(rows, session, Lookalike, key)
        assert await _stored(session) == [ADA | values, BOB | others]


@EXAMPLES
@given(values=VALUES)
async def test_a_row_is_inserted(values: Row, session: AsyncSession) -> None:
    """In each of the ways there are."""
    row = {"id": 1, "email": "ada", **values}
    await _start(session, BOB)
    assert (await write_row(Lookalike(**row), session))[0]
    assert await _stored(session) == [ADA | values, BOB]

    await _start(session, BOB)
    _, existed = await get_one_or_create(session, Lookalike, {"id": 1, **values}, email="ada")
    assert not existed
    assert await _stored(session) == [ADA | values, BOB]

    await _start(session, BOB)
    assert (await insert_data_rows([Lookalike(**row)], session))[0]
    assert await _stored(session) == [ADA | values, BOB]

    for conflict in ("raise", "ignore"):
        await _start(session, BOB)
        assert await bulk_insert_rows([row], session, Lookalike, on_conflict=conflict) == 1
        assert await _stored(session) == [ADA | values, BOB]


@EXAMPLES
@given(values=VALUES)
async def test_rows_are_found_and_deleted(values: Row, session: AsyncSession) -> None:
    """By filters on any column, in pages, by keys."""
    await _start(session, ADA | values, BOB)
    name = next(iter(values))
    _, rows = await get_rows(session, Lookalike, page=1, page_size=1, sort_field=name, **values)
    assert [_row(row) for row in rows] == [ADA | values]
    query = QueryBuilder(session, Lookalike).where(**values).order_by(name)
    page = await query.keyset(1)
    assert [_row(row) for row in page.items] == [ADA | values]
    assert (await query.paginate(1, 5)).total == 1
    _, found = await get_row(values[name], session, Lookalike, pk_field=name)
    assert _row(found) == ADA | values
    _, rows = await get_rows_within_id_list([values[name]], session, Lookalike, name)
    assert [_row(row) for row in rows] == [ADA | values]
    assert await query.delete() == 1
    assert await delete_rows_within_id_list(["bob"], session, Lookalike, "email") == (True, 1)
    await _start(session, ADA, BOB)
    assert await delete_row(1, session, Lookalike)
    assert await _stored(session) == [BOB]


async def test_a_composite_key_of_such_names(session: AsyncSession) -> None:
    """Its parts are distinguished from each other, and from the written values."""
    row = {"key_1": 1, "key_0": 2, "new_key_0": 3, "first": 4}
    await bulk_upsert_mappings([row], session, LookalikeLink)
    await bulk_upsert_mappings([row | {"first": 5}], session, LookalikeLink)
    assert (await update_row((1, 2), {"new_key_0": 6}, session, LookalikeLink))[0]
    written = await bulk_update_rows([(1, 2), (2, 1)], {"first": 7}, session, LookalikeLink)
    assert written == (True, 1)
    _, found = await get_row((1, 2), session, LookalikeLink)
    assert found is not None
    assert (found.key_1, found.key_0, found.new_key_0, found.first) == (1, 2, 6, 7)
    assert await delete_row((1, 2), session, LookalikeLink)


async def test_a_percent_sign_in_the_name_of_a_key(session: AsyncSession) -> None:
    """Duplicates are skipped, and counted."""
    rows = [{"id": number, "text": "x"} for number in (1, 2)]
    assert await bulk_insert_rows(rows, session, Percent) == 2
    rows.append({"id": 3, "text": "y"})
    assert await bulk_insert_rows(rows, session, Percent, on_conflict="ignore") == 1
    assert await bulk_update_rows([1, 3], {"text": "z"}, session, Percent) == (True, 2)
    assert await delete_rows_within_id_list([1, 2], session, Percent) == (True, 2)


async def test_a_percent_sign_in_all_names(session: AsyncSession, database: Database) -> None:
    """MySQL could not count duplicates by any column; the error explains that."""
    rows = [{"id": 1, "share": 5}, {"id": 2, "share": 6}]
    assert await bulk_insert_rows(rows[:1], session, OnlyPercents) == 1
    if database.name == "mysql":
        with pytest.raises(ValidationError, match="no % in its name"):
            await bulk_insert_rows(rows, session, OnlyPercents, on_conflict="ignore")
    else:
        assert await bulk_insert_rows(rows, session, OnlyPercents, on_conflict="ignore") == 1
