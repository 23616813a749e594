"""File systems with little room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def tmpfs(path: str | os.PathLike[str], size: str) -> Iterator[str]:
    """Mount a tmpfs, as /dev/shm may be in a container; skips the test if that may not be.

    Parameters
    ----------
    path
        An empty directory.
    size
        As ``mount`` takes it, such as ``"2m"``.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as e:
        pytest.skip(f"no mount command: {e}")
    if done.returncode:
        pytest.skip(f"may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield str(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
