"""Tables and pictures of the pages are what the outputs of the benchmarks make them."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from processes import ROOT

DOCS = Path(ROOT, "docs")
IMAGES = sorted((DOCS / "images").glob("*.svg"))


def test_they_are_up_to_date():
    done = subprocess.run(
        [sys.executable, os.path.join(DOCS, "figures"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, f"run python docs/figures: {done.stdout}{done.stderr}"


def test_every_output_is_shown():
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    outputs = [path.stem for path in (DOCS / "figures").glob("*.txt")]
    assert len(outputs) >= 10
    missing = [name for name in outputs if f"<!-- table {name}" not in pages]
    assert not missing


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_pictures_are_read_by_all(image):
    """They have a title, colours for light and dark, and are shown on some page."""
    root = ET.fromstring(image.read_text())
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text
    assert "prefers-color-scheme: dark" in image.read_text()
    pages = [Path(ROOT, "README.md"), *DOCS.glob("*.md")]
    assert any(f"images/{image.name})" in page.read_text() for page in pages)
