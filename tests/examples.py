"""Find and run examples: in docstrings (doctest style, top-level `await` allowed) and Markdown."""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Docstring:
    """The examples of one docstring.

    Attributes:
        module: The dotted name of its module.
        name: The name of the object that it describes.
        file: Its file.
        examples: Its examples, in order; line numbers are those of the file.
    """

    module: str
    name: str
    file: Path
    examples: list[doctest.Example]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def docstrings(package: Path) -> Iterator[Docstring]:
    """Yield the docstrings of a package that have examples.

    They are read from the source, because decorators may hide docstrings.
    """
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, _DOCUMENTED) or not ast.get_docstring(node):
                continue
            literal = node.body[0]
            assert isinstance(literal, ast.Expr)
            text = ast.get_docstring(node, clean=False) or ""
            examples = doctest.DocTestParser().get_examples(text, module)
            for example in examples:
                example.lineno += literal.lineno
            if examples:
                yield Docstring(module, getattr(node, "name", "__doc__"), file, examples)


async def run_docstring(docstring: Docstring, names: dict[str, Any]) -> None:
    """Run the examples in order, and compare their output with the expected one."""
    checker = doctest.OutputChecker()
    for example in docstring.examples:
        # Preceded by empty lines, so that a traceback shows the line of the file.
        source = "\n" * (example.lineno - 1) + example.source
        got = await _printed(source, str(docstring.file), names, expects=example.exc_msg)
        want = example.want if example.exc_msg is None else example.exc_msg
        if not checker.check_output(want, got, FLAGS):
            difference = checker.output_difference(doctest.Example(source, want), got, FLAGS)
            raise AssertionError(f"{docstring.file}:{example.lineno}\n{example.source}{difference}")


async def _printed(source: str, file: str, names: dict[str, Any], *, expects: str | None) -> str:
    code = compile(source, file, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
    except Exception as error:
        if expects is None:
            raise
        return "".join(traceback.format_exception_only(error))
    return output.getvalue()


def programs(markdown: Path) -> dict[str, str]:
    """Return the code in a Markdown file, by the name of its target file.

    A Python or TOML block that begins with a comment such as `# conftest.py` is that file. The
    other Python blocks are one program, `program.py`. Line numbers are those of the Markdown file.
    """
    found: dict[str, list[str]] = {}
    name: str | None = None
    opened = False
    for number, line in enumerate(markdown.read_text(encoding="utf-8").splitlines()):
        if line.startswith("```"):
            opened = line in {"```python", "```toml"}
            name = "program.py" if line == "```python" else None
            continue
        if opened and (title := re.fullmatch(r"# ([\w/]+\.(?:py|toml))", line)):
            name = title[1]
        opened = False
        if name is not None:
            code = found.setdefault(name, [])
            code += [""] * (number - len(code))
            code.append(line)
    return {name: "\n".join(code) + "\n" for name, code in found.items()}


def promised_output(code: str) -> list[str]:
    """Return the output that a program promises in comments `# -> ...`, in order."""
    return re.findall(r"# -> (.*)$", code, re.MULTILINE)
