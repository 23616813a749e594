"""How much memory may still be taken here, and which limit says so.

A container, a pod or a job of a cluster is a control group with a limit. The kernel kills a
process that goes beyond, while file systems in memory say how much the *machine* has. Their
pages count for the group of whoever touched them first, and cannot be reclaimed; the page
cache of files on disks counts as well, and can be. So what is free is the limit, less what
is used but for that cache. A parent's limit is for all of its groups together.

Uses the standard library alone: the server of a ``peer://`` store imports it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

# For how long (seconds) what was read is taken for true, unless much is wanted of it.
READING_SECONDS = 0.1
# It is read again for whoever wants more than this share of what is free.
WANTED_SHARE = 1 / 8
# Of what a limit of memory allows, so much is left for others by whoever stores something:
# the kernel kills where a file system would refuse.
MARGIN_SHARE = 1 / 16
MARGIN_NBYTES_AT_MOST = 64 << 20
# As if all were wanted: what is free has to be read now.
ALL = 1 << 62
# File systems whose files are memory.
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")


class Room(NamedTuple):
    """What one limit allows.

    Attributes
    ----------
    total
        Bytes in all.
    free
        Bytes that may still be taken.
    limit
        Which limit it is, for people.
    """

    total: int
    free: int
    limit: str


def room(directory: str, nbytes: int = 0) -> Room:
    """The room for files in a directory: what the tightest limit leaves.

    Parameters
    ----------
    directory
        Where to.
    nbytes
        How much is wanted: the more, the newer is the answer.

    Raises
    ------
    OSError
        If the directory is gone.
    """
    there = file_system(directory)
    if not is_in_memory(directory):
        return there
    memory = available(nbytes)
    margin = min(MARGIN_NBYTES_AT_MOST, int(memory.total * MARGIN_SHARE))
    free = max(0, memory.free - margin)
    return there if there.free <= free else memory._replace(free=free)


def file_system(directory: str) -> Room:
    """What the file system of a directory allows.

    Raises
    ------
    OSError
        If the directory is gone.
    """
    status = os.statvfs(directory)
    return Room(
        status.f_blocks * status.f_frsize,
        status.f_bavail * status.f_frsize,
        f"the file system of {directory}",
    )


def total(directory: str) -> int:
    """Bytes that files in a directory can be at most, if nothing else were there.

    Raises
    ------
    OSError
        If the directory is gone.
    """
    there = file_system(directory).total
    if not is_in_memory(directory):
        return there
    return min(there, *(limit.total for limit in _limits()))


def is_in_memory(directory: str) -> bool:
    """Whether what is in a directory is memory of this machine."""
    try:
        device = os.stat(directory).st_dev
    except FileNotFoundError:
        return False
    return _is_in_memory(device)


@lru_cache(maxsize=1000)
def _is_in_memory(device: int) -> bool:
    name = f"{os.major(device)}:{os.minor(device)}"
    return any(m.device == name and m.kind in _IN_MEMORY for m in _mounts())


class _Reading:
    """What was read last."""

    limits: list[Room] = []
    until = 0.0


def available(nbytes: int = 0) -> Room:
    """What the tightest limit of memory leaves: the machine's, or a control group's.

    Parameters
    ----------
    nbytes
        As for :func:`room`.
    """
    found = min(_limits(), key=lambda limit: limit.free)
    if nbytes > found.free * WANTED_SHARE:
        found = min(_read(), key=lambda limit: limit.free)
    return found


def _limits() -> list[Room]:
    if time.monotonic() > _Reading.until:
        return _read()
    return _Reading.limits


def _read() -> list[Room]:
    machine = _machine()
    limits = [machine]
    for group in _groups():
        limits += group.limits(machine.total)
    _Reading.limits, _Reading.until = limits, time.monotonic() + READING_SECONDS
    return limits


def _machine(path: str = "/proc/meminfo") -> Room:
    with open(path) as file:
        text = file.read()
    total, free = (
        1024 * int(text.partition(f"{name}:")[2].split(maxsplit=1)[0])
        for name in ("MemTotal", "MemAvailable")
    )
    return Room(total, free, "the machine's memory")


class _Mount(NamedTuple):
    """A line of ``mountinfo``."""

    device: str
    root: str
    point: str
    kind: str
    options: str


def _mounts(path: str = "/proc/self/mountinfo") -> Iterable[_Mount]:
    with open(path) as file:
        for line in file:
            # Any number of optional fields ends with a hyphen.
            left, _, right = line.rstrip("\n").partition(" - ")
            _, _, device, root, point, *_ = left.split(" ")
            kind, _, options = right.split(" ", 2)
            yield _Mount(device, _unescaped(root), _unescaped(point), kind, options)


def _unescaped(path: str) -> str:
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), path)


class Group:
    """The control group of this process in one hierarchy, and its parents that can be seen.

    Parameters
    ----------
    mount
        Where the hierarchy is.
    path
        The group's directory, there or below.
    """

    #: What limits, what it holds, and what of that is the page cache of files on disks.
    _limit_files: tuple[str, ...]
    _usage_file: str
    _cache_fields: tuple[str, ...]

    def __init__(self, mount: str, path: str):
        self._mount = mount
        self.path = path

    def limits(self, machine: int) -> Iterable[Room]:
        """What each of the groups allows that have a limit, the own first.

        Parameters
        ----------
        machine
            Bytes; limits of so much are none.
        """
        path = self.path
        while True:
            # It may be gone, or at the top, without these files.
            with contextlib.suppress(OSError, ValueError):
                found = self._room(path, machine)
                if found is not None:
                    yield found
            if path == self._mount or not path.startswith(f"{self._mount}/"):
                return
            path = os.path.dirname(path)

    def _room(self, path: str, machine: int) -> Room | None:
        limit = self._limit(path, machine)
        if limit >= machine and path != self.path:
            return None
        fields = dict(line.split() for line in _text(path, "memory.stat").splitlines())
        # Of parents that a container does not see.
        limit = min(limit, int(fields.get("hierarchical_memory_limit", limit)))
        if limit >= machine:
            return None
        cache = sum(int(fields.get(name, 0)) for name in self._cache_fields)
        used = int(_text(path, self._usage_file)) - cache
        name = path[len(self._mount) :] or "/"
        text = f"the memory limit of control group {name}"
        return Room(limit, max(0, limit - used), text)

    def _limit(self, path: str, machine: int) -> int:
        """The smallest limit; v1 says more than there is for none."""
        found = machine
        for name in self._limit_files:
            with contextlib.suppress(FileNotFoundError):
                text = _text(path, name)
                if text != "max":
                    found = min(found, int(text))
        return found


class _FirstVersion(Group):
    _limit_files = ("memory.limit_in_bytes",)
    _usage_file = "memory.usage_in_bytes"
    _cache_fields = ("total_inactive_file", "total_active_file")


class _SecondVersion(Group):
    # Beyond the second one, processes are slowed down until they give back.
    _limit_files = ("memory.max", "memory.high")
    _usage_file = "memory.current"
    _cache_fields = ("inactive_file", "active_file")


def _text(directory: str, name: str) -> str:
    with open(os.path.join(directory, name)) as file:
        return file.read().strip()


def _groups(process: str = "/proc/self") -> list[Group]:
    """The groups of a process that have to do with memory: one, or two if both exist.

    Parameters
    ----------
    process
        A directory with ``cgroup`` and ``mountinfo``.
    """
    found: list[Group] = []
    try:
        lines = _text(process, "cgroup").splitlines()
    except OSError:
        return found
    mounts = _group_mounts(process)
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            kind: type[Group] = _SecondVersion
            there = mounts.get("cgroup2")
        elif "memory" in controllers.split(","):
            kind = _FirstVersion
            there = mounts.get("cgroup")
        else:
            continue
        if there is not None:
            found.append(kind(there.point, _below(there, path)))
    return found


@lru_cache(maxsize=100)
def _group_mounts(process: str) -> dict[str, _Mount]:
    """Where the hierarchies are that have to do with memory, by kind."""
    found: dict[str, _Mount] = {}
    with contextlib.suppress(OSError):
        for mount in _mounts(os.path.join(process, "mountinfo")):
            first = mount.kind == "cgroup" and "memory" in mount.options.split(",")
            if first or mount.kind == "cgroup2":
                found.setdefault(mount.kind, mount)
    return found


def _below(mount: _Mount, path: str) -> str:
    """Where a group is, whose path begins at the root of its hierarchy.

    A container sees a part of that, or is told that its own group is the root, with parents
    beside it (``/../..``).
    """
    root = mount.root.rstrip("/")
    inside = path.removeprefix(root) if path.startswith(root) else ""
    if ".." in inside.split("/"):
        inside = ""
    return os.path.normpath(mount.point + inside)
