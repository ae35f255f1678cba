"""A real browser for the tests: Chromium, driven through its own driver."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests import lacking

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none, and CI is root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1600",
)


@contextmanager
def open_browser(profile: Path) -> Iterator[Chrome]:
    """Open a browser window of its own; skip the test where no Chromium is installed.

    Where `CI` is set, a Chromium that is missing is a failure.

    Args:
        profile: An empty folder for what the browser keeps.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(lacking.CHROMIUM)
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With a path to the driver, Selenium looks for no download.
    window = Chrome(options=options, service=Service(executable_path=driver))
    try:
        window.set_page_load_timeout(60)
        yield window
    finally:
        window.quit()


def console_errors(window: Chrome) -> list[str]:
    """Return what went wrong on the pages since the last call: scripts, and files not found."""
    entries = window.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "ERROR"}]
