"""Write the tables and pictures of the pages anew: ``python docs/figures``.

The figures are in the ``.txt`` files here, as the benchmarks' commands have printed them:
put new output there. With ``--check`` nothing is written, and what is not as it should be
is named.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from images import IMAGES
from tables import with_tables

DOCS = Path(__file__).parents[1]


def made() -> Iterator[tuple[Path, str]]:
    """Each file, and what it should have in it."""
    for name, picture in IMAGES.items():
        yield DOCS / "images" / f"{name}.svg", str(picture())
    for page in (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))):
        yield page, with_tables(page.read_text())


def main(check: bool) -> int:
    """Write, or compare."""
    stale = [
        (path, text)
        for path, text in made()
        if not path.exists() or path.read_text() != text
    ]
    for path, text in stale:
        print(path.relative_to(DOCS.parent))
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
