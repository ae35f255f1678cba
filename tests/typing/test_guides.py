"""The programs of README and of the guides type-check, as their readers would have them checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import programs
from tests.test_examples import GUIDES, ROOT
from tests.typing.test_user_program import COMMANDS


def write_all(folder: Path) -> list[str]:
    """Write the Python files of all guides side by side; return their names."""
    written: list[str] = []
    for guide in GUIDES:
        own = guide.removesuffix(".md").replace("/", "_").replace("-", "_").lower()
        for name, code in programs(ROOT / guide).items():
            file = f"{own}.py" if name == "program.py" else name
            if file.endswith(".py"):
                assert file not in written, f"two guides have a file {file}"
                (folder / file).write_text(code, encoding="utf-8")
                written.append(file)
    return written


@pytest.mark.parametrize("tool", COMMANDS)
@pytest.mark.timeout(300)  # without a cache mypy reads all of SQLAlchemy
def test_the_guides_type_check(tool: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With mypy --strict and with pyright; a line has the number that it has in its guide."""
    files = write_all(tmp_path)
    cache = request.config.rootpath / ".cache" / "mypy-guides"
    extra = ["--cache-dir", str(cache)] if tool == "mypy" else []
    ran = subprocess.run(
        [sys.executable, *COMMANDS[tool], *extra, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
