"""The documentation site: built without warnings or dead links, and tested in a browser."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from sqlmodel_crud_utils import aio, sync
from tests.browser import console_errors, open_browser

pytest.importorskip("mkdocs")
pytest.importorskip("pdoc")

from scripts import docs

# Everything that the browser loaded for the page.
LOADED = "return performance.getEntriesByType('resource').map(each => each.name)"
TOP = "return arguments[0].getBoundingClientRect().top"
BACKGROUND = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
# All words at once, because the results change with each letter.
ASK = """
    const box = document.querySelector(".md-search__input")
    box.value = arguments[0]
    box.dispatchEvent(new Event("keyup"))
"""
ANSWER = "return document.querySelector('.md-search-result__meta').innerText"
RESULTS = "return [...document.querySelectorAll('.md-search-result__link')].map(each => each.href)"
OVERFLOW = "return document.documentElement.scrollWidth - innerWidth"
# The article of another page, shown in this one: that is quicker than to open it.
HAS_WIDE_TABLES = """
const [page, done] = arguments;
fetch(page).then(answer => answer.text()).then(text => {
  const other = new DOMParser().parseFromString(text, "text/html");
  const article = other.querySelector("article");
  document.querySelector("article").replaceWith(article);
  const tables = [...article.querySelectorAll("table")];
  done(tables.some(table => table.scrollWidth > article.clientWidth));
})"""


def build(folder: Path, config: Path = docs.ROOT / "mkdocs.yml") -> str:
    """Build the site as `make docs` does; return the problems."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    ran = subprocess.run(
        [*command, "--config-file", str(config), "--site-dir", str(folder)],
        cwd=docs.ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = [line for line in ran.stderr.splitlines() if not line.startswith("INFO")]
    assert (ran.returncode == 0) == (not wrong), ran.stderr
    return "\n".join(wrong)


class _Page(HTMLParser):
    """A page: its anchors, its links, and the files that a browser loads for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        given = {name: value or "" for name, value in attrs}
        self.places.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given["rel"] != "canonical":
            self.loaded.add(given.get("href", ""))
        elif "src" in given:
            self.loaded.add(given["src"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The site, built from the current sources, once for all processes of a run."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "site").exists():
            assert build(own / "site-unfinished") == ""
            (own / "site-unfinished").rename(shared / "site")
    return shared / "site"


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, _Page]:
    """The parsed pages of the site."""
    return {file: _Page(file.read_text()) for file in site.rglob("*.html")}


def test_every_guide_is_in_the_navigation(site: Path) -> None:
    """Each guide links to every other one."""
    guides = [f"{file.stem}.html" for file in docs.ROOT.glob("docs/*.md")]
    assert len(guides) >= 4
    for guide in guides:
        text = (site / guide).read_text()
        assert [name for name in guides if f'href="{name}"' not in text and name != guide] == []


@pytest.mark.parametrize("surface", [sync, aio], ids=["sync", "aio"])
def test_every_public_name_is_documented(pages: dict[Path, _Page], surface: ModuleType) -> None:
    """The reference has each name of both surfaces, the query builder's methods included."""
    described = {
        place
        for file, page in pages.items()
        if file.parent.name == "reference"
        for place in page.places
    }
    methods = [each for each in dir(surface.QueryBuilder) if not each.startswith("_")]
    assert "where" in methods
    # An AsyncX in `aio` is described with X.
    names = {name.removeprefix("Async") for name in surface.__all__}
    assert names | {f"QueryBuilder.{method}" for method in methods} <= described


def test_types_are_short_and_nothing_internal_shows(site: Path) -> None:
    """Signatures show `Session` without its module, and each overload."""
    text = re.sub("<.*?>", "", (site / "reference" / "writing.html").read_text())
    assert "session_inst: Session | scoped_session" in text
    assert "session_inst: AsyncSession | async_scoped_session" in text
    assert "-&gt; tuple[Literal[True], T]\n\ndef write_row(" in text
    assert "PydanticUndefined" not in text
    assert "sqlalchemy.orm" not in text
    classes = re.sub("<.*?>", "", (site / "reference" / "query-builder.html").read_text())
    assert "class QueryBuilder(\n    session: Session" in classes


def test_code_in_a_guide_links_to_the_reference(site: Path) -> None:
    """A function's name in a guide links to its description; a program's, to the repository."""
    text = (site / "hooks.html").read_text()
    assert '<a href="reference/hooks.html#registered_hook"><code>' in text
    assert re.search(r'<a href="https://[^"]*/blob/main/examples/hooks.py">', text)


def test_the_reference_links_to_its_other_pages(site: Path) -> None:
    """A name of another module's function in a docstring links to it."""
    text = (site / "reference" / "ext.fastapi.html").read_text()
    assert 'href="reading.html#get_rows"><code>get_rows</code></a>' in text


