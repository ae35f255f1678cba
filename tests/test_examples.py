"""Every example in a docstring and in a Markdown file does what it shows."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlmodel
from sqlalchemy.orm import registry

import sqlmodel_crud_utils
from sqlmodel_crud_utils.ext.history import ChangeHistory
from tests import _runtime_async, _runtime_sync
from tests.databases import create_empty, prepare
from tests.examples import Docstring, docstrings, programs, promised_output, run_docstring
from tests.history_models import Pallet
from tests.models import Hero, HeroTag, Tag, Team
from tests.models_mixins import Letter

ROOT = Path(__file__).parent.parent
GUIDES = sorted(
    str(file.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md")
    for file in ROOT.glob(pattern)
    if "```python\n" in file.read_text(encoding="utf-8")
)
# The URL in the guides, which the tests replace by that of their database.
POSTGRESQL = "postgresql://app:secret@localhost/heroes"
# Names that the examples in docstrings use without an import.
MODELS = (Team, Hero, Tag, HeroTag, Letter, Pallet)
DOCSTRINGS = list(docstrings(Path(sqlmodel_crud_utils.__file__).parent))


@pytest.fixture
async def async_names() -> AsyncIterator[dict[str, Any]]:
    """Names that examples of the async tree may use without an import."""
    engine = _runtime_async.make_engine("sqlite+aiosqlite://")
    prepare(engine)
    await _runtime_async.make_tables(engine, *MODELS, ChangeHistory)
    async with _runtime_async.AsyncSession(engine) as session:
        yield _names("aio") | {"engine": engine, "session": session}
    await engine.dispose()


@pytest.fixture
def sync_names() -> Any:
    """Names that the other examples may use without an import."""
    engine = _runtime_sync.make_engine("sqlite://")
    prepare(engine)
    _runtime_sync.make_tables(engine, *MODELS, ChangeHistory)
    with _runtime_sync.Session(engine) as session:
        yield _names("sync") | {"engine": engine, "session": session}
    engine.dispose()


def _names(surface: str) -> dict[str, Any]:
    class Base(sqlmodel.SQLModel, registry=registry()):
        """Keeps tables that examples declare out of the metadata of the other tests."""

    public = importlib.import_module(f"sqlmodel_crud_utils.{surface}")
    return {
        **{name: getattr(public, name) for name in public.__all__},
        "__name__": "__main__",
        "Field": sqlmodel.Field,
        **{model.__name__: model for model in MODELS},
        "SQLModel": Base,
        "select": sqlmodel.select,
    }


@pytest.mark.parametrize("docstring", [d for d in DOCSTRINGS if "._async" in d.module], ids=str)
async def test_async_docstring(docstring: Docstring, async_names: dict[str, Any]) -> None:
    """The examples of the async API print the output that they show."""
    await _run(docstring, async_names)


@pytest.mark.parametrize("docstring", [d for d in DOCSTRINGS if "._async" not in d.module], ids=str)
async def test_sync_docstring(docstring: Docstring, sync_names: dict[str, Any]) -> None:
    """The examples of the sync API and of the neutral modules print the output that they show."""
    await _run(docstring, sync_names)


async def _run(docstring: Docstring, names: dict[str, Any]) -> None:
    module = importlib.import_module(docstring.module)
    await run_docstring(docstring, {**vars(module), **names})


def test_guides(tmp_path: Path) -> None:
    """The code of each Markdown file runs and prints what it promises."""
    _check_printed({name: programs(ROOT / name) for name in GUIDES}, tmp_path)


def test_async_tabs(tmp_path: Path) -> None:
    """The async tabs of the site run as well, and print the same."""
    tabs = pytest.importorskip("scripts.docs_tabs")
    guides = {name: (ROOT / name).read_text(encoding="utf-8") for name in GUIDES}
    codes = {name: {"program.py": tabs.async_program(text)} for name, text in guides.items()}
    _check_printed(codes, tmp_path)


def _check_printed(guides: dict[str, dict[str, str]], folder: Path) -> None:
    promised = {}
    with ExitStack() as databases:
        for name, files in guides.items():
            guide = name.replace("/", "_").removesuffix(".md")
            url = databases.enter_context(_postgresql(files))
            _write(files, folder / guide, url)
            if "program.py" in files:
                promised[guide] = promised_output(files["program.py"])
        _output_of(folder, "-P", "-W", "error", str(ROOT / "tests" / "run_guides.py"))
    assert json.loads((folder / "printed.json").read_text()) == promised


@pytest.mark.parametrize(
    "name", [name for name in GUIDES if "```python\n# test_" in (ROOT / name).read_text()]
)
def test_tests_of_a_guide(name: str, tmp_path: Path) -> None:
    """The tests in a Markdown file pass."""
    files = programs(ROOT / name)
    with _postgresql(files) as url:
        _write(files, tmp_path, url)
        # Without this setting, pytest-asyncio warns.
        plugin = "sqlmodel_crud_utils.ext.pytest" if "pyproject.toml" in files else "no:asyncio"
        plugins = ("-p", "no:cacheprovider", "-p", plugin)
        _output_of(tmp_path, "-m", "pytest", "-W", "error", *plugins)


def _write(files: dict[str, str], folder: Path, url: str) -> None:
    folder.mkdir(exist_ok=True)
    for file, code in files.items():
        (folder / file).write_text(code.replace(POSTGRESQL, url), encoding="utf-8")


@contextmanager
def _postgresql(files: dict[str, str]) -> Iterator[str]:
    """The URL of an empty database, for examples that need one."""
    if not any(POSTGRESQL in code for code in files.values()):
        yield POSTGRESQL
        return
    with create_empty("postgresql", f"guide_{uuid4().hex}") as url:
        yield url.set(drivername="postgresql").render_as_string(hide_password=False)


def test_first_example_is_short() -> None:
    """README's first example fits on the first screen."""
    _, example, *_ = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")
    lines = [line for line in example.partition("```")[0].splitlines() if line]
    assert len(lines) < 20


