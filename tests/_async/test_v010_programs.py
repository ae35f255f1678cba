"""Programs written for v0.1.0 run without a change."""

from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy.exc import MultipleResultsFound
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    update_row,
    write_row,
)
from tests._runtime_async import AsyncSession
from tests.crud_models import Product
from tests.models import AllTypes, Hero, Team


async def test_everything_by_position(session: AsyncSession) -> None:
    """The parameters have v0.1.0's order, and the answers are tuples."""
    team, existed = await get_one_or_create(
        session, Team, {"city": "Oslo"}, False, None, name="Preventers"
    )
    assert existed is False
    success, hero = await write_row(Hero(name="Rusty", secret_name="T", team_id=team.id), session)
    assert success is True
    success, hero = await get_row(hero.id, session, Hero, True, ["team"], False, None, "id")
    assert success is True
    assert hero.team.name == "Preventers"
    success, rows = await get_rows(session, Hero, True, ["team"], False, None, 10, 1, None, None)
    assert (success, rows) == (True, [hero])
    success, rows = await get_rows_within_id_list([str(hero.id)], session, Hero, "id")
    assert (success, rows.all()) == (True, [hero])
    success, hero = await update_row(hero.id, {"age": 5}, session, Hero, "id")
    assert (success, hero.age) == (True, 5)
    assert await delete_row(hero.id, session, Hero, "id") is True


async def test_everything_by_name(session: AsyncSession) -> None:
    """The parameters have v0.1.0's names."""
    row, _ = await get_one_or_create(
        session_inst=session,
        model=Team,
        create_method_kwargs={"city": "Oslo"},
        selectin=True,
        select_in_key="heroes",
        name="Preventers",
    )
    key = row.id
    await write_row(data_row=Hero(name="Rusty", secret_name="T"), session_inst=session)
    heroes = [Hero(name="Nova", secret_name="N")]
    await insert_data_rows(data_rows=heroes, session_inst=session)
    await get_row(
        id_str=str(key),
        session_inst=session,
        model=Team,
        selectin=True,
        select_in_keys=["heroes"],
        lazy=False,
        lazy_load_keys=None,
        pk_field="id",
    )
    _, rows = await get_rows(
        session_inst=session,
        model=Hero,
        lazy=True,
        lazy_load_keys=["team"],
        page_size=1,
        page=2,
        text_field=None,
        stmnt=None,
        sort_field="name",
        sort_desc=True,
    )
    assert [row.name for row in rows] == ["Nova"]
    await get_rows_within_id_list(
        id_str_list=[key], session_inst=session, model=Team, pk_field="id"
    )
    await update_row(
        id_str=key, data={"city": "Rome"}, session_inst=session, model=Team, pk_field="id"
    )
    assert (await get_result_from_query(query=select(Team), session=session)).city == "Rome"
    assert await delete_row(id_str=key, session_inst=session, model=Team, pk_field="id")


async def test_filters_with_digits_and_dates_as_text(session: AsyncSession) -> None:
    """Digits and dates may be text; `like` is put between percent signs."""
    days = [dt.date(2024, month, 1) for month in (1, 2, 3)]
    products = [
        Product(sku=f"A-{n}", stock=n * 10, released_date=day) for n, day in enumerate(days)
    ]
    await insert_data_rows(products, session)

    async def skus(**filters: object) -> list[str]:
        _, rows = await get_rows(session, Product, sort_field="sku", **filters)  # type: ignore[arg-type]
        return [row.sku for row in rows]

    assert await skus(stock__gte="10") == ["A-1", "A-2"]
    assert await skus(stock__lte="10", stock__gt="0") == ["A-1"]
    assert await skus(released_date__gte="2024-02-01") == ["A-1", "A-2"]
    assert await skus(released_date__lt="February 1, 2024") == ["A-0"]
    assert await skus(sku__like="-1") == ["A-1"]
    assert await skus(stock__in=[0, 20]) == ["A-0", "A-2"]
    assert await skus(stock=10, sku="A-1") == ["A-1"]
    moment = AllTypes(moment=dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC))
    await write_row(moment, session)
    assert (await get_rows(session, AllTypes, moment__gt="2024-03-01"))[0]


async def test_what_v010_raised_can_be_caught_as_then(session: AsyncSession) -> None:
    """Several rows are SQLAlchemy's error, an unknown field is Python's."""
    await insert_data_rows([Hero(name=name, secret_name="?", age=1) for name in "ab"], session)
    with pytest.raises(MultipleResultsFound):
        await get_row(1, session, Hero, pk_field="age")
    with pytest.raises(AttributeError):
        await get_row(1, session, Hero, pk_field="nope")


async def test_failures_are_false(session: AsyncSession) -> None:
    """Nothing raises that did not raise then."""
    hero = Hero(name="Rusty", secret_name="T")
    await write_row(hero, session)
    key = hero.id
    assert await write_row(Hero(name="Rusty", secret_name="T"), session) == (False, None)
    assert await get_row(999, session, Hero) == (False, None)
    assert await get_row(None, session, Hero) == (False, None)
    assert await get_rows(session, Team) == (False, [])
    assert await get_rows_within_id_list([], session, Hero) == (False, [])
    assert await update_row(999, {"age": 1}, session, Hero) == (False, None)
    assert await delete_row(999, session, Hero) is False
    success, outcome = await insert_data_rows(
        [Hero(name="Rusty", secret_name="T"), Hero(name="Nova", secret_name="N")], session
    )
    assert success is True
    assert isinstance(outcome, dict)
    assert [len(outcome["success"]), len(outcome["failed"])] == [1, 1]
    assert (await get_row(key, session, Hero))[0]
