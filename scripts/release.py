"""Check whether the sources are ready for a release.

    python scripts/release.py v1.2.3 https://host.example/owner/name

The tag must be the version of the package, the changelog must have a date for it, and the package's
links must lead to the repository that publishes it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problems(root: Path, tag: str, repository: str) -> Iterator[str]:
    """Yield the problems that prevent a release.

    Args:
        root: The folder of the sources.
        tag: The tag of the release, such as "v1.2.3".
        repository: The URL of the repository that publishes it.
    """
    source = (root / "src/sqlmodel_crud_utils/__init__.py").read_text(encoding="utf-8")
    [version] = re.findall(r'^__version__ = "(.*)"$', source, re.MULTILINE)
    if tag != f"v{version}":
        yield f"the tag {tag} is not the version of the package, {version}"
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        yield f"CHANGELOG.md has no date for {version}"
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if project["urls"]["Repository"] != repository:
        yield f"pyproject.toml names another repository than {repository}"


def main() -> int:
    """Print the problems."""
    found = list(problems(ROOT, *sys.argv[1:]))
    print("\n".join(found) or "ready to be released")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
