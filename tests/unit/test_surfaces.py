"""The public names: the same in both APIs, loaded lazily, resting on imports that go one way."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sqlmodel_crud_utils
from sqlmodel_crud_utils import a_sync, aio, exceptions, hooks, mixins, sync
from sqlmodel_crud_utils.ext import fastapi, history, opentelemetry, rate_limits
from sqlmodel_crud_utils.ext.history import aio as history_aio, sync as history_sync

PACKAGE = Path(sqlmodel_crud_utils.__file__).parent
NAME = "sqlmodel_crud_utils"
FUNCTIONS = [name for name in sync.__all__ if inspect.isfunction(getattr(sync, name))]


# --- Parity ------------------------------------------------------------------------------------


def test_both_apis_export_the_same_names() -> None:
    """Both APIs have the same names; only classes have `Async` in theirs."""
    assert sorted(sync.__all__) == sorted({name.replace("Async", "") for name in aio.__all__})


def test_what_a_module_calls_public_is_exported() -> None:
    """A function that is in the `__all__` of its module has a place in the API."""
    modules = [import_module(f"{NAME}._async.{file.stem}") for file in PACKAGE.glob("_async/*.py")]
    public = {name for module in modules for name in getattr(module, "__all__", ())}
    assert len(public) > 20
    assert public <= set(aio.__all__)


def test_a_sync_is_another_name_for_aio() -> None:
    """v0.1.0's module has everything that `aio` has."""
    assert sorted(a_sync.__all__) == sorted(aio.__all__)
    assert all(getattr(a_sync, name) is getattr(aio, name) for name in aio.__all__)


@pytest.mark.parametrize("name", sync.__all__)
def test_both_apis_take_the_same_parameters(name: str) -> None:
    """Functions and methods have the same parameters in the same order, kinds and defaults."""
    ours = getattr(sync, name)
    theirs = getattr(aio, name, None) or getattr(aio, f"Async{name}")
    assert ours is theirs or _signatures(ours) == _signatures(theirs)


@pytest.mark.parametrize("name", history_sync.__all__)
def test_both_apis_have_the_same_history(name: str) -> None:
    """Its functions have the same parameters."""
    assert history_aio.__all__ == history_sync.__all__
    ours, theirs = getattr(history_sync, name), getattr(history_aio, name)
    assert ours is theirs or _signatures(ours) == _signatures(theirs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_sync_api_never_returns_an_awaitable(name: str) -> None:
    """No function of the sync API is a coroutine function or an async generator."""
    function = inspect.unwrap(getattr(sync, name))
    assert not inspect.iscoroutinefunction(function)
    assert not inspect.isasyncgenfunction(function)


def _signatures(thing: Any) -> dict[str, list[tuple[str, Any, Any]]]:
    members = {"": thing}
    if inspect.isclass(thing):
        public = {name: each for name, each in vars(thing).items() if not name.startswith("_")}
        members |= {name: each for name, each in public.items() if inspect.isfunction(each)}
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(each).parameters.values()]
        for name, each in members.items()
    }


# --- Names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [
        *(sqlmodel_crud_utils, aio, sync, a_sync, exceptions, hooks, mixins),
        *(fastapi, history, history_aio, history_sync, opentelemetry, rate_limits),
    ],
)
def test_every_exported_name_is_there(module: ModuleType) -> None:
    """`__all__` holds no name twice, and none that cannot be had."""
    assert len(module.__all__) == len(set(module.__all__))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_top_level_has_everything() -> None:
    """Sync names are plain, async functions have the prefix `a_`; shared names are included."""
    top = sqlmodel_crud_utils
    for name in sync.__all__:
        assert getattr(top, name) is getattr(sync, name)
    for name in aio.__all__:
        thing = getattr(aio, name)
        prefixed = thing.__name__ if inspect.isclass(thing) else f"a_{name}"
        assert getattr(top, prefixed) is thing
    for neutral in (exceptions, hooks, mixins):
        for name in neutral.__all__:
            assert getattr(top, name) is getattr(neutral, name)


