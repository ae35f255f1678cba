"""The documentation site: built without a warning, and without a dead link in a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from sqlmodel_crud_utils import aio, sync
from tests.browser import console_errors, open_browser

pytest.importorskip("mkdocs")
pytest.importorskip("pdoc")

from scripts import docs

# Addresses and anchors as the browser understands them, and whatever it loaded for the page.
LINKS = "return [...document.querySelectorAll('a[href]')].map(each => each.href)"
ANCHORS = "return [...document.querySelectorAll('[id]')].map(each => each.id)"
LOADED = "return performance.getEntriesByType('resource').map(each => each.name)"
TOP = "return arguments[0].getBoundingClientRect().top"
BACKGROUND = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
OVERFLOW = "return document.documentElement.scrollWidth - innerWidth"


def build(folder: Path, config: Path = docs.ROOT / "mkdocs.yml") -> str:
    """Build the site as `make docs` does; return what went wrong."""
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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the sources as they are."""
    folder = tmp_path_factory.mktemp("site")
    assert build(folder) == ""
    return folder


def test_every_guide_is_in_the_navigation(site: Path) -> None:
    """Whoever reads a guide can go on to each other one."""
    guides = [f"{file.stem}.html" for file in docs.ROOT.glob("docs/*.md")]
    assert len(guides) >= 4
    for guide in guides:
        text = (site / guide).read_text()
        assert [name for name in guides if f'href="{name}"' not in text and name != guide] == []


@pytest.mark.parametrize("surface", [sync, aio], ids=["sync", "aio"])
def test_every_public_name_is_documented(site: Path, surface: object) -> None:
    """The reference has each name of both surfaces, the query builder's methods included."""
    short = surface.__name__.rpartition(".")[2]
    builder = surface.QueryBuilder
    methods = [f"{builder.__name__}.{each}" for each in dir(builder) if not each.startswith("_")]
    assert f"{builder.__name__}.where" in methods
    places = docs.docs_reference.read().places
    for public in (*surface.__all__, *methods):
        page, _, anchor = places[f"{short}.{public}"].partition("#")
        assert f'id="{anchor}"' in (site / page.replace(".md", ".html")).read_text(), public


def test_types_are_short_and_nothing_internal_shows(site: Path) -> None:
    """Signatures show `Session`, not where SQLAlchemy keeps it, and each form of a call."""
    text = re.sub("<.*?>", "", (site / "reference" / "writing.html").read_text())
    assert "session_inst: Session | scoped_session" in text
    assert "session_inst: AsyncSession | async_scoped_session" in text
    assert "-&gt; tuple[Literal[True], T]\n\ndef write_row(" in text
    assert "PydanticUndefined" not in text
    assert "sqlalchemy.orm" not in text


def test_code_in_a_guide_links_to_the_reference(site: Path) -> None:
    """A guide that names a function leads to its description; a program, to the repository."""
    text = (site / "hooks.html").read_text()
    assert '<a href="reference/hooks.html#registered_hook"><code>' in text
    assert re.search(r'<a href="https://[^"]*/blob/main/examples/hooks.py">', text)


def test_the_reference_links_to_its_other_pages(site: Path) -> None:
    """A docstring that names a function of another module leads to it."""
    text = (site / "reference" / "ext.fastapi.html").read_text()
    assert 'href="reading.html#get_rows"><code>get_rows</code></a>' in text


def test_examples_are_shown_for_both_apis(site: Path) -> None:
    """An example has two tabs, made of one; what is the same for both APIs has none."""
    text = re.sub("<.*?>", "", (site / "transactions.html").read_text())
    assert "\nwith transaction(session):" in text
    assert "\nasync with transaction(session):" in text
    assert "Sync" not in (site / "testing.html").read_text().partition("# heroes.py")[0][-500:]


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
    """What is no page is shown by the repository; MkDocs refuses what is missing."""
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
    anchors: dict[str, set[str]] = {f"{address}index.html": set()}
    ids: dict[str, list[str]] = {}
    waiting = [*anchors]
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
    reached = {page.removeprefix(address) for page in anchors}
    pages = {str(file.relative_to(site)) for file in site.rglob("*.html")}
    assert reached >= pages - {"404.html"}


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_the_window_in_the_readers_colours(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    """No page is wider than the window, on a phone either; the system says light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
    try:
        for page in ("index", "errors", "performance", "reference/reading"):
            browser.get(f"{address}{page}.html")
            assert browser.execute_script(OVERFLOW) <= 0, page
            assert (sum(browser.execute_script(BACKGROUND)[:3]) > 380) == (scheme == "light")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_link_to_an_anchor_shows_its_place(browser: Any, address: str) -> None:
    """A guide's link to a function opens the reference where the function is described."""
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
    """Whoever writes async code asks for it once."""
    browser.get(f"{address}transactions.html")
    labels = browser.find_elements(By.XPATH, "//label[contains(., 'Async')]")
    labels[0].click()
    tabs = [label.get_attribute("for") for label in labels]
    assert len(tabs) > 1
    chosen = "return arguments[0].every(each => document.getElementById(each).checked)"
    WebDriverWait(browser, 30).until(lambda window: window.execute_script(chosen, tabs))


@pytest.mark.parametrize("page", ["index.html", "adr/index.html", "reference/mixins.html"])
def test_search_finds_a_function(browser: Any, address: str, page: str) -> None:
    """`get_row` is found from any page, and the result leads to it."""
    links = [each.get_attribute("href") for each in _search(browser, address + page, "get_row")]
    [link] = [each for each in links if (each or "").endswith("#get_row")]
    browser.get(link)
    assert "def get_row" in browser.find_element(By.TAG_NAME, "article").text
    assert console_errors(browser) == []


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
    """What a reader calls a thing leads to its guide, before the reference."""
    [first, *_] = _search(browser, f"{address}index.html", words)
    assert first.get_attribute("href").startswith(address + guide)
    assert console_errors(browser) == []


def test_search_that_finds_nothing_says_so(browser: Any, address: str) -> None:
    """A word that is nowhere has no results."""
    assert _search(browser, f"{address}index.html", "xyzzyplugh") == []


def _search(browser: Any, page: str, words: str) -> list[WebElement]:
    browser.get(page)
    box = browser.find_element(By.CSS_SELECTOR, ".md-search__input")
    box.click()
    box.send_keys(words)
    meta = (By.CSS_SELECTOR, ".md-search-result__meta")
    WebDriverWait(browser, 60).until(
        lambda window: re.search(r"\bmatching doc", window.find_element(*meta).text)
    )
    return list(browser.find_elements(By.CSS_SELECTOR, ".md-search-result__link"))
