"""A real browser for the tests: Chromium with its own driver."""

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
    "--no-sandbox",  # root has no sandbox, and CI runs as root
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
    """Open a new browser window; skip the test if Chromium is not installed.

    If `CI` is set, a missing Chromium is a failure.

    Args:
        profile: An empty folder for the browser's profile.
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
    # With a path to the driver, Selenium downloads nothing.
    window = Chrome(options=options, service=Service(executable_path=driver))
    try:
        window.set_page_load_timeout(60)
        yield window
    finally:
        window.quit()


def console_errors(window: Chrome) -> list[str]:
    """Return the errors on pages since the last call: failed scripts and missing files."""
    entries = window.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "ERROR"}]
