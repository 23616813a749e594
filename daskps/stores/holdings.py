"""What one host holds of a store in its memory and its files, for people who ask."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from daskps.stores import memory


class Holdings(NamedTuple):
    """What one host holds of a store besides objects and results.

    Attributes
    ----------
    place
        Which memory it is: processes that share it say the same.
    copies
        Bytes of copies of what was stored elsewhere.
    warm
        Bytes of evicted objects, kept to be written anew.
    warm_at_most
        How much of that is kept.
    room
        Bytes that may still be stored in memory.
    limit
        Which limit makes that, for people.
    """

    place: str
    copies: int
    warm: int
    warm_at_most: int
    room: int
    limit: str


def in_directories(
    directories: Sequence[str], cached: str, free: str, warm_at_most: int
) -> Holdings:
    """What is in directories that the processes of this host share.

    Parameters
    ----------
    directories
        The first one counts for the room.
    cached, free
        What the names of copies, and of evicted objects, begin with.
    warm_at_most
        See :class:`Holdings`.

    Raises
    ------
    OSError
        If they are gone.
    """
    status = os.stat(directories[0])
    sizes = {"copies": 0, "warm": 0}
    for name, nbytes in _files(directories):
        if name.startswith(cached):
            sizes["copies"] += nbytes
        elif name.startswith(free):
            sizes["warm"] += nbytes
    room = memory.room(directories[0])
    with open("/proc/sys/kernel/random/boot_id") as file:
        place = f"{file.read().strip()}-{status.st_dev}-{status.st_ino}"
    return Holdings(
        place, **sizes, warm_at_most=warm_at_most, room=room.free, limit=room.limit
    )


def _files(directories: Sequence[str]) -> Iterator[tuple[str, int]]:
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size