def test_dir_shows_the_public_names() -> None:
    """Completion in a shell works before anything was loaded."""
    assert set(sqlmodel_crud_utils.__all__) <= set(dir(sqlmodel_crud_utils))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as on any module."""
    with pytest.raises(AttributeError, match="has no attribute 'get_rwo'"):
        _ = sqlmodel_crud_utils.get_rwo  # type: ignore[attr-defined]


# --- Loading -----------------------------------------------------------------------------------

TREES = [f"{NAME}.{module}" for module in ("aio", "sync", "_async", "_sync")]
DRIVERS = ["aiosqlite", "asyncmy", "asyncpg", "psycopg", "pymysql"]
EXTRAS = ["aiomcache", "alembic", "graphql", "opentelemetry", "pymemcache", "redis"]
OPTIONAL = [*DRIVERS, *EXTRAS, "fastapi", "greenlet", "loguru", "tqdm"]
ASYNC_PARTS = ["sqlalchemy.ext.asyncio", "sqlmodel.ext.asyncio"]


def test_importing_the_package_loads_nothing_else() -> None:
    """`import sqlmodel_crud_utils` loads neither tree, no driver, no optional package."""
    loaded = _run(f"import {NAME}; dir({NAME})")
    assert _among(loaded, [*TREES, *OPTIONAL, *ASYNC_PARTS, "sqlalchemy", "sqlmodel"]) == []


def test_a_sync_name_loads_the_sync_tree_only() -> None:
    """Using a sync function costs a program nothing of the async API."""
    loaded = _run(f"from {NAME} import get_row, RecordNotFoundError")
    assert f"{NAME}._sync.reads" in loaded
    assert _among(loaded, [f"{NAME}._async", f"{NAME}._runtime_async", *ASYNC_PARTS]) == []


def test_an_async_name_loads_the_async_tree_only() -> None:
    """Using an async function costs a program nothing of the sync API."""
    loaded = _run(f"from {NAME} import a_get_row")
    assert f"{NAME}._async.reads" in loaded
    assert _among(loaded, [f"{NAME}._sync", f"{NAME}._runtime_sync"]) == []


def test_an_api_does_not_load_what_few_calls_need() -> None:
    """Packages that take long to import come with the first call that uses them."""
    loaded = _run(f"import {NAME}.aio, {NAME}.sync, sqlite3")
    dialects = [f"sqlalchemy.dialects.{name}" for name in ("mysql", "postgresql", "sqlite")]
    assert _among(loaded, ["loguru", "dateutil", "tqdm", *dialects]) == []


def test_a_cache_loads_the_client_of_its_store_alone() -> None:
    """A cache in memory needs no server's client."""
    loaded = _run(
        f"from {NAME}.ext.cache import InMemoryCache, configure_cache\n"
        "configure_cache(InMemoryCache(), ttl=60)"
    )
    assert _among(loaded, [*EXTRAS, *DRIVERS]) == []


def test_the_sync_api_works_without_any_optional_package() -> None:
    """Without greenlet, loguru and all drivers, the sync API works on SQLite."""
    blocked = [*OPTIONAL, *ASYNC_PARTS]
    _run(
        f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))  # importing them raises ImportError

from sqlmodel import Field, SQLModel
from sqlmodel_crud_utils.sync import (
    create_pooled_engine, get_row, session_factory, transaction, write_row
)

class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str

engine = create_pooled_engine("sqlite://")
SQLModel.metadata.create_all(engine)
with session_factory(engine)() as session:
    with transaction(session):
        write_row(Hero(name="Rusty"), session)
    assert get_row("1", session, Hero)[1].name == "Rusty"
    assert get_row("2", session, Hero) == (False, None)
engine.dispose()
"""
    )


def test_a_sync_service_loads_the_sync_tree_only() -> None:
    """The FastAPI extra costs a program with an `Engine` nothing of the async API."""
    loaded = _run(
        f"""
from {NAME}.ext.fastapi import session_dependency, filter_params, install_error_handlers
from sqlalchemy import create_engine
session_dependency(create_engine("sqlite://"))
"""
    )
    assert f"{NAME}._sync.connections" in loaded
    assert _among(loaded, [f"{NAME}._async", f"{NAME}._runtime_async", *ASYNC_PARTS]) == []


def test_programs_that_use_no_extra_load_none() -> None:
    """A call of both APIs imports no package of an extra."""
    loaded = _run(
        """
