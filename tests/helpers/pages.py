"""What the dashboard of a cluster shows, as text, as documents and as a browser has it."""

from __future__ import annotations

import contextlib
import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any

from distributed import Client

DRIVER = shutil.which("chromedriver")
#: Why there is no browser; None: there is one.
NO_BROWSER = (
    None
    if DRIVER and shutil.which("chromium")
    else "chromium and chromium-driver (of Debian) are not installed"
)


def base(client: Client) -> str:
    """Where the pages of a cluster's scheduler are."""
    return str(client.dashboard_link).rpartition("/")[0]


def text(url: str) -> str:
    """What a server answers."""
    with urllib.request.urlopen(url, timeout=100) as answer:
        return str(answer.read().decode())


def document(url: str) -> Any:
    """The Bokeh document of a page that is opened now."""
    from bokeh.client import pull_session

    session = pull_session(url=url)
    session.close()
    return session.document


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for option in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,860"),
        # The memory that tests have may be small.
        "--disable-dev-shm-usage",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
