"""The generator's refusals, with place and reason."""

from __future__ import annotations

import pytest

from tests.unit.codegen.conftest import Project

STAYS = "would stay in the sync file: reword it, or add it to NAMES in scripts/codegen.py"
DATA = "is in a string that is data: take it from _runtime_async, or reword it"
FSTRING = "is in an f-string, where unasync can't rewrite it: give the value a name first"
RUNTIME = "has no sync twin: it belongs in _runtime_async, its tests in tests/async_only"
SPACE = "needs a space after it: unasync drops whatever follows"


@pytest.mark.parametrize("code", ["await(f())", "await\\\n        f()", "(await\n        f())"])
def test_await_without_a_space_is_refused(project: Project, code: str) -> None:
    """Unasync drops what follows `await`, be it a parenthesis or the end of the line."""
    refusals = project.refuse(f"async def it(f):\n    return 1\n\nasync def two(f):\n    {code}\n")
    assert refusals == [f"it.py:5: await {SPACE}"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('f"{await g()}"', "await"),
        ('f"""{1}\n{await g()}"""', "await"),
        ('"a" f"{[x async for x in g()]}"', "async"),
        ('rf"{AsyncIterator}"', "AsyncIterator"),
        ('f"{1:{await g()}}"', "await"),
        ('f"await {1}"', "await"),
        ("f\"{await g('x')}\"", "await"),
    ],
)
def test_async_words_in_an_fstring_are_refused(project: Project, line: str, word: str) -> None:
    """Whether unasync sees into an f-string depends on the version of Python."""
    number = 3 if "\n" in line else 2
    refusals = project.refuse(f"async def it(g):\n    return {line}\n")
    assert refusals == [f"it.py:{number}: {word} {FSTRING}"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('x = "AsyncSession"', "AsyncSession"),
        ('x = "take an AsyncSession"', "AsyncSession"),
        ('x = "await it"', "await"),
        ('x = "sqlite+aiosqlite://"', "sqlite+aiosqlite"),
        ('x = b"asyncpg"', "asyncpg"),
        ('x = "__aenter__"', "__aenter__"),
        ('x = "AsyncIterator"', "AsyncIterator"),
        ('x = "Asynchronous"', "Asynchronous"),
        ('x = ["__all__", "AsyncEngine"]', "AsyncEngine"),
        ('def f(x: "AsyncSession"): ...', "AsyncSession"),
        ('__all__.append("AsyncSession")', "AsyncSession"),
    ],
)
def test_async_names_in_data_are_refused(project: Project, line: str, word: str) -> None:
    """A string that is not documentation can't be rewritten safely."""
    names = {"sqlite+aiosqlite": "sqlite", "AsyncSession": "Session"}
    assert project.refuse(f"__all__ = []\n{line}\n", names) == [f"it.py:2: {word} {DATA}"]


def test_the_line_within_a_long_string_is_named(project: Project) -> None:
    """The refusal points at the word, not at the beginning of the string."""
    refusals = project.refuse('x = """one\ntwo\nawait\n"""\ny = ("a"\n    "async")\n')
    assert refusals == [f"it.py:3: await {DATA}", f"it.py:6: async {DATA}"]


@pytest.mark.parametrize(
    "word", ["asyncio", "Awaitable", "isawaitable", "Coroutine", "iscoroutinefunction"]
)
def test_what_differs_by_nature_is_refused(project: Project, word: str) -> None:
    """Tasks and awaitables belong to the runtime twins."""
    assert project.refuse(f"from somewhere import {word}\n") == [f"it.py:1: {word} {RUNTIME}"]


def test_async_generator_is_refused(project: Project) -> None:
    """`Generator` takes three arguments on Python 3.11, so the result would be wrong."""
    refusals = project.refuse("from collections.abc import AsyncGenerator\n")
    why = "becomes an invalid two-argument Generator: annotate streams as AsyncIterator"
    assert refusals == [f"it.py:1: AsyncGenerator {why}"]


@pytest.mark.parametrize("line", ["import AsyncThing", '__all__ = ["AsyncThing"]'])
def test_an_unmapped_class_is_refused(project: Project, line: str) -> None:
    """Unasync would invent a name for it."""
    why = "would become SyncThing: add it to NAMES in scripts/codegen.py"
    assert project.refuse(f"\n{line}\n") == [f"it.py:2: AsyncThing {why}"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("# Then await the result.\n", "await"),
        ("# The async API differs.\n", "async"),
        ("# Asynchronously\n", "Asynchronously"),
        ("# It may be `async def`.\n", "async"),
        ("# an async\n# function\n", "async"),
        ("# an awaitable\n", "awaitable"),
        ("# an AsyncThing\n", "AsyncThing"),
        ("# an AsyncGenerator\n", "AsyncGenerator"),
        ("# asyncio, that is\n", "asyncio"),
        ("# the aio module\n", "aio"),
        ("# aiosqlite\n", "aiosqlite"),
        ("# call aclose()\n", "aclose"),
        ('"""Never awaits."""\n', "awaits"),
        ('"""Run.\n\n>>> asyncio.run(main())\n"""\n', "asyncio"),
        ('"""Run.\n\n>>> await(f())\n"""\n', "await"),
        ("def run_async(): ...\n", "run_async"),
        ("import aiosqlite\n", "aiosqlite"),
        ("async_url = 1\n", "async_url"),
        ("x = anext(y)\n", "anext"),
        ("x.aclose()\n", "aclose"),
    ],
)
def test_an_async_word_that_is_left_is_refused(project: Project, text: str, word: str) -> None:
    """The author has to reword what the rewriting can't solve."""
    line = text[: text.index(word)].count("\n") + 1
    assert project.refuse(text) == [f"it.py:{line}: {word} {STAYS}"]


