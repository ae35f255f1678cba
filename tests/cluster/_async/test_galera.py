"""A Galera cluster: each node takes writes, and refuses at the COMMIT what another has changed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from sqlmodel import Session as SyncSession, create_engine, select

from sqlmodel_crud_utils.aio import (
    bulk_insert_rows,
    create_pooled_engine,
    get_one_or_create,
    insert_data_rows,
    pool_status,
    session_factory,
    write_row,
)
from tests.chaos_models import Entry
from tests.cluster._async.bank import Bank
from tests.cluster._async.everything import everything
from tests.cluster.galera import Galera


@pytest.fixture(autouse=True)
def _emptied(galera: Galera) -> Iterator[None]:
    yield
    for table in ("entry", "transfer", "balance"):
        galera.nodes[0].ask(f"TRUNCATE bank.{table}")


async def test_a_bank_while_a_node_is_killed(galera: Galera) -> None:
    """The sum is constant, and each acknowledged transfer exists once, on every node."""
    engines = [create_pooled_engine(node.url, 8, 8) for node in galera.nodes]
    killed = galera.nodes[2]
    url = galera.nodes[0].url.replace("mysql:", "mysql+pymysql:")
    bank = Bank([session_factory(engine) for engine in engines], url)
    await bank.run(killed.kill, partial(galera.join, killed))
    for engine in engines:
        assert pool_status(engine)["checked_out"] == 0
        await engine.dispose()
    counts = {node.ask("SELECT count(*), sum(amount) FROM bank.balance") for node in galera.nodes}
    assert len(counts) == 1


async def test_every_function(galera: Galera) -> None:
    """On each node in turn; the nodes generate keys with an increment."""
    for node in galera.nodes:
        engine = create_pooled_engine(node.url)
        await everything(session_factory(engine), f"node {node.number}")
        assert pool_status(engine)["checked_out"] == 0
        await engine.dispose()


async def test_rows_get_the_keys_of_the_database(galera: Galera) -> None:
    """For any increment of keys, the returned row is the one that was written."""
    node = galera.nodes[1]
    engine = create_pooled_engine(node.url)
    async with session_factory(engine, expire_on_commit=False)() as session:
        rows = [Entry(name=f"row {number}") for number in range(150)]
        await insert_data_rows(rows, session, raise_on_error=True)
        await bulk_insert_rows([{"name": "bulk"}], session, Entry)
        _, one = await write_row(Entry(name="one"), session, raise_on_error=True)
        other, _ = await get_one_or_create(session, Entry, name="other")
        held = {row.id: row.name for row in [*rows, one, other]}
    await engine.dispose()
    plain = create_engine(node.url.replace("mysql:", "mysql+pymysql:"))
    with SyncSession(plain) as session:
        stored = dict(session.exec(select(Entry.id, Entry.name)).all())
    plain.dispose()
    assert {key: stored[key] for key in held} == held
