"""The cost of hooks.

For a new row, "by hand" is the library's write without the lookup of hooks; for an update, it is a
SELECT, the change and a flush with the hook's code in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from sqlmodel import select

from benchmarks._async.case import Case, Side
from benchmarks._async.writes import Update, Write
from benchmarks._runtime_async import AsyncSession
from benchmarks.models import Hero, Sizes, Team
from sqlmodel_crud_utils import registered_hook
from sqlmodel_crud_utils._async import writes


class NoOp:
    def before_create(self, _instance: Any) -> None:
        """Do nothing."""

    def after_create(self, _instance: Any) -> None:
        """Do nothing."""


class Named:
    def before_update(self, _instance: Hero, data: dict[str, Any]) -> dict[str, Any]:
        """Write one more field."""
        return {**data, "secret_name": str(data["age"])}


class HookedWrite(Write):
    hooked: type[Any] = Hero

    @contextmanager
    def around(self, side: Side) -> Iterator[None]:
        """Register hooks, or skip the lookup of hooks."""
        with ExitStack() as stack:
            if side == "by hand":
                stack.enter_context(patch.object(writes, "hooks_of", lambda *_: ()))
            for _ in range(self.count if side == "library" else 0):
                stack.enter_context(registered_hook(self.hooked, NoOp()))
            yield

    async def by_hand(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        return await self.library(session, values)


class OtherHooked(HookedWrite):
    """A hook is registered for another model."""

    hooked = Team


class HookedUpdate(Update):
    def around(self, side: Side) -> AbstractContextManager[Any]:
        """Register the hook."""
        return registered_hook(Hero, Named()) if side == "library" else nullcontext()

    async def by_hand(self, session: AsyncSession, argument: tuple[int, int]) -> Any:
        key, age = argument
        hero = (await session.exec(select(Hero).where(Hero.id == key))).one()
        for name, value in Named().before_update(hero, {"age": age}).items():
            setattr(hero, name, value)
        await session.flush()
        await session.commit()
        return hero


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases of this group."""
    return [
        HookedWrite("write, no hook registered", sizes, 0),
        OtherHooked("write, a hook of another model", sizes, 1),
        HookedWrite("write, 1 hook", sizes, 1),
        HookedWrite("write, 5 hooks", sizes, 5),
        HookedUpdate("update, 1 hook", sizes),
    ]
