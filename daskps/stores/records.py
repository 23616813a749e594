"""What a cluster has in a store of the user's own, written down in case it is killed.

A store that daskps makes is a directory, and goes with its owner. One that the user made
outlives the cluster, and does not know what in it was the cluster's. So the scheduler keeps
a record of that, in a directory of its own, and who opens such a store next on this host
evicts what a dead scheduler has left.

The record holds what is needed to open the store, credentials perhaps. Only this user can
read it, and it is in memory as a rule (``/dev/shm``), and not on a disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import dask

from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.connectors.sealed import SealedConnector
from daskps.stores.files.directories import OwnedDirectory, dead_directories, delete
from daskps.stores.store import Store

logger = logging.getLogger(__name__)

# Not that of stores: who sweeps these does not know other stores.
PREFIX = "daskps.record-"
STORE = "store"
OBJECTS = "objects"
# A record is written anew when it has so many entries more than twice those that count.
ENTRIES = 1000


def place() -> str:
    """The directory in which records are kept."""
    directory: str = dask.config.get("daskps.shm.directory")
    return directory if os.path.isdir(directory) else tempfile.gettempdir()


class Record:
    """The objects of this process in one store. Not thread-safe.

    Without room to write it, or a place for it, there is none, and the log says so: it only
    matters if this process is killed.

    Parameters
    ----------
    config
        How the user's store is opened.
    """

    _directory: OwnedDirectory | None
    _file: int
    _keys: set[Any]
    _entries: int

    def __init__(self, config: ConnectorConfig):
        self._directory = None
        self._keys = set()
        with self._or_none():
            self._directory = OwnedDirectory(place(), PREFIX)
            with open(self._path(STORE), "xb", opener=_private) as f:
                pickle.dump(config, f)
            self._write_anew()

    def add(self, key: Any) -> None:
        """An object is in the store now."""
        if key not in self._keys:
            self._keys.add(key)
            self._write(True, key)

    def remove(self, key: Any) -> None:
        """It is no longer there."""
        if key in self._keys:
            self._keys.discard(key)
            self._write(False, key)

    def close(self) -> None:
        """This process ends. What is still in the store is left to the next one."""
        if self._directory is None:
            return
        os.close(self._file)
        if self._keys:
            self._directory.leave()
        else:
            self._directory.remove()

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            logger.error("What a store holds cannot be written down: %s", e)
            if self._directory is not None:
                self._directory.remove()
                self._directory = None

    def _path(self, name: str) -> str:
        assert self._directory is not None
        return os.path.join(self._directory.path, name)

    def _write(self, there: bool, key: Any) -> None:
        if self._directory is None:
            return
        with self._or_none():
            # At once, and to the kernel: this process may be killed.
            os.write(self._file, pickle.dumps((there, key)))
            self._entries += 1
            if self._entries > 2 * len(self._keys) + ENTRIES:
                os.close(self._file)
                self._write_anew()

    def _write_anew(self) -> None:
        path = self._path(OBJECTS)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path + ".new", flags, 0o600)
        with open(self._file, "wb", closefd=False) as f:
            for key in self._keys:
                pickle.dump((True, key), f)
        os.rename(path + ".new", path)
        self._entries = len(self._keys)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def sweep_soon() -> None:
    """Evict what dead schedulers have left, in the background: a store may be slow."""
    threading.Thread(target=sweep_records, name="daskps-sweep", daemon=True).start()


def sweep_records(parent: str | None = None, *, dry_run: bool = False) -> list[str]:
    """Evict what dead schedulers have left in stores of the user's own.

    Safe to run at any time, by several processes at once. What cannot be evicted now is
    left for the next time.

    Parameters
    ----------
    parent
        Where the records are. Default: :func:`place`.
    dry_run
        Only say which records there are.

    Returns
    -------
    list of str
        The records' directories that are done with.
    """
    done = []
    for path in dead_directories(parent or place(), PREFIX):
        try:
            if not dry_run:
                _evict(path)
                delete(path)
            done.append(path)
        except Exception as e:
            logger.warning("Objects of %s stay in their store for now: %r", path, e)
    return done


def _evict(path: str) -> None:
    keys = _read(os.path.join(path, OBJECTS))
    if not keys:
        return
    with open(os.path.join(path, STORE), "rb") as f:
        config: ConnectorConfig = pickle.load(f)
    store = Store("", SealedConnector(config))
    try:
        for key in keys:
            store.connector.evict(key)
    finally:
        store.close()
    logger.info(
        "Evicted %d objects that a dead scheduler left in %s",
        len(keys),
        store.connector,
    )


def _read(path: str) -> set[Any]:
    keys: set[Any] = set()
    # Its owner may have died before it wrote the file, or in the middle of an entry.
    ends = (FileNotFoundError, EOFError, pickle.UnpicklingError)
    with contextlib.suppress(*ends), open(path, "rb") as f:
        while True:
            there, key = pickle.load(f)
            (keys.add if there else keys.discard)(key)
    return keys
