"""The plugin's async fixtures; they run in the event loops that the project's settings choose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

fixture: Callable[..., Callable[[Any], Any]] = pytest.fixture
with suppress(ModuleNotFoundError):
    # In strict mode, pytest-asyncio only runs its own fixtures.
    fixture = import_module("pytest_asyncio").fixture

if TYPE_CHECKING:
    from sqlmodel_crud_utils._runtime_async import (
        AsyncEngine,
        SQLModelAsyncSession as AsyncSession,
        async_sessionmaker,
    )

_LOOP_SCOPE = "asyncio_default_fixture_loop_scope"
_SCOPES = ("function", "class", "module", "package", "session")


def _scope_of_loops(fixture_name: str, config: pytest.Config) -> Any:  # noqa: ARG001 - by name
    scope = config.getini(_LOOP_SCOPE) if config.pluginmanager.has_plugin("asyncio") else None
    return scope if scope in _SCOPES else "function"


@fixture(scope=_scope_of_loops)
async def _async_crud_engines() -> AsyncIterator[set[AsyncEngine]]:
    """The engines used by the tests of an event loop; their connections are closed with it."""
    engines: set[AsyncEngine] = set()
    yield engines
    for engine in engines:
        await engine.dispose()


@fixture()
async def async_crud_session_factory(
    async_crud_engine: AsyncEngine, _async_crud_engines: set[AsyncEngine]
) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Opens sessions; their writes are undone after the test."""
    from sqlmodel_crud_utils._core.dialects import features_of
    from sqlmodel_crud_utils.ext.pytest.isolation import isolated

    async with isolated(async_crud_engine) as new_session:
        if features_of(async_crud_engine.dialect).has_server:
            _async_crud_engines.add(async_crud_engine)
        yield new_session


@fixture()
async def async_crud_session(
    async_crud_session_factory: async_sessionmaker[AsyncSession],
) -> AsyncIterator[AsyncSession]:
    """A session; its writes are undone after the test."""
    async with async_crud_session_factory() as session:
        yield session
