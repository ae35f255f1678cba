"""Reads of rows, lists and pages."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import func
from sqlalchemy.orm import selectinload
from sqlmodel import col, select

from benchmarks._async.case import Case
from benchmarks._runtime_async import AsyncSession, library
from benchmarks.models import Hero, Sizes, Team


class Get(Case):
    async def prepare(self, _session: AsyncSession) -> int:
        return self.random.randint(1, self.sizes.rows)

    async def library(self, session: AsyncSession, key: int) -> Any:
        return (await library.get_row(key, session, Hero))[1]

    async def by_hand(self, session: AsyncSession, key: int) -> Any:
        return (await session.exec(select(Hero).where(Hero.id == key))).one_or_none()


class List(Case):
    async def library(self, session: AsyncSession, _: None) -> Any:
        return (await library.get_rows(session, Hero, age__gte=20, page_size=100))[1]

    async def by_hand(self, session: AsyncSession, _: None) -> Any:
        statement = select(Hero).where(col(Hero.age) >= 20).order_by(col(Hero.id)).limit(100)
        return (await session.exec(statement)).all()


class ListOfDicts(List):
    """A list of dicts; by hand, of objects."""

    async def library(self, session: AsyncSession, _: None) -> Any:
        query = library.QueryBuilder(session, Hero).where(age__gte=20).order_by("id")
        return await query.limit(100).values()


class ListOfNames(List):
    async def library(self, session: AsyncSession, _: None) -> Any:
        query = library.QueryBuilder(session, Hero).where(age__gte=20).order_by("id")
        return await query.limit(100).scalars("name")

    async def by_hand(self, session: AsyncSession, _: None) -> Any:
        return [hero.name for hero in await super().by_hand(session, None)]


class Count(Case):
    async def library(self, session: AsyncSession, _: None) -> Any:
        return await library.QueryBuilder(session, Hero).where(age__gte=20).count()

    async def by_hand(self, session: AsyncSession, _: None) -> Any:
        statement = select(func.count()).select_from(Hero).where(col(Hero.age) >= 20)
        return (await session.exec(statement)).one()


class PageWithTotal(Case):
    async def library(self, session: AsyncSession, _: None) -> Any:
        query = library.QueryBuilder(session, Hero).where(age__gte=20).order_by("name")
        page = await query.paginate(2, size=self.count)
        return page.items, page.total

    async def by_hand(self, session: AsyncSession, _: None) -> Any:
        condition = col(Hero.age) >= 20
        statement = select(Hero).where(condition).order_by(Hero.name, col(Hero.id))
        rows = (await session.exec(statement.limit(self.count).offset(self.count))).all()
        total = (await session.exec(select(func.count()).select_from(Hero).where(condition))).one()
        return rows, total


class WithRelated(Case):
    async def library(self, session: AsyncSession, _: None) -> Any:
        rows = await library.get_rows(session, Team, True, ["heroes"], page_size=self.count)
        return rows[1]

    async def by_hand(self, session: AsyncSession, _: None) -> Any:
        load = selectinload(cast(Any, Team.heroes))
        statement = select(Team).options(load).order_by(col(Team.id)).limit(self.count)
        return (await session.exec(statement)).all()


class GetManyIds(Case):
    async def prepare(self, _session: AsyncSession) -> list[int]:
        return list(range(1, self.sizes.rows, 2))

    async def library(self, session: AsyncSession, keys: list[int]) -> Any:
        rows = (await library.get_rows_within_id_list(keys, session, Hero))[1]
        return sorted(rows, key=lambda hero: hero.id or 0)

    async def by_hand(self, session: AsyncSession, keys: list[int]) -> Any:
        rows = (await session.exec(select(Hero).where(col(Hero.id).in_(keys)))).all()
        return sorted(rows, key=lambda hero: hero.id or 0)


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases of this group."""
    return [
        Get("get by key", sizes),
        List("filtered list of 100", sizes),
        ListOfDicts("list of 100 as dicts", sizes),
        ListOfNames("100 values of a field", sizes),
        Count("count", sizes),
        PageWithTotal("page with total", sizes, sizes.rows // 20),
        WithRelated("20 rows with related ones (selectin)", sizes, 20),
        GetManyIds("rows of 500 ids", sizes),
    ]
