"""Ten thousand rows at a time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.comparing import Case
from benchmarks.models import ROWS, Hero, new_values
from sqlmodel_crud_utils.aio import bulk_upsert_mappings, insert_data_rows

MANY = 10_000


async def clear(session: AsyncSession) -> None:
    await session.execute(delete(Hero).where(col(Hero.id) > ROWS))
    await session.commit()


async def insert(session: AsyncSession) -> None:
    await insert_data_rows([Hero(**new_values()) for _ in range(MANY)], session)


async def insert_by_hand(session: AsyncSession) -> None:
    session.add_all([Hero(**new_values()) for _ in range(MANY)])
    await session.commit()


def payload() -> list[dict[str, Any]]:
    """Return rows of which the first half is there after `half`."""
    return [{"name": f"up {n}", "secret_name": "?", "age": n % 60} for n in range(MANY)]


async def half(session: AsyncSession) -> None:
    await clear(session)
    await session.execute(Hero.__table__.insert(), payload()[: MANY // 2])
    await session.commit()


async def upsert(session: AsyncSession) -> None:
    await bulk_upsert_mappings(payload(), session, Hero, ["name"])


async def upsert_by_hand(session: AsyncSession) -> None:
    """Upsert in chunks that the database takes, and read the rows back."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    rows = payload()
    for start in range(0, MANY, 5_000):
        chunk = rows[start : start + 5_000]
        statement = dialect.insert(Hero).values(chunk)
        changes = {name: statement.excluded[name] for name in ("secret_name", "age")}
        statement = statement.on_conflict_do_update(index_elements=["name"], set_=changes)
        await session.execute(statement)
        names = [row["name"] for row in chunk]
        found = (await session.exec(select(Hero).where(col(Hero.name).in_(names)))).all()
        by_name = {hero.name: hero for hero in found}
        _ = [by_name[name] for name in names]
    await session.commit()


CASES = (
    Case("insert_data_rows, 10k", insert, insert_by_hand, 10, clear),
    Case("upsert 10k, half existing", upsert, upsert_by_hand, 10, half),
)
