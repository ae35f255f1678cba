"""Compare the library with the same work in hand-written SQLAlchemy, on SQLite in memory.

    make bench

The library must send the same statements, in the same number; what it adds is Python time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from sqlalchemy import Engine, event
from sqlmodel import Field, Session, SQLModel, create_engine, select

from sqlmodel_crud_utils.sync import get_row, get_rows, transaction, update_row, write_row

RUNS = 300
ROWS = 1_000
NUMBERS = count(1)


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    age: int | None = None


def read_one(session: Session) -> None:
    """One row by its key, with the library."""
    get_row(7, session, Hero)


def read_one_by_hand(session: Session) -> None:
    """One row by its key, with SQLAlchemy."""
    session.exec(select(Hero).where(Hero.id == 7)).one_or_none()


def read_page(session: Session) -> None:
    """A filtered page, with the library."""
    get_rows(session, Hero, age__gte=30, sort_field="name", page_size=50)


def read_page_by_hand(session: Session) -> None:
    """A filtered page, with SQLAlchemy."""
    statement = select(Hero).where(Hero.age >= 30)  # type: ignore[operator]
    session.exec(statement.order_by(Hero.name, Hero.id).limit(50).offset(0)).all()  # type: ignore[arg-type]


def write_one(session: Session) -> None:
    """An insert and its commit, with the library."""
    write_row(Hero(name=f"new {next(NUMBERS)}"), session)


def write_one_by_hand(session: Session) -> None:
    """An insert and its commit, with SQLAlchemy."""
    hero = Hero(name=f"new {next(NUMBERS)}")
    session.add(hero)
    session.commit()
    session.refresh(hero)


def update_in_block(session: Session) -> None:
    """An update in a transaction, with the library."""
    with transaction(session):
        update_row(7, {"age": next(NUMBERS)}, session, Hero)


def update_in_block_by_hand(session: Session) -> None:
    """An update in a transaction, with SQLAlchemy."""
    hero = session.exec(select(Hero).where(Hero.id == 7)).one()
    hero.age = next(NUMBERS)
    session.commit()


def measured(work: Callable[[Session], None], engine: Engine) -> tuple[float, int]:
    """Return the milliseconds and the statements of one call, in a session of its own each."""
    statements = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    best = float("inf")
    for _ in range(RUNS):
        with Session(engine) as session:
            statements.clear()
            start = time.perf_counter()
            work(session)
            best = min(best, time.perf_counter() - start)
    return best * 1000, len(statements)


def main() -> None:
    """Print a table."""
    pairs = (
        ("get_row", read_one, read_one_by_hand),
        ("get_rows", read_page, read_page_by_hand),
        ("write_row", write_one, write_one_by_hand),
        ("update_row", update_in_block, update_in_block_by_hand),
    )
    print(f"{'best of ' + str(RUNS):<14}{'library':>12}{'by hand':>12}   statements")
    for name, ours, theirs in pairs:
        times = []
        for work in (ours, theirs):
            engine = create_engine("sqlite://")
            SQLModel.metadata.create_all(engine)
            with Session(engine) as session:
                session.add_all(Hero(name=f"hero {n}", age=n % 60) for n in range(ROWS))
                session.commit()
            times.append(measured(work, engine))
            engine.dispose()
        (our_time, our_count), (their_time, their_count) = times
        print(f"{name:<14}{our_time:>9.3f} ms{their_time:>9.3f} ms   {our_count} and {their_count}")


if __name__ == "__main__":
    main()
