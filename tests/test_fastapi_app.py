"""examples/fastapi_app, started as by its users and tested over HTTP."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from sqlalchemy import Engine, create_engine, make_url, text

from tests.browser import console_errors, open_browser
from tests.databases import Database

EXAMPLES = Path(__file__).parent.parent / "examples"
CLIENTS = 50
COUNTERS = 10  # so many of them change one and the same row


@pytest.fixture
def own_database(database: Database, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if database.name == "sqlite":
        yield f"sqlite:///{tmp_path}/heroes.db"
        return
    name = f"app_{uuid4().hex}"
    server = create_engine(database.sync_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        url = make_url(database.sync_url).set(drivername="postgresql", database=name)
        yield url.render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def url(own_database: str, tmp_path: Path) -> Iterator[str]:
    """The URL of the service, which must end without complaints in its log."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    path = os.pathsep.join([str(EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"DATABASE_URL": own_database, "PORT": str(port), "PYTHONPATH": path}
    log = tmp_path / "service.log"
    with log.open("w") as written:  # a pipe would fill up while the tests run
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "fastapi_app.main"],
            env=os.environ | settings,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process, log)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    output = log.read_text()
    assert f"Heroes on {address}/docs" in output
    assert "Traceback" not in output, output
    assert "are sent later" not in output, output


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            httpx2.get(f"{address}/teams", trust_env=False).raise_for_status()
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the service did not start within a minute")


@pytest.fixture
def client(url: str) -> Iterator[httpx2.Client]:
    """A client of the service."""
    with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client


def create(client: httpx2.Client, name: str, **fields: Any) -> dict[str, Any]:
    """Create a hero and return it."""
    answer = client.post("/heroes", json={"name": name, "secret_name": "?"} | fields)
    assert answer.status_code == 201, answer.text
    hero: dict[str, Any] = answer.json()
    return hero


# --- one client ----------------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
def test_the_tests_of_the_service(own_database: str) -> None:
    """They use the library's plugin, and leave nothing in the service's database."""
    ran = _run_tests_of_service(EXAMPLES, own_database)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    engine = create_engine(_sync(own_database))
    tables = ("hero", "team", "tag", "message", "change_history")
    assert [_value(engine, f"SELECT count(*) FROM {table}") for table in tables] == [0] * 5
    engine.dispose()


SLOW_ROUTES = """
from fastapi_app.main import app
from fastapi_app.models import Hero
from fastapi_app.routes import ReadSession
from sqlmodel import select
from sqlmodel_crud_utils.aio import get_row


@app.get("/row-by-row")
async def row_by_row(session: ReadSession) -> None:
    for number in range(5):
        await get_row(number, session, Hero)


@app.get("/without-an-index")
async def without_an_index(session: ReadSession) -> None:
    await session.exec(select(Hero).where(Hero.age == 5))


async def test_row_by_row(client):
    assert (await client.get("/row-by-row")).status_code == 200


async def test_without_an_index(client):
    assert (await client.get("/without-an-index")).status_code == 200
"""


@pytest.mark.databases("sqlite")
def test_the_tests_of_the_service_find_slow_routes(own_database: str, tmp_path: Path) -> None:
    """A route that reads row by row fails its test, and so does one that needs an index."""
    copy = shutil.copytree(EXAMPLES, tmp_path / "examples")
    (copy / "tests" / "test_slow.py").write_text(SLOW_ROUTES)
    ran = _run_tests_of_service(copy, own_database)
    assert "2 failed, 4 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "the same statement ran 5 times in one Session" in ran.stdout
    assert "CREATE INDEX ix_hero_age ON hero (age)" in ran.stdout


