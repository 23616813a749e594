"""Where the processes of this host keep what they share, as this host's settings say."""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

import dask

from daskps.config import size
from daskps.stores.files.directories import sweep


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
        Bytes of evicted segments to keep in the one in memory, to be written anew.
    """

    parents: list[str]
    reserve: int
    keep: int

    @classmethod
    def swept(cls) -> HostPlaces:
        """As configured; deletes there what dead processes left."""
        places = cls.configured()
        places.sweep()
        return places

    @classmethod
    def configured(cls) -> HostPlaces:
        """From Dask's configuration."""
        memory, disk = dask.config.get("daskps.shm.directory"), spill_directory()
        reserve, keep = (
            size(key, dask.config.get(key))
            for key in ("daskps.shm.reserve", "daskps.shm.keep-warm")
        )
        if writable(disk) and not writable(memory):
            return cls([disk], 0, 0)
        return cls([memory, disk] if writable(disk) else [memory], reserve, keep)

    def sweep(self, dry_run: bool = False) -> list[str]:
        """Delete the directories there whose owners are dead; gives their names."""
        return [
            path for parent in self.parents for path in sweep(parent, dry_run=dry_run)
        ]


def writable(directory: str) -> bool:
    """Whether this process can make files there: not on a file system mounted to read."""
    return os.access(directory, os.W_OK | os.X_OK)


def spill_directory() -> str:
    """Where to what has no room in memory."""
    return dask.config.get("temporary-directory") or tempfile.gettempdir()
