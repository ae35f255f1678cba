"""Say whether the sources are those of a release.

    python scripts/release.py v1.2.3 https://host.example/owner/name

The tag has to be the version of the package, the changelog has to have a date for it, and the links
of the package have to lead to the repository that publishes it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problems(root: Path, tag: str, repository: str) -> Iterator[str]:
    """Yield what is not as a release has to be.

    Args:
        root: Where the sources are.
        tag: The tag of the release, such as "v1.2.3".
        repository: The address of the repository that publishes it.
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
    """Print what is wrong."""
    found = list(problems(ROOT, *sys.argv[1:]))
    print("\n".join(found) or "ready to be released")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
