"""README and SECURITY name the versions that the package requires and CI runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import sqlmodel_crud_utils

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _row(name: str) -> str:
    """Return a row of README's table of versions."""
    table = README.partition("## Supported versions")[2].partition("\n## ")[0]
    [row] = re.findall(rf"^\| {name} \|(.*)\|$", table, re.MULTILINE)
    return str(row)


def test_python() -> None:
    """README names the versions of the classifiers, and the oldest is required."""
    named = re.findall(r"3\.\d+", _row("Python"))
    prefix = "Programming Language :: Python :: 3."
    classified = [c[len(prefix) - 2 :] for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert named == classified
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_dependencies() -> None:
    """README names the oldest versions that the package demands."""
    demanded = {re.split(r"[\[><=]", each)[0]: each for each in PROJECT["dependencies"]}
    [sqlalchemy] = re.findall(r"from ([\d.]+)", _row("SQLAlchemy"))
    assert demanded["sqlalchemy"] == f"sqlalchemy[asyncio]>={sqlalchemy},<2.2"
    [sqlmodel] = re.findall(r"from ([\d.]+)", _row("SQLModel"))
    assert demanded["sqlmodel"] == f"sqlmodel>={sqlmodel}"


def test_drivers() -> None:
    """README names the drivers that the extras install."""
    extras = PROJECT["optional-dependencies"]
    for name, extra in [("PostgreSQL", "postgresql"), ("MySQL, MariaDB", "mysql")]:
        drivers = [re.split(r"[\[><=]", each)[0] for each in extras[extra]]
        assert all(driver in _row(name).lower().replace(" ", "") for driver in drivers)


def test_this_version() -> None:
    """SECURITY.md and CHANGELOG.md speak of the version that this is."""
    major, minor, _ = sqlmodel_crud_utils.__version__.split(".")
    assert f"{major}.{minor}.x" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{sqlmodel_crud_utils.__version__}]" in changes
