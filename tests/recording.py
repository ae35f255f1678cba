"""Record what an engine does: statements, and the ends of transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loguru import logger
from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine


@contextmanager
def recorded(engine: Engine | AsyncEngine) -> Iterator[list[str]]:
    """Record the first word of each statement, and COMMIT and ROLLBACK, in order."""
    plain = engine if isinstance(engine, Engine) else engine.sync_engine
    words: list[str] = []

    def on_statement(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        words.append(statement.split(maxsplit=1)[0])

    listeners = {
        "before_cursor_execute": on_statement,
        "commit": lambda _connection: words.append("COMMIT"),
        "rollback": lambda _connection: words.append("ROLLBACK"),
    }
    for name, listener in listeners.items():
        event.listen(plain, name, listener)
    try:
        yield words
    finally:
        for name, listener in listeners.items():
            event.remove(plain, name, listener)


@contextmanager
def statements_of(engine: Engine | AsyncEngine) -> Iterator[list[str]]:
    """Record the text of each statement."""
    plain = engine if isinstance(engine, Engine) else engine.sync_engine
    texts: list[str] = []

    def on_statement(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        texts.append(statement)

    event.listen(plain, "before_cursor_execute", on_statement)
    try:
        yield texts
    finally:
        event.remove(plain, "before_cursor_execute", on_statement)


@contextmanager
def logged(at_least: str = "WARNING") -> Iterator[list[tuple[str, str, str]]]:
    """Record the library's log: level, place as "file:line", and text."""
    lines: list[tuple[str, str, str]] = []

    def collect(message: Any) -> None:
        record = message.record
        place = f"{record['file'].path}:{record['line']}"
        lines.append((record["level"].name, place, record["message"]))

    handler = logger.add(collect, level=at_least)
    try:
        yield lines
    finally:
        logger.remove(handler)


class ListenerError(Exception):
    """An error that no database raises."""


@contextmanager
def failing_savepoints(engine: Engine | AsyncEngine) -> Iterator[None]:
    """Add a listener that raises a `ListenerError` at each savepoint."""
    plain = engine if isinstance(engine, Engine) else engine.sync_engine

    def fail(_connection: Connection, _name: str) -> None:
        raise ListenerError

    event.listen(plain, "savepoint", fail)
    try:
        yield
    finally:
        event.remove(plain, "savepoint", fail)
