"""What a read costs with many models, compared with two: `python -m benchmarks.many_models`.

The models support soft deletion, and each is related to the next. Both sides alternate in one
process, on SQLite in memory; the ratio is the median of the rounds' ratios of CPU time. The last
line is a read by hand.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import Engine, StaticPool, create_engine
from sqlalchemy.orm import registry, relationship
from sqlmodel import Field, Session, SQLModel, col, select

from sqlmodel_crud_utils.mixins import SoftDeleteMixin
from sqlmodel_crud_utils.sync import get_row, get_rows

Read = Callable[[Session, Any], Any]

READS: dict[str, Read] = {
    "get_row": lambda session, model: get_row(1, session, model),
    "get_rows by filter": lambda session, model: get_rows(session, model, name="one"),
    "get_rows with stmnt=": lambda session, model: get_rows(
        session, model, stmnt=select(model).where(model.name == "one")
    ),
    "get_rows with stmnt= and has()": lambda session, model: get_rows(
        session, model, stmnt=select(model).where(model.next.has())
    ),
    "by hand": lambda session, model: session.exec(
        select(model).where(model.id == 1, col(model.is_deleted).is_(False))
    ).all(),
}


@dataclass(frozen=True)
class Cost:
    """The cost of a read.

    Attributes:
        read: The read.
        few: The median of its microseconds with few models.
        many: The same with many models.
        ratio: The median of the rounds' ratios.
    """

    read: str
    few: float
    many: float
    ratio: float


def measure(few: int = 2, many: int = 300, rounds: int = 40, calls: int = 20) -> list[Cost]:
    """Return the cost of the reads with few models and with many."""
    worlds = [_world(few), _world(many)]
    costs = []
    for name, read in READS.items():
        times: list[list[float]] = [[], []]
        for number in range(rounds):
            for side in (0, 1) if number % 2 else (1, 0):
                times[side].append(_seconds(read, *worlds[side], calls) / calls)
        ratio = median(ours / theirs for theirs, ours in zip(*times, strict=True))
        costs.append(Cost(name, 1e6 * median(times[0]), 1e6 * median(times[1]), ratio))
    return costs


def _seconds(read: Read, engine: Engine, model: Any, calls: int) -> float:
    gc.disable()
    start = time.process_time()
    for _ in range(calls):
        with Session(engine, expire_on_commit=False) as session:
            read(session, model)
    taken = time.process_time() - start
    gc.enable()
    return taken


def _world(count: int) -> tuple[Engine, type[Any]]:
    """Return a database with `count` tables, and the model of the one that has a row."""

    class Base(SQLModel, registry=registry()):
        """Models with a separate registry."""

    models = [_model(Base, number, count) for number in range(count)]
    for number, model in enumerate(models):
        following = models[(number + 1) % count]
        condition = model.__table__.c.next_id == following.__table__.c.id
        model.__mapper__.add_property("next", relationship(following, primaryjoin=condition))
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(models[0](id=1))
        session.commit()
    return engine, models[0]


def _model(base: type[Any], number: int, count: int) -> Any:
    following = f"node{(number + 1) % count}of{count}.id"
    make: Any = type(SQLModel)
    return make(
        f"Node{number}of{count}",
        (SoftDeleteMixin, base),
        {
            "__module__": __name__,
            "__annotations__": {"id": int | None, "name": str, "next_id": int | None},
            "id": Field(default=None, primary_key=True),
            "name": "one",
            "next_id": Field(default=None, foreign_key=following),
        },
        table=True,
    )


def main(costs: Sequence[Cost] | None = None) -> None:
    """Print the table."""
    print(f"{'read':32} {'2 models':>10} {'300 models':>11} {'ratio':>6}")
    for cost in measure() if costs is None else costs:
        print(f"{cost.read:32} {cost.few:7.0f} µs {cost.many:8.0f} µs {cost.ratio:6.2f}")


if __name__ == "__main__":
    main()
