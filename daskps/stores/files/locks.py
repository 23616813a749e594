"""Locks on open files (``flock``), which the kernel releases with their holder."""

from __future__ import annotations

import fcntl
import os
import time

# A writer that came too late for an evicted segment holds the lock of what became of it
# for a moment. For how long (seconds) a reader tries to lock an object that is there.
READER_WAIT_SECONDS = 5.0


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
    return _is_named(os.fstat(fd), path)


def _is_named(status: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(status, os.stat(path))
    except FileNotFoundError:
        return False


def lock_for_reading(fd: int, status: os.stat_result, path: str) -> bool:
    """Keep writers away from an open segment; False if it is evicted already.

    Parameters
    ----------
    fd, status
        The file, and what ``os.fstat`` says of it.
    path
        The object's name.
    """
    deadline = time.monotonic() + READER_WAIT_SECONDS
    while True:
        locked = try_lock(fd, fcntl.LOCK_SH)
        if not _is_named(status, path):
            return False  # evicted, and perhaps written anew, since it was opened
        if locked or time.monotonic() > deadline:
            return locked
        time.sleep(0.001)
