"""The plugin in small projects: their fixtures, event loops and failures."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import fastapi.testclient  # noqa: F401 - loaded here, as the drivers below
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_crud_utils.ext import fastapi as fastapi_part  # noqa: F401 - likewise
from sqlmodel_crud_utils.ext.pytest import async_fixtures, isolated  # noqa: F401 - likewise
from tests.databases import Database

pytest_plugins = ["pytester"]

PLUGIN = "sqlmodel_crud_utils.ext.pytest"
ROOT = Path(__file__).parent.parent

CONFTEST = """
import asyncio
import pytest
from sqlmodel_crud_utils import aio, sync
from sqlalchemy.ext.asyncio import create_async_engine

@pytest.fixture(scope="session")
def crud_engine():
    engine = sync.create_pooled_engine({sync_url!r})
    yield engine
    assert engine.pool.checkedout() == 0
    engine.dispose()

@pytest.fixture(scope="session", params=[create_async_engine, aio.create_pooled_engine])
def async_crud_engine(request):
    engines.append(request.param({async_url!r}))
    return engines[-1]

engines = []

def pytest_sessionfinish():
    for engine in engines:
        assert engine.pool.checkedout() == 0
        if {checks_loops} and engine.dialect.name != "sqlite":
            assert engine.pool.checkedin() == 0, "a connection outlives its loop"
        asyncio.run(engine.dispose())
"""

TESTS = """
import asyncio
import pytest
from sqlmodel_crud_utils import aio, sync
from tests.models import Hero

class TestSync:
    @pytest.mark.parametrize("attempt", [1, 2])
    def test_the_table_is_empty(self, crud_session, attempt):
        heroes = sync.Repository(crud_session, Hero)
        assert heroes.count() == 0
        heroes.create(name="Robin", secret_name="?")
        assert heroes.count() == 1

    def test_an_application_has_sessions_of_its_own(self, crud_session_factory, crud_session):
        with crud_session_factory() as session:
            sync.write_row(Hero(name="Robin", secret_name="?"), session)
        assert sync.Repository(crud_session, Hero).get(name="Robin")

    def test_fails(self, crud_session):
        sync.write_row(Hero(name="Robin", secret_name="?"), crud_session)
        raise ZeroDivisionError

    @pytest.mark.timeout(0.2, method="signal")
    def test_hangs(self, crud_session):
        import time
        sync.write_row(Hero(name="Robin", secret_name="?"), crud_session)
        time.sleep(10)

class TestAsync:
    {mark}
    @pytest.mark.parametrize("attempt", [1, 2])
    async def test_the_table_is_empty(self, async_crud_session, attempt):
        heroes = aio.Repository(async_crud_session, Hero)
        assert await heroes.count() == 0
        await heroes.create(name="Robin", secret_name="?")
        assert await heroes.count() == 1

    {mark}
    async def test_fails(self, async_crud_session_factory):
        async with async_crud_session_factory() as session:
            await aio.write_row(Hero(name="Robin", secret_name="?"), session)
            raise ZeroDivisionError

    {mark}
    async def test_is_cancelled(self, async_crud_session):
        await aio.write_row(Hero(name="Robin", secret_name="?"), async_crud_session)
        async with asyncio.timeout(0.05):
            await asyncio.sleep(10)
"""


def project(
    pytester: pytest.Pytester,
    *arguments: str,
    conftest: str = "",
    tests: str,
    ini: str = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function",
) -> pytest.RunResult:
    """Run the tests of a project in this process, with the plugin."""
    pytester.makeini(f"[pytest]\nfilterwarnings = error\n{ini}")
    pytester.makeconftest(dedent(conftest))
    pytester.makepyfile(test_project=dedent(tests))
    return pytester.runpytest_inprocess(
        "-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:queryguard", "-n", "0", *arguments
    )


@pytest.fixture(scope="session")
def urls(database: Database) -> dict[str, str]:
    """The URLs of an empty database.

    Its drivers are loaded here, because pytester unloads modules that a project's run has loaded,
    which extension modules do not survive.
    """
    engine = create_engine(database.sync_url)
    engine.connect().close()
    engine.dispose()
    asyncio.run(_connect(database.async_url))
    return {"sync_url": database.sync_url, "async_url": database.async_url}


async def _connect(url: str) -> None:
    engine = create_async_engine(url)
    async with isolated(engine) as new_session, new_session() as session:
        await session.connection()
    await engine.dispose()


def scopes(loops: str) -> str:
    """Return pytest-asyncio's settings for event loops of a scope."""
    return f"""
asyncio_mode = strict
asyncio_default_fixture_loop_scope = {loops}
asyncio_default_test_loop_scope = {loops}
"""


def test_every_test_begins_with_the_same_rows(
    pytester: pytest.Pytester, urls: dict[str, str]
) -> None:
    """After tests that pass, fail, time out or are cancelled; no connection outlives its loop."""
    check_every_test(pytester, urls, "function")


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("loops", ["module", "session"])
def test_loops_may_last_longer(pytester: pytest.Pytester, urls: dict[str, str], loops: str) -> None:
    """Fixtures and tests use the loops of the project's settings."""
    check_every_test(pytester, urls, loops)


def check_every_test(pytester: pytest.Pytester, urls: dict[str, str], loops: str) -> None:
    """Run the project with event loops of a scope."""
    tests = TESTS.replace("{mark}", "@pytest.mark.asyncio")
    conftest = CONFTEST.format(**urls, checks_loops=True)
    result = project(pytester, conftest=conftest, tests=tests, ini=scopes(loops))
    # Each async test runs with two engines.
    result.assert_outcomes(passed=3 + 2 * 2, failed=2 + 2 * 2)
    result.stdout.fnmatch_lines_random(["*ZeroDivisionError*", "*Timeout*", "*TimeoutError*"])


