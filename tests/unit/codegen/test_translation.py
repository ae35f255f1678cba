"""The generator's translation of code and prose."""

from __future__ import annotations

import pytest

from tests.unit.codegen.conftest import Project


def check(project: Project, text: str, expected: str, names: dict[str, str] | None = None) -> None:
    """Compare a translation with what it should be."""
    assert project.translate(text, names) == expected


def test_async_and_await_leave_the_code(project: Project) -> None:
    """Functions, context managers, loops and comprehensions become the plain ones."""
    translated = project.translate(
        """
        async def read(rows, connect):
            async with connect() as one, connect() as two:
                async for row in rows(one, two):
                    print(await row.value, [await each async for each in row])
            return {key: value async for key, value in rows() if await value}
        """
    )
    assert translated == (
        "def read(rows, connect):\n"
        "    with connect() as one, connect() as two:\n"
        "        for row in rows(one, two):\n"
        "            print(row.value, [each for each in row])\n"
        "    return {key: value for key, value in rows() if value}\n"
    )


def test_protocols_have_their_plain_names(project: Project) -> None:
    """Names that unasync itself knows need no entry: decorators, dunder methods, iterators."""
    translated = project.translate(
        """
        from collections.abc import AsyncIterator
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def opened() -> AsyncIterator[int]:
            yield 1

        class Rows:
            async def __aenter__(self): ...
            async def __aexit__(self, *error): ...
            async def __anext__(self):
                raise StopAsyncIteration
        """
    )
    assert "@contextmanager\ndef opened() -> Iterator[int]:" in translated
    assert "import Iterator\nfrom contextlib import contextmanager" in translated
    assert "def __enter__(self): ...\n" in translated
    assert "def __exit__(self, *error): ...\n" in translated
    assert "def __next__(self):\n        raise StopIteration\n" in translated


def test_names_of_the_table_are_mapped(project: Project) -> None:
    """The table applies to names in code, in imports, attributes and annotations."""
    translated = project.translate(
        """
        from sqlmodel_crud_utils._runtime_async import AsyncEngine, AsyncSession

        def connect(engine: AsyncEngine) -> AsyncSession:
            return AsyncSession(engine)
        """
    )
    assert "from sqlmodel_crud_utils._runtime_sync import Engine, Session\n" in translated
    assert "def connect(engine: Engine) -> Session:\n    return Session(engine)\n" in translated


def test_exports_are_mapped_and_sorted(project: Project) -> None:
    """Strings in `__all__` follow the table, and the list is sorted again."""
    names = {"AsyncQueryBuilder": "QueryBuilder", "AsyncEngine": "Engine"}
    translated = project.translate(
        """
        __all__ = ["AsyncQueryBuilder", "Page"]
        __all__ += ("AsyncEngine",)
        class AsyncQueryBuilder: ...
        class Page: ...
        """,
        names,
    )
    assert translated.startswith('__all__ = ["Page", "QueryBuilder"]\n__all__ += ("Engine",)\n')
    assert "class QueryBuilder: ...\n" in translated


def test_an_export_alone_uses_an_entry(project: Project) -> None:
    """A name that only `__all__` holds counts as used."""
    check(project, '__all__: list[str] = ["AsyncSession"]\n', '__all__: list[str] = ["Session"]\n')


def test_imports_are_sorted_after_the_mapping(project: Project) -> None:
    """The sync imports are in order and without duplicates, the library apart from the others."""
    check(
        project,
        """
        from sqlmodel import AsyncSession, Field
        from sqlmodel import Session
        from sqlmodel_crud_utils._async.reads import get_row
        """,
        "from sqlmodel import Field, Session\n\n"
        "from sqlmodel_crud_utils._sync.reads import get_row\n",
        {"AsyncSession": "Session", "_async": "_sync"},
    )


