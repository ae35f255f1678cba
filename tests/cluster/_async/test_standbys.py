"""A PostgreSQL with streaming standbys: no stale row is read where a token forbids it."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_row,
    pool_status,
    read_after,
    replication_token,
    session_factory,
    update_row,
    use_primary,
    write_row,
)
from tests._runtime_async import AsyncEngine, AsyncSession, sync_engine
from tests.chaos_models import Balance, Entry
from tests.cluster._async.bank import Bank
from tests.cluster._async.everything import everything
from tests.cluster.postgresql import Cluster, PgBouncer
from tests.recording import logged

pytestmark = pytest.mark.usefixtures("emptied")

ROUNDS = 10_000 if "TEST_THOROUGHLY" in os.environ else 150


class Servers:
    """Engines of a primary and its standbys, which count what they are asked."""

    def __init__(self, cluster: Cluster) -> None:
        self.primary = create_pooled_engine(cluster.primary.url)
        self.standbys = [create_pooled_engine(each.url) for each in cluster.standbys]
        self.reads = [0, 0]
        for number, engine in enumerate(self.standbys):
            event.listen(sync_engine(engine), "before_cursor_execute", self._counting(number))
        self.new_session: Any = session_factory(self.primary, replicas=self.standbys)

    @property
    def engines(self) -> list[AsyncEngine]:
        """All engines."""
        return [self.primary, *self.standbys]

    def _counting(self, number: int) -> Any:
        def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            self.reads[number] += statement.startswith("SELECT balance")

        return count


@pytest.fixture
async def servers(cluster: Cluster) -> AsyncIterator[Servers]:
    """The engines; all of their connections are back in the end."""
    servers = Servers(cluster)
    yield servers
    for engine in servers.engines:
        assert pool_status(engine)["checked_out"] == 0
        await engine.dispose()


@pytest.fixture
def paused(cluster: Cluster) -> Iterator[None]:
    """Standbys that repeat nothing, until the test is over."""
    cluster.wait_until_equal()
    for standby in cluster.standbys:
        standby.pause()
    yield
    for standby in cluster.standbys:
        standby.resume()
    cluster.wait_until_equal()


async def amount_in(session: AsyncSession) -> int | None:
    """Return what the account holds, None if it is not there."""
    found, balance = await get_row(1, session, Balance)
    return balance.amount if found and balance is not None else None


async def written(servers: Servers, amount: int) -> str:
    """Write what the account holds, and return the token."""
    async with servers.new_session() as session:
        if not (await update_row(1, {"amount": amount}, session, Balance))[0]:
            await write_row(Balance(id=1, amount=amount), session, raise_on_error=True)
        return await replication_token(session)


async def test_a_standby_that_has_come_far_enough_is_read(
    servers: Servers, cluster: Cluster
) -> None:
    """On an idle server, too: the token is the position of the commit, not a later one."""
    token = await written(servers, 5)
    cluster.wait_until_equal()
    for _ in range(4):
        with read_after(token):
            async with servers.new_session() as session:
                assert await amount_in(session) == 5
    assert servers.reads == [2, 2]


@pytest.mark.usefixtures("paused")
async def test_one_that_lags_is_not(servers: Servers) -> None:
    """The primary is read then, without waiting; what is asked for nothing may be old."""
    token = await written(servers, 5)
    async with servers.new_session() as session:
        assert await amount_in(session) is None
        with read_after(token):
            assert await amount_in(session) == 5
    assert sum(servers.reads) == 1
    async with servers.new_session() as session:
        with use_primary():
            assert await amount_in(session) == 5
    assert sum(servers.reads) == 1


async def test_a_row_that_the_session_holds_is_read_anew(
    servers: Servers, cluster: Cluster
) -> None:
    """Its values were read before the requested commit."""
    await written(servers, 1)
    cluster.wait_until_equal()
    async with servers.new_session() as session:
        _, balance = await get_row(1, session, Balance, raise_on_error=True)
        assert balance.amount == 1
        with read_after(await written(servers, 2)):
            assert (await session.exec(select(Balance))).one().amount == 2
            assert (await session.get(Balance, 1)).amount == 2
            assert balance.amount == 2
        await session.rollback()
        with read_after(await written(servers, 3)):
            assert await amount_in(session) == 3


@pytest.mark.timeout(900)
async def test_no_read_is_stale_while_replay_stops_and_goes_on(
    servers: Servers, cluster: Cluster
) -> None:
    """Rounds of a write and a read, with standbys that are paused at random."""
    for number in range(ROUNDS):
        if number % 10 == 0:
            for standby in cluster.standbys:
                standby.ask(f"SELECT pg_wal_replay_{random.choice(['pause', 'resume'])}()")
        with read_after(await written(servers, number)):
            async with servers.new_session() as session:
                assert await amount_in(session) == number
    for standby in cluster.standbys:
        standby.resume()


async def test_a_conflict_with_recovery(servers: Servers, cluster: Cluster) -> None:
    """A read that a standby cancels is repeated on the primary."""
    await written(servers, 5)
    cluster.wait_until_equal()
    with logged() as lines:
        async with servers.new_session() as session:
            # Its transaction holds a lock there, which its replay does not wait for.
            assert (await session.exec(select(Balance))).one().amount == 5
            cluster.primary.ask("ALTER TABLE balance ADD COLUMN IF NOT EXISTS note text")
            cluster.wait_until_equal()
            assert await amount_in(session) == 5
            await update_row(1, {"amount": 6}, session, Balance)
    assert sum(servers.reads) == 2
    assert any("a replica failed" in line for _, _, line in lines)


async def test_reads_go_on_while_standbys_are_killed(servers: Servers, cluster: Cluster) -> None:
    """One after the other; a session that reads from a killed one continues, too."""
    await written(servers, 5)
    cluster.wait_until_equal()
    with logged() as lines:
        async with servers.new_session() as session:
            assert await amount_in(session) == 5
            for standby in cluster.standbys:
                standby.program.kill()
                assert await amount_in(session) == 5
                for _ in range(3):
                    async with servers.new_session() as other:
                        assert await amount_in(other) == 5
    told = [line for _, _, line in lines if "a replica failed" in line]
    assert len(told) == 2
    assert told[-1].endswith("reads go to the primary")
    for standby in cluster.standbys:
        standby.start()
    cluster.wait_until_equal()


async def test_a_bank_while_servers_are_killed(servers: Servers, cluster: Cluster) -> None:
    """A standby, and the primary: each acknowledged transfer exists once."""
    standby, primary = cluster.standbys[0], cluster.primary
    url = primary.url.replace("postgresql:", "postgresql+psycopg:")
    bank = Bank([servers.new_session], url)

    def restart() -> None:
        primary.program.kill()
        primary.start()

    await bank.run(standby.program.kill, standby.start, restart)
    cluster.wait_until_equal()
    sums = {each.ask("SELECT sum(amount) FROM balance") for each in (primary, *cluster.standbys)}
    assert len(sums) == 1


async def test_a_bank_behind_pgbouncer(cluster: Cluster, bouncer: PgBouncer) -> None:
    """The primary is killed behind it."""
    engine = create_pooled_engine(bouncer.url, 16, 4, pgbouncer=True)
    primary = cluster.primary
    url = primary.url.replace("postgresql:", "postgresql+psycopg:")

    def restart() -> None:
        primary.program.kill()
        primary.start()

    await Bank([session_factory(engine)], url).run(restart)
    assert pool_status(engine)["checked_out"] == 0
    await engine.dispose()


async def test_every_function(servers: Servers) -> None:
    """With sessions that have replicas."""
    await everything(servers.new_session, "routed")
    async with servers.new_session() as session, session.begin():
        assert (await session.exec(select(Entry).limit(1))).first() is not None
