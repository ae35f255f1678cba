"""An outbox: messages are written with the change, and sent after its commit."""

import asyncio
import logging
from contextlib import suppress

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from fastapi_app.database import new_session
from fastapi_app.models import Message
from sqlmodel_crud_utils.aio import AsyncQueryBuilder, on_commit, transaction, write_row
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, QueryExecutionError

logger = logging.getLogger("uvicorn.error")
waiting = asyncio.Event()


async def tell(session: AsyncSession, text: str) -> None:
    """Write a message in the transaction of the change that it is about."""
    await write_row(Message(text=text), session)
    on_commit(session, waiting.set)


async def deliver() -> None:
    """Send waiting messages repeatedly, starting with those that a crash has left."""
    waiting.set()
    while True:
        await waiting.wait()
        waiting.clear()
        try:
            while await send_some(new_session):
                pass
        except (DatabaseConnectionError, QueryExecutionError) as error:
            logger.warning("messages are sent later: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(waiting.wait(), timeout=1)
            waiting.set()


async def send_some(sessions: async_sessionmaker[AsyncSession]) -> int:
    """Send a batch; each message is sent at least once, in order."""
    async with sessions() as session, transaction(session, wrap_errors=False):
        unsent = AsyncQueryBuilder(session, Message).where(sent=False).order_by("id")
        messages = await unsent.limit(100).all()
        for message in messages:
            logger.info("sent: %s", message.text)  # a real service would call a broker here
            message.sent = True
    return len(messages)
