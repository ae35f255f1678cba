"""A hook of MkDocs (see mkdocs.yml) that completes the documentation site.

It adds to the guides in docs/:

- README and other files of the project as pages. Links between files become links between pages;
  a link to a file that is not a page leads to the repository.
- The API reference, from scripts/docs_reference.py; names in code link to it.
- Examples in two tabs, from scripts/docs_tabs.py.
"""

from __future__ import annotations

import html
import os
import re
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

import sqlmodel_crud_utils
from scripts import docs_reference, docs_tabs

ROOT = Path(__file__).resolve().parent.parent
# Files of the project outside docs/ that become pages, with their places.
PAGES = {
    "README.md": "index.md",
    "MIGRATION_GUIDE.md": "migrating.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
# The guides in reading order; unlisted ones follow at the end.
GUIDES: dict[str, list[str]] = {
    "First steps": ["getting-started.md", "repository.md"],
    "Queries and bulk writes": ["filters.md", "query-builder.md", "bulk.md"],
    "Keeping data right": [
        "transactions.md",
        "errors.md",
        "soft-delete.md",
        "tenancy.md",
        "history.md",
        "caching.md",
        "hooks.md",
    ],
    "In production": [
        "connections.md",
        "migrations.md",
        "scaling.md",
        "performance.md",
        "observability.md",
        "rate-limits.md",
        "troubleshooting.md",
    ],
    "Services": ["fastapi.md", "graphql.md", "testing.md"],
}
# Readers look for guides first, then for functions, then for files of the project.
BOOSTS = {"reference/": 0.5, "adr/": 0.1, "changelog": 0.1, "contributing": 0.1, "benchmarks": 0.1}
# README's badges, from other hosts, and its links to this site, above the first sentence.
_BADGES = re.compile(r"^\[!\[.*\n|^\*\*\[Documentation\](?s:.*?)\n\n", re.MULTILINE)
_LINK = re.compile(
    r"(?s)^```.*?^```$|(?P<text>\]\()(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))",
    re.MULTILINE,
)
_NAME = re.compile(
    r"(?s)<(a|pre|h\d)\b.*?</\1>|<code>(?P<name>[A-Za-z_][\w.]*)(?:\([^<]*\))?</code>"
)


_CELL = re.compile(r"(?s)<td\b.*?</td>")
_LONG_CODE = re.compile(r"(?<=<code>)[^<]{16,}(?=</code>)")
_BREAK = re.compile(r"(?<=[\w)\]][._(=/])(?=[\w\"&])")


class Site:
    """The state of one build."""

    reference = docs_reference.Reference({}, {})
    sources: dict[str, str] = {}  # noqa: RUF012 - filled by each build


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the package, and build the navigation."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Site.reference = docs_reference.read()
    config.extra["release"] = sqlmodel_crud_utils.__version__
    config.nav = navigation(Site.reference)
    return config


def navigation(reference: docs_reference.Reference) -> list[Any]:
    """Return the navigation: each guide that is in docs/, each page of the reference."""
    listed = {guide for group in GUIDES.values() for guide in group}
    others = [f.name for f in sorted((ROOT / "docs").glob("*.md")) if f.name not in listed]
    guides: list[Any] = [{group: [*pages]} for group, pages in GUIDES.items()]
    if others:
        guides.append({"More": others})
    decisions = sorted(file.name for file in (ROOT / "docs/adr").glob("0*.md"))
    about = [page for name, page in PAGES.items() if name != "README.md" and (ROOT / name).exists()]
    return [
        {"Home": "index.md"},
        {"Guides": guides},
        {"Reference": [{title: page} for title, page in docs_reference.headings(reference.pages)]},
        {"Project": [*about, {"Decisions": ["adr/README.md", *(f"adr/{n}" for n in decisions)]}]},
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for name, place in PAGES.items():
        if (ROOT / name).exists():
            files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    for place, text in Site.reference.pages.items():
        files.append(File.generated(config, place, content=text))
    for file in sorted((ROOT / "scripts/docs_theme/theme").iterdir()):
        files.append(File.generated(config, f"theme/{file.name}", abs_src_path=str(file)))
    guides = [file.src_uri for file in files if file.generated_by is None]
    Site.sources = {f"docs/{name}": name for name in guides} | PAGES
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_kwargs: Any) -> str:
    """Fix links, and put examples into tabs."""
    place = page.file.src_uri
    for start, boost in BOOSTS.items():
        if place.startswith(start):
            page.meta["search"] = {"boost": boost}
    if place == "index.md":
        page.meta["hide"] = ["navigation"]
        markdown = _BADGES.sub("", markdown)
    source = next((name for name, uri in Site.sources.items() if uri == place), None)
    if source is None:
        return markdown
    page.edit_url = f"{config.repo_url}/edit/main/{source}"
    return docs_tabs.in_tabs(mended(markdown, source, place, str(config.repo_url)))


def mended(markdown: str, source: str, place: str, repository: str) -> str:
    """Return a text whose links to files of the project lead to pages or to the repository.

    Args:
        markdown: The text.
        source: Its file, relative to the project's root.
        place: Its page, relative to the site's root.
        repository: The URL of the repository, for files that are not pages.
    """

    def link(match: re.Match[str]) -> str:
        if not match["text"] or ":" in match["path"]:
            return match[0]
        path = os.path.normpath(PurePosixPath(source).parent / match["path"])
        target = Site.sources.get(path) or Site.sources.get(f"{path}/README.md")
        if target is not None:
            found = os.path.relpath(target, PurePosixPath(place).parent)
        elif (ROOT / path).exists():
            found = f"{repository}/blob/main/{path}"
        else:
            found = match["path"]  # MkDocs reports the broken link
        return f"{match['text']}{found}{match['anchor'] or ''}"

    return _LINK.sub(link, markdown)


def on_page_content(content: str, page: Page, **_kwargs: Any) -> str:
    """Link names in code to their descriptions, outside headings and code blocks."""
    # Exclude the labels of tabs from the search.
    labels = '<div class="tabbed-labels"'
    content = content.replace(labels, f"{labels} data-search-exclude")
    return breakable(named(content, page.file.url))


def named(content: str, url: str) -> str:
    """Return HTML in which names of the API in code link to their descriptions."""

    def link(match: re.Match[str]) -> str:
        place = Site.reference.places.get(html.unescape(match["name"] or ""))
        if place is None:
            return match[0]
        page, _, anchor = place.partition("#")
        target = get_relative_url(f"{page.removesuffix('.md')}.html", url)
        return f'<a href="{target}{f"#{anchor}" if anchor else ""}">{match[0]}</a>'

    return _NAME.sub(link, content)


def breakable(content: str) -> str:
    """Return HTML in which long code in tables may wrap between words, for narrow screens."""

    def in_cell(cell: re.Match[str]) -> str:
        return _LONG_CODE.sub(lambda code: _BREAK.sub("<wbr>", code[0]), cell[0])

    return _CELL.sub(in_cell, content)