@pytest.mark.databases("sqlite")
def test_another_plugin_may_run_the_async_tests(
    pytester: pytest.Pytester, urls: dict[str, str]
) -> None:
    """AnyIO runs the fixtures as well."""
    conftest = CONFTEST.format(**urls, checks_loops=False) + dedent(
        """
        @pytest.fixture
        def anyio_backend():
            return "asyncio"
        """
    )
    tests = TESTS.replace("{mark}", "@pytest.mark.anyio")
    result = project(
        pytester, "-p", "no:asyncio", "-k", "TestAsync and empty",
        conftest=conftest, tests=tests, ini="",
    )  # fmt: skip
    result.assert_outcomes(passed=4, deselected=9)


@pytest.mark.databases("sqlite", "postgresql")
def test_an_application_works_in_the_transaction_of_the_test(
    pytester: pytest.Pytester, urls: dict[str, str]
) -> None:
    """Sync and async routes with FastAPI's client, in their own threads; callbacks run."""
    tests = """
        from typing import Annotated
        import pytest
        from fastapi import Depends, FastAPI
        from fastapi.testclient import TestClient
        from sqlmodel import Session
        from sqlmodel.ext.asyncio.session import AsyncSession
        from sqlmodel_crud_utils import aio, sync
        from sqlmodel_crud_utils.ext.fastapi import install_error_handlers, session_dependency
        from sqlmodel_crud_utils.ext.pytest import isolated
        from tests.models import Hero

        ran = []

        def sync_app(new_session):
            app = FastAPI()
            install_error_handlers(app)
            RouteSession = Annotated[Session, Depends(session_dependency(new_session))]
            reading = session_dependency(new_session, read_only=True)

            @app.post("/heroes/{name}", status_code=201)
            def create(name: str, session: RouteSession) -> int:
                row = sync.Repository(session, Hero).create(name=name, secret_name="?")
                sync.on_commit(session, lambda: ran.append(name))
                return row.id

            @app.get("/count")
            def count(session: Annotated[Session, Depends(reading)]) -> int:
                return sync.Repository(session, Hero).count()

            return app

        def async_app(new_session):
            app = FastAPI()
            install_error_handlers(app)
            RouteSession = Annotated[AsyncSession, Depends(session_dependency(new_session))]

            @app.post("/heroes/{name}", status_code=201)
            async def create(name: str, session: RouteSession) -> int:
                row = await aio.Repository(session, Hero).create(name=name, secret_name="?")
                aio.on_commit(session, lambda: ran.append(name))
                return row.id

            @app.get("/count")
            async def count(session: RouteSession) -> int:
                return await aio.Repository(session, Hero).count()

            return app

        def use(client):
            ran.clear()
            assert client.post("/heroes/Robin").status_code == 201
            assert client.post("/heroes/Robin").status_code == 409
            assert client.post("/heroes/Batman").status_code == 201
            assert ran == ["Robin", "Batman"]
            assert client.get("/count").json() == 2

        @pytest.mark.parametrize("attempt", [1, 2])
        def test_sync(crud_session_factory, crud_session, attempt):
            with TestClient(sync_app(crud_session_factory)) as client:
                use(client)
            assert sync.Repository(crud_session, Hero).count() == 2

        @pytest.mark.parametrize("async_crud_engine", [aio.create_pooled_engine], indirect=True)
        @pytest.mark.parametrize("attempt", [1, 2])
        def test_async(async_crud_engine, attempt):
            opened = isolated(async_crud_engine)
            app = FastAPI()
            with TestClient(app) as client:
                with client.portal.wrap_async_context_manager(opened) as new_session:
                    app.mount("/", async_app(new_session))
                    use(client)
    """
    result = project(pytester, conftest=CONFTEST.format(**urls, checks_loops=False), tests=tests)
    result.assert_outcomes(passed=2 + 2)


def test_an_engine_is_all_that_a_project_has_to_write(pytester: pytest.Pytester) -> None:
    """Without the engine fixture, a test's error says what to write."""
    tests = """
        def test_sync(crud_session): ...
        async def test_async(async_crud_session): ...
    """
    result = project(pytester, tests=tests)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "write a fixture crud_engine in conftest.py, *returns the Engine *",
            "write a fixture async_crud_engine in conftest.py, *returns the AsyncEngine *",
        ]
    )


def test_the_names_of_a_project_come_first(pytester: pytest.Pytester) -> None:
    """A project's own fixtures win; the names of the plugin's all contain `crud`."""
    conftest = """
        import pytest

        @pytest.fixture
        def crud_session():
            return "the project's own"
    """
    tests = """
        def test_own(crud_session):
            assert crud_session == "the project's own"
    """
    project(pytester, conftest=conftest, tests=tests).assert_outcomes(passed=1)
    listed = "\n".join(project(pytester, "--fixtures", tests=tests).outlines)
    ours = re.findall(r"^(\w+).* -- .*/ext/pytest/\w+\.py:", listed, re.MULTILINE)
    assert len(ours) == 6
    assert all("crud_" in name for name in ours)


def test_pytest_finds_the_plugin_by_itself() -> None:
    """The distribution registers it under the module's name, so that `-p` adds no second one."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}


def test_importing_it_imports_nothing_else() -> None:
    """Every pytest run loads it, even in projects that do not use it."""
    program = f"""
import sys, pytest
before = set(sys.modules)
import {PLUGIN}
print(sorted(set(sys.modules) - before))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={name: os.environ[name] for name in os.environ if not name.startswith("COV")},
        capture_output=True,
        text=True,
        check=True,
    )
    package = ["sqlmodel_crud_utils", "sqlmodel_crud_utils.ext", PLUGIN]
    assert ran.stdout.strip() == repr(package)
