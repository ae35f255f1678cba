"""Fixtures for the tests of clusters: each kind is started once, and always stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlmodel import SQLModel
from xdist.scheduler import LoadScopeScheduling

from tests.cluster.galera import Galera, running_galera
from tests.cluster.postgresql import Cluster, PgBouncer, running_cluster, running_pgbouncer

SERVER_CONNECTIONS = 5


def drivers(function: Callable[..., Any]) -> list[str]:
    """Return the drivers of the API that a function belongs to."""
    is_async = "._async." in function.__module__
    return ["asyncpg", "psycopg"] if is_async else ["psycopg", "psycopg2"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests."""
    for item in items:
        if "cluster" in item.path.parts:
            item.add_marker(pytest.mark.cluster)


class ByServers(LoadScopeScheduling):
    """Lets one process run all tests of Galera, and another those of PostgreSQL."""

    def _split_scope(self, nodeid: str) -> str:
        return "galera" if "test_galera" in nodeid else "postgresql"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    """Start each cluster once."""
    return ByServers(config, log)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL primary with two standbys, and all tables."""
    with running_cluster() as running:
        engine = create_engine(running.primary.url.replace("postgresql:", "postgresql+psycopg:"))
        SQLModel.metadata.create_all(engine)
        engine.dispose()
        running.wait_until_equal()
        yield running


@pytest.fixture(scope="session")
def bouncer(cluster: Cluster) -> Iterator[PgBouncer]:
    """A PgBouncer in front of the primary."""
    with running_pgbouncer(cluster.primary, SERVER_CONNECTIONS) as running:
        yield running


@pytest.fixture
def emptied(cluster: Cluster) -> Iterator[None]:
    """Empty the tables after the test."""
    yield
    cluster.primary.ask("TRUNCATE entry, transfer, balance")


@pytest.fixture(scope="session")
def galera() -> Iterator[Galera]:
    """A Galera cluster of three nodes, with all tables."""
    with running_galera() as running:
        engine = create_engine(running.nodes[0].url.replace("mysql:", "mysql+pymysql:"))
        tables = [SQLModel.metadata.tables[name] for name in ("balance", "transfer", "entry")]
        SQLModel.metadata.create_all(engine, tables=tables)
        engine.dispose()
        yield running
