"""Have warm segments consist of huge pages, little by little.

The kernel maps 2 MiB of a huge page as quickly as 4 KiB of an ordinary one. So who reads a
segment of huge pages spends next to nothing on mapping what it reads, which otherwise takes
longer than reading it. Shared memory has ordinary pages unless an administrator says
otherwise (``/sys/kernel/mm/transparent_hugepage/shmem_enabled``); but since Linux 6.1 a
process may ask for huge ones, with ``MADV_COLLAPSE``, unless it says ``deny`` there.

To get them may take long where memory is in small pieces, or where a hypervisor has to find
it. So that is done when a segment is written anew, and only with a small share of the time.

Uses the standard library alone: the server of a ``peer://`` store imports it.
"""

from __future__ import annotations

import time

from daskps.stores.files.mapping import HUGE_PAGE, address_of, advise, in_huge_pages

# Linux 6.1: moves memory into huge pages; refused before.
MADV_COLLAPSE = 25
# At most this share of the time is spent; what was not, of so many seconds, may be later.
SHARE = 0.1
SECONDS = 1.0
# Bytes to move at once, so that a slow kernel does not hold up anybody for long.
AT_ONCE = max(HUGE_PAGE, 8 << 20)

# Until when (``time.monotonic``) the share is spent.
_spent_until = 0.0


def collapse(mapping: memoryview, done: int) -> int:
    """Have more of a mapping consist of huge pages.

    Parameters
    ----------
    mapping
        From :func:`daskps.stores.files.mapping.map_shared`. What is in it stays.
    done
        How many of its first bytes do already.

    Returns
    -------
    int
        How many do now. Less than all if time is up, or if the kernel refuses.

    Notes
    -----
    Thread-safe.
    """
    global _spent_until
    whole = in_huge_pages(mapping.nbytes)
    start = time.monotonic()
    _spent_until = max(_spent_until, start - SECONDS)
    while done < whole and _spent_until <= start:
        nbytes = min(AT_ONCE, whole - done)
        collapsed = advise(address_of(mapping) + done, nbytes, MADV_COLLAPSE)
        now = time.monotonic()
        _spent_until += (now - start) / SHARE
        if not collapsed:
            break
        done += nbytes
        start = now
    return done
