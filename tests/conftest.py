"""Fixtures for every test: the databases."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import models  # noqa: F401 - all tables exist before the first database is made
from tests.databases import KINDS, Database, NotConfiguredError, postgresql_url, provide


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let one choose the databases."""
    parser.addoption(
        "--databases",
        default=",".join(KINDS),
        help="The kinds of database to test on, with commas between them (default: %(default)s).",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses a database once per kind, or on the kinds that it is marked with."""
    if "database" not in metafunc.fixturenames:
        return
    wanted = metafunc.config.getoption("databases").split(",")
    marker = metafunc.definition.get_closest_marker("databases")
    kinds = [kind for kind in wanted if marker is None or kind in marker.args]
    metafunc.parametrize("database", kinds, indirect=True, scope="session")


def pytest_configure(config: pytest.Config) -> None:
    """Start a PostgreSQL before the workers, so that they share it."""
    controls_workers = config.getoption("numprocesses", default=None)
    if controls_workers and "postgresql" in config.getoption("databases"):
        postgresql_url()


@pytest.fixture(scope="session")
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
