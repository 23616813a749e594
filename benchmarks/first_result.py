"""From the README to its first result: ``python -m benchmarks.first_result``.

Follows the README in a fresh environment: makes it, installs daskps into it, and runs the
program that stands first, in the page's own text. What is downloaded is downloaded before,
and not timed: how long that takes is the network's matter.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
README = CHECKOUT / "README.md"


def blocks(language: str) -> list[str]:
    """What the README has in blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.M | re.S)


def steps(python: str, directory: Path) -> Iterator[tuple[str, float]]:
    """Each step, and what it took (seconds).

    Raises
    ------
    subprocess.CalledProcessError
        If a step fails.
    RuntimeError
        If the program prints something else than the README says.
    """
    files, environment = directory / "files", directory / "environment"
    _run(python, "-m", "pip", "wheel", "-q", "-w", str(files), str(CHECKOUT))
    own = str(environment / "bin" / "python")
    install = ("-m", "pip", "install", "-q", "--no-index", "--find-links", str(files))
    program, (said, *_) = directory / "first.py", blocks("text")
    program.write_text(blocks("python")[0])
    for what, command in (
        ("make an environment", (python, "-m", "venv", str(environment))),
        ("install daskps", (own, *install, "daskps")),
        ("run the program", (own, str(program))),
    ):
        began = time.perf_counter()
        printed = _run(*command)
        yield what, time.perf_counter() - began
    wanted = said.splitlines()[1:]  # without the warning
    if printed.splitlines() != wanted:
        raise RuntimeError(f"The README says {wanted}, but it printed {printed!r}")


def _run(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_result",
        description="Follow the README in a fresh environment, and time it.",
    )
    parser.add_argument(
        "--python", default=sys.executable, help="which one (default: this one)"
    )
    args = parser.parse_args()
    total = 0.0
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for what, seconds in steps(args.python, Path(directory)):
            total += seconds
            print(f"{what:24}{seconds:6.1f} s", flush=True)
    print(f"{'all':24}{total:6.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