def test_the_line_is_that_of_the_async_file(project: Project) -> None:
    """Rewriting, imports and formatting don't shift the numbers."""
    refusals = project.refuse(
        """
        import b
        import a
        # an async function of an
        # AsyncIterator
        async def it():
            x = [ (await f(
                1)).y, 2
            ]   # awaits
        """
    )
    assert refusals == [f"it.py:9: awaits {STAYS}"]


@pytest.mark.parametrize(
    "word", ["radio", "portfolio", "synchronous", "close", "enter", "kayaking"]
)
def test_other_words_are_no_async_words(project: Project, word: str) -> None:
    """The search is for words, not for letters."""
    project.write(f"{project.source}/it.py", f"# {word}\n{word} = '{word}'\n")
    assert project.run() == 0, project.printed


def test_a_file_name_is_refused(project: Project) -> None:
    """The twin keeps the name of its file, so the name must be true for both."""
    project.write(f"{project.source}/async_things/one.py", "")
    assert project.run() == 1
    why = "is in the file's name: choose one true for both"
    assert f"{project.source}/async_things/one.py: async_things {why}\n" in project.printed


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\ndef f(:\n", 2),
        ("x = (\n", 1),
        ("if x:\npass\n", 2),
        ("x = 1\nawait y\n", 2),
        ("def f():\n    [x async for x in y]\n    async with z: ...\n", 2),
    ],
)
def test_a_syntax_error_is_a_refusal(project: Project, text: str, line: int) -> None:
    """Code that Python would not accept is reported with its line."""
    (refusal,) = project.refuse(text)
    assert refusal.startswith(f"it.py:{line}: is not valid Python: ")


def test_null_bytes_are_a_refusal(project: Project) -> None:
    """A broken file is reported too."""
    (refusal,) = project.refuse(b"x = 1\0\n")
    assert "is not valid Python: source code" in refusal


def test_another_encoding_is_a_refusal(project: Project) -> None:
    """Sources are UTF-8."""
    refusals = project.refuse("x = 'é'\n".encode("latin-1"))
    assert refusals == ["it.py: is not UTF-8: invalid continuation byte at byte 5"]


def test_two_names_that_become_one_are_refused(project: Project) -> None:
    """The result is checked as well, so nothing is written that can't be imported."""
    text = "x = 1\ndef f(async_url, sync_url): ...\n"
    (refusal,) = project.refuse(text, {"async_url": "sync_url"})
    assert refusal.startswith(
        "it.py:2: the sync file would not be valid Python: duplicate argument"
    )


def test_other_files_are_refused(project: Project) -> None:
    """A file that can't be translated would be missing in the sync tree."""
    project.write("tests/_async/data.json", "{}")
    assert project.run() == 1
    assert "tests/_async/data.json: is not valid Python: move files of another" in project.printed


def test_a_missing_tree_is_refused(project: Project) -> None:
    """A generator that finds nothing must not remove everything."""
    project.write("tests/_sync/kept.py", "")
    (project.root / "tests/_async").rmdir()
    assert project.run() == 1
    assert "tests/_async: is not a folder, so there is nothing to do\n" in project.printed
    assert (project.root / "tests/_sync/kept.py").exists()


def test_an_unused_entry_is_refused(project: Project) -> None:
    """The table holds what is needed; the refusal names the entry."""
    names = {"AsyncSession": "Session", "AsyncEngine": "Engine", "sqlite+aiosqlite": "sqlite"}
    refusals = project.refuse("# an AsyncSession\n", names)
    why = "in NAMES is never used: remove the entry"
    assert refusals == [
        f"scripts/codegen.py: AsyncEngine {why}",
        f"scripts/codegen.py: sqlite+aiosqlite {why}",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AsyncSession", "def f(x: AsyncSession): ...\n"),
        ("AsyncSession", '__all__ = ["AsyncSession"]\n'),
        ("AsyncSession", "# AsyncSession\n"),
        ("sqlite+aiosqlite", '"""`sqlite+aiosqlite://`"""\n'),
    ],
)
def test_one_use_is_enough(project: Project, name: str, text: str) -> None:
    """Code, `__all__` and prose each count."""
    project.write("tests/_async/it.py", text)
    assert project.run(names={name: "other"}) == 0, project.printed


def test_all_refusals_come_together(project: Project) -> None:
    """One run reports everything, sorted, each thing once; nothing is written."""
    project.write("tests/_async/b.py", "x = (\n")
    project.write("tests/_async/a.py", "# await\nimport asyncio  # asyncio\n")
    refusals = project.refuse("x = 'await'\nAsyncThing()\nx = f'{asyncio}'\n", {"unused": "x"})
    assert refusals == [
        f"it.py:1: await {DATA}",
        "it.py:2: AsyncThing would become SyncThing: add it to NAMES in scripts/codegen.py",
        f"it.py:3: asyncio {FSTRING}",
        f"tests/_async/a.py:1: await {STAYS}",
        f"tests/_async/a.py:2: asyncio {RUNTIME}",
        "tests/_async/b.py:1: is not valid Python: '(' was never closed",
    ]


def test_a_refusal_shows_in_check_as_well(project: Project) -> None:
    """`--check` fails when the trees could not be generated."""
    project.write("tests/_async/a.py", "import asyncio\n")
    assert project.run("--check") == 1
    assert project.printed.startswith("tests/_async/a.py:1: asyncio ")


def test_a_failing_ruff_is_reported(project: Project) -> None:
    """Wrong settings are reported with ruff's own message."""
    project.write("pyproject.toml", "[tool.ruff]\nline-length = 'short'\n")
    assert project.run() == 1
    assert project.printed.startswith("ruff: check failed:\n")
    assert "line-length" in project.printed
