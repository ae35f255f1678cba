"""Row security with shared connections: no caller sees another tenant's rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from sqlmodel_crud_utils.aio import (
    create_pooled_engine,
    get_rows,
    run_transaction,
    session_factory,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.mixins import tenant_scope
from tests._runtime_async import run_on_connection, together
from tests.cluster.conftest import SERVER_CONNECTIONS, drivers
from tests.cluster.postgresql import Cluster, PgBouncer, running_pgbouncer
from tests.secured import Secured, secured_tables
from tests.tenant_models import Spell

CALLERS = 20
LABELS = text("SELECT DISTINCT label FROM spell")


@pytest.fixture(scope="module")
def secured(cluster: Cluster) -> Iterator[Secured]:
    """The tables of tenants on the primary, and a role."""
    with secured_tables(cluster.primary.url, "rows_of_tenants") as secured:
        yield secured


@pytest.fixture(scope="module")
def bouncer(secured: Secured, cluster: Cluster) -> Iterator[PgBouncer]:
    """A PgBouncer that is the role on the server, with few connections."""
    with running_pgbouncer(cluster.primary, SERVER_CONNECTIONS, secured.role) as running:
        yield running


async def one_caller(new_session: Any, tenant: str) -> None:
    """Write and read rows of one tenant, in transactions, and past the library too."""

    async def work(session: Any) -> list[Any]:
        await write_row(Spell(label=tenant), session)
        return await run_on_connection(session, lambda found: [*found.execute(LABELS).scalars()])

    with tenant_scope(tenant):
        for _ in range(3):
            assert await run_transaction(new_session, work) == [tenant]
            async with new_session() as session:
                async with transaction(session):
                    await write_row(Spell(label=tenant), session)
                found = await run_on_connection(session, lambda c: [*c.execute(LABELS).scalars()])
                assert found == [tenant]
    async with new_session() as session:
        assert await run_on_connection(session, lambda c: [*c.execute(LABELS).scalars()]) == []


@pytest.mark.parametrize("driver", drivers(create_pooled_engine))
async def test_behind_pgbouncer(secured: Secured, bouncer: PgBouncer, driver: str) -> None:
    """Its server connections serve several tenants; the setting of one does not stay on them."""
    port = make_url(bouncer.url).port
    url = secured.url.set(drivername=f"postgresql+{driver}", port=port)
    engine = create_pooled_engine(url, CALLERS, 0, pgbouncer=True, row_security=True)
    new_session: Any = session_factory(engine)
    tenants = [f"{driver} {number}" for number in range(CALLERS)]
    await together(*(partial(one_caller, new_session, tenant) for tenant in tenants))
    others = create_pooled_engine(url, 5, 0, pgbouncer=True)
    async with others.connect() as connection:
        assert (await connection.execute(LABELS)).all() == []
    await others.dispose()
    await engine.dispose()


async def test_on_replicas(secured: Secured, cluster: Cluster) -> None:
    """The tenant is set on a replica, too."""
    ports = [server.port for server in (cluster.primary, *cluster.standbys)]
    primary, *replicas = (
        create_pooled_engine(secured.url.set(port=port), row_security=True) for port in ports
    )
    for tenant in ("a", "b"):
        with tenant_scope(tenant):
            async with session_factory(primary)() as session:
                await write_row(Spell(label=f"of {tenant}"), session, raise_on_error=True)
    cluster.wait_until_equal()
    new_session: Any = session_factory(primary, replicas=replicas)
    for tenant in ("a", "b", "a", "b"):
        with tenant_scope(tenant):
            async with new_session() as session:
                _, rows = await get_rows(session, Spell)
                assert [row.label for row in rows] == [f"of {tenant}"]
    for engine in replicas:
        with tenant_scope("b"):
            async with engine.connect() as connection:
                assert (await connection.execute(LABELS)).scalars().all() == ["of b"]
    for engine in (primary, *replicas):
        await engine.dispose()
