"""Results of measurements, and the comparison of outcomes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event, inspect

from benchmarks.models import Table


@dataclass(frozen=True)
class Effort:
    """How thoroughly a case is measured.

    Attributes:
        seconds: For how long, including parts that are not timed.
        fewest_rounds: The minimum number of rounds, however long they take.
        cpu: Whether this process's CPU time is measured instead of wall time: steadier on a busy
            machine, but it ignores the work of database servers.
    """

    seconds: float
    fewest_rounds: int
    cpu: bool = False


@dataclass(frozen=True)
class Result:
    """The outcome of a comparison.

    Attributes:
        group: A group of operations.
        operation: The operation.
        database: "sqlite", "postgresql", or "" without a database.
        api: "async" or "sync".
        unit: The unit of `library` and `by_hand`: "ms" or "MiB".
        library: The median with the library.
        by_hand: The median of the same by hand.
        ratio: The median of the rounds' ratios of the library's time to the time by hand.
        low: The lower quartile of these ratios.
        high: The upper quartile.
        rounds: How often both were measured.
        statements: How many statements the library and the work by hand send per call.
    """

    group: str
    operation: str
    database: str
    api: str
    unit: str
    library: float
    by_hand: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    statements: tuple[int, int] | None = None


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that an engine sends."""
    statements: list[str] = []

    def listener(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", listener)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", listener)


def comparable(returned: Any, before: Sequence[Any] | None, after: Any) -> Any:
    """Return the result of a call and the rows it left, without values that differ in each call.

    These are times, and keys generated for new rows. Columns that are not loaded are shown as such.
    `before` has the rows from before the call, or None if it writes nothing.
    """
    known = None if before is None else {row["id"] for row in before}

    def plain(value: Any, name: str = "") -> Any:
        if isinstance(value, Table):
            loaded = {key: each for key, each in vars(value).items() if key[0] != "_"}
            columns = dict.fromkeys(inspect(type(value)).columns.keys(), "not loaded")
            return plain(columns | loaded)
        if isinstance(value, dict):
            return {key: plain(each, key) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if name == "id" and known is not None and isinstance(value, int) and value not in known:
            return "a new key"
        return "a time" if isinstance(value, dt.datetime) else value

    return plain([returned, after])


def difference(ours: Any, theirs: Any) -> str:
    """Return the first difference between two comparable outcomes, or an empty string."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs = [(key, ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(place, *pair) for place, pair in enumerate(zip(ours, theirs, strict=True))]
    else:
        return "" if ours == theirs else f": {ours!r:.200} and {theirs!r:.200}"
    found = ((place, difference(*pair)) for place, *pair in pairs)
    return next((f"[{place!r}]{inside}" for place, inside in found if inside), "")
