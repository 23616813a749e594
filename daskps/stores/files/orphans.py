"""Segments that nobody needs any more, since whoever wrote them is dead.

Uses the standard library alone: the server of a ``peer://`` store imports it, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable

from daskps.stores.files.locks import try_lock


def unlink_unless_written(path: str) -> bool:
    """Delete a segment, or the beginning of one that nobody is writing any more.

    Returns
    -------
    bool
        Whether it is gone.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Readers' locks do not matter: they keep what they have mapped.
            if path.endswith(".part") and not try_lock(fd, fcntl.LOCK_EX):
                return False
            os.unlink(path)
        finally:
            os.close(fd)
    return True


def unlink_orphans(
    directories: Iterable[str], creator: str, keep: Iterable[str]
) -> list[str]:
    """Delete the segments of one creator, except those with these names.

    Returns
    -------
    list of str
        Paths of what somebody is writing at this moment, and so stays.
    """
    keep, written = set(keep), []
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.startswith(f"{creator}.") or entry.name in keep:
                    continue
                if not unlink_unless_written(entry.path):
                    written.append(entry.path)
    return written
