"""How long the library takes to import, beyond `import sqlmodel`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.results import Effort, Result

# Every program that uses the async API imports the asyncio parts of SQLModel and SQLAlchemy.
_ASYNC = "sqlmodel.ext.asyncio.session"
# The APIs load their names on first use; `*` loads all of them.
OPERATIONS = {
    "import sqlmodel_crud_utils": ("sync", "sqlmodel", "sqlmodel_crud_utils"),
    "import sqlmodel_crud_utils.sync": ("sync", "sqlmodel", "sqlmodel_crud_utils.sync"),
    "import sqlmodel_crud_utils.aio": ("async", _ASYNC, "sqlmodel_crud_utils.aio"),
    "from sqlmodel_crud_utils.sync import *": ("sync", "sqlmodel", "sqlmodel_crud_utils.sync *"),
    "from sqlmodel_crud_utils.aio import *": ("async", _ASYNC, "sqlmodel_crud_utils.aio *"),
}
_PROGRAM = """
import sys
from importlib import import_module
from time import perf_counter
times = [perf_counter()]
for argument in sys.argv[1:]:
    name, *star = argument.split()
    module = import_module(name)
    for each in module.__all__ if star else ():
        getattr(module, each)
    times.append(perf_counter())
print(times[1] - times[0], times[2] - times[1])
"""


def run(effort: Effort, wanted: Callable[[str], bool], report: Callable[[Result], None]) -> None:
    """Measure the selected imports, each in new processes."""
    for operation, (api, base, module) in OPERATIONS.items():
        if wanted(f"imports: {operation}"):
            rounds = measure(base, module, effort)
            theirs, ours = (1000 * median(times) for times in zip(*rounds, strict=True))
            place = ("imports", operation, "", api, "ms")
            report(Result(*place, ours, theirs, rounds=len(rounds)))


def measure(base: str, module: str, effort: Effort) -> list[tuple[float, float]]:
    """Return the seconds for the base and for the module, for each process."""
    rounds: list[tuple[float, float]] = []
    with TemporaryDirectory() as compiled:
        _import(base, module, compiled)
        start = time.perf_counter()
        while len(rounds) < effort.fewest_rounds or time.perf_counter() < start + effort.seconds:
            rounds.append(_import(base, module, compiled))
    return rounds


def _import(base: str, module: str, compiled: str) -> tuple[float, float]:
    """Import both; the first time, they are compiled to a folder, as an installer would do."""
    command = [sys.executable, "-c", _PROGRAM, base, module]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, second = map(float, done.stdout.split())
    return first, second
