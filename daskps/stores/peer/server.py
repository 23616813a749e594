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
import fcntl
import logging
import os
import re
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from daskps.stores.files.directories import CACHED
from daskps.stores.files.locks import lock_for_reading, try_lock
from daskps.stores.files.orphans import unlink_orphans, unlink_unless_written
from daskps.stores.files.shared_directory import SharedDirectory
from daskps.stores.files.warm import WarmSegments
from daskps.stores.interfaces import Address, pair
from daskps.stores.peer import chunks
from daskps.stores.peer.listener import Listener
from daskps.stores.peer.protocol import ANSWER_SECONDS, Channel, Keys, connect
from daskps.stores.peer.pushes import Pushes
from daskps.stores.peer.sources import Sources
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
# How long (seconds) a host may take to take what is pushed to it.
CONNECT_SECONDS = 3.5
# How long (seconds) a reader may take that reads from somebody else.
READING_SECONDS = 600.0


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
        #: Paths of what processes were writing whose connection to the scheduler has ended.
        self._unfinished: list[str] = []
        self._sources = Sources(self._address)
        self._pushes = Pushes()
        self._listener = Listener(sock, self._keys, self._serve)

    def run(self) -> None:
        """Serve; returns when all is deleted."""
        threading.Thread(target=self._take_orders, daemon=True).start()
        touched = 0.0
        while not self._closed.wait(LOOK_SECONDS) and not self._is_done():
            if time.monotonic() > touched + TOUCH_SECONDS:
                touched = time.monotonic()
                self._touch()
            with self._obeying:
                self._unfinished = [
                    path for path in self._unfinished if not unlink_unless_written(path)
                ]
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
                    answer = self._obey(order)
                channel.send(answer)
        finally:
            channel.close()

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what the owner says, and answer at once."""
        match order["op"]:
            case "evict":
                return self._evict(order["names"])
            case "orphans":
                paths = [directory.path for directory in self._directories]
                self._unfinished += unlink_orphans(
                    paths, order["creator"], order["keep"]
                )
            case "holds":
                fd = self._open(order["name"], order["nbytes"]) or self._open_copy(
                    order["name"], order["nbytes"]
                )
                if fd is not None:
                    os.close(fd)
                return {"found": fd is not None}
            case "push":
                return self._begin_push(order)
            case "ended":
                self._ended(order)
            case "close":
                for directory in self._directories:
                    directory.remove()
                self._closed.set()
        return {}

    def _evict(self, names: Iterable[str]) -> dict[str, Any]:
        """Delete objects, or copies; says who else has copies."""
        names = list(filter(_NAME.fullmatch, names))
        for name in names:
            for directory in self._directories:
                path = os.path.join(directory.path, name)
                with contextlib.suppress(FileNotFoundError):
                    if directory is self._directories[0]:
                        self._warm.evict(path, os.stat(path).st_size)
                    else:
                        os.unlink(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(directory.path, CACHED + name))
        return {"copies": self._sources.forget(names)}

    # Requests of readers

    def _serve(self, channel: Channel) -> None:
        while True:
            channel.socket.settimeout(IDLE_SECONDS)
            request = channel.receive()
            channel.socket.settimeout(ANSWER_SECONDS)
            match request["op"]:
                case "get":
                    self._get(channel, request)
                case "copy":
                    self._send(channel, request, self._open_copy)
                case "has":
                    fd = self._open(request["name"], request["nbytes"])
                    if fd is not None:
                        os.close(fd)
                    channel.send({"found": fd is not None})
                case "evict":
                    channel.send(self._evict(request["names"]))
                case "wait":
                    self._pushes.wait(request["ticket"], request["seconds"], channel)
                case "pushed":
                    self._pushes.arrived(request["ticket"], channel)
                    return

    def _get(self, channel: Channel, request: dict[str, Any]) -> None:
        """Send an object, or say who does."""
        source = self._begins(request)
        if source == self._address:
            self._send_mine(channel, request)
            return
        # As long as the connection lasts the reader is reading, or says that it has ended.
        try:
            channel.send({"source": source})
            channel.socket.settimeout(READING_SECONDS)
            request["whole"] = channel.receive()["whole"]
        finally:
            self._ended(request)

    def _begins(self, request: dict[str, Any]) -> Address:
        without = {pair(address) for address in request["without"]}
        reader = pair(request["reader"])
        name, nbytes = request["name"], request["nbytes"]
        return self._sources.begins(name, nbytes, reader, without)

    def _ended(self, request: dict[str, Any]) -> None:
        reader = pair(request["reader"])
        self._sources.ended(request["name"], reader, request.get("whole", False))

    def _send_mine(self, channel: Channel, request: dict[str, Any]) -> None:
        """Send an object of this host to a reader, who then has a copy."""
        try:
            request["whole"] = self._send(channel, request, self._open)
        finally:
            self._ended(request)

    def _begin_push(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have an object sent to who cannot connect to us, or say who else has it."""
        source = self._begins(order)
        if source != self._address:
            return {"source": source}
        threading.Thread(
            target=self._push, args=(order,), name="daskps-push", daemon=True
        ).start()
        return {}

    def _push(self, order: dict[str, Any]) -> None:
        try:
            channel = connect(pair(order["reader"]), self._keys, CONNECT_SECONDS)
            try:
                channel.send({"op": "pushed", "ticket": order["ticket"]})
                self._send_mine(channel, order)
                # Closed before the other end has read all, it may lose some.
                channel.socket.shutdown(socket.SHUT_WR)
                channel.socket.recv(1)
            finally:
                channel.close()
        except OSError as e:
            logger.info("An object could not be pushed to %s: %s", order["reader"], e)
            self._ended(order)

    def _send(
        self,
        channel: Channel,
        request: dict[str, Any],
        open_it: Callable[[str, int], int | None],
    ) -> bool:
        """Send an object from a byte on, if it is here; whether it is."""
        wanted = chunks.Wanted(request["name"], request["nbytes"], request["start"])
        fd = open_it(wanted.name, wanted.nbytes)
        if fd is None:
            channel.send({"found": False})
            return False
        with open(fd, "rb", buffering=0):
            channel.send({"found": True, "nbytes": wanted.nbytes - wanted.start})
            there = partial(_written, fd, wanted.nbytes)
            chunks.send(channel, self._keys, wanted, fd, there)
        return True

    def _open(self, name: str, nbytes: int) -> int | None:
        """An object of this host."""
        if not _NAME.fullmatch(name):
            return None
        for directory in self._directories:
            path = os.path.join(directory.path, name)
            try:
                fd = _open_file(path)
            except FileNotFoundError:
                continue
            # Until it is closed nobody writes it anew.
            status = os.fstat(fd)
            if status.st_size == nbytes and lock_for_reading(fd, status, path):
                return fd
            os.close(fd)
        return None

    def _open_copy(self, name: str, nbytes: int) -> int | None:
        """A copy of another host's object, whole or as far as it has come."""
        if not _NAME.fullmatch(name):
            return None
        for suffix in "", ".part", "":  # it may be given its name at this moment
            for directory in self._directories:
                path = os.path.join(directory.path, CACHED + name + suffix)
                with contextlib.suppress(FileNotFoundError):
                    fd = _open_file(path)
                    if os.fstat(fd).st_size <= nbytes:
                        return fd
                    os.close(fd)
        return None


def _open_file(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _written(fd: int, nbytes: int) -> int:
    """How far a copy has come.

    Raises
    ------
    ConnectionAbortedError
        If there will be no more.
    """
    written = os.fstat(fd).st_size
    if written < nbytes and try_lock(fd, fcntl.LOCK_SH):
        # Who writes it has the lock until it is whole.
        fcntl.flock(fd, fcntl.LOCK_UN)
        written = os.fstat(fd).st_size
        if written < nbytes:
            raise ConnectionAbortedError("who was reading it has gone")
    return written


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
