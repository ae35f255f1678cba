"""The table on the terminal, and the JSON file."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.databases import KINDS
from benchmarks.models import Sizes
from benchmarks.results import Effort, Result
from benchmarks.targets import verdict

PACKAGES = (
    "sqlmodel-crud-utils",
    "sqlmodel",
    "sqlalchemy",
    "pydantic",
    "aiosqlite",
    "asyncpg",
    "psycopg",
)


@dataclass(frozen=True)
class Report:
    """All results of a run.

    Attributes:
        made: When, how and with which versions they were measured.
        results: The results.
    """

    made: dict[str, Any]
    results: list[Result]

    def write(self, path: Path) -> None:
        """Write the JSON file, with a line for each result."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f"  {json.dumps(_rounded(each))}" for each in self.results)
        made = json.dumps(self.made, indent=2)
        path.write_text(f'{{"made": {made},\n"results": [\n{lines}\n]}}\n')

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read the JSON file."""
        content = json.loads(path.read_text())
        results = [
            Result(**{**each, "statements": each["statements"] and tuple(each["statements"])})
            for each in content["results"]
        ]
        return cls(content["made"], results)


def circumstances(sizes: Sizes, effort: Effort, databases: Mapping[str, str]) -> dict[str, Any]:
    """Return the circumstances of a run for readers, without the machine's name."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "effort": asdict(effort),
        "sizes": asdict(sizes),
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "databases": dict(databases),
        "packages": {name: version(name) for name in PACKAGES},
    }


HEAD = (
    f"{'':<38}{'library':>14}{'by hand':>14}{'ratio':>8}  {'quartiles':<12}{'target':<16}{'sent'}"
)


def title(database: str, api: str) -> str:
    """Return the heading of a table."""
    return f"\n{KINDS[database]}, {api}\n{HEAD}" if database else f"\nImports\n{HEAD}"


def line(result: Result) -> str:
    """Return the line of the table for a result."""
    figures = "".join(
        f"{each:>10.3f} {result.unit:<3}" for each in (result.library, result.by_hand)
    )
    ratio = f"{result.ratio:>8.2f}" if result.ratio is not None else " " * 8
    spread = f"{result.low:.2f}-{result.high:.2f}" if result.low and result.high else ""
    sent = "{}/{}".format(*result.statements) if result.statements else ""
    return (
        f"{result.operation:<38}{figures}{ratio}  {spread:<12}{judged(result):<16}{sent}".rstrip()
    )


def shown(value: float) -> str:
    """Return a figure with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def judged(result: Result) -> str:
    """Return the target and whether it is met, or an empty string without a target."""
    found = verdict(result)
    if found is None:
        return ""
    target = f"{found.target:.2f}" if found.kind == "ratio" else f"{found.target:g} {result.unit}"
    return f"{target} {'met' if found.met else 'MISSED'}"


def conclusion(results: Sequence[Result]) -> str:
    """Return how many targets are met."""
    verdicts = [found for each in results if (found := verdict(each))]
    return f"\n{sum(each.met for each in verdicts)} of {len(verdicts)} targets met"


def _rounded(result: Result) -> dict[str, Any]:
    """Return a result for the file, rounded to four digits: more are not reproducible."""
    return {
        name: float(f"{each:.4g}") if isinstance(each, float) else each
        for name, each in asdict(result).items()
    }
