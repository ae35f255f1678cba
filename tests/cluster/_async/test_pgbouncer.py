"""Behind PgBouncer in transaction mode: callers share few connections to the server."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from sqlmodel_crud_utils.aio import create_pooled_engine, pool_status, session_factory
from tests._runtime_async import together
from tests.cluster._async.everything import everything
from tests.cluster.conftest import SERVER_CONNECTIONS, drivers
from tests.cluster.postgresql import Cluster, PgBouncer

CALLERS = 50


@pytest.mark.usefixtures("emptied")
@pytest.mark.parametrize("driver", drivers(create_pooled_engine))
async def test_every_function(cluster: Cluster, bouncer: PgBouncer, driver: str) -> None:
    """With each driver, with fifty callers on five connections to the server."""
    url = make_url(bouncer.url).set(drivername=f"postgresql+{driver}")
    engine = create_pooled_engine(url, CALLERS, 0, pgbouncer=True)
    new_session: Any = session_factory(engine)
    callers = [f"{driver} {caller}" for caller in range(CALLERS)]
    await together(*(partial(everything, new_session, caller) for caller in callers))
    others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    assert cluster.primary.ask(f"{others} AND pid <> pg_backend_pid()") <= SERVER_CONNECTIONS
    assert pool_status(engine)["checked_out"] == 0
    await engine.dispose()
