"""Transfers by many callers at once, and the books that say what became of each."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, select
from sqlmodel import Session

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.exceptions import (
    DatabaseConnectionError,
    QueryExecutionError,
    TransactionError,
)
from tests.chaos_models import Balance, Transfer

ACCOUNTS, INITIAL = 8, 1000


@dataclass
class Books:
    """The results of transfers, as their callers saw them.

    Attributes:
        acknowledged: Transfers reported as made.
        refused: Transfers reported as failed.
        unknown: Transfers whose outcome is unknown, because the connection was lost in the COMMIT.
        in the COMMIT.
        wrongly_told: All other errors.
    """

    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    wrongly_told: Counter[str] = field(default_factory=Counter)

    def note(self, transfer: Transfer, error: BaseException | None) -> None:
        """Note how a transfer has ended for its caller."""
        if error is None:
            self.acknowledged.add(transfer.id)
        elif isinstance(error, DatabaseConnectionError):
            self.refused.add(transfer.id)
        elif not isinstance(error, TransactionError):
            self.wrongly_told[repr(error)] += 1
        elif error.outcome_unknown:
            self.unknown.add(transfer.id)
        elif isinstance(error.original_error, DatabaseConnectionError) or _lost_a_race(error):
            self.refused.add(transfer.id)
        else:
            self.wrongly_told[repr(error.original_error)] += 1

    def check(self, engine: Engine) -> None:
        """Compare with what the database holds."""
        assert self.wrongly_told == Counter()
        with Session(engine) as session:
            balances = dict(session.exec(select(Balance.id, Balance.amount)).all())
            made = session.exec(select(Transfer)).scalars().all()
        assert sum(balances.values()) == ACCOUNTS * INITIAL
        expected = dict.fromkeys(balances, INITIAL)
        for transfer in made:
            expected[transfer.source] -= transfer.amount
            expected[transfer.target] += transfer.amount
        assert balances == expected, "half written"
        found = {transfer.id for transfer in made}
        assert self.acknowledged - found == set(), "acknowledged and lost"
        assert self.refused & found == set(), "refused and made"
        assert found <= self.acknowledged | self.unknown
        assert self.acknowledged


def _lost_a_race(error: TransactionError) -> bool:
    refusal = error.original_error
    return isinstance(refusal, QueryExecutionError) and "run the transaction again" in str(refusal)


def opened(engine: Engine) -> None:
    """Open the accounts."""
    with Session(engine) as session:
        session.add_all(Balance(id=number + 1, amount=INITIAL) for number in range(ACCOUNTS))
        session.commit()


def a_transfer() -> Transfer:
    """Return a transfer that is not made yet."""
    source, target = random.sample(range(1, ACCOUNTS + 1), 2)
    return Transfer(id=uuid4().hex, source=source, target=target, amount=random.randint(1, 5))


async def transfer_async(new_session: Callable[[], Any], transfer: Transfer, books: Books) -> None:
    """Make a transfer with the async API."""
    source, target, amount = transfer.source, transfer.target, transfer.amount
    error: BaseException | None = None
    noted = Transfer(**transfer.model_dump())
    try:
        async with new_session() as session, aio.transaction(session):
            values = {"amount": Balance.amount - amount}
            await aio.update_row(source, values, session, Balance)
            _, row = await aio.get_row(target, session, Balance)
            assert row is not None, "not found"
            values = {"amount": Balance.amount + amount}
            await aio.update_row(target, values, session, Balance)
            await aio.write_row(transfer, session)
    except Exception as raised:  # noqa: BLE001 - whatever it is, the books judge it
        error = raised
    books.note(noted, error)


def transfer_sync(new_session: Callable[[], Any], transfer: Transfer, books: Books) -> None:
    """Make a transfer with the sync API."""
    source, target, amount = transfer.source, transfer.target, transfer.amount
    error: BaseException | None = None
    noted = Transfer(**transfer.model_dump())
    try:
        with new_session() as session, sync.transaction(session):
            sync.update_row(source, {"amount": Balance.amount - amount}, session, Balance)
            _, row = sync.get_row(target, session, Balance)
            assert row is not None, "not found"
            sync.update_row(target, {"amount": Balance.amount + amount}, session, Balance)
            sync.write_row(transfer, session)
    except Exception as raised:  # noqa: BLE001 - whatever it is, the books judge it
        error = raised
    books.note(noted, error)


async def transfer_again_async(
    new_session: Callable[[], Any], transfer: Transfer, books: Books
) -> None:
    """Make a transfer with the async API, and again where others were in the way."""
    noted = Transfer(**transfer.model_dump())
    error: BaseException | None = None

    async def work(session: Any) -> None:
        _, giver = await aio.get_row(noted.source, session, Balance, raise_on_error=True)
        _, taker = await aio.get_row(noted.target, session, Balance, raise_on_error=True)
        values = {"amount": giver.amount - noted.amount}
        await aio.update_row(noted.source, values, session, Balance)
        values = {"amount": taker.amount + noted.amount}
        await aio.update_row(noted.target, values, session, Balance)
        await aio.write_row(Transfer(**noted.model_dump()), session)

    try:
        await aio.run_transaction(new_session, work, attempts=100, isolation_level="SERIALIZABLE")
    except Exception as raised:  # noqa: BLE001 - whatever it is, the books judge it
        error = raised
    books.note(noted, error)


def transfer_again_sync(new_session: Callable[[], Any], transfer: Transfer, books: Books) -> None:
    """Make a transfer with the sync API, and again where others were in the way."""
    noted = Transfer(**transfer.model_dump())
    error: BaseException | None = None

    def work(session: Any) -> None:
        _, giver = sync.get_row(noted.source, session, Balance, raise_on_error=True)
        _, taker = sync.get_row(noted.target, session, Balance, raise_on_error=True)
        values = {"amount": giver.amount - noted.amount}
        sync.update_row(noted.source, values, session, Balance)
        values = {"amount": taker.amount + noted.amount}
        sync.update_row(noted.target, values, session, Balance)
        sync.write_row(Transfer(**noted.model_dump()), session)

    try:
        sync.run_transaction(new_session, work, attempts=100, isolation_level="SERIALIZABLE")
    except Exception as raised:  # noqa: BLE001 - whatever it is, the books judge it
        error = raised
    books.note(noted, error)


async def run_async(
    engine: Any, seconds: float, callers: int, transfer: Any = transfer_async
) -> Books:
    """Let callers make transfers for a while; all connections are back afterwards."""
    books, new_session = Books(), aio.session_factory(engine)
    end = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < end:
            await transfer(new_session, a_transfer(), books)

    await asyncio.gather(*(caller() for _ in range(callers)))
    assert aio.pool_status(engine)["checked_out"] == 0
    return books


def run_sync(engine: Engine, seconds: float, callers: int, transfer: Any = transfer_sync) -> Books:
    """Let callers make transfers for a while; all connections are back afterwards."""
    books, new_session = Books(), sync.session_factory(engine)
    end = time.monotonic() + seconds

    def caller() -> None:
        while time.monotonic() < end:
            transfer(new_session, a_transfer(), books)

    with ThreadPoolExecutor(callers) as threads:
        for done in [threads.submit(caller) for _ in range(callers)]:
            done.result()
    assert sync.pool_status(engine)["checked_out"] == 0
    return books


@contextmanager
def repeatedly(seconds: float, function: Callable[[], None]) -> Iterator[None]:
    """Call a function repeatedly during the work inside."""
    over = Event()

    def repeat() -> None:
        while not over.wait(seconds):
            function()

    with ThreadPoolExecutor(1) as threads:
        repeating = threads.submit(repeat)
        try:
            yield
        finally:
            over.set()
            repeating.result()