def test_code_is_formatted(project: Project) -> None:
    """Lines that fit without the await are joined."""
    check(
        project,
        """
        async def read(session, statement):
            return await session.execute(
                statement, execution_options={"yield_per": 1000, "stream_results": True, "a": 1}
            )
        """,
        "def read(session, statement):\n"
        "    return session.execute(\n"
        '        statement, execution_options={"yield_per": 1000, "stream_results": True, "a": 1}\n'
        "    )\n",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("(await f()).first", "f().first"),
        ("(await f())[0]", "f()[0]"),
        ("(await f(\n    x\n)).first", "f(x).first"),
        ("(await (await f()).g()).h", "f().g().h"),
        ("(await f(é='ü')).ü", "f(é='ü').ü"),
        ("(await (x or y)).z", "(x or y).z"),
        ("(await f\n    .g()).h", "(f.g()).h"),
        ("-(await f())", "-(f())"),
    ],
)
def test_parentheses_that_only_the_await_needed_go(
    project: Project, before: str, after: str
) -> None:
    """`(await rows()).first` becomes `rows().first`; other parentheses stay."""
    translated = project.translate(f"async def it(f, x, y):\n    return {before}\n")
    assert translated == f"def it(f, x, y):\n    return {after}\n".replace("'", '"')


def test_examples_lose_their_keywords(project: Project) -> None:
    """In doctest lines, `await` and `async` go and names are mapped."""
    check(
        project,
        '''
        def read():
            """Return rows.

            >>> async with AsyncSession(engine) as session:
            ...     async for row in rows(await session.get(Hero, 1)):
            ...         await row.delete()
            >>> found = [await each async for each in await rows()]
            >>> async def work(): ...
            """
        ''',
        '''def read():
    """Return rows.

    >>> with Session(engine) as session:
    ...     for row in rows(session.get(Hero, 1)):
    ...         row.delete()
    >>> found = [each for each in rows()]
    >>> def work(): ...
    """
''',
    )


def test_literals_lose_their_keywords(project: Project) -> None:
    """Code between backticks in a text is an example too."""
    check(
        project,
        '"""Use `await f()`, ``await g(await h())``, `async with x:` or `async for y in z:`."""\n',
        '"""Use `f()`, ``g(h())``, `with x:` or `for y in z:`."""\n',
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("an AsyncSession", "a Session"),
        ("An AsyncSession", "A Session"),
        ("an AsyncEngine", "an Engine"),
        ("an `AsyncSession`", "a `Session`"),
        ("an ``AsyncSession``", "a ``Session``"),
        ("an :class:`~AsyncSession`", "a :class:`~Session`"),
        ("an\n    AsyncSession", "a\n    Session"),
        ("is not an AsyncIterator", "is not an Iterator"),
        ("an AsyncSession's rows", "a Session's rows"),
        ("Option A\n\n    AsyncEngine", "Option A\n\n    Engine"),
        ("an async function", "a function"),
        ("An async iterator", "An iterator"),
        ("an async user", "a user"),
        ("an async AsyncSession", "a Session"),
        ("an\n    asynchronous call", "a\n    call"),
        ("an async `AsyncEngine`", "an `Engine`"),
        ("an apple and an AsyncSession", "an apple and a Session"),
        ("_runtime_async.py", "_runtime_sync.py"),
    ],
)
def test_prose_is_mapped_with_its_article(project: Project, before: str, after: str) -> None:
    """Whole words are mapped in docstrings, and the article before them fits again."""
    check(
        project,
        f'def it():\n    """Take {before}, and go."""\n',
        f'def it():\n    """Take {after}, and go."""\n',
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# Take an AsyncSession.\n", "# Take a Session.\n"),
        ("x = 1  # an AsyncSession\n", "x = 1  # a Session\n"),
        ("# Take an\n# AsyncSession.\n", "# Take a\n# Session.\n"),
        ("# Not A\n\n# AsyncEngine\n", "# Not A\n\n# Engine\n"),
        ("# >>> await f()\n", "# >>> f()\n"),
        ("# `await f()` reads\n", "# `f()` reads\n"),
    ],
)
def test_comments_are_prose(project: Project, before: str, after: str) -> None:
    """Comments are rewritten like docstrings, an article at the end of a line included."""
    check(project, before, after)


