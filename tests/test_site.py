"""The documentation site: built without a warning, and without a dead link in a real browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from sqlmodel_crud_utils import aio, sync
from tests.browser import console_errors, open_browser

pytest.importorskip("pdoc")

from scripts import docs

# Addresses and anchors as the browser understands them, and whatever it loaded for the page.
LINKS = "return [...document.querySelectorAll('a[href]')].map(each => each.href)"
ANCHORS = "return [...document.querySelectorAll('[id]')].map(each => each.id)"
LOADED = "return performance.getEntriesByType('resource').map(each => each.name)"
TOP = "return arguments[0].getBoundingClientRect().top"


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


def test_the_reference_links_to_its_other_pages(site: Path) -> None:
    """A docstring that names a function of another module leads to it."""
    text = (site / "sqlmodel_crud_utils" / "ext" / "fastapi.html").read_text()
    assert 'sqlmodel_crud_utils/sync.html#get_rows"><code>get_rows</code></a>' in text


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


# --- in a browser --------------------------------------------------------------------------------


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served, on this machine only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A window for all tests of this file."""
    with open_browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


def test_every_link_leads_somewhere(browser: Any, address: str, site: Path) -> None:
    """From the first page all others are reached; each anchor is there, no page has an error."""
    anchors: dict[str, set[str]] = {address: set()}
    ids: dict[str, list[str]] = {}
    waiting = [address]
    for page in waiting:
        browser.get(page)
        assert browser.title, page
        assert "Error response" not in browser.title, page
        assert console_errors(browser) == [], page
        assert [each for each in browser.execute_script(LOADED) if address not in each] == []
        ids[page] = browser.execute_script(ANCHORS)
        for link in browser.execute_script(LINKS):
            target, anchor = urldefrag(link)
            if not target.startswith(address):
                continue
            if target not in anchors:
                waiting.append(target)
            anchors.setdefault(target, set()).update([unquote(anchor)] if anchor else [])
    dead = {page: names.difference(ids[page]) for page, names in anchors.items()}
    assert {page: names for page, names in dead.items() if names} == {}
    reached = {page.removeprefix(address) or "index.html" for page in anchors}
    assert reached >= {str(file.relative_to(site)) for file in site.rglob("*.html")}


def test_a_link_to_an_anchor_shows_its_place(browser: Any, address: str) -> None:
    """A guide's link to a function opens the reference where the function is described."""
    browser.get(f"{address}docs/hooks.html")
    browser.find_element(By.CSS_SELECTOR, "main a[href$='hooks.html#registered_hook']").click()
    place = browser.find_element(By.CSS_SELECTOR, ":target")
    assert "registered_hook" in place.text
    WebDriverWait(browser, 30).until(
        lambda window: (
            0 <= window.execute_script(TOP, place) < window.execute_script("return innerHeight")
        )
    )


@pytest.mark.parametrize("page", ["index.html", "docs/hooks.html", "sqlmodel_crud_utils/aio.html"])
def test_search_finds_a_function(browser: Any, address: str, page: str) -> None:
    """`get_row` is found from any page, and the result leads to it."""
    [result, *_] = _search(browser, address + page, "get_row")
    assert "get_row" in result.text
    link = result.find_element(By.CSS_SELECTOR, "a[href*='#get_row']")
    assert urldefrag(link.get_attribute("href")).fragment == "get_row"
    link.click()
    WebDriverWait(browser, 30).until(lambda window: window.current_url.endswith("#get_row"))
    assert "def get_row" in browser.find_element(By.ID, "get_row").text.replace("\n", " ")
    assert console_errors(browser) == []


def test_search_finds_a_guide(browser: Any, address: str) -> None:
    """Words of a guide lead to their section."""
    results = _search(browser, address, "misspelt method refused at registration")
    links = [each.find_element(By.TAG_NAME, "a").get_attribute("href") for each in results]
    assert f"{address}docs/hooks.html#the-methods" in links
    assert console_errors(browser) == []


def test_search_works_without_a_server(browser: Any, site: Path) -> None:
    """The pages may be opened as files, too."""
    assert _search(browser, (site / "index.html").as_uri(), "get_row")
    assert console_errors(browser) == []


def test_search_that_finds_nothing_says_so(browser: Any, address: str) -> None:
    """A word that is nowhere has no results, and the page comes back when it is removed."""
    assert _search(browser, address, "xyzzyplugh") == []
    assert "No search results" in browser.find_element(By.CSS_SELECTOR, "main").text
    box = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    box.send_keys(Keys.BACKSPACE * 10)
    assert "SQLModel" in browser.find_element(By.CSS_SELECTOR, "main").text


def _search(browser: Any, page: str, words: str) -> list[WebElement]:
    browser.get(page)
    box = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    box.send_keys(words)
    main = (By.CSS_SELECTOR, "main")
    WebDriverWait(browser, 60).until(
        lambda window: "search result" in window.find_element(*main).text
    )
    return list(browser.find_elements(By.CSS_SELECTOR, ".search-result"))
