"""Print the pins of constraints.txt, adapted to a set of versions to test with.

`pins.py pinned` prints constraints.txt unchanged, `pins.py 2.0` pins the newest SQLAlchemy 2.0.x,
and `pins.py lowest` the lowest versions that pyproject.toml allows.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# A package that another one requires in an exact version cannot keep its own pin.
COMPANIONS = {"psycopg": "psycopg-binary"}
# Neither can a package that only works in its newest version: None leaves the choice to pip.
CONTEMPORARIES: dict[str, dict[str, str | None]] = {
    "fastapi": {"starlette": None, "anyio": "4.11.0"},
    "graphql-core": {"strawberry-graphql": None},
    "opentelemetry-api": dict.fromkeys(
        (
            "importlib-metadata",
            "opentelemetry-instrumentation",
            "opentelemetry-instrumentation-sqlalchemy",
            "opentelemetry-sdk",
            "opentelemetry-semantic-conventions",
            "wrapt",
        )
    ),
}
LOWER_BOUND = re.compile(r"^(?P<name>[\w.-]+)(\[[\w,-]+\])?>=(?P<version>[\w.]+)")


def lowest(project: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and lower bound of every dependency of the library and its extras."""
    for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in requirements:
            if bound := LOWER_BOUND.match(requirement):
                yield bound["name"], bound["version"]
                if companion := COMPANIONS.get(bound["name"]):
                    yield companion, bound["version"]


def changed(which: str) -> dict[str, str | None]:
    """Return the pins to replace, by name; None removes a pin."""
    if which == "pinned":
        return {}
    if which == "lowest":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        lowered: dict[str, str | None] = dict(lowest(project))
        for name in tuple(lowered):
            lowered |= CONTEMPORARIES.get(name, {})
        return lowered
    return {"sqlalchemy": f"{which}.*"}


def main(which: str) -> None:
    """Print one set of pins."""
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    for name, version in (pins | changed(which)).items():
        if version is not None:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main(sys.argv[1])
