"""A user's program type-checks against the package as it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("user_program.py")
COMMANDS = {
    "mypy": ["-m", "mypy", "--strict", "--config-file=", "--no-error-summary"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("tool", COMMANDS)
@pytest.mark.timeout(300)  # without a cache mypy reads all of SQLAlchemy
def test_a_users_program_type_checks(tool: str, request: pytest.FixtureRequest) -> None:
    """Users of mypy --strict and of pyright get precise types, and their mistakes are reported."""
    cache = request.config.rootpath / ".cache" / "mypy-program"
    extra = ["--cache-dir", str(cache)] if tool == "mypy" else []
    ran = subprocess.run(
        [sys.executable, *COMMANDS[tool], *extra, PROGRAM.name],
        cwd=PROGRAM.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
