"""The guides' examples in two tabs: sync as written, and translated to `aio`.

The translation only changes imports and adds `await`, `async with`, `async for` and `async def`.
`tests/test_examples.py` runs the result like the original.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from textwrap import indent
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils import aio

# A guide with this comment shows its examples unchanged.
AS_WRITTEN = "<!-- no tabs -->"
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
# A block that is a separate file, or already async.
_AS_IT_IS = re.compile(r"\A# [\w/]+\.py$|^import asyncio$|\bawait ", re.MULTILINE)
_TOP_LEVEL = (
    "`await` at the top level works in `python -m asyncio`; in a program it stands in an "
    "`async def`."
)
_WIDTH = 100
_UNSEARCHED = '{ .python data-search-exclude="" }'
# The kind of object that a call on an object of some kind returns; "" is a call of the object
# itself.
_KINDS = {
    ("engine", "connect"): "connection",
    ("engine", "begin"): "connection",
    ("factory", ""): "session",
    ("factory", "begin"): "session",
    ("session", "connection"): "connection",
}
_MADE_BY = {
    "create_pooled_engine": "engine",
    "session_factory": "factory",
    "QueryBuilder": "builder",
    "Repository": "repository",
    "Session": "session",
    "transaction": "block",
}
_CLASSES = {
    "builder": aio.AsyncQueryBuilder,
    "repository": aio.AsyncRepository,
    "session": AsyncSession,
    "connection": AsyncConnection,
    "engine": AsyncEngine,
}
_CONTEXTS = {"session", "connection", "block"}


def in_tabs(markdown: str) -> str:
    """Return a guide with those examples in two tabs that differ."""
    if AS_WRITTEN in markdown:
        return markdown
    translation = Translation()
    notes = iter([f"\n\n{_TOP_LEVEL}"])

    def tabs(match: re.Match[str]) -> str:
        code = match[1]
        other = translation.of(code)
        if other is None or other == code:
            return match[0]
        note = next(notes, "")
        # Let the search find each example only once.
        tabs = {"Sync": f"```python\n{code}```", "Async": f"```{_UNSEARCHED}\n{other}```{note}"}
        return "\n".join(f'=== "{name}"\n\n{indent(each, "    ")}\n' for name, each in tabs.items())

    return BLOCK.sub(tabs, markdown)


def async_program(markdown: str) -> str:
    """Return a guide's examples as one program with top-level `await`."""
    if AS_WRITTEN in markdown:
        return ""
    translation = Translation()
    blocks = (translation.of(match[1]) for match in BLOCK.finditer(markdown))
    return "\n".join(block for block in blocks if block is not None)


class Translation:
    """Translates sync blocks to async, one after the other; each uses definitions of earlier ones.

    Attributes:
        kinds: The kind of object that each name holds: an engine, a session, a builder.
        coroutines: The functions that must be awaited.
        made_by: The kind of object that a call of a class or function returns.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.coroutines: set[str] = set()
        self.made_by = dict(_MADE_BY)

    def of(self, code: str) -> str | None:
        """Return a block for `aio`, or None for a block that is already async, or a file."""
        if _AS_IT_IS.search(code):
            return None
        edits = _Edits(code)
        for statement in ast.parse(code).body:
            self._learn(statement)
            _Block(self, edits).visit(statement)
        return _formatted(edits.applied()) if edits.found else code

    def kind_of(self, node: ast.AST) -> str:
        """Return the kind of object of an expression, or "" if it does not matter."""
        if isinstance(node, ast.Name):
            return self.kinds.get(node.id, "")
        if not isinstance(node, ast.Call):
            return ""
        if isinstance(node.func, ast.Name) and node.func.id in self.made_by:
            return self.made_by[node.func.id]
        if isinstance(node.func, ast.Attribute):
            owner, method = self.kind_of(node.func.value), node.func.attr
            if owner in {"builder", "repository"}:
                return "stream" if method in {"stream", "stream_values"} else "builder"
        else:
            owner, method = self.kind_of(node.func), ""
        return _KINDS.get((owner, method), "")

    def is_awaited(self, call: ast.Call) -> bool:
        """Return whether a call must be awaited in async code."""
        if isinstance(call.func, ast.Name):
            return call.func.id in self.coroutines
        if not isinstance(call.func, ast.Attribute):
            return False
        if any(self.kind_of(each) == "builder" for each in call.args):  # as of `FilterParams`
            return _is_coroutine(aio.AsyncQueryBuilder, call.func.attr)
        kind = self.kind_of(call.func.value)
        if kind == "repository" and call.func.attr in self.coroutines:
            return True
        owner = _CLASSES.get(kind)
        # `engine.dispose(close=False)` is for a forked process, which has no event loop.
        return _is_coroutine(owner, call.func.attr) and not _names(call, "close")

    def _learn(self, statement: ast.stmt) -> None:
        """Note which kinds of objects names hold, and which functions must be async."""
        for node in ast.walk(statement):
            match node:
                case ast.ImportFrom(module=str(module)) if module.startswith("sqlmodel_crud_utils"):
                    names = [each.name for each in node.names]
                    home = _home(module)
                    self.coroutines |= {name for name in names if _is_coroutine(home, name)}
                case ast.Assign(targets=[ast.Name(id=name)]):
                    self.kinds[name] = self.kind_of(node.value)
                case ast.withitem(optional_vars=ast.Name(id=name)):
                    self.kinds[name] = self.kind_of(node.context_expr)
                case ast.ClassDef(bases=[ast.Subscript(value=ast.Name(id="Repository"))]):
                    self.made_by[node.name] = self.kinds["self"] = "repository"
                case ast.arg(annotation=ast.Name(id="Session")):
                    self.kinds[node.arg] = "session"
                case _:
                    pass
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef) and self.is_async(node):
                self.coroutines.add(node.name)

    def is_async(self, node: ast.AST) -> bool:
        """Return whether a piece of code must await something."""
        return any(
            (isinstance(each, ast.Call) and self.is_awaited(each))
            or (isinstance(each, ast.With) and self.is_async_with(each))
            for each in ast.walk(node)
        )

    def is_async_with(self, node: ast.With) -> bool:
        """Return whether a `with` block enters an async context manager."""
        return any(self.kind_of(item.context_expr) in _CONTEXTS for item in node.items)


def _names(call: ast.Call, keyword: str) -> bool:
    return any(each.arg == keyword for each in call.keywords)


def _is_coroutine(owner: Any, name: str) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(getattr(owner, name, None) or print))


class _Edits:
    """Edits of a text, by place."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._starts = [0]
        for line in code.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self.found: list[tuple[int, int, str]] = []

    def insert(self, node: ast.stmt | ast.expr, text: str, *, at_end: bool = False) -> None:
        place = self.place(node, at_end=at_end)
        self.found.append((place, place, text))

    def replace(self, node: ast.stmt | ast.expr, text: str) -> None:
        self.found.append((self.place(node), self.place(node, at_end=True), text))

    def indent(self, line: int) -> None:
        start = self._starts[line - 1]
        self.found.append((start, start, "    "))

    def place(self, node: ast.stmt | ast.expr, *, at_end: bool = False) -> int:
        line, column = (
            (node.end_lineno, node.end_col_offset) if at_end else (node.lineno, node.col_offset)
        )
        assert line is not None
        assert column is not None
        start = self._starts[line - 1]
        # The columns of the syntax tree count bytes.
        return start + len(self._code[start:].encode()[:column].decode())

    def applied(self) -> str:
        code = self._code
        # From the end; at the same place, the outer edit, which was found first, ends up first.
        for start, end, text in reversed(sorted(self.found, key=lambda each: each[:2])):  # noqa: C413
            code = code[:start] + text + code[end:]
        return code


