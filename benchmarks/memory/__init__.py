"""How much memory processes of this machine hold, and hold at most."""

from __future__ import annotations

import os
import re
import time

import numpy as np


def reset_peak(pid: int) -> int:
    """Bytes that a process holds now, from where its peak counts anew."""
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most bytes that a process held since :func:`reset_peak`."""
    return _status(pid, "VmHWM")


def available() -> int:
    """Bytes that new programs can have without swapping."""
    with open("/proc/meminfo") as f:
        return _bytes("MemAvailable", f.read())


def bandwidth(nbytes: int = 100_000_000) -> float:
    """Bytes each second at which one thread copies memory that is warm."""
    source, target = np.ones(nbytes // 8), np.ones(nbytes // 8)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return nbytes / min(seconds)


def page_faults(pid: int) -> int:
    """Minor page faults of a process: how often the kernel gave it memory."""
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rpartition(")")[2].split()[7])


def page_size() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE")


def _status(pid: int, name: str) -> int:
    with open(f"/proc/{pid}/status") as f:
        return _bytes(name, f.read())


def _bytes(name: str, text: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
    assert match is not None, f"the kernel does not say {name}"
    return int(match[1]) * 1024
