"""This host's part of a ``peer://`` store. Runs in every process that uses the store.

The processes of a host share directories, and a server that gives what is in them to other
hosts (:mod:`daskps.stores.peer.server`). Whoever needs the server and finds none starts
one. It holds a lock for as long as it lives, which it inherits from whoever started it, so
that there is one at a time, and that its death is seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import weakref

from daskps.stores.files.connector import SegmentConnector
from daskps.stores.files.copies import HostCache
from daskps.stores.files.locks import try_lock
from daskps.stores.files.places import HostPlaces
from daskps.stores.files.shared_directory import SharedDirectory
from daskps.stores.interfaces import Address, local_host
from daskps.stores.peer.protocol import listen
from daskps.stores.peer.settings import PeerSettings
from daskps.tls import Tls

logger = logging.getLogger(__name__)

SERVER_LOCK = "server.lock"
SERVER_ADDRESS = "server.address"
SERVER_LOG = "server.log"
# How long (seconds) to wait for the address of a server that somebody else starts.
SERVER_START_SECONDS = 5.0
# Seconds between looking whether the server lives.
WATCH_SECONDS = 1.0

# For people who look at the list of processes.
_TITLE = "daskps-peer-server"
# Run by a new interpreter, given file descriptors and nothing secret. It forks at once, so
# that the server is no child of the process that starts it, nor a zombie when it ends. A
# bare package takes the place of daskps, whose __init__ would import all of Dask.
_BOOT = """
import os, sys
if os.fork():
    os._exit(0)
import json, types
with open(int(sys.argv[2])) as file:
    config = json.load(file)
sys.path[:] = config.pop("sys_path")
package = types.ModuleType("daskps")
package.__path__ = config.pop("package_path")
sys.modules["daskps"] = package
from daskps.stores.peer.server import main
main(int(sys.argv[3]), config)
"""


def _package_path() -> list[str]:
    """Where the package is that this file is part of."""
    spec = importlib.util.find_spec(__name__.partition(".")[0])
    assert spec is not None
    return list(spec.submodule_search_locations or ())


class PeerHost:
    """Directories that this process shares with others of its host, and their server.

    Parameters
    ----------
    settings
        Of the store.
    places
        Where the directories are.
    tls
        This process's certificates, which are the server's if it starts that; None: the
        store does without TLS.
    host
        The address of the interface to serve on; None: the one that leads to the owner.

    Attributes
    ----------
    segments
        This host's objects.
    cache
        Copies of other hosts' objects.

    Notes
    -----
    Thread-safe.
    """

    segments: SegmentConnector
    cache: HostCache

    def __init__(
        self,
        settings: PeerSettings,
        places: HostPlaces,
        tls: Tls | None = None,
        host: str | None = None,
    ):
        self._settings = settings
        self._places = places
        self._tls = tls
        self._host = host
        self._directories = [
            SharedDirectory(parent, settings.token) for parent in places.parents
        ]
        paths = [directory.path for directory in self._directories]
        self.segments = SegmentConnector(paths, places.reserve, places.keep)
        self.cache = HostCache(paths, settings.cache, places.reserve)
        self._closed = threading.Event()
        thread = threading.Thread(
            target=_watch,
            args=(weakref.ref(self), self._closed),
            name="daskps-peer-watch",
            daemon=True,
        )
        weakref.finalize(self, self._closed.set)
        self.address()
        thread.start()

    def close(self, remove: bool = False) -> None:
        """Use the store no longer.

        Parameters
        ----------
        remove
            Delete this host's part of it, whoever uses it.
        """
        self._closed.set()
        for directory in self._directories:
            if remove:
                directory.remove()
            directory.close()

    def address(self) -> Address:
        """Where this host's server is, which is started if there is none.

        Raises
        ------
        OSError
            If it cannot be started, or the directories are gone.
        """
        deadline = time.monotonic() + SERVER_START_SECONDS
        while True:
            lock = self._open(SERVER_LOCK, os.O_RDWR | os.O_CREAT)
            try:
                if try_lock(lock, fcntl.LOCK_EX):
                    return self._start(lock)
            finally:
                os.close(lock)
            found = self._read_address()
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(
                    "the server of the store on this host does not start: see "
                    f"{self._path(SERVER_LOG)}"
                )
            time.sleep(0.005)

    def _path(self, name: str) -> str:
        return os.path.join(self._directories[0].path, name)

    def _open(self, name: str, flags: int) -> int:
        return os.open(self._path(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _read_address(self) -> Address | None:
        try:
            with open(self._path(SERVER_ADDRESS)) as file:
                host, port = json.load(file)
        except FileNotFoundError:
            return None
        return host, port

    def _start(self, lock: int) -> Address:
        """Start a server, which keeps the lock."""
        before = self._read_address()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(SERVER_ADDRESS))  # nobody is to use it now
        # It listens before the server runs: whoever connects meanwhile waits.
        with self._listen(before) as sock:
            address: Address = sock.getsockname()[:2]
            with open(self._path(SERVER_ADDRESS + ".part"), "w") as file:
                json.dump(address, file)
            os.rename(file.name, self._path(SERVER_ADDRESS))
            self._spawn(lock, sock)
        return address

    def _listen(self, before: Address | None) -> socket.socket:
        host = self._host or local_host(self._settings.registry)
        if before is not None:
            # Readers know the address of the one that died.
            with contextlib.suppress(OSError):
                sock = listen(host, before[1])
                if sock.getsockname()[:2] == before:
                    return sock
                sock.close()
        return listen(host)

    def _spawn(self, lock: int, sock: socket.socket) -> None:
        config = {
            "key": self._settings.secret.value.hex(),
            "tls": None if self._tls is None else self._tls.config(),
            "token": self._settings.token,
            "parents": self._places.parents,
            "registry": self._settings.registry,
            "lease": self._settings.lease,
            "keep": self._places.keep,
            "sys_path": sys.path,
            "package_path": _package_path(),
        }
        # Not a pipe, which takes 64 KiB without a reader: certificates may be more.
        reader = os.memfd_create("daskps-server")
        log = self._open(SERVER_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with open(reader, "w", closefd=False) as file:
                json.dump(config, file)
            os.lseek(reader, 0, os.SEEK_SET)
            inherited = (reader, sock.fileno(), lock)
            subprocess.Popen(
                [sys.executable, "-c", _BOOT, _TITLE, *map(str, inherited)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=inherited,
                start_new_session=True,
            ).wait()
        finally:
            os.close(reader)
            os.close(log)


def _watch(host: weakref.ref[PeerHost], closed: threading.Event) -> None:
    """Start another server if one was killed: others may be about to read from it."""
    while not closed.wait(WATCH_SECONDS):
        alive = host()
        if alive is None:
            return
        try:
            alive.address()
        except FileNotFoundError:
            return  # the store is closed
        except OSError as e:
            logger.warning("The server of a store on this host is not started: %s", e)
        del alive