def _run_tests_of_service(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    plugin = ("-p", "sqlmodel_crud_utils.ext.pytest", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin],
        cwd=folder,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def messages(client: httpx2.Client) -> list[str]:
    """Return the messages that the outbox sent, in order, once all of them are sent."""
    deadline = time.monotonic() + 30
    while client.get("/messages?sent=false").json()["items"] and time.monotonic() < deadline:
        time.sleep(0.05)
    found, after = [], {}
    while True:
        page = client.get("/messages", params={"size": 100, **after}).json()
        assert all(message["sent"] for message in page["items"])
        found += [message["text"] for message in page["items"]]
        if page["next_cursor"] is None:
            return found
        after = {"after": page["next_cursor"]}


@pytest.mark.databases("sqlite")
def test_the_address_leads_to_the_documentation(client: httpx2.Client) -> None:
    """Its routes are listed by subject, with the version of the service."""
    assert client.get("/").headers["location"] == "/docs"
    described = client.get("/openapi.json").json()
    assert described["info"]["version"] == "1.0.0"
    tags = {
        tag for path in described["paths"].values() for way in path.values() for tag in way["tags"]
    }
    assert tags == {"teams", "heroes", "messages"}


# --- fifty clients -------------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql")
async def test_fifty_clients_leave_a_consistent_database(url: str, own_database: str) -> None:
    """Names stay unique, no update is lost, and each change has exactly one message."""
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=120) as client:
        counter = (await client.post("/heroes", json=_hero("Counter", age=0))).json()["id"]
        done = await asyncio.gather(*(_work(client, number, counter) for number in range(CLIENTS)))
    written = [change for changes in done for change in changes]
    with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
        sent = messages(client)
    assert sorted(sent) == sorted(["hero 1 created", *written])

    engine = create_engine(_sync(own_database))
    count = {
        name: _value(engine, query)
        for name, query in {
            "same": "SELECT count(*) FROM hero WHERE name LIKE 'Same%'",
            "own": "SELECT count(*) FROM hero WHERE name LIKE 'Own%' AND is_deleted",
            "tags": "SELECT count(*) FROM tag",
            "links": "SELECT count(*) FROM herotag",
            "counter": f"SELECT age FROM hero WHERE id = {counter}",
            "version": f"SELECT version FROM hero WHERE id = {counter}",
        }.items()
    }
    engine.dispose()
    assert count == {
        "same": 5,
        "own": CLIENTS,
        "tags": 5,
        "links": CLIENTS,
        "counter": COUNTERS,
        "version": COUNTERS + 1,
    }


async def _work(client: httpx2.AsyncClient, number: int, counter: int) -> list[str]:
    """Run one client, and return the changes that succeeded."""
    own = (await client.post("/heroes", json=_hero(f"Own {number}"))).json()["id"]
    # It can be read at once, because the commit comes before the response.
    assert (await client.get(f"/heroes/{own}")).status_code == 200
    done = [f"hero {own} created"]

    same = await client.post("/heroes", json=_hero(f"Same {number % 5}"))
    assert same.status_code in {201, 409}
    if same.status_code == 201:
        done.append(f"hero {same.json()['id']} created")

    label = f"tag{number % 5}"
    assert (await client.put(f"/heroes/{own}/tags/{label}")).status_code == 200
    assert label in (await client.get("/tags")).json()
    done.append(f"hero {own} tagged {label}")

    if number < COUNTERS:
        await _count_up(client, counter)
        done.append(f"hero {counter} updated")

    assert (await client.delete(f"/heroes/{own}")).status_code == 204
    return [*done, f"hero {own} deleted"]


async def _count_up(client: httpx2.AsyncClient, counter: int) -> None:
    """Read and add 1, repeatedly, until no other client was quicker."""
    while True:
        read = await client.get(f"/heroes/{counter}")
        answer = await client.patch(
            f"/heroes/{counter}",
            json={"age": read.json()["age"] + 1},
            headers={"if-match": read.headers["etag"]},
        )
        if answer.status_code == 200:
            return
        assert answer.status_code == 412, answer.text


def _hero(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "secret_name": "?"} | fields


def _sync(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def _value(engine: Engine, query: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar_one()


# --- a browser -----------------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
def test_the_docs_page_works_in_a_browser(client: httpx2.Client, url: str, tmp_path: Path) -> None:
    """/docs is served entirely by the service, shows the parameters, and can try a route."""
    create(client, "Rusty")
    with ExitStack() as stack:
        window = stack.enter_context(open_browser(tmp_path / "profile"))
        wait = WebDriverWait(window, 30)
        window.get(f"{url}/docs")
        wait.until(lambda _: len(window.find_elements(By.CSS_SELECTOR, ".opblock")) == 12)
        window.find_element(By.CSS_SELECTOR, "[id$=list_heroes] button").click()
        wait.until(lambda _: "age is at least this. In years." in _text(window))
        window.find_element(By.CSS_SELECTOR, ".try-out__btn").click()
        window.find_element(By.CSS_SELECTOR, ".opblock-body .execute").click()
        wait.until(lambda _: '"name": "Rusty"' in _text(window))
        window.save_screenshot(str(tmp_path / "docs.png"))
        loaded = window.execute_script(
            "return performance.getEntriesByType('resource').map(each => each.name)"
        )
        assert [name for name in loaded if not name.startswith((url, "data:"))] == []
        assert console_errors(window) == []


def _text(window: Any) -> str:
    return str(window.find_element(By.TAG_NAME, "body").text)
