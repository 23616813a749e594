"""Hosts for ``peer://`` stores: directories, and addresses of this machine."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
from certificates import Authority
from processes import PLACES, eventually

from daskps.dask_private.security import configured_tls
from daskps.stores.peer.connector import PeerConnector
from daskps.tls import Tls

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")


class Peers:
    """A store's owner, and the directories of some hosts.

    With TLS (`encrypted`), the certificates are those of Dask's configuration.
    """

    def __init__(
        self, lease: float = 60, cache: int | None = None, encrypted: bool = False
    ):
        self.certificates = Path(tempfile.mkdtemp())
        self._tls: dict[str, str] = {}
        if encrypted:
            self._tls = Authority().settings(self.certificates)
        self.owner = PeerConnector.new("127.0.0.1", lease, cache, self.tls)
        self.directories = [tempfile.mkdtemp("-host", dir=PLACES[0]) for _ in ADDRESSES]
        self.connectors: list[PeerConnector] = []

    def settings(self, host: int) -> dict[str, str]:
        """What the configuration of a host says."""
        return {
            "daskps.shm.directory": self.directories[host],
            "temporary-directory": self.directories[host],
            "daskps.peer.host": ADDRESSES[host],
            **self._tls,
        }

    @property
    def tls(self) -> Tls | None:
        """Certificates that may come in; None: without TLS."""
        with dask.config.set(self._tls):
            return configured_tls() if self._tls else None

    def connect(self, host: int, config: dict | None = None) -> PeerConnector:
        """A connector as a process on a host has it."""
        with dask.config.set(self.settings(host)):
            connector = PeerConnector.from_config(config or self.owner.config())
            connector.capacity()  # it reads the settings when it is used first
        self.connectors.append(connector)
        if config is None:
            address = connector._here().address()
            assert eventually(lambda: address in self.owner._owner._hosts)
        return connector

    def files(self, host: int) -> list[str]:
        """Names of objects and copies on a host."""
        paths = glob.glob(f"{self.directories[host]}/daskps-*/*.*")
        names = {os.path.basename(path) for path in paths}
        names |= {
            os.path.basename(p) for p in glob.glob(f"{self.directories[host]}/*/.*")
        }
        return sorted(
            n
            for n in names
            if not n.startswith(("server.", "users.", "owner.", "free."))
        )

    def servers(self, host: int) -> list[int]:
        """Process ids of a host's servers."""
        return [pid for pid in servers() if has_open(pid, self.directories[host])]

    def close(self) -> None:
        for connector in self.connectors:
            connector.close()
        self.owner.close()
        assert eventually(lambda: not any(map(self.servers, range(len(ADDRESSES)))))
        shutil.rmtree(self.certificates)
        for directory in self.directories:
            assert eventually(lambda d=directory: not os.listdir(d))
            shutil.rmtree(directory)


def servers() -> list[int]:
    """Process ids of all servers on this machine."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as f:
            if b"daskps-peer-server" in f.read().split(b"\0"):
                found.append(int(path.split("/")[2]))
    return found


def has_open(pid: int, directory: str) -> bool:
    """Whether a process has a file open below a directory."""
    with contextlib.suppress(OSError):
        for link in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{link}").startswith(directory):
                    return True
    return False


class Between:
    """Stands between readers and a server, counts, and may change what is sent.

    `change` is given what the server has sent so far, in bytes, and the next bytes; what it
    returns is sent on. None ends the connection.
    """

    def __init__(
        self,
        server: tuple[str, int],
        change: Callable[[int, bytes], bytes | None] = lambda sent, data: data,
    ):
        self._server = server
        self._change = change
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.sent = 0
        self.requests = bytearray()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                reader, _ = self._socket.accept()
                server = socket.create_connection(self._server)
                for run in self._forward, self._back:
                    threading.Thread(
                        target=run, args=(reader, server), daemon=True
                    ).start()

    def _forward(self, reader: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := reader.recv(1 << 16):
                self.requests += data
                server.sendall(data)
        _end(reader, server)

    def _back(self, reader: socket.socket, server: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                changed = self._change(sent, data)
                if changed is None:
                    break
                sent += len(data)
                self.sent += len(data)
                reader.sendall(changed)
        _end(reader, server)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _end(*sockets: socket.socket) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


@contextlib.contextmanager
def between(*args: object) -> Iterator[Between]:
    """A :class:`Between` for a block."""
    proxy = Between(*args)  # type: ignore[arg-type]
    try:
        yield proxy
    finally:
        proxy.close()
