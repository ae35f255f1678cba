"""What lifecycle hooks cost: `write_row` with and without them, on SQLite in memory.

    python benchmarks/hooks.py

"without the feature" is `write_row` with the look into the registry taken out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine
from sqlmodel import Field, Session, SQLModel, create_engine

from sqlmodel_crud_utils import registered_hook
from sqlmodel_crud_utils._sync import writes
from sqlmodel_crud_utils.sync import write_row

ROUNDS = 100
WRITES = 30


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Villain(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


class NoOp:
    def before_create(self, instance: Any) -> None:
        """Do nothing."""

    def after_create(self, instance: Any) -> None:
        """Do nothing."""


@contextmanager
def hooks(count: int, model: type[SQLModel] = Hero) -> Iterator[None]:
    """Register some hooks for a while."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(registered_hook(model, NoOp()))
        yield


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "without the feature": lambda: patch.object(writes, "hooks_of", lambda *_: ()),
    "no hook": lambda: hooks(0),
    "a hook of another model": lambda: hooks(1, Villain),
    "1 no-op hook": lambda: hooks(1),
    "5 no-op hooks": lambda: hooks(5),
}


def seconds(engine: Engine) -> float:
    """Return the time of many writes, each with a commit, in one session."""
    with Session(engine) as session:
        start = time.perf_counter()
        for number in range(WRITES):
            write_row(Hero(name=f"hero {number}"), session)
        return time.perf_counter() - start


def main() -> None:
    """Print a table; the settings take turns, so that all of them meet the same conditions."""
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    times: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for turn in range(ROUNDS + 1):
        for name, setting in SETTINGS.items():
            with setting():
                took = seconds(engine)
            if turn:  # the first one warms up
                times[name].append(took)
    engine.dispose()
    base = min(times["without the feature"])
    print(f"{'write_row, best of ' + str(ROUNDS):<26}{'time':>10}   ratio")
    for name, measured in times.items():
        best = min(measured)
        print(f"{name:<26}{best / WRITES * 1000:>7.3f} ms   {best / base:.2f}")


if __name__ == "__main__":
    main()
