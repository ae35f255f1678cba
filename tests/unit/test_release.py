"""The requirements of a release: a version, a date, valid links, pinned actions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from scripts import release

ROOT = Path(__file__).parent.parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
URLS = SETTINGS["project"]["urls"]
REPOSITORY = "https://host.example/owner/name"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A project that is ready to be released as 1.2.3."""
    package = tmp_path / "src" / "sqlmodel_crud_utils"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-12-31\n")
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{REPOSITORY}"\n')
    return tmp_path


def test_a_release_that_is_ready(sources: Path) -> None:
    """It has no problems."""
    assert list(release.problems(sources, "v1.2.3", REPOSITORY)) == []


def test_what_is_not_ready_is_named(sources: Path) -> None:
    """Another version, no date, another repository."""
    (sources / "CHANGELOG.md").write_text("## [1.2.3] - Unreleased\n")
    assert list(release.problems(sources, "v1.2.4", "https://host.example/fork/name")) == [
        "the tag v1.2.4 is not the version of the package, 1.2.3",
        "CHANGELOG.md has no date for 1.2.3",
        "pyproject.toml names another repository than https://host.example/fork/name",
    ]


@pytest.mark.skipif(not (ROOT / "src").exists(), reason="the wheel is tested without its sources")
def test_a_line_of_the_changelog_waits_for_its_date() -> None:
    """Apart from the date, these sources can be released."""
    source = (ROOT / "src/sqlmodel_crud_utils/__init__.py").read_text(encoding="utf-8")
    [version] = re.findall(r'^__version__ = "(.*)"$', source, re.MULTILINE)
    found = list(release.problems(ROOT, f"v{version}", URLS["Repository"]))
    assert found in ([], [f"CHANGELOG.md has no date for {version}"])


def test_the_page_of_the_package_has_no_relative_link() -> None:
    """Links of README lead to the repository, to the files of the release."""
    [rule] = SETTINGS["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    assert f"]({URLS['Repository']}/blob/v$HFPR_VERSION/" in rule["replacement"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", re.sub(rule["pattern"], rule["replacement"], readme))
    assert len(links) > 20
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    for link in links:
        place = link.partition("/blob/v$HFPR_VERSION/")[2].partition("#")[0]
        assert (ROOT / place).exists(), link


def test_the_site_and_the_forms_have_the_same_addresses() -> None:
    """Whoever moves the project finds them all."""
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"site_url: {URLS['Documentation']}\n" in site
    assert f"repo_url: {URLS['Repository']}\n" in site
    forms = (ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text(encoding="utf-8")
    addresses = re.findall(r"url: (\S+)", forms)
    assert all(a.startswith((URLS["Documentation"], URLS["Repository"])) for a in addresses)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert URLS["Documentation"] in readme


def test_actions_are_pinned_to_commits() -> None:
    """A tag can be moved to other code, a commit cannot."""
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert [file.stem for file in workflows] == ["ci", "pages", "release"]
    for file in workflows:
        used = re.findall(r"uses: (\S+)(.*)", file.read_text(encoding="utf-8"))
        assert used
        for action, comment in used:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), f"{file.name}: {action}"
            assert re.fullmatch(r" # v\d+(\.\d+)+", comment), f"{file.name}: {action}"