def test_second_example_is_a_service(tmp_path: Path) -> None:
    """README's second example has three models in 40 lines, and responds as shown."""
    code = programs(ROOT / "README.md")["bookshop.py"]
    lines = [line for line in code.splitlines()[1:] if line and not line.startswith("#")]
    assert len(lines) <= 40
    (tmp_path / "bookshop.py").write_text(code)
    (tmp_path / "asked.py").write_text(_ASKING_THE_BOOKSHOP)
    assert _output_of(tmp_path / "asked.py") == ["201 201 201 409 422", "1 Emma Jane", "204 404"]


_ASKING_THE_BOOKSHOP = """
from bookshop import app, engine
from fastapi.testclient import TestClient

with TestClient(app) as client:
    answers = [
        client.post("/authors", json={"name": "Jane"}),
        client.post("/books", json={"title": "Emma", "author_id": 1}),
        client.post("/reviews", json={"stars": 5, "book_id": 1}),
        client.post("/authors", json={"name": "Jane"}),
        client.post("/reviews", json={"stars": 6, "book_id": 1}),
    ]
    print(*(answer.status_code for answer in answers))
    page = client.get("/books?author__name=Jane").json()
    print(page["total"], page["items"][0]["title"], page["items"][0]["author"]["name"])
    gone = client.delete("/books/1", headers={"if-match": answers[1].headers["etag"]})
    print(gone.status_code, client.get("/books/1").status_code)
engine.dispose()
"""


def test_hooks_program() -> None:
    """examples/hooks.py runs; rolled-back changes are in neither the outbox nor the index."""
    shown = "\n".join(_output_of(ROOT / "examples" / "hooks.py"))
    outbox = "outbox  Article 1 created, Article 1 updated"
    assert shown.count(f"{outbox}\n  index   {{1: 'Lifecycle hooks'}}\n") == 2
    assert shown.endswith(f"{outbox}, Article 1 deleted\n  index   {{}}")


def _output_of(place: Path, *arguments: str) -> list[str]:
    """Run a program in its folder, or a module in this one; return the printed lines."""
    folder = place if arguments else place.parent
    ran = subprocess.run(
        [sys.executable, *(arguments or ("-W", "error", place.name))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()