def test_examples_are_shown_for_both_apis(site: Path) -> None:
    """An example has two tabs, derived from one; one that suits both APIs has no tabs."""
    text = re.sub("<.*?>", "", (site / "transactions.html").read_text())
    assert "\nwith transaction(session):" in text
    assert "\nasync with transaction(session):" in text
    assert "Sync" not in (site / "testing.html").read_text().partition("# heroes.py")[0][-500:]


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, _Page]) -> None:
    """Each page, anchor, picture and script that a page names is in the site, each page is named.

    What a page loads, it loads from the site: nothing is asked of other hosts.
    """
    # The 404 page is shown in any folder, so its links are absolute.
    known = {file.as_uri(): page for file, page in pages.items() if file.name != "404.html"}
    files = {file.as_uri() for file in site.rglob("*") if file.is_file()}
    linked: set[str] = set()
    for address, page in known.items():
        assert {urldefrag(urljoin(address, each))[0] for each in page.loaded} <= files, address
        for link in page.links:
            target, anchor = urldefrag(urljoin(address, link))
            if target.startswith("file:"):
                linked.add(target)
                assert target in files, (address, link)
                assert not anchor or unquote(anchor) in known[target].places, (address, link)
    assert linked >= {*known}


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """A missing file or anchor is named, with the page."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# A\n\n[x](none.md) [y](#nowhere)\n")
    settings = (docs.ROOT / "mkdocs.yml").read_text()
    validation = settings[settings.index("validation:") :]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: A\n{validation}")
    wrong = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert "'none.md'" in wrong
    assert "'#nowhere'" in wrong


def test_links_between_files_become_links_between_pages() -> None:
    """Links to files that are not pages lead to the repository; MkDocs refuses missing ones."""
    text = "[a](../README.md#x) [b](../Makefile) [c](none.md) [d](https://example.org/a.md)"
    docs.Site.sources = docs.PAGES
    assert docs.mended(text, "docs/a.md", "a.md", "https://host.example/r") == (
        "[a](index.md#x) [b](https://host.example/r/blob/main/Makefile) [c](none.md) "
        "[d](https://example.org/a.md)"
    )


# --- in a browser --------------------------------------------------------------------------------


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The URL of the served site, on this machine only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser window for all tests of this file."""
    with open_browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.mark.parametrize("page", ["index", "errors", "performance", "reference/reading"])
def test_pages_fit_the_window_in_the_readers_colours(browser: Any, address: str, page: str) -> None:
    """No page is wider than the window, even on a phone; the system chooses light or dark.

    There are no errors, and nothing is loaded from another host.
    """
    browser.get(f"{address}{page}.html")
    assert console_errors(browser) == []
    assert [each for each in browser.execute_script(LOADED) if address not in each] == []
    try:
        for width, scheme in product((1400, 390), ("light", "dark")):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
            assert browser.execute_script(OVERFLOW) <= 0, width
            WebDriverWait(browser, 30).until(
                lambda window, light=scheme == "light": (
                    (sum(window.execute_script(BACKGROUND)[:3]) > 380) is light
                )
            )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_tables_need_no_scrolling_on_a_phone(browser: Any, address: str, site: Path) -> None:
    """They wrap on every page, including code."""
    phone = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    too_wide = []
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.get(f"{address}index.html")
        for page in [*site.glob("[a-z]*.html"), *site.glob("reference/*.html")]:
            shown = f"{address}{page.relative_to(site)}"
            if browser.execute_async_script(HAS_WIDE_TABLES, shown):
                too_wide.append(page.name)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert too_wide == []


def test_a_link_to_an_anchor_shows_its_place(browser: Any, address: str) -> None:
    """A guide's link to a function opens the reference at its description."""
    browser.get(f"{address}hooks.html")
    browser.find_element(By.CSS_SELECTOR, "article a[href$='hooks.html#registered_hook']").click()
    place = browser.find_element(By.CSS_SELECTOR, ":target")
    assert "registered_hook" in place.text
    WebDriverWait(browser, 30).until(
        lambda window: (
            0 <= window.execute_script(TOP, place) < window.execute_script("return innerHeight")
        )
    )


def test_a_tab_is_chosen_for_all_examples(browser: Any, address: str) -> None:
    """The choice of async tabs is remembered."""
    browser.get(f"{address}transactions.html")
    labels = browser.find_elements(By.XPATH, "//label[contains(., 'Async')]")
    labels[0].click()
    tabs = [label.get_attribute("for") for label in labels]
    assert len(tabs) > 1
    chosen = "return arguments[0].every(each => document.getElementById(each).checked)"
    WebDriverWait(browser, 30).until(lambda window: window.execute_script(chosen, tabs))


@pytest.mark.parametrize(
    ("words", "guide"),
    [
        ("upsert", "bulk.html"),
        ("optimistic locking", "soft-delete.html"),
        ("soft delete", "soft-delete.html"),
        ("misspelt method refused at registration", "hooks.html"),
    ],
)
def test_search_finds_a_guide_first(browser: Any, address: str, words: str, guide: str) -> None:
    """A reader's word for a topic finds its guide before the reference."""
    [first, *_] = _search(browser, f"{address}index.html", words)
    assert first.startswith(address + guide)
    assert console_errors(browser) == []


def test_search_that_finds_nothing_says_so(browser: Any, address: str) -> None:
    """An unknown word has no results."""
    assert _search(browser, f"{address}index.html", "xyzzyplugh") == []


@pytest.mark.parametrize("page", ["index.html", "reference/mixins.html"])
def test_search_finds_a_function(browser: Any, address: str, page: str) -> None:
    """`get_row` is found from any page, and the result links to it."""
    links = _search(browser, address + page, "get_row")
    [link] = [each for each in links if each.endswith("#get_row")]
    browser.get(link)
    assert "def get_row" in browser.find_element(By.TAG_NAME, "article").text
    assert console_errors(browser) == []


def _search(browser: Any, page: str, words: str) -> list[str]:
    """Return the targets of a search's results; an open page is not opened again."""
    if urldefrag(browser.current_url)[0] != page:
        browser.get(page)
    browser.find_element(By.CSS_SELECTOR, ".md-search__input").click()
    for text, answer in ("", "Type to start"), (words, "matching doc"):
        browser.execute_script(ASK, text)
        WebDriverWait(browser, 60).until(
            lambda window, answer=answer: answer in window.execute_script(ANSWER)
        )
    found: list[str] = browser.execute_script(RESULTS)
    return found
