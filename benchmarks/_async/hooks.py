"""What hooks cost a write. Here "by hand" is the library's write without the look for hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from benchmarks._async.case import Side
from benchmarks._async.writes import Write
from benchmarks._runtime_async import AsyncSession
from benchmarks.models import Hero, Sizes, Team
from sqlmodel_crud_utils import registered_hook
from sqlmodel_crud_utils._async import writes


class NoOp:
    def before_create(self, _instance: Any) -> None:
        """Do nothing."""

    def after_create(self, _instance: Any) -> None:
        """Do nothing."""


class HookedWrite(Write):
    hooked: type[Any] = Hero

    @contextmanager
    def around(self, side: Side) -> Iterator[None]:
        """Register hooks, or leave the look for them out."""
        with ExitStack() as stack:
            if side == "by hand":
                stack.enter_context(patch.object(writes, "hooks_of", lambda *_: ()))
            for _ in range(self.count if side == "library" else 0):
                stack.enter_context(registered_hook(self.hooked, NoOp()))
            yield

    async def by_hand(self, session: AsyncSession, values: dict[str, Any]) -> Any:
        return await self.library(session, values)


class OtherHooked(HookedWrite):
    """The hook is one of another model."""

    hooked = Team


def cases(sizes: Sizes) -> list[HookedWrite]:
    """Return the cases of this group."""
    return [
        HookedWrite("write, no hook registered", sizes, 0),
        OtherHooked("write, a hook of another model", sizes, 1),
        HookedWrite("write, 1 hook", sizes, 1),
        HookedWrite("write, 5 hooks", sizes, 5),
    ]
