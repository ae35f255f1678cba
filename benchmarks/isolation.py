"""What the isolation of a test costs: `python -m benchmarks.isolation [URL ...]`.

Three tests, which do nothing, read a row and write a row, each run in a transaction that is undone,
as with the plugin's fixtures; the last two also run without it. They alternate in one process. It
prints the first decile in milliseconds, because other programs may delay a round trip.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import quantiles

from sqlalchemy import Engine, delete
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel

from sqlmodel_crud_utils.ext.pytest import isolated
from sqlmodel_crud_utils.sync import Repository, create_pooled_engine


class Base(SQLModel, registry=registry()):
    """Models with a separate registry."""


class Tested(Base, table=True):
    """The table that the tests use."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=20)


Costs = Mapping[str, float]


def _nothing(_session: Session) -> None:
    pass


def _read(session: Session) -> None:
    Repository(session, Tested).count()


def _write(session: Session) -> None:
    Repository(session, Tested).create(name="Robin")


def _isolated(engine: Engine, test: Callable[[Session], None]) -> None:
    with isolated(engine) as new_session, new_session() as session:
        test(session)


def _plainly(engine: Engine, test: Callable[[Session], None]) -> None:
    with Session(engine) as session:
        test(session)


def _emptied(engine: Engine, test: Callable[[Session], None]) -> None:
    _plainly(engine, test)
    with engine.begin() as connection:
        connection.execute(delete(Tested))


WAYS: Mapping[str, tuple[Callable[..., None], Callable[[Session], None]]] = {
    "nothing, isolated": (_isolated, _nothing),
    "read, isolated": (_isolated, _read),
    "read, without": (_plainly, _read),
    "write, isolated": (_isolated, _write),
    "write, emptied after it": (_emptied, _write),
}


def measure(engine: Engine, rounds: int = 200) -> Costs:
    """Return the milliseconds of each variant on a database, whose table is created and dropped."""
    Base.metadata.create_all(engine)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    try:
        for _ in range(rounds):
            for name, (way, test) in WAYS.items():
                start = time.perf_counter()
                way(engine, test)
                times[name].append(1e3 * (time.perf_counter() - start))
    finally:
        Base.metadata.drop_all(engine)
    return {name: quantiles(each, n=10)[0] for name, each in times.items()}


def main(urls: Sequence[str] = ()) -> None:
    """Print a line for each database; the goal is 3 ms more than a test without isolation."""
    for url in urls or sys.argv[1:] or ["sqlite://"]:
        engine = create_pooled_engine(url)
        costs = measure(engine)
        shown = ", ".join(f"{name} {cost:.2f} ms" for name, cost in costs.items())
        print(f"{engine.dialect.name}: {shown}")
        engine.dispose()


if __name__ == "__main__":
    main()
