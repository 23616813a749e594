"""What one host holds of a store in its memory and its files, for people who ask."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

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
    linked
        Bytes that objects take which are more names of the files of others: none, but
        whoever adds up the sizes of objects counts them.
    """

    place: str
    copies: int
    warm: int
    warm_at_most: int
    room: int
    limit: str
    linked: int = 0


def together(said: Iterable[Holdings]) -> dict[str, Any]:
    """What hosts hold together, of which several processes may have said it."""
    hosts = list({one.place: one for one in said}.values())
    least = min(hosts, key=lambda one: one.room, default=None)
    return {
        "copies": sum(one.copies for one in hosts),
        "warm": sum(one.warm for one in hosts),
        "warm_at_most": sum(one.warm_at_most for one in hosts),
        "linked": sum(one.linked for one in hosts),
        "room": None if least is None else least.room,
        "limit": None if least is None else least.limit,
    }


def add_holdings(row: dict[str, Any], said: Iterable[Holdings]) -> None:
    """Add what hosts hold to what is known of a store; what is linked takes nothing."""
    row.update(together(said))
    row["result_bytes"] = max(0, row["result_bytes"] - row["linked"])


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
    sizes = {"copies": 0, "warm": 0, "linked": 0}
    seen = set()
    for name, file in _files(directories):
        if name.startswith(cached):
            sizes["copies"] += file.st_size
        elif name.startswith(free):
            sizes["warm"] += file.st_size
        elif file.st_nlink > 1:
            inode = file.st_dev, file.st_ino
            sizes["linked"] += file.st_size if inode in seen else 0
            seen.add(inode)
    room = memory.room(directories[0])
    with open("/proc/sys/kernel/random/boot_id") as boot:
        place = f"{boot.read().strip()}-{status.st_dev}-{status.st_ino}"
    return Holdings(
        place, **sizes, warm_at_most=warm_at_most, room=room.free, limit=room.limit
    )


def _files(directories: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
