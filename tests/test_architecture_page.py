"""What the pages say about where things are in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import daskps

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
