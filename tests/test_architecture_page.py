"""What the pages say about the code: where things are, and how to write a store."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import daskps
from daskps.stores.connectors.config import ConnectorConfig

ROOT = Path(__file__).parent.parent
PACKAGE = Path(daskps.__file__).parent
DOCS = ROOT / "docs"
PAGES = ("architecture.md", "stores.md")

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
# Relative, with a slash or the ending of a file: neither a URL, nor a place on a host.
PATH = re.compile(
    r"(?![/~])(?:[\w.-]+/)*(?:[\w-]+/|[\w.-]+/[\w.-]+|[\w.-]+\.(?:py|toml))"
)


def quoted(page: str) -> list[str]:
    """What is in backticks on a page, but for its examples."""
    return QUOTED.findall(FENCE.sub("", (DOCS / page).read_text()))


def paths(page: str) -> list[str]:
    """The files and directories that a page names."""
    return [text for text in quoted(page) if PATH.fullmatch(text)]


def packages() -> list[str]:
    """The packages within daskps, as paths."""
    files = PACKAGE.rglob("__init__.py")
    return sorted(
        file.parent.relative_to(PACKAGE).as_posix()
        for file in files
        if file.parent != PACKAGE
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    named = paths(page)
    assert named
    missing = [
        path
        for path in named
        if not any(
            (place / path).is_dir() if path.endswith("/") else (place / path).exists()
            for place in (PACKAGE, ROOT)
        )
    ]
    assert not missing


def test_the_architecture_page_names_every_package():
    named = {path.rstrip("/") for path in paths("architecture.md")}
    # The doors are named as they are imported.
    named |= {
        text.removeprefix("daskps.").replace(".", "/")
        for text in quoted("architecture.md")
        if text.startswith("daskps.")
    }
    assert len(packages()) > 10
    assert not set(packages()) - named


def test_the_architecture_page_names_files_that_a_reader_opens():
    """It is a page of concepts, not a list of files."""
    files = {path for path in paths("architecture.md") if path.endswith(".py")}
    assert 10 < len(files) < len(list(PACKAGE.rglob("*.py"))) / 2


def test_the_example_of_a_store_works(tmp_path, monkeypatch):
    example, *_ = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "stores.md").read_text(), re.M | re.S
    )
    (tmp_path / "example_store.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    import example_store

    objects = tmp_path / "objects"
    objects.mkdir()
    owner = example_store.DirectoryConnector(str(objects), owner=True)
    other = ConnectorConfig.of(owner).make()
    key = other.put_frames([b"head", np.arange(12).reshape(3, 4).T])
    other.close()
    assert owner.get(key) == b"head" + np.arange(12).reshape(3, 4).T.tobytes()
    owner.evict(key)
    assert owner.get(key) is None
    left = owner.put(b"left")
    owner.close()
    assert not owner.exists(left)