def test_only_whole_names_are_prose(project: Project) -> None:
    """A longer word that begins with a name of the table is another word."""
    names = {"aprepare": "prepare"}
    check(project, "# aprepared, aprepare\n", "# aprepared, prepare\n", names)


def test_an_example_imports_from_the_sync_module(project: Project) -> None:
    """An entry with dots applies to prose, before the entries for its parts."""
    names = {"sqlmodel.ext.asyncio.session": "sqlmodel", "AsyncSession": "Session"}
    check(
        project,
        "# >>> from sqlmodel.ext.asyncio.session import AsyncSession\n",
        "# >>> from sqlmodel import Session\n",
        names,
    )


def test_urls_in_examples_name_the_sync_driver(project: Project) -> None:
    """An entry that is not a name applies to prose."""
    names = {
        "sqlite+aiosqlite": "sqlite",
        "postgresql+asyncpg": "postgresql+psycopg",
        "mysql+asyncmy": "mysql+pymysql",
    }
    check(
        project,
        """
        # create_pooled_engine("sqlite+aiosqlite:///heroes.db")
        # postgresql+asyncpg://host/db, or mysql+asyncmy://host/db
        """,
        '# create_pooled_engine("sqlite:///heroes.db")\n'
        "# postgresql+psycopg://host/db, or mysql+pymysql://host/db\n",
        names,
    )


def test_the_module_of_the_other_api_is_named(project: Project) -> None:
    """`sqlmodel_crud_utils.aio` becomes `sqlmodel_crud_utils.sync`, in code and in examples."""
    check(
        project,
        '''
        """Read.

        >>> from sqlmodel_crud_utils.aio import get_row
        """

        from sqlmodel_crud_utils.aio import get_row
        ''',
        '"""Read.\n\n>>> from sqlmodel_crud_utils.sync import get_row\n"""\n\n'
        "from sqlmodel_crud_utils.sync import get_row\n",
        {"aio": "sync"},
    )


def test_the_docstring_of_an_attribute_is_prose(project: Project) -> None:
    """A string that is a statement documents the attribute above it."""
    check(
        project,
        'limit = 1\n"""Of an AsyncSession."""\n',
        'limit = 1\n"""Of a Session."""\n',
    )


def test_other_strings_are_left_alone(project: Project) -> None:
    """Data is not rewritten."""
    text = 'name = "an a session"\nbraces = f"{name} {{}} {name!r:>{10}}"\n'
    check(project, text, text)


def test_other_letters_survive(project: Project) -> None:
    """Positions are right after letters that take several bytes, or none of ASCII's."""
    check(
        project,
        '''
        größe = "日本"; """Größe of an AsyncSession: 日本."""  # ¿an AsyncSession?
        async def ñ(): return {"é": (await größe()).é}  # 🦸 an AsyncEngine
        ''',
        'größe = "日本"\n"""Größe of a Session: 日本."""  # ¿a Session?\n\n\n'
        'def ñ():\n    return {"é": größe().é}  # 🦸 an Engine\n',
    )


def test_windows_line_ends_become_lf(project: Project) -> None:
    """A source with CRLF, or with a byte order mark, results in the same file."""
    plain = 'async def it():\n    """Take an\n    AsyncSession."""\n    return """a\nb"""\n'
    expected = project.translate(plain)
    project.write(f"{project.source}/crlf.py", "\ufeff" + plain.replace("\n", "\r\n"))
    assert project.run(names={"AsyncSession": "Session"}) == 0
    written = (project.root / project.target / "crlf.py").read_bytes()
    assert b"\r" not in written
    assert written.decode().endswith(expected)


def test_an_empty_file_stays_empty(project: Project) -> None:
    """A file without code has a twin with nothing but the header."""
    check(project, "", "")
