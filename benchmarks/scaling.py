"""Measure features for several machines, on clusters started for it: `make bench-scaling`.

It produces the figures of docs/scaling.md. Compare ratios, not times: all servers and callers share
one machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from statistics import median
from typing import Any

from sqlalchemy import create_engine
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_row,
    read_after,
    replication_token,
    run_transaction,
    session_factory,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import DatabaseConnectionError, TransactionError
from tests.chaos_models import Balance
from tests.cluster.galera import Galera, running_galera
from tests.cluster.postgresql import Cluster, running_cluster, running_pgbouncer

ROUNDS, CALLS = 100, 10
CALLERS = 50


def tell(what: str, figure: str) -> None:
    """Print one figure, as a row of a table."""
    print(f"| {what} | {figure} |", flush=True)


async def timed(work: Callable[[], Awaitable[Any]], clock: Callable[[], float]) -> float:
    """Return the duration of a call in seconds."""
    begin = clock()
    for _ in range(CALLS):
        await work()
    return (clock() - begin) / CALLS


async def compared(
    *works: Callable[[], Awaitable[Any]], clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Return the duration of each call, measured alternately; by default, the caller's CPU time.

    In wall time, servers and other callers on the machine would hide the differences.
    """
    rounds = [[await timed(work, clock) for work in works] for _ in range(ROUNDS)]
    return [median(times) for times in zip(*rounds, strict=True)]


async def measure_transactions(new_session: Any) -> None:
    """Compare `run_transaction` with `transaction()`, without conflicts."""

    async def change(session: Any) -> None:
        await update_row(1, {"amount": Balance.amount + 1}, session, Balance)

    async def in_a_block() -> None:
        async with new_session() as session, transaction(session):
            await change(session)

    block, again = await compared(in_a_block, lambda: run_transaction(new_session, change))
    tell("`run_transaction` without conflict", f"{again / block:.2f}x of `transaction()`, CPU")


async def measure_reads(cluster: Cluster) -> None:
    """Measure reads through a session with replicas, with and without a token."""
    primary, replica = (
        create_pooled_engine(server.url) for server in (cluster.primary, cluster.standbys[0])
    )
    plain, routed = session_factory(replica), session_factory(primary, replicas=[replica])
    async with routed() as session:
        token = await replication_token(session)
        [asked] = await compared(lambda: replication_token(session), clock=time.perf_counter)
    cluster.wait_until_equal()

    async def read(new_session: Any) -> None:
        async with new_session() as session:
            await get_row(1, session, Balance)

    async def read_with_token() -> None:
        with read_after(token):
            await read(routed)

    direct, by_route, with_token = await compared(
        lambda: read(plain), lambda: read(routed), read_with_token
    )
    tell(
        "a read that is routed to a replica", f"{by_route / direct:.2f}x of one on its engine, CPU"
    )
    tell("the same with `read_after`", f"{with_token / direct:.2f}x, CPU")
    tell("`replication_token`", f"{asked * 1e6:.0f} µs")

    async with routed() as session:
        await get_row(1, session, Balance)
    cluster.standbys[0].program.kill()
    begin = time.perf_counter()
    await read(routed)
    tell("a read after the replica was killed", f"{(time.perf_counter() - begin) * 1e3:.0f} ms")
    for engine in (primary, replica):
        await engine.dispose()


async def measure_pgbouncer(cluster: Cluster) -> None:
    """Measure many callers, each with a server connection, and sharing few through PgBouncer."""

    async def reads_per_second(url: str, **options: Any) -> float:
        engine = create_pooled_engine(url, CALLERS, 0, **options)
        new_session = session_factory(engine)

        async def call() -> None:
            for _ in range(20):
                async with new_session() as session:
                    await get_row(1, session, Balance)

        await asyncio.gather(*(call() for _ in range(CALLERS)))
        begin = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(CALLERS)))
        await engine.dispose()
        return 20 * CALLERS / (time.perf_counter() - begin)

    with running_pgbouncer(cluster.primary, 5) as bouncer:
        direct = await reads_per_second(cluster.primary.url)
        through = await reads_per_second(bouncer.url, pgbouncer=True)
    tell(f"{CALLERS} callers on 5 connections, PgBouncer", f"{through / direct:.2f}x of 50 direct")


async def measure_galera(galera: Galera) -> None:
    """Measure callers on three nodes that change one row, and their pause when a node is killed."""
    engines = [create_pooled_engine(node.url) for node in galera.nodes]
    factories = [session_factory(engine) for engine in engines]
    async with factories[0]() as session:
        await write_row(Balance(id=1, amount=0), session, raise_on_error=True)
    attempts, made = [], []

    async def change(session: Any) -> None:
        attempts.append(1)
        await update_row(1, {"amount": Balance.amount + 1}, session, Balance)

    async def call(number: int, end: float) -> None:
        while time.monotonic() < end:
            try:
                await run_transaction(factories[number % 3], change, attempts=1000)
                made.append(time.monotonic())
            except (DatabaseConnectionError, TransactionError):
                number += 1

    async def calls(seconds: float) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(call(number, end) for number in range(8)))

    await calls(4)
    tell("8 callers, one row, three Galera nodes", f"{len(attempts) / len(made):.1f} attempts each")
    made.clear()
    running = asyncio.create_task(calls(10))
    await asyncio.sleep(2)
    await asyncio.to_thread(galera.nodes[2].kill)
    await running
    pause = max(late - early for early, late in pairwise(made))
    tell("the longest pause when a Galera node was killed", f"{pause:.1f} s")
    for engine in engines:
        await engine.dispose()


async def main() -> None:
    """Measure everything."""
    print("| what | measured |\n|---|---|")
    with running_cluster() as cluster:
        plain = create_engine(cluster.primary.url.replace("postgresql:", "postgresql+psycopg:"))
        SQLModel.metadata.create_all(plain)
        plain.dispose()
        cluster.primary.ask("INSERT INTO balance (id, amount) VALUES (1, 0)")
        engine = create_pooled_engine(cluster.primary.url)
        await measure_transactions(session_factory(engine))
        await engine.dispose()
        await measure_pgbouncer(cluster)
        await measure_reads(cluster)
    with running_galera() as galera:
        plain = create_engine(galera.nodes[0].url.replace("mysql:", "mysql+pymysql:"))
        SQLModel.metadata.create_all(plain, tables=[SQLModel.metadata.tables["balance"]])
        plain.dispose()
        await measure_galera(galera)


if __name__ == "__main__":
    asyncio.run(main())
