"""The test of Dask's client, which is not part of an installation."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request

import distributed

TEST = "distributed/tests/test_client.py"
# The fixtures and the hooks that distributed's own conftest.py gives its tests.
CONFTEST = """
from distributed.utils_test import *  # noqa: F403

pytest_plugins = ["distributed.pytest_resourceleaks"]
"""


class NotAvailableError(Exception):
    """The tests are not here, and cannot be downloaded."""


def prepare(directory: str, checkout: str | None) -> None:
    """Put ``test_client.py`` into a directory, with what it needs.

    Parameters
    ----------
    directory
        An empty one.
    checkout
        Where distributed's sources are; None: download the one file.

    Raises
    ------
    NotAvailableError
        If that fails.
    """
    source = os.path.join(checkout, TEST) if checkout else _downloaded()
    shutil.copy(source, directory)
    with open(os.path.join(directory, "conftest.py"), "w") as f:
        f.write(CONFTEST)


def _downloaded() -> str:
    version = distributed.__version__
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.path.join(cache, "daskps-dask-suites", version, os.path.basename(TEST))
    if not os.path.exists(path):
        url = f"https://raw.githubusercontent.com/dask/distributed/{version}/{TEST}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                text = response.read()
        except (urllib.error.URLError, TimeoutError) as e:
            raise NotAvailableError(
                f"{url} cannot be downloaded: {e}. Give a checkout of dask/distributed "
                f"at {version} with --distributed DIRECTORY."
            ) from e
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".part", "wb") as f:
            f.write(text)
        os.replace(path + ".part", path)
    return path
