"""Where the processes of this host keep what they share, as this host's settings say."""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

import dask
from dask.utils import format_bytes

from daskps.config import size
from daskps.stores.files.directories import sweep
from daskps.stores.memory import file_system, is_in_memory
from daskps.stores.remarks import Remark, warn

# Left free in memory for other programs where no setting says how much.
RESERVE_NBYTES = 64 << 20
# A directory in memory that holds less is small: most large data goes to files. Docker and
# Kubernetes give a container 64 MB.
ROOM_NBYTES_AT_LEAST = 256 << 20


class HostPlaces(NamedTuple):
    """Directories of this host.

    Attributes
    ----------
    parents
        The one in memory, and the one on disk for what has no room there. Without the
        first where this process may not write to it.
    reserve
        Bytes to leave free in the one in memory.
    keep
        Bytes of evicted segments to keep in the one in memory, to be written anew. None:
        nobody keeps any, since none is in memory.
    missing
        The one in memory, if this process may not write to it.
    """

    parents: list[str]
    reserve: int
    keep: int | None
    missing: str | None = None

    @classmethod
    def swept(cls) -> HostPlaces:
        """As configured; deletes there what dead processes left."""
        places = cls.configured()
        places.sweep()
        warn(places.remark())
        return places

    @classmethod
    def configured(cls) -> HostPlaces:
        """From Dask's configuration."""
        keep = size("daskps.shm.keep-warm", dask.config.get("daskps.shm.keep-warm"))
        return cls.around(dask.config.get("daskps.shm.directory"), reserve(), keep)

    @classmethod
    def around(cls, memory: str, reserve: int | None, keep: int) -> HostPlaces:
        """A directory in memory, if it may be written to, and the one on disk.

        Parameters
        ----------
        memory
            The directory.
        reserve, keep
            See the attributes; for the first see also :func:`reserve_in`.
        """
        disk = spill_directory()
        if not writable(disk):
            return cls([memory], reserve_in(memory, reserve), keep)
        if not writable(memory):
            return cls([disk], 0, 0, memory)
        return cls([memory, disk], reserve_in(memory, reserve), keep)

    def sweep(self, dry_run: bool = False) -> list[str]:
        """Delete the directories there whose owners are dead; gives their names."""
        return [
            path for parent in self.parents for path in sweep(parent, dry_run=dry_run)
        ]

    def remark(self) -> Remark | None:
        """What a user should know of them: there is no memory, or little.

        Raises
        ------
        OSError
            If one is gone.
        """
        if self.missing is not None:
            return without_memory(self.missing, self.parents[0])
        if len(self.parents) == 1:
            return None
        memory, disk = self.parents
        room = file_system(memory).total
        if room >= ROOM_NBYTES_AT_LEAST:
            return None
        text = (
            f"{memory} holds {format_bytes(room)} at most, and large values that do not "
            f"fit are files in {_described(disk)}"
        )
        return Remark(text, is_warning=False)


def without_memory(missing: str, instead: str) -> Remark:
    """That there is no directory in memory, and what is used in its place."""
    text = (
        f"{missing} cannot be written to, so large values are files in "
        f"{_described(instead)}"
    )
    return Remark(text, is_warning=True)


def _described(directory: str) -> str:
    # People take it for a disk.
    memory = ", which is in memory as well (a tmpfs)" if is_in_memory(directory) else ""
    return f"{directory}{memory}"


def reserve() -> int | None:
    """The setting ``daskps.shm.reserve``, in bytes.

    Raises
    ------
    daskps.exceptions.ConfigError
        If it is no size.
    """
    given = dask.config.get("daskps.shm.reserve")
    return None if given is None else size("daskps.shm.reserve", given)


def reserve_in(directory: str, wanted: int | None) -> int:
    """Bytes to leave free in a directory; None: 64 MiB, but at most an eighth of it."""
    if wanted is not None or not os.path.isdir(directory):
        return wanted or 0
    return min(RESERVE_NBYTES, file_system(directory).total // 8)


def writable(directory: str) -> bool:
    """Whether this process can make files there: not on a file system mounted to read."""
    return os.access(directory, os.W_OK | os.X_OK)


def spill_directory() -> str:
    """Where to what has no room in memory."""
    return dask.config.get("temporary-directory") or tempfile.gettempdir()
