"""A project in a temporary folder, for the tests of `scripts/codegen.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from scripts import codegen

RUFF = """\
[tool.ruff]
line-length = 100
target-version = "py311"
[tool.ruff.lint.isort]
known-first-party = ["sqlmodel_crud_utils", "tests"]
"""
NAMES = {"AsyncSession": "Session", "AsyncEngine": "Engine", "_runtime_async": "_runtime_sync"}


class Project:
    """A small tree with the layout of the real one."""

    source = "src/sqlmodel_crud_utils/_async"
    target = "src/sqlmodel_crud_utils/_sync"

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capture = capture
        self.printed = ""
        self.write("pyproject.toml", RUFF)
        for folder in codegen.TREES:
            (root / folder).mkdir(parents=True)

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file, below the project's root."""
        data = content if isinstance(content, bytes) else content.encode()
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    def run(self, *arguments: str, names: Mapping[str, str] | None = None) -> int:
        """Run the generator; what it prints is kept in `printed`."""
        code = codegen.main(list(arguments), root=self.root, names=names or {})
        captured = self.capture.readouterr()
        self.printed = captured.out + captured.err
        return code

    def translate(self, text: str, names: Mapping[str, str] | None = None) -> str:
        """Return what becomes of one async file, without the header."""
        text = dedent(text)
        used = {old: new for old, new in (names or NAMES).items() if old in text}
        self.write(f"{self.source}/it.py", text)
        assert self.run(names=used) == 0, self.printed
        generated = (self.root / self.target / "it.py").read_text()
        return generated.removeprefix(codegen.HEADER.format(path=f"{self.source}/it.py")).lstrip()

    def refuse(self, text: str | bytes, names: Mapping[str, str] | None = None) -> list[str]:
        """Return the refusals of one async file, without its folder."""
        self.write(f"{self.source}/it.py", dedent(text) if isinstance(text, str) else text)
        before = self.tree()
        assert self.run(names=names) == 1
        assert self.tree() == before
        *lines, summary = self.printed.splitlines()
        assert summary == f"codegen: {len(lines)} refused"
        return [line.removeprefix(f"{self.source}/") for line in lines]

    def tree(self) -> dict[str, bytes]:
        """Return every file of the project."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Project:
    """A project whose async trees are empty."""
    return Project(tmp_path, capsys)
