"""Sessions on one connection, in a transaction that is never committed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlmodel_crud_utils._async.connections import session_factory
from sqlmodel_crud_utils._runtime_async import (
    AsyncEngine,
    SQLModelAsyncSession,
    async_sessionmaker,
    run_with,
    shielded,
)
from sqlmodel_crud_utils.ext.pytest.undoing import begin, end


@asynccontextmanager
async def isolated_sessions(
    engine: AsyncEngine, settings: dict[str, Any]
) -> AsyncIterator[async_sessionmaker[SQLModelAsyncSession]]:
    """Yield a factory of sessions; undo all of their writes at the end."""
    new_session = session_factory(engine, **settings)
    connection = await engine.connect()
    try:
        await run_with(connection, begin)
        new_session.configure(bind=connection, join_transaction_mode="create_savepoint")
        yield new_session
    finally:
        # Shielded, so that a cancelled test also returns its connection.
        await shielded(run_with, connection, end)
        await shielded(connection.close)
