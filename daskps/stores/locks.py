"""Locks on open files (``flock``), which the kernel releases with their holder."""

from __future__ import annotations

import fcntl
import os


def try_lock(fd: int, kind: int) -> bool:
    """Lock an open file, unless somebody holds a lock that does not go with it.

    Parameters
    ----------
    fd
        The file.
    kind
        ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.
    """
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(fd: int, path: str) -> bool:
    """Whether the file that is open is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
