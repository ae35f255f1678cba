"""The sets of versions that the suite runs with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts" / "pins.py"


def _pins(which: str) -> dict[str, str]:
    ran = subprocess.run(
        [sys.executable, SCRIPT, which], capture_output=True, text=True, check=True
    )
    return dict(line.split("==") for line in ran.stdout.splitlines())


def test_pinned_is_the_constraints_file() -> None:
    """Without a change the pins are those of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert _pins("pinned") == dict(line.split("==") for line in lines)


def test_a_series_replaces_sqlalchemy_alone() -> None:
    """A series of SQLAlchemy leaves every other pin unchanged."""
    pinned, series = _pins("pinned"), _pins("2.0")
    assert series == pinned | {"sqlalchemy": "2.0.*"}


def test_lowest_covers_what_the_library_and_its_extras_require() -> None:
    """The lower bounds of pyproject.toml become pins, the driver's binary companion included."""
    pinned, lowest = _pins("pinned"), _pins("lowest")
    # FastAPI and OpenTelemetry say which ones they need.
    assert pinned.keys() - lowest.keys() == {
        "importlib-metadata",
        "opentelemetry-instrumentation",
        "opentelemetry-instrumentation-sqlalchemy",
        "opentelemetry-sdk",
        "opentelemetry-semantic-conventions",
        "starlette",
        "strawberry-graphql",
        "wrapt",
    }
    assert {name for name in lowest if lowest[name] != pinned[name]} == {
        "aiomcache",
        "aiosqlite",
        "alembic",
        "anyio",
        "asyncmy",
        "asyncpg",
        "fastapi",
        "graphql-core",
        "loguru",
        "opentelemetry-api",
        "psycopg",
        "psycopg-binary",
        "pymemcache",
        "pymysql",
        "python-dateutil",
        "redis",
        "sqlalchemy",
        "sqlmodel",
        "tqdm",
    }
