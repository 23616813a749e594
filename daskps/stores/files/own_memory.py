"""Memory that a process holds for itself, not in common with a store.

Linux counts each mapping of a page in the resident set of a process (RSS). Of a value that
four threads have mapped for four tasks, it shows four times the size, although nobody of
them has any memory of it: the pages are the store's, and remain when they are unmapped. So
whoever watches the memory of a process has to leave them out, except those that were
written to: the kernel has copied these for this process alone.

``/proc/PID/smaps`` says it exactly, for some 15 ms of processor time for each GiB that is
mapped. ``/proc/PID/statm`` costs nothing, and says how much is shared with anything. So the
former is read now and then, and in between what is not of stores counts as unchanged:
libraries, and memory that the user's own functions share.

Uses the standard library alone: nannies import it.
"""

from __future__ import annotations

import re
import sys
import time
from mmap import PAGESIZE

# At most this share of a thread's time, and not more often than that (seconds).
TIME_SHARE = 0.02
PAUSE_SECONDS = 1.0

# A file right in a directory of a store, or in one that is being deleted: whatever else is
# below a directory of such a name, an environment of Python say, is deeper.
_FILE_OF_STORE = re.compile(
    rb"/daskps[-.][^/\n]*/[^/\n]*\n"
    rb"(?:[A-Z][^\n]*\n)*?Rss: +(\d+) kB\n"
    rb"(?:[A-Z][^\n]*\n)*?Anonymous: +(\d+) kB\n"
)
_FIELDS = re.compile(rb"\nRss: +(\d+) kB"), re.compile(rb"\nAnonymous: +(\d+) kB")


class OwnMemory:
    """Watches one process.

    Parameters
    ----------
    pid
        The process, this one or one of the same user.

    Notes
    -----
    Not thread-safe.
    """

    def __init__(self, pid: int):
        self._pid = pid
        self._others = 0
        self._next = 0.0

    def resident(self) -> int:
        """Bytes of its resident set.

        Raises
        ------
        OSError
            If there is no such process.
        """
        return _resident(self._pid)[0]

    def private(self) -> int:
        """Bytes that it shares with nothing: no more than what it holds for itself.

        Raises
        ------
        OSError
            If there is no such process.
        """
        resident, shared = _resident(self._pid)
        return resident - shared

    def own(self) -> int:
        """Bytes that it holds for itself.

        Where the kernel does not say, as in some sandboxes, all of its resident set.

        Raises
        ------
        OSError
            If there is no such process.
        """
        if time.monotonic() >= self._next:
            self._look()
        # Both at once: a task that ends meanwhile unmaps what it had.
        resident, shared = _resident(self._pid)
        return resident - max(0, shared - self._others)

    def _look(self) -> None:
        before = time.thread_time()
        try:
            self._others = _shared_with_others(self._pid)
        except OSError:
            self._others = sys.maxsize
        spent = time.thread_time() - before
        self._next = time.monotonic() + max(PAUSE_SECONDS, spent / TIME_SHARE)


def _resident(pid: int) -> tuple[int, int]:
    """Bytes that are resident, and those of them that files or shared memory have, too."""
    with open(f"/proc/{pid}/statm", "rb") as file:
        _, resident, shared, *_ = file.read().split()
    return int(resident) * PAGESIZE, int(shared) * PAGESIZE


def _shared_with_others(pid: int) -> int:
    """Bytes of pages in a resident set that are shared, but not with stores.

    Added up, not what is left of all: stores are mapped and unmapped while this is read.
    """
    with open(f"/proc/{pid}/smaps", "rb") as file:
        text = file.read()
    resident, copied = (sum(map(int, field.findall(text))) for field in _FIELDS)
    of_stores = sum(int(r) - int(c) for r, c in _FILE_OF_STORE.findall(text))
    return (resident - copied - of_stores) << 10
