"""Writes of a row."""

from __future__ import annotations

from typing import Any

from sqlmodel import select

from benchmarks._async.case import Case
from benchmarks._runtime_async import AsyncSession, library
from benchmarks.models import Hero, Page, Sizes


class HeroCase(Case):
    writes_to = Hero

    def new_values(self) -> dict[str, Any]:
        """Return the values of a new row."""
        number = next(self.numbers)
        return {"name": f"new {number}", "secret_name": "?", "age": number % 60}

    def some_key(self) -> int:
        """Return the key of a row that always exists."""
        return self.random.randint(1, self.sizes.rows)


class Write(HeroCase):
    async def prepare(self, _session: AsyncSession) -> dict[str, Any]:
        return self.new_values()

    async def library(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        return (await library.write_row(Hero(**values), session))[1]

    async def by_hand(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        hero = Hero(**values)
        session.add(hero)
        await session.commit()
        return hero


class Update(HeroCase):
    async def prepare(self, _session: AsyncSession) -> tuple[int, int]:
        return self.some_key(), next(self.numbers)

    async def library(self, session: AsyncSession, argument: tuple[int, int]) -> Any:
        key, age = argument
        return (await library.update_row(key, {"age": age}, session, Hero))[1]

    async def by_hand(self, session: AsyncSession, argument: tuple[int, int]) -> Any:
        key, age = argument
        hero = (await session.exec(select(Hero).where(Hero.id == key))).one()
        hero.age = age
        await session.commit()
        return hero


class UpdateAudited(Case):
    writes_to = Page

    async def prepare(self, _session: AsyncSession) -> tuple[int, int]:
        return self.random.randint(1, self.sizes.rows), 10_000 + next(self.numbers)

    async def library(self, session: AsyncSession, argument: tuple[int, int]) -> Any:
        key, views = argument
        return (await library.update_row(key, {"views": views}, session, Page))[1]

    async def by_hand(self, session: AsyncSession, argument: tuple[int, int]) -> Any:
        key, views = argument
        page = (await session.exec(select(Page).where(Page.id == key))).one()
        page.views = views
        await session.commit()
        return page


class Delete(HeroCase):
    async def prepare(self, session: AsyncSession) -> int | None:
        hero = Hero(**self.new_values())
        session.add(hero)
        await session.flush()
        key = hero.id
        await session.commit()
        return key

    async def library(self, session: AsyncSession, key: int) -> Any:
        return await library.delete_row(key, session, Hero)

    async def by_hand(self, session: AsyncSession, key: int) -> Any:
        hero = (await session.exec(select(Hero).where(Hero.id == key))).one()
        await session.delete(hero)
        await session.commit()
        return True


class GetOrCreate(HeroCase):
    """The row is there."""

    async def prepare(self, _session: AsyncSession) -> dict[str, Any]:
        return {"name": f"hero {self.some_key()}", "secret_name": "?"}

    async def library(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        return await library.get_one_or_create(session, Hero, values, name=values["name"])

    async def by_hand(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        """Do it safe against another caller who creates the row at the same time."""
        hero = (await session.exec(select(Hero).where(Hero.name == values["name"]))).first()
        if hero is not None:
            return hero, True
        hero = Hero(**values)
        async with session.begin_nested():
            session.add(hero)
        await session.commit()
        return hero, False


class GetOrCreateNew(GetOrCreate):
    """The row is not there."""

    async def prepare(self, _session: AsyncSession) -> dict[str, Any]:
        return self.new_values()


class WriteTen(HeroCase):
    async def prepare(self, _session: AsyncSession) -> list[dict[str, Any]]:
        return [self.new_values() for _ in range(10)]

    async def library(self, session: AsyncSession, payload: list[dict[str, Any]]) -> Any:
        async with library.transaction(session):
            return [(await library.write_row(Hero(**row), session))[1] for row in payload]

    async def by_hand(self, session: AsyncSession, payload: list[dict[str, Any]]) -> Any:
        rows = []
        async with session.begin():
            for row in payload:
                rows.append(Hero(**row))
                session.add(rows[-1])
                await session.flush()
        return rows


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases of this group."""
    return [
        Write("write", sizes),
        Update("update by key", sizes),
        UpdateAudited("update by key, audited", sizes),
        Delete("delete by key", sizes),
        GetOrCreate("get-or-create, exists", sizes),
        GetOrCreateNew("get-or-create, new", sizes),
        WriteTen("10 writes in a transaction", sizes),
    ]
