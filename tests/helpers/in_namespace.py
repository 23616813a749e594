"""Programs that have another /dev/shm: in a mount namespace of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
from processes import PATH, VARIABLES

#: Shell commands that make /dev/shm what it may be in a container.
SMALL = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
READ_ONLY = f"{SMALL} && mount -o remount,ro /dev/shm"
# With the devices that Python needs.
MISSING = (
    'mount -t tmpfs tmpfs "$SCRATCH"'
    ' && cp -a /dev/null /dev/zero /dev/random /dev/urandom "$SCRATCH"'
    ' && mount --bind "$SCRATCH" /dev'
)
#: The temporary directory is in memory, too.
TEMPORARY_IN_MEMORY = 'mount -t tmpfs tmpfs "$TMPDIR"'

# What was started in it ends with it.
_UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork")
_UNSHARE = (*_UNSHARE, "--kill-child", "--mount-proc", "sh", "-c")


def run(program: str, mounts: str, directory: str, *arguments: str) -> Any:
    """Run a helper as a program; what it prints last, as JSON.

    Skips the test if there may be no namespaces here.

    Parameters
    ----------
    program
        A module of the helpers.
    mounts
        Shell commands.
    directory
        An empty one, which becomes the program's temporary directory.
    """
    _skip_without_namespaces()
    temporary = os.path.join(directory, "temporary")
    scratch = os.path.join(directory, "scratch")
    for path in temporary, scratch:
        os.mkdir(path)
    environment = {
        **os.environ,
        "TMPDIR": temporary,
        "SCRATCH": scratch,
        VARIABLES[0]: "/dev/shm",
        VARIABLES[1]: "null",
        "PYTHONPATH": os.pathsep.join(PATH),
    }
    command = f'{mounts} && exec "$@"'
    done = subprocess.run(
        [*_UNSHARE, command, "sh", sys.executable, "-m", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _skip_without_namespaces() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare command")
    tried = [*_UNSHARE, SMALL]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not make a mount namespace: {done.stderr.strip()}")
