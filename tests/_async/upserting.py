"""What the tests of upserts share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, inspect, select

from tests._runtime_async import AsyncEngine, AsyncSession, execute, fetched

RUSTY: dict[str, Any] = {"id": 1, "name": "Rusty", "secret_name": "Tommy", "age": 48}
NOVA: dict[str, Any] = {"id": 2, "name": "Nova", "secret_name": "Ann", "age": 31}


async def stored(session: AsyncSession, model: type[Any]) -> list[Any]:
    """Return the rows as another session sees them, in the order of their keys."""
    async with AsyncSession(session.bind) as other:
        rows = fetched(await execute(other, select(model)))
    return sorted(rows, key=lambda row: str(inspect(row).identity))


async def given(session: AsyncSession, *rows: Any) -> None:
    """Write rows with plain SQLAlchemy, and forget them."""
    session.add_all(rows)
    await session.commit()
    session.expunge_all()


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
