"""Helpers for the tests of upserts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from tests._runtime_async import AsyncEngine

RUSTY: dict[str, Any] = {"id": 1, "name": "Rusty", "secret_name": "Tommy", "age": 48}
NOVA: dict[str, Any] = {"id": 2, "name": "Nova", "secret_name": "Ann", "age": 31}


@contextmanager
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    """Collect the statements that the engine executes."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement.split(None, 1)[0].upper())

    plain = getattr(engine, "sync_engine", engine)
    event.listen(plain, "before_cursor_execute", note)
    yield seen
    event.remove(plain, "before_cursor_execute", note)
