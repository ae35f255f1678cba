"""One row, or one page of rows, at a time."""

from __future__ import annotations

from random import randrange
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.comparing import Case
from benchmarks.models import NUMBERS, ROWS, Hero, new_values
from sqlmodel_crud_utils.aio import (
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    transaction,
    update_row,
    write_row,
)


def some_id() -> int:
    """Return the id of one of the rows that are always there."""
    return randrange(1, ROWS + 1)


async def get(session: AsyncSession) -> None:
    await get_row(some_id(), session, Hero)


async def get_by_hand(session: AsyncSession) -> None:
    (await session.exec(select(Hero).where(Hero.id == some_id()))).one_or_none()


async def page(session: AsyncSession) -> None:
    await get_rows(session, Hero, age__gte=20, sort_field="name", page_size=100)


async def page_by_hand(session: AsyncSession) -> None:
    statement = select(Hero).where(col(Hero.age) >= 20).order_by(Hero.name, col(Hero.id))
    (await session.exec(statement.limit(100).offset(0))).all()


async def write(session: AsyncSession) -> None:
    await write_row(Hero(**new_values()), session)


async def write_by_hand(session: AsyncSession) -> None:
    session.add(Hero(**new_values()))
    await session.commit()


async def update(session: AsyncSession) -> None:
    await update_row(some_id(), {"age": next(NUMBERS)}, session, Hero)


async def update_by_hand(session: AsyncSession) -> None:
    hero = (await session.exec(select(Hero).where(Hero.id == some_id()))).one()
    hero.age = next(NUMBERS)
    await session.commit()


LAST: list[int] = []


async def write_to_delete(session: AsyncSession) -> None:
    hero = Hero(**new_values())
    session.add(hero)
    await session.flush()
    LAST.append(hero.id or 0)
    await session.commit()


async def delete(session: AsyncSession) -> None:
    await delete_row(LAST.pop(), session, Hero)


async def delete_by_hand(session: AsyncSession) -> None:
    hero = (await session.exec(select(Hero).where(Hero.id == LAST.pop()))).one()
    await session.delete(hero)
    await session.commit()


async def get_or_create(session: AsyncSession) -> None:
    await get_one_or_create(session, Hero, {"secret_name": "?"}, name="hero 7")


async def get_or_create_by_hand(session: AsyncSession) -> None:
    await _get_or_create_by_hand(session, {"name": "hero 7", "secret_name": "?"})


async def get_or_create_new(session: AsyncSession) -> None:
    values = new_values()
    await get_one_or_create(session, Hero, values, name=values["name"])


async def get_or_create_new_by_hand(session: AsyncSession) -> None:
    await _get_or_create_by_hand(session, new_values())


async def _get_or_create_by_hand(session: AsyncSession, values: dict[str, Any]) -> Hero:
    """Find or create a row, safe against another caller that creates it at the same time."""
    statement = select(Hero).where(Hero.name == values["name"])
    hero = (await session.exec(statement)).first()
    if hero is None:
        hero = Hero(**values)
        async with session.begin_nested():
            session.add(hero)
        await session.commit()
    return hero


async def write_ten(session: AsyncSession) -> None:
    async with transaction(session):
        for _ in range(10):
            await write_row(Hero(**new_values()), session)


async def write_ten_by_hand(session: AsyncSession) -> None:
    async with session.begin():
        for _ in range(10):
            session.add(Hero(**new_values()))
            await session.flush()


CASES = (
    Case("get by key", get, get_by_hand),
    Case("filtered list of 100", page, page_by_hand, 200),
    Case("write", write, write_by_hand),
    Case("update by key", update, update_by_hand),
    Case("delete by key", delete, delete_by_hand, setup=write_to_delete),
    Case("get-or-create, exists", get_or_create, get_or_create_by_hand),
    Case("get-or-create, new", get_or_create_new, get_or_create_new_by_hand),
    Case("10 writes in a transaction", write_ten, write_ten_by_hand, 100),
)
