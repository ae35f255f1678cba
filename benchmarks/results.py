"""What is measured, and how two outcomes are compared."""

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
        seconds: For how long, what is not timed included.
        fewest_rounds: How often at least, however long it takes.
        cpu: Whether the time of this process on the CPU is measured, instead of the time that
            passes: steadier on a busy machine, and blind for what a database server does.
    """

    seconds: float
    fewest_rounds: int
    cpu: bool = False


@dataclass(frozen=True)
class Result:
    """The outcome of a comparison.

    Attributes:
        group: A group of operations.
        operation: What was done.
        database: "sqlite", "postgresql", or "" where none takes part.
        api: "async" or "sync".
        unit: Of `library` and `by_hand`: "ms" or "MiB".
        library: The median with the library.
        by_hand: The median of the same by hand.
        ratio: The median of the rounds' ratios, the library's time by that by hand.
        low: The lower quartile of these ratios.
        high: The upper quartile.
        rounds: How often both were measured.
        statements: How many statements the library and the work by hand sent in a call.
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
    """Return what a call returned and left in the table, but for what no two calls have alike.

    This is times, and the keys that the database gave to new rows. What is not loaded of a row
    shows as such. `before` are the rows that were there, None where nothing is written.
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
    """Return where two comparable outcomes differ first, and how; an empty string if nowhere."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs = [(key, ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(place, *pair) for place, pair in enumerate(zip(ours, theirs, strict=True))]
    else:
        return "" if ours == theirs else f": {ours!r:.200} and {theirs!r:.200}"
    found = ((place, difference(*pair)) for place, *pair in pairs)
    return next((f"[{place!r}]{inside}" for place, inside in found if inside), "")
