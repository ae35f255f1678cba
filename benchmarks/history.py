"""What the history costs: `python -m benchmarks.history [URL ...]`.

All rows of a table are updated: without a history, with a handwritten set-based one, by the query
builder on a tracked model, and by reading and flushing row by row, as a history based on flushes
would. They alternate in one process; the best round is shown. After the times come the ratios of
the query builder to the handwritten history and to the flush, with their targets.

A second line shows one tracked `update_row`, compared with a row that is read FOR UPDATE, changed
and flushed by hand with an INSERT into the history, and with `update_row` without a history.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, StaticPool, create_engine, delete, insert, inspect, text
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, col, select

from sqlmodel_crud_utils.ext.history import ChangeHistory, TrackChangesMixin
from sqlmodel_crud_utils.sync import QueryBuilder, update_row


class Base(SQLModel, registry=registry()):
    """Models with a separate registry."""


class Stock(Base, TrackChangesMixin, table=True):
    """The table that is updated."""

    id: int | None = Field(default=None, primary_key=True)
    amount: int


class Loose(Base, table=True):
    """The same table without a history."""

    id: int | None = Field(default=None, primary_key=True)
    amount: int


_TABLE: Any = Base.metadata.tables["stock"]
_LOOSE: Any = Base.metadata.tables["loose"]
_HISTORY: Any = inspect(ChangeHistory).local_table
_UPDATE = "UPDATE stock SET amount = amount + 1 WHERE amount >= 0"
_INTO = (
    "INSERT INTO change_history "
    "(table_name, row_key, operation, changed_at, transaction_key, changes)"
)
_COLUMNS = (
    "'stock', CAST(id AS CHAR(20)), 'update', '2025-01-01 00:00:00', "
    "'01234567-89ab-4def-8123-456789abcdef'"
)
_DIFFERENCE = "json_object('amount', json_array(amount, amount + 1)) FROM stock WHERE amount >= 0"
_AT_ONCE = (
    "WITH old AS (SELECT id, amount FROM stock WHERE amount >= 0 FOR UPDATE), "
    "new AS (UPDATE stock SET amount = stock.amount + 1 FROM old WHERE old.id = stock.id "
    "RETURNING stock.id, old.amount AS before, stock.amount) "
    f"{_INTO} SELECT 'stock', id::text, 'update', now(), gen_random_uuid(), "
    "json_build_object('amount', json_build_array(before, amount)) FROM new"
)
BY_HAND: Mapping[str, Sequence[str]] = {
    "sqlite": [f"{_INTO} SELECT {_COLUMNS}, {_DIFFERENCE}", _UPDATE],
    "mysql": [f"{_INTO} SELECT {_COLUMNS}, {_DIFFERENCE} FOR UPDATE", _UPDATE],
    "postgresql": [_AT_ONCE],
}


def _without(session: Session) -> None:
    session.connection().execute(text(_UPDATE))


def _by_hand(session: Session) -> None:
    connection = session.connection()
    for statement in BY_HAND[connection.dialect.name]:
        connection.execute(text(statement))


def _tracked(session: Session) -> None:
    QueryBuilder(session, Stock).where(amount__gte=0).update(amount=Stock.amount + 1)


def _flushed(session: Session) -> None:
    for stock in session.exec(select(Stock).where(col(Stock.amount) >= 0)):
        stock.amount += 1


WAYS: Mapping[str, Callable[[Session], None]] = {
    "no history": _without,
    "by hand": _by_hand,
    "query builder": _tracked,
    "flush": _flushed,
}

_numbers = iter(range(1, 10**9))


def _row_by_hand(session: Session) -> None:
    row = session.exec(select(Loose).where(col(Loose.id) == 1).with_for_update()).one()
    old, row.amount = row.amount, next(_numbers)
    entry = {
        "table_name": "loose",
        "row_key": "1",
        "operation": "update",
        "changes": {"amount": [old, row.amount]},
        "changed_at": datetime.now(UTC),
        "transaction_key": uuid4(),
    }
    session.connection().execute(insert(_HISTORY), entry)


def _row_tracked(session: Session) -> None:
    update_row(1, {"amount": next(_numbers)}, session, Stock)


def _row_without(session: Session) -> None:
    update_row(1, {"amount": next(_numbers)}, session, Loose)


ROW_WAYS: Mapping[str, Callable[[Session], None]] = {
    "no history": _row_without,
    "by hand": _row_by_hand,
    "update_row": _row_tracked,
}


# The builder takes at most this many times as long as the handwritten history, and the flush at
# least this many times as long as the builder. The former also holds for `update_row`.
MOST_OF_BY_HAND = 1.15
LEAST_OF_FLUSH = 5.0


@dataclass(frozen=True)
class Cost:
    """The cost of updating rows in a database.

    Attributes:
        database: The kind of database.
        seconds: The best time of each way to update all rows.
        row_seconds: The best time of each way to update one.
    """

    database: str
    seconds: Mapping[str, float]
    row_seconds: Mapping[str, float]


def measure(engine: Engine, rows: int = 10_000, rounds: int = 3) -> Cost:
    """Return the cost of updates on a database, whose tables are created and dropped."""
    tables: list[Any] = [_TABLE, _LOOSE, _HISTORY]
    best = dict.fromkeys(WAYS, float("inf"))
    best_of_row = dict.fromkeys(ROW_WAYS, float("inf"))
    for table in tables:
        table.create(engine)
    try:
        with engine.begin() as connection:
            for table in (_TABLE, _LOOSE):
                connection.execute(insert(table), [{"amount": each} for each in range(rows)])
        for _ in range(rounds):
            for name, way in WAYS.items():
                best[name] = min(best[name], _seconds(engine, way))
                with engine.begin() as connection:
                    connection.execute(delete(_HISTORY))
        for _ in range(100 * rounds):
            for name, way in ROW_WAYS.items():
                best_of_row[name] = min(best_of_row[name], _seconds(engine, way))
    finally:
        for table in tables:
            table.drop(engine)
    return Cost(engine.dialect.name, best, best_of_row)


def _seconds(engine: Engine, way: Callable[[Session], None]) -> float:
    with Session(engine) as session:
        start = time.perf_counter()
        way(session)
        session.commit()
        return time.perf_counter() - start


def main(costs: Sequence[Cost] | None = None) -> None:
    """Print a line for each database."""
    if costs is None:
        engines = [create_engine(url) for url in sys.argv[1:]]
        engines = engines or [create_engine("sqlite://", poolclass=StaticPool)]
        costs = list(map(measure, engines))
    for cost in costs:
        shown = ", ".join(f"{name} {1e3 * cost.seconds[name]:.0f} ms" for name in WAYS)
        builder = cost.seconds["query builder"]
        of_hand = f"{builder / cost.seconds['by hand']:.2f} of by hand (<= {MOST_OF_BY_HAND})"
        of_flush = f"flush {cost.seconds['flush'] / builder:.1f} of it (>= {LEAST_OF_FLUSH})"
        print(f"{cost.database}: {shown}; {of_hand}; {of_flush}")
        shown = ", ".join(f"{name} {1e6 * each:.0f} us" for name, each in cost.row_seconds.items())
        ratio = cost.row_seconds["update_row"] / cost.row_seconds["by hand"]
        print(f"{cost.database}, one row: {shown}; {ratio:.2f} of by hand (<= {MOST_OF_BY_HAND})")


if __name__ == "__main__":
    main()