import asyncio
from sqlmodel_crud_utils import aio, sync
from sqlmodel import Field, SQLModel, select

engine = sync.create_pooled_engine("sqlite://")
with sync.session_factory(engine)() as session, sync.transaction(session):
    sync.get_result_from_query(select(1), session)
engine.dispose()

async def main():
    engine = aio.create_pooled_engine("sqlite://")
    async with aio.session_factory(engine)() as session, aio.transaction(session):
        await aio.get_result_from_query(select(1), session)
    await engine.dispose()

asyncio.run(main())
"""
    )
    assert _among(loaded, EXTRAS) == []


def test_without_opentelemetry_its_module_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As that of FastAPI does."""
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    monkeypatch.delitem(sys.modules, f"{NAME}.ext.opentelemetry", raising=False)
    extra = r'pip install "sqlmodel-crud-utils\[telemetry\]"'
    with pytest.raises(ModuleNotFoundError, match=extra):
        import_module(f"{NAME}.ext.opentelemetry")


def test_without_fastapi_its_module_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports the extra without having it reads what to install."""
    monkeypatch.setitem(sys.modules, "fastapi", None)  # importing it raises ModuleNotFoundError
    monkeypatch.delitem(sys.modules, f"{NAME}.ext.fastapi")
    with pytest.raises(ModuleNotFoundError, match=r'pip install "sqlmodel-crud-utils\[fastapi\]"'):
        import_module(f"{NAME}.ext.fastapi")


def _run(code: str) -> list[str]:
    """Run a program without coverage, which loads greenlet, and return what it loaded."""
    report = "\nimport sys; print('\\n'.join(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + report],
        env={name: os.environ[name] for name in os.environ if not name.startswith("COV")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def _among(loaded: list[str], unwanted: list[str]) -> list[str]:
    return [
        module
        for module in loaded
        if any(module == each or module.startswith(f"{each}.") for each in unwanted)
    ]


# --- Imports go one way ------------------------------------------------------------------------

# The halls in their order: each uses itself and those before it.
ORDER = [
    *("_lazy", "pagination", "results", "exceptions"),
    *("_core.sqlalchemy_internals", "_core.dialects"),
    *("_core.memoizing", "_core.chunks", "_core.logs", "_core.parameters", "_core.progress"),
    "_core.scopes",
    "_core.models",
    *("_core.listeners", "_core.observers", "_core.returned_rows", "_core.cached_reads"),
    *("_core.errors", "_core.values", "_core.mixins", "_core.visibility"),
    *("_core.filters", "_core.queries", "_core.writes", "_core.connections"),
    *("hooks", "utils", "_session", "mixins", "_shortcuts"),
    *("_aiosqlite", "_loops"),
    *("_runtime_async", "_runtime_sync", "_async._running", "_sync._running", "_async", "_sync"),
    *("aio", "sync", "a_sync", "__init__", "ext"),
]
# What executes, listens or holds a connection belongs to `_session` and above.
IMPURE = {
    "AsyncSession",
    "Connection",
    "Engine",
    "Session",
    "create_engine",
    "event",
    "object_session",
}
ASYNC_ROOMS = {"_aiosqlite", "_loops", "_runtime_async", "_async", "aio", "a_sync"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path) -> None:
    """A module uses its own hall and those before it; the two APIs never meet."""
    hall = _hall(_dotted(module))
    used = {_hall(name) for name in _imports_of_ours(module)}
    assert [each for each in used if ORDER.index(each) > ORDER.index(hall)] == []
    other = "_sync" if "_async" in hall else "_async" if "_sync" in hall else None
    assert [each for each in used if other and other in each] == []


def test_nobody_imports_what_is_optional() -> None:
    """The extras in `ext` use the rest, and nothing of the rest uses them."""
    users = [module for module in MODULES if module.parts[0] != "ext"]
    assert [
        each for each in users if any(name.startswith("ext.") for name in _imports_of_ours(each))
    ] == []


@pytest.mark.parametrize("module", [each for each in MODULES if each.parts[0] == "_core"], ids=str)
def test_the_core_is_pure(module: Path) -> None:
    """Nothing in the core takes a session or an engine, listens to an event, or executes."""
    assert {name.rpartition(".")[2] for name in _imports(module)} & IMPURE == set()


# Sessions, mappers and engines as such; a mixin's models; single engines, and those that are async;
# objects that an optional part creates itself.
LISTENING = {
    *("_session/events.py", "_session/model_events.py", "_session/engine_events.py", "_loops.py"),
    *("ext/alembic/environments.py", "ext/alembic/foreign_keys.py"),
    *("ext/history/models.py", "ext/pytest/undoing.py"),
}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_few_modules_listen(module: Path) -> None:
    """Only `_session.events` listens to all sessions, mappers or engines."""
    calls = [
        node
        for node in _nodes(PACKAGE / module)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"event.listen", "event.listens_for"}
    ]
    assert bool(calls) == (module.as_posix() in LISTENING)
    if module.stem != "events":
        targets = {ast.unparse(call.args[0]) for call in calls}
        assert targets & {"Session", "Engine", "Mapper", "Pool", "session"} == set()


def test_a_class_has_a_name_of_its_own() -> None:
    """No two things are called the same; the two runtimes are twins."""
    named: dict[str, list[str]] = {}
    for module in MODULES:
        if not {"_sync", "_runtime_sync.py"} & set(module.parts):
            tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    named.setdefault(node.name, []).append(str(module))
    assert {name: where for name, where in named.items() if len(where) > 1} == {}


def test_a_module_has_a_name_of_its_own() -> None:
    """Its name alone says which module is meant, except for public ones and the two doors."""
    public = {"__init__", "aio", "sync", "mixins", "hooks"}
    doors = {"sqlalchemy_internals"}  # what the core and the sessions use of SQLAlchemy's own
    sources = [module.stem for module in MODULES if "_sync" not in module.parts]
    names = Counter(name for name in sources if name not in public | doors)
    assert [name for name, count in names.items() if count > 1] == []


def _dotted(module: Path) -> str:
    return ".".join(module.with_suffix("").parts).removesuffix(".__init__")


def _hall(name: str) -> str:
    return max(
        (each for each in ORDER if f"{name}.".startswith(f"{each}.")), key=len, default="_core"
    )


def _imports_of_ours(module: Path) -> set[str]:
    return {
        name.removeprefix(f"{NAME}.") for name in _imports(module) if name.startswith(f"{NAME}.")
    }


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_async_libraries_stay_in_the_async_rooms(module: Path) -> None:
    """Sync code imports nothing async; `asyncio` is only imported in the async runtime."""
    room = module.parts[0].removesuffix(".py")
    banned = [] if room in ASYNC_ROOMS else [*ASYNC_PARTS, "aiosqlite", "asyncmy", "asyncpg"]
    banned += [] if room in {"_loops", "_runtime_async"} else ["asyncio", "greenlet"]
    assert _among(sorted(_imports(module)), banned) == []


def _imports(module: Path) -> Iterator[str]:
    for node in _nodes(PACKAGE / module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # "from package import module" names a module as well as "from package.module import".
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _nodes(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


# --- Tests of behaviour use the front door -----------------------------------------------------

TESTS = Path(__file__).parents[1]
BEHAVIOUR = [
    file
    for folder in ("_async", "async_only", "sync_only")
    for file in TESTS.glob(f"{folder}/*.py")
]
PRIVATE = re.compile(rf"{NAME}(\.\w+)*\._(?!_)")


@pytest.mark.parametrize("file", BEHAVIOUR, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_tests_of_behaviour_name_no_private_module(file: Path) -> None:
    """They import and patch what users can; rules that are private have tests in `tests/unit`."""
    strings = (node.value for node in _nodes(file) if isinstance(node, ast.Constant))
    named = [*_imports(file), *(text for text in strings if isinstance(text, str))]
    assert [name for name in named if PRIVATE.search(name)] == []


@pytest.mark.parametrize(
    ("text", "is_private"),
    [
        (f"{NAME}.aio.get_row", False),
        (f"{NAME}.__init__", False),
        (f"{NAME}._core", True),
        (f"{NAME}.aio._name", True),
        (f"{NAME}._async._running.upserted_batches._MANY", True),
    ],
)
def test_what_is_private(text: str, is_private: bool) -> None:
    """A module or a name that begins with one underscore, wherever it is."""
    assert bool(PRIVATE.search(text)) == is_private
