"""The engine, and the dependencies that give routes a session."""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import create_pooled_engine, session_factory
from sqlmodel_crud_utils.ext.fastapi import session_dependency
from sqlmodel_crud_utils.mixins import acting_as

engine = create_pooled_engine(os.environ.get("DATABASE_URL", "sqlite:///heroes.db"))
new_session = session_factory(engine)

# For routes that write: one transaction, committed before the response leaves.
writing = session_dependency(engine)
# For routes that only read: on SQLite they don't wait for writers.
reading = session_dependency(engine, read_only=True)

WriteSession = Annotated[AsyncSession, Depends(writing)]
ReadSession = Annotated[AsyncSession, Depends(reading)]


async def create_tables() -> None:
    """Create the missing tables; a larger service would use Alembic."""
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)


async def acting_user(
    x_user: Annotated[str, Header(max_length=100, description="Who does it.")] = "anonymous",
) -> AsyncIterator[None]:
    """Set the request's user for the audit columns.

    It has to be `async def`: FastAPI runs others in a thread of their own. A real service would
    take the name from a token that it has verified.
    """
    with acting_as(x_user):
        yield
