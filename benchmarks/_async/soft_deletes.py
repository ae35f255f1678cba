"""Operations on single rows of a model with soft delete, a tenth of whose rows are deleted."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlmodel import col, select

from benchmarks._async.case import Case
from benchmarks._runtime_async import AsyncSession, library
from benchmarks.models import Ghost, Sizes

VISIBLE = col(Ghost.is_deleted).is_(False)


class GhostCase(Case):
    writes_to = Ghost

    def visible_key(self) -> int:
        """Return the key of a row that is not deleted."""
        return 10 * self.random.randint(0, self.sizes.rows // 10 - 1) + self.random.randint(1, 9)


class Get(GhostCase):
    async def prepare(self, _session: AsyncSession) -> int:
        return self.visible_key()

    async def library(self, session: AsyncSession, key: int) -> Any:
        return (await library.get_row(key, session, Ghost))[1]

    async def by_hand(self, session: AsyncSession, key: int) -> Any:
        return (await session.exec(select(Ghost).where(Ghost.id == key, VISIBLE))).one_or_none()


class List(GhostCase):
    async def library(self, session: AsyncSession, _: None) -> Any:
        return (await library.get_rows(session, Ghost, age__gte=20, page_size=100))[1]

    async def by_hand(self, session: AsyncSession, _: None) -> Any:
        statement = select(Ghost).where(col(Ghost.age) >= 20, VISIBLE)
        return (await session.exec(statement.order_by(col(Ghost.id)).limit(100))).all()


class Write(GhostCase):
    async def prepare(self, _session: AsyncSession) -> dict[str, Any]:
        return {"name": f"new {next(self.numbers)}", "age": 30}

    async def library(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        return (await library.write_row(Ghost(**values), session))[1]

    async def by_hand(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        ghost = Ghost(**values)
        session.add(ghost)
        await session.commit()
        return ghost


class Update(GhostCase):
    async def prepare(self, _session: AsyncSession) -> tuple[int, int]:
        return self.visible_key(), next(self.numbers)

    async def library(self, session: AsyncSession, argument: tuple[int, int]) -> Any:
        key, age = argument
        return (await library.update_row(key, {"age": age}, session, Ghost))[1]

    async def by_hand(self, session: AsyncSession, argument: tuple[int, int]) -> Any:
        key, age = argument
        ghost = (await session.exec(select(Ghost).where(Ghost.id == key, VISIBLE))).one()
        ghost.age = age
        await session.commit()
        return ghost


class Delete(GhostCase):
    async def prepare(self, session: AsyncSession) -> int | None:
        ghost = Ghost(name=f"new {next(self.numbers)}")
        session.add(ghost)
        await session.flush()
        key = ghost.id
        await session.commit()
        return key

    async def library(self, session: AsyncSession, key: int) -> Any:
        return await library.delete_row(key, session, Ghost)

    async def by_hand(self, session: AsyncSession, key: int) -> Any:
        ghost = (await session.exec(select(Ghost).where(Ghost.id == key, VISIBLE))).one()
        ghost.is_deleted = True
        ghost.deleted_at = dt.datetime.now(dt.UTC)
        await session.commit()
        return True


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases of this group."""
    return [
        Get("soft delete: get by key", sizes),
        List("soft delete: filtered list of 100", sizes),
        Write("soft delete: write", sizes),
        Update("soft delete: update by key", sizes),
        Delete("soft delete: delete by key", sizes),
    ]
