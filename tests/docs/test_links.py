"""Links from page to page: Sphinx checks those of the pages of ``docs/`` as well."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from processes import ROOT

PAGES = [
    page
    for pattern in ("*.md", "docs/*.md", "docs/notebooks/*.ipynb", "tests/*.md")
    for page in sorted(Path(ROOT).glob(pattern))
]
FENCE = re.compile(r"^[ :]*```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)


def text_of(page: Path) -> str:
    """What is not code."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return "\n".join(
            "".join(c["source"]) for c in cells if c["cell_type"] != "code"
        )
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """To what within a page a link can lead."""
    text = text_of(page)
    slugs = {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in HEADING.findall(text)
    }
    return slugs | set(TARGET.findall(text))


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_links_lead_somewhere(page):
    everywhere = {
        target for other in PAGES for target in TARGET.findall(text_of(other))
    }
    for link in LINK.findall(text_of(page)):
        path, _, anchor = link.partition("#")
        if not path:
            assert anchor in anchors(page) | everywhere, link
            continue
        target = (page.parent / path).resolve()
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link
