"""Fixtures for every test: the databases."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import models  # noqa: F401 - all tables exist before the first database is made
from tests.databases import KINDS, Database, NotConfiguredError, postgresql_url, provide


def pytest_configure(config: pytest.Config) -> None:
    """Start a PostgreSQL before the workers, so that they share it."""
    if config.getoption("numprocesses", default=None):
        postgresql_url()


@pytest.fixture(scope="session", params=KINDS)
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Database]:
    """One database of each kind; a kind without a server is skipped, and in CI a failure."""
    folder = tmp_path_factory.mktemp("databases")
    try:
        with provide(request.param, folder, f"crud_{worker_id}_{os.getpid()}") as provided:
            yield provided
    except NotConfiguredError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
