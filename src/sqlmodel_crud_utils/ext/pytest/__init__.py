"""A pytest plugin: sessions whose writes are undone after the test, and a count of statements.

pytest loads it if the package is installed. Write one fixture, `crud_engine`, or
`async_crud_engine` for the async API; your tests can then use the others:

- `crud_session`, `async_crud_session`: a session;
- `crud_session_factory`, `async_crud_session_factory`: opens sessions, for an application.

All sessions of a test work on one connection, in a transaction that is never committed.

Example:
    >>> from sqlmodel_crud_utils.ext.pytest import assert_queries, isolated
    >>> with isolated(engine) as new_session, new_session() as isolated_session:
    ...     with assert_queries(1):
    ...         isolated_session.get(Hero, 1)
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import sessionmaker
    from sqlmodel import Session

    from sqlmodel_crud_utils._runtime_async import AsyncEngine
    from sqlmodel_crud_utils.ext.pytest.isolation import isolated
    from sqlmodel_crud_utils.ext.pytest.queries import assert_queries

__all__ = ["assert_queries", "isolated"]

_HOMES = {"assert_queries": "queries", "isolated": "isolation"}


if not TYPE_CHECKING:  # otherwise type checkers would accept any name

    def __getattr__(name: str) -> Any:
        """Load a public name on first use, because every pytest run imports this module."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


def pytest_configure(config: pytest.Config) -> None:
    """Add the async fixtures, now that the plugin that runs async tests is loaded."""
    config.pluginmanager.register(import_module(f"{__name__}.async_fixtures"))


@pytest.fixture(scope="session")
def crud_engine() -> Engine:
    """The engine; your project must override this fixture."""
    pytest.fail(_MISSING.format(name="crud_engine", kind="Engine"), pytrace=False)


@pytest.fixture
def crud_session_factory(crud_engine: Engine) -> Iterator[sessionmaker[Session]]:
    """Opens sessions; their writes are undone after the test."""
    from sqlmodel_crud_utils.ext.pytest.isolation import isolated

    with isolated(crud_engine) as new_session:
        yield new_session


@pytest.fixture
def crud_session(crud_session_factory: sessionmaker[Session]) -> Iterator[Session]:
    """A session; its writes are undone after the test."""
    with crud_session_factory() as session:
        yield session


@pytest.fixture(scope="session")
def async_crud_engine() -> AsyncEngine:
    """The async engine; your project must override this fixture."""
    pytest.fail(_MISSING.format(name="async_crud_engine", kind="AsyncEngine"), pytrace=False)


_MISSING = (
    "write a fixture {name} in conftest.py, with scope='session', that returns the {kind} "
    "of a database with your tables"
)
