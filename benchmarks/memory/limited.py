"""Runs programs in control groups of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from benchmarks.memory.groups import ControlGroup

# A program that has lost a process may wait for ever.
TIMEOUT_SECONDS = 900.0
MIXED_SECONDS = 600.0
_PROGRAM = (sys.executable, "-m", "benchmarks.memory.programs")


class Outcome(NamedTuple):
    """What became of a program.

    Attributes
    ----------
    finished
        Whether it ended without an error, and none of its processes was killed.
    kills
        How many of its processes the kernel has killed.
    peak
        The most bytes that its group held.
    seconds
        How long it took.
    output
        What it said last.
    """

    finished: bool
    kills: int
    peak: int
    seconds: float
    output: str


def run(name: str, who: str, limit: int, *options: str) -> Outcome:
    """Run a program in a limit of memory.

    Parameters
    ----------
    name
        Of one in :mod:`benchmarks.memory.programs`.
    who
        ``"dask"`` or ``"daskps"``.
    limit
        Bytes, for all of its processes together.
    options
        More of its arguments.

    Raises
    ------
    NoGroupsError
        If this machine does not allow that.
    """
    with ControlGroup(limit) as group, tempfile.TemporaryFile("w+") as log:
        start = time.monotonic()
        process = subprocess.Popen(
            group.command([*_PROGRAM, name, who, *options]),
            stdout=log,
            stderr=log,
            env=_environment(),
        )
        # One that was killed is not waited for: others may wait for it.
        while process.poll() is None and not group.kills:
            if time.monotonic() > start + TIMEOUT_SECONDS:
                break
            time.sleep(0.1)
        seconds = time.monotonic() - start
        kills, peak = group.kills, group.peak
        finished = process.poll() == 0 and not kills
        process.kill()
        process.wait()
        log.seek(0)
        return Outcome(finished, kills, peak, seconds, log.read()[-3000:])


def run_mixed(seconds: float, mib: int = 30) -> dict[str, Any]:
    """Run mixed work without a limit; what was left when its session had ended.

    Parameters
    ----------
    seconds
        For how long.
    mib
        Size of each value.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        output = subprocess.run(
            [*_PROGRAM, "mixed", "daskps", f"--seconds={seconds}", f"--mib={mib}"],
            env=_environment({"DASK_DASKPS__SHM__DIRECTORY": directory}),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _environment(more: dict[str, str] | None = None) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **(more or {}), "PYTHONPATH": path}
