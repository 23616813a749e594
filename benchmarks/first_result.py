"""From the README to its first result: ``python -m benchmarks.first_result``.

Follows the README in a fresh environment: makes it, installs this checkout into it, and
runs the program that stands first. Packages are downloaded before, and that is not timed:
how long it takes is the network's matter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
README = CHECKOUT / "README.md"
PYPROJECT = CHECKOUT / "pyproject.toml"


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
    build = tomllib.loads(PYPROJECT.read_text())["build-system"]["requires"]
    for wanted in [str(CHECKOUT)], build:
        _run(python, "-m", "pip", "wheel", "-q", "-w", str(files), *wanted)
    own = str(environment / "bin" / "python")
    install = ("-m", "pip", "install", "-q", "--no-index", "--find-links", str(files))
    program, (said, *_) = directory / "first.py", blocks("text")
    program.write_text(blocks("python")[0])
    for what, command in (
        ("make an environment", (python, "-m", "venv", str(environment))),
        ("install daskps", (own, *install, str(CHECKOUT))),
        ("run the program", (own, str(program))),
    ):
        began = time.perf_counter()
        printed = _run(*command)
        yield what, time.perf_counter() - began
    expected = said.splitlines()[1:]  # without the warning
    if printed.splitlines() != expected:
        raise RuntimeError(f"The README says {expected}, but it printed {printed!r}")


def _run(*command: str) -> str:
    # As a newcomer has it, who has set nothing yet.
    names = ("PYTHON", "DASK", "VIRTUAL_ENV")
    env = {k: v for k, v in os.environ.items() if not k.startswith(names)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=env
    )
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
