"""A bank on a cluster: callers that make transfers while servers fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Engine, NullPool, create_engine

from sqlmodel_crud_utils.aio import get_row, run_transaction, update_row, write_row
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, TransactionError
from tests._runtime_async import AsyncSession, in_thread, together
from tests.chaos.bank import Books, a_transfer, opened
from tests.chaos_models import Balance, Transfer
from tests.cluster.programs import wait_for

CALLERS = 16
STEP = 30  # how many transfers are made before the next thing happens to the servers


async def transferred(session: AsyncSession, made: dict[str, Any]) -> None:
    """Make a transfer: read both accounts, and write what they hold then."""
    _, giver = await get_row(made["source"], session, Balance, raise_on_error=True)
    _, taker = await get_row(made["target"], session, Balance, raise_on_error=True)
    values = {"amount": giver.amount - made["amount"]}
    await update_row(made["source"], values, session, Balance)
    values = {"amount": taker.amount + made["amount"]}
    await update_row(made["target"], values, session, Balance)
    await write_row(Transfer(**made), session)


class Bank:
    """Callers that work until they are stopped.

    Args:
        factories: What opens sessions; each caller begins with another one, and turns to the next
            where a server cannot be reached, as a load balancer would.
        url: Where the books are checked, for a sync driver.
    """

    def __init__(self, factories: Sequence[Any], url: str) -> None:
        self.books = Books()
        self._factories = factories
        self._is_over = False
        # Without a pool: its connections may be those of a server that was killed.
        self._engine: Engine = create_engine(url, poolclass=NullPool)

    async def run(self, *happenings: Callable[[], Any]) -> None:
        """Let callers work, some transfers after each happening, and check the books."""
        opened(self._engine)
        await together(
            partial(self._operate, happenings),
            *(partial(self._call, caller) for caller in range(CALLERS)),
        )
        self.books.check(self._engine)

    async def _operate(self, happenings: Sequence[Callable[[], Any]]) -> None:
        try:
            for happening in (lambda: None, *happenings):
                await in_thread(happening)
                enough = len(self.books.acknowledged) + STEP
                await in_thread(partial(wait_for, partial(self._has_made, enough)))
        finally:
            self._is_over = True

    def _has_made(self, count: int) -> bool:
        return len(self.books.acknowledged) >= count

    async def _call(self, turn: int) -> None:
        while not self._is_over:
            transfer = a_transfer()
            error = await self._error_of(turn, transfer.model_dump())
            self.books.note(transfer, error)
            turn += error is not None

    async def _error_of(self, turn: int, made: dict[str, Any]) -> BaseException | None:
        new_session = self._factories[turn % len(self._factories)]
        try:
            await run_transaction(
                new_session, transferred, made, attempts=1000, isolation_level="SERIALIZABLE"
            )
        except (DatabaseConnectionError, TransactionError) as error:
            return error
        return None
