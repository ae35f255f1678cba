"""The documentation site is built without a warning, and each of its links leads somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sqlmodel_crud_utils import aio, sync

pytest.importorskip("pdoc")

from scripts import docs


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the sources as they are; a dead link or a warning fails it."""
    folder = tmp_path_factory.mktemp("site")
    docs.build(folder)
    return folder


def test_every_guide_is_in_the_navigation_of_every_page(site: Path) -> None:
    """Whoever reads a page can go on to each guide and each part of the API."""
    guides = [f"docs/{file.stem}.html" for file in docs.ROOT.glob("docs/*.md")]
    modules = [f"sqlmodel_crud_utils/{name}.html" for name in ("sync", "aio", "exceptions")]
    assert len(guides) >= 4
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = page.read_text()
        missing = [name for name in guides + modules if f'href="{up}{name}"' not in text]
        assert not missing, page


@pytest.mark.parametrize("surface", [sync, aio], ids=["sync", "aio"])
def test_every_public_name_is_documented(site: Path, surface: object) -> None:
    """The reference has each name of both surfaces, the query builder's methods included."""
    name = surface.__name__.rpartition(".")[2]
    text = (site / "sqlmodel_crud_utils" / f"{name}.html").read_text()
    builder = surface.QueryBuilder
    methods = [f"{builder.__name__}.{each}" for each in dir(builder) if not each.startswith("_")]
    assert f"{builder.__name__}.where" in methods
    for public in (*surface.__all__, *methods):
        assert f'id="{public}"' in text, public


def test_types_are_short_and_nothing_internal_shows(site: Path) -> None:
    """Signatures show `Session`, not where SQLAlchemy keeps it."""
    text = (site / "sqlmodel_crud_utils" / "sync.html").read_text()
    signature = re.search(r'id="write_row">.*?<span class="signature.*?</div>', text, re.DOTALL)
    assert signature is not None
    plain = re.sub("<.*?>", "", signature[0].partition('<span class="signature')[2])
    assert "Union[Session, scoped_session[Any]]" in plain
    assert "PydanticUndefined" not in text


def test_code_in_a_guide_links_to_the_reference(site: Path) -> None:
    """A guide that names a function leads to its description."""
    text = (site / "docs" / "hooks.html").read_text()
    assert '<a href="../sqlmodel_crud_utils/hooks.html#registered_hook"><code>' in text
    assert '<a href="../examples/hooks.py.html">' in text


def test_search_knows_functions_and_guides(site: Path) -> None:
    """The index of the search has the API and each section of the guides."""
    text = (site / "search.js").read_text()
    entries = json.JSONDecoder().raw_decode(text, text.index("const docs = ") + 13)[0]
    names = {entry["fullname"] for entry in entries}
    assert {"sqlmodel_crud_utils.sync.get_row", "sqlmodel_crud_utils.aio.get_row"} <= names
    assert "Lifecycle hooks: When a hook raises" in names
    assert len(names) == len(entries), "the search shows one entry per name"


def test_dead_links_are_found(tmp_path: Path) -> None:
    """Pages, anchors and files that are not there are told, and so is what others serve."""
    (tmp_path / "b.html").write_text('<a id="here"></a>')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#there">2</a><a href="c.html">3</a>'
        '<a href="https://elsewhere.example/">4</a><a href="#nowhere">5</a>'
        '<img src="plot.svg"><script src="https://cdn.example/x.js"></script>'
    )
    assert list(docs.problems(tmp_path)) == [
        "a.html: loads plot.svg, which is not there",
        "a.html: loads https://cdn.example/x.js",
        "a.html: there is no anchor b.html#there",
        "a.html: there is no page c.html",
        "a.html: there is no anchor #nowhere",
    ]


def test_a_guide_that_links_to_nothing_is_refused() -> None:
    """A link to a file that is not there names the guide that has it."""
    with pytest.raises(docs.BrokenSiteError, match=r"docs/a.md: none.md is not there"):
        docs.Links({}).of(docs.PurePosixPath("docs/a.md"), '<a href="none.md">x</a>')