class _Block(ast.NodeVisitor):
    """Collects the edits of one statement."""

    def __init__(self, translation: Translation, edits: _Edits) -> None:
        self._translation = translation
        self._edits = edits
        self._within: list[ast.AST] = []

    def visit(self, node: ast.AST) -> None:
        super().visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        self._within.append(node)
        super().generic_visit(node)
        self._within.pop()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        lines = list(_imports(node))
        if lines:
            self._edits.replace(node, "\n".join(lines))

    def visit_Expr(self, node: ast.Expr) -> None:
        match node.value:
            case ast.Call(func=ast.Attribute(attr="create_all"), args=[ast.Name(id=engine)]):
                self._edits.replace(
                    node,
                    f"async with {engine}.begin() as connection:\n"
                    "    await connection.run_sync(SQLModel.metadata.create_all)\n",
                )
            case _:
                self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if self._translation.is_awaited(node):
            # A following attribute or call binds more tightly than `await`.
            further = isinstance(self._within[-1], ast.Attribute | ast.Subscript)
            self._edits.insert(node, "(await " if further else "await ")
            if further:
                self._edits.insert(node, ")", at_end=True)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == "Session":
            self._edits.replace(node, "AsyncSession")

    def visit_With(self, node: ast.With) -> None:
        if self._translation.is_async_with(node):
            self._edits.insert(node, "async ")
            self._nest_what_stays_sync(node)
        self.generic_visit(node)

    def _nest_what_stays_sync(self, node: ast.With) -> None:
        """Move the context managers that stay sync, which come last, to a separate `with`."""
        kinds = [self._translation.kind_of(item.context_expr) for item in node.items]
        first = next((n for n, kind in enumerate(kinds) if kind not in _CONTEXTS), None)
        if first is not None:
            before = node.items[first - 1].optional_vars or node.items[first - 1].context_expr
            start = self._edits.place(before, at_end=True)
            end = self._edits.place(node.items[first].context_expr)
            inner = " " * (node.col_offset + 4)
            self._edits.found.append((start, end, f":\n{inner}with "))
            for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1):
                self._edits.indent(line)

    def visit_For(self, node: ast.For) -> None:
        if self._translation.kind_of(node.iter) == "stream":
            self._edits.insert(node, "async ")
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in self._translation.coroutines:
            self._edits.insert(node, "async ")
        self.generic_visit(node)


def _home(module: str) -> Any:
    """Return the module with the async twins of a module's functions."""
    if not module.endswith(".sync"):
        return aio
    return importlib.import_module(f"{module.removesuffix('.sync')}.aio")


def _imports(node: ast.ImportFrom) -> Iterator[str]:
    """Yield the replacements of an import; nothing if it is the same for both APIs."""
    names = [each.name for each in node.names]
    if node.module == "sqlmodel" and "Session" in names:
        rest = ", ".join(name for name in names if name != "Session")
        if rest:
            yield f"from sqlmodel import {rest}"
        yield "from sqlmodel.ext.asyncio.session import AsyncSession"
    elif node.module and node.module.endswith(".sync"):
        yield f"from {node.module.removesuffix('.sync')}.aio import {', '.join(names)}"
    elif node.module == "sqlmodel_crud_utils":
        own = [name for name in names if name in aio.__all__]
        shared = [name for name in names if name not in own]
        if own:
            if shared:
                yield f"from sqlmodel_crud_utils import {', '.join(shared)}"
            yield f"from sqlmodel_crud_utils.aio import {', '.join(own)}"


def _formatted(code: str) -> str:
    if all(len(line) <= _WIDTH for line in code.splitlines()):
        return code
    ruff = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", "guide.py", "-"]
    return subprocess.run(ruff, input=code, capture_output=True, text=True, check=True).stdout
