"""Fixtures for every test: the databases."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import hypothesis  # noqa: F401 - it calls gc.get_referrers on import, so import it before the freeze
import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util.concurrency import in_greenlet

from sqlmodel_crud_utils._session import lazy_loads
from sqlmodel_crud_utils._session.events import listen_to_loads
from sqlmodel_crud_utils._shortcuts import choosing
from sqlmodel_crud_utils.ext import pytest as plugin
from tests import lacking, models  # noqa: F401 - declare all tables before the first database is created
from tests.databases import (
    KINDS,
    Database,
    postgresql_url,
    provide,
)
from tests.recording import logged

_MYSQL_EXPECTED = "TEST_MYSQL_URL" in os.environ or "CI" in os.environ


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the databases."""
    parser.addoption(
        "--databases",
        help="The kinds of database to test on, with commas between them; by default all: "
        f"{','.join(KINDS)}. Without TEST_MYSQL_URL mysql is left out, but not where CI is set.",
    )
    parser.addoption(
        "--generated-on",
        help="The kinds of database to run the generated tests on; by default those of the others.",
    )
    parser.addoption(
        "--without-shortcuts",
        action="store_true",
        help="Let every write go through the unit of work; leaves out the tests marked shortcuts.",
    )

    parser.addoption(
        "--strict-loading",
        action="store_true",
        help="Let all async sessions be strict about lazy loads: for tests/_async.",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of the shortcuts themselves if these are switched off."""
    if config.getoption("without_shortcuts"):
        skip = pytest.mark.skip(reason="tests a shortcut")
        for item in items:
            if item.get_closest_marker("shortcuts"):
                item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from traversing all collected tests repeatedly."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _shortcuts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Use the shortcuts, or switch them off if the option says so."""
    switched = request.config.getoption("without_shortcuts")
    with choosing.switched_off() if switched else nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def _strict_loading(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the option, make every session strict, like those of `aio.session_factory`."""
    if not request.config.getoption("strict_loading"):
        yield
        return
    make = AsyncSession.__init__

    def made(self: AsyncSession, *args: Any, **settings: Any) -> None:
        make(self, *args, **settings)
        self.sync_session.info.setdefault(lazy_loads.KEY, lazy_loads.Strictness(True, in_greenlet))

    listen_to_loads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncSession, "__init__", made)
        yield


@pytest.fixture
def logged_errors() -> Iterator[list[tuple[str, str, str]]]:
    """The log records at error level: level, place and text."""
    with logged("ERROR") as lines:
        yield lines


def _kinds(config: pytest.Config) -> list[str]:
    if chosen := config.getoption("databases"):
        return list(chosen.split(","))
    return [kind for kind in KINDS if kind != "mysql" or _MYSQL_EXPECTED]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report once what this machine lacks; count tests that do not concern a database."""
    reasons = {skipped.longrepr[2] for skipped in terminalreporter.stats.get("skipped", ())}
    found = [text for text in lacking.REASONS if any(text in reason for reason in reasons)]
    if not config.getoption("databases") and not _MYSQL_EXPECTED:
        found.append(lacking.MYSQL)
    if found:
        terminalreporter.section("left out, as something is missing")
        for text in found:
            terminalreporter.write_line(text)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses a database once per kind, or on the kinds in its mark."""
    if "database" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("databases")
    wanted = marker.args if marker else KINDS
    kinds: list[Any] = [kind for kind in _kinds(metafunc.config) if kind in wanted]
    generated_on = metafunc.config.getoption("generated_on")
    if generated_on and "_sync" in metafunc.definition.path.parts:
        kinds = [kind for kind in kinds if kind in generated_on.split(",")] or kinds
    if not kinds:
        skip = pytest.mark.skip(reason=f"needs {' or '.join(wanted)}")
        kinds = [pytest.param(wanted[0], marks=skip)]
    metafunc.parametrize("database", kinds, indirect=True, scope="session")


def pytest_configure(config: pytest.Config) -> None:
    """Start a PostgreSQL before the workers, so that they share it.

    It is started for any choice of databases: some guides need it, and a worker could not stop it.
    """
    if config.getoption("numprocesses", default=None):
        postgresql_url()
    if not config.pluginmanager.is_registered(plugin):
        config.pluginmanager.register(plugin, "the plugin of the library")


@pytest.fixture(scope="session")
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Database]:
    """A database of each kind, with all tables; a missing server is a failure."""
    folder = tmp_path_factory.mktemp("databases")
    with provide(request.param, folder, f"crud_{worker_id}_{os.getpid()}") as provided:
        yield provided
