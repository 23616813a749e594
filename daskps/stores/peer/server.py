"""Gives the objects of one host to others: the server process of a ``peer://`` store.

There is one on each host that stores or reads objects, started by the first process that
does (:mod:`daskps.stores.peer.host`). It outlives that process: what a killed client has
stored is still needed to compute results again. It ends, and deletes everything, when the
owner of the store says so; and by itself when no process of this host uses the store, and
it holds no object, or the owner has not been heard of for the time of a lease.

Uses the standard library and BLAKE3 alone, to be small and quick to start.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from daskps.stores.files.directories import CACHED
from daskps.stores.files.locks import lock_for_reading
from daskps.stores.files.orphans import unlink_orphans
from daskps.stores.files.shared_directory import SharedDirectory
from daskps.stores.files.warm import WarmSegments
from daskps.stores.interfaces import Address
from daskps.stores.peer.listener import Listener
from daskps.stores.peer.protocol import ANSWER_SECONDS, Channel, Keys, connect
from daskps.tls import Tls

logger = logging.getLogger(__name__)

# Creator, and 128 random bits: see SegmentConnector.
_NAME = re.compile(r"[0-9A-Za-z]*\.[0-9A-Za-z_-]{22}")

# How long (seconds) a reader's connection is kept without a request.
IDLE_SECONDS = 60.0
# Seconds between looking whether to end, and between attempts to reach the owner.
LOOK_SECONDS = 1.0
# Seconds between saying to other hosts, which may share a parent directory, that the
# directories are in use: much less than directory.FOREIGN_LEASE.
TOUCH_SECONDS = 60.0
# An owner whose host says so many times in a row that it is not there is dead.
REFUSALS = 3
SEALS_AT_MOST = 10_000


class Owner(NamedTuple):
    """Of a store.

    Attributes
    ----------
    registry
        Where it is.
    lease
        Seconds after which an owner that is not heard of is dead.
    """

    registry: Address
    lease: float


class PeerServer:
    """Serves until it is done.

    Parameters
    ----------
    sock
        Listening.
    keys
        The cluster's.
    directories
        This host's.
    owner
        Of the store.
    keep
        Bytes of evicted segments to keep in the first directory.
    """

    def __init__(
        self,
        sock: socket.socket,
        keys: Keys,
        directories: list[SharedDirectory],
        owner: Owner,
        keep: int,
    ):
        self._keys = keys
        self._address: Address = sock.getsockname()[:2]
        self._directories = directories
        self._warm = WarmSegments(directories[0].path, keep)
        self._owner = owner
        self._heard = time.monotonic()
        self._refusals = 0
        self._closed = threading.Event()
        self._obeying = threading.Lock()
        self._seals: dict[str, bytes] = {}
        self._listener = Listener(sock, self._keys, self._serve)

    def run(self) -> None:
        """Serve; returns when all is deleted."""
        threading.Thread(target=self._take_orders, daemon=True).start()
        touched = 0.0
        while not self._closed.wait(LOOK_SECONDS) and not self._is_done():
            if time.monotonic() > touched + TOUCH_SECONDS:
                touched = time.monotonic()
                self._touch()
        # The directory may be missing since it is being deleted, by an order.
        with self._obeying:
            for directory in self._directories:
                directory.close()

    def _touch(self) -> None:
        for directory in self._directories:
            with contextlib.suppress(FileNotFoundError):  # it is being deleted
                directory.touch()

    def _is_done(self) -> bool:
        silence = time.monotonic() - self._heard
        owner_is_dead = silence > self._owner.lease or self._refusals >= REFUSALS
        try:
            if self._directories[0].has_users():
                return False
            return owner_is_dead or next(self._objects(), None) is None
        except FileNotFoundError:
            return True  # somebody has deleted a directory

    def _objects(self) -> Iterator[str]:
        for directory in self._directories:
            for name in os.listdir(directory.path):
                if _NAME.fullmatch(name.removesuffix(".part")):
                    yield name

    # Orders of the owner

    def _take_orders(self) -> None:
        while not self._closed.is_set():
            try:
                self._take_orders_once()
            except ConnectionRefusedError:
                self._refusals += 1
            except OSError:
                pass  # it may come back
            self._closed.wait(LOOK_SECONDS)

    def _take_orders_once(self) -> None:
        channel = connect(self._owner.registry, self._keys)
        self._refusals = 0
        try:
            channel.send({"address": self._address})
            while not self._closed.is_set():
                order = channel.receive()
                self._heard = time.monotonic()
                with self._obeying:
                    self._obey(order)
                channel.send({})
        finally:
            channel.close()

    def _obey(self, order: dict[str, Any]) -> None:
        match order["op"]:
            case "evict":
                self._evict(order["names"])
            case "orphans":
                paths = [directory.path for directory in self._directories]
                unlink_orphans(paths, order["creator"], order["keep"])
            case "close":
                for directory in self._directories:
                    directory.remove()
                self._closed.set()

    def _evict(self, names: Iterable[str]) -> None:
        for name in filter(_NAME.fullmatch, names):
            self._seals.pop(name, None)
            for directory in self._directories:
                path = os.path.join(directory.path, name)
                with contextlib.suppress(FileNotFoundError):
                    if directory is self._directories[0]:
                        self._warm.evict(path, os.stat(path).st_size)
                    else:
                        os.unlink(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(directory.path, CACHED + name))

    # Requests of readers

    def _serve(self, channel: Channel) -> None:
        while True:
            channel.socket.settimeout(IDLE_SECONDS)
            request = channel.receive()
            channel.socket.settimeout(ANSWER_SECONDS)
            match request["op"]:
                case "get":
                    self._give(channel, request["name"], request["nbytes"])
                case "has":
                    fd = self._open(request["name"], request["nbytes"])
                    if fd is not None:
                        os.close(fd)
                    channel.send({"found": fd is not None})
                case "evict":
                    self._evict(request["names"])
                    channel.send({})

    def _open(self, name: str, nbytes: int) -> int | None:
        if not _NAME.fullmatch(name):
            return None
        for directory in self._directories:
            path = os.path.join(directory.path, name)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            # Until it is closed and unmapped nobody writes it anew.
            status = os.fstat(fd)
            if status.st_size == nbytes and lock_for_reading(fd, status, path):
                return fd
            os.close(fd)
        return None

    def _give(self, channel: Channel, name: str, nbytes: int) -> None:
        fd = self._open(name, nbytes)
        if fd is None:
            channel.send({"found": False})
            return
        with open(fd, "rb") as file:
            channel.send({"found": True})
            seal = _Sealing(self._keys, self._seals, name, file.fileno(), nbytes)
            channel.send_file(file.fileno(), 0, nbytes)
            channel.socket.sendall(seal.result())


class _Sealing:
    """Hashes an object while it is being sent, unless its seal is known."""

    def __init__(
        self, keys: Keys, seals: dict[str, bytes], name: str, fd: int, nbytes: int
    ):
        self._seal = seals.get(name)
        self._hash = keys.seal(name, nbytes)
        self._seals, self._name = seals, name
        self._data: mmap.mmap | bytes = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self._seal is None:
            # Here: the file may be closed before the thread comes to it.
            if nbytes:
                self._data = mmap.mmap(fd, nbytes, prot=mmap.PROT_READ)
            self._thread.start()

    def _run(self) -> None:
        self._hash.update(self._data)
        self._data = b""
        self._seal = self._hash.digest()
        if len(self._seals) > SEALS_AT_MOST:
            self._seals.clear()
        self._seals[self._name] = self._seal

    def result(self) -> bytes:
        """The seal."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._seal is None:
            raise ConnectionAbortedError("the object could not be read")
        return self._seal


def main(listener: int, config: dict[str, Any]) -> None:
    """Serve on an inherited socket.

    Parameters
    ----------
    listener
        Its file descriptor.
    config
        The store's key, certificates (or None), token, registry and lease, this host's
        parent directories, and how much of evicted objects it keeps.
    """
    # Readers keep connections: each process of each host may have several.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    try:
        directories = [
            SharedDirectory(parent, config["token"], is_user=False)
            for parent in config["parents"]
        ]
    except FileNotFoundError:
        os._exit(0)  # the store was closed meanwhile
    tls = None if config["tls"] is None else Tls(**config["tls"])
    PeerServer(
        socket.socket(fileno=listener),
        Keys(bytes.fromhex(config["key"]), tls),
        directories,
        Owner(tuple(config["registry"]), config["lease"]),
        config["keep"],
    ).run()
    sys.stdout.flush()
    os._exit(0)  # without waiting for readers
