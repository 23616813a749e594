"""Reads objects from the servers of other hosts. Runs in every process that reads."""

from __future__ import annotations

import hmac
import os
import threading
from typing import TYPE_CHECKING, Any

from daskps.serialize.slabs import write_all
from daskps.stores.connectors.sealed import DamagedError
from daskps.stores.interfaces import Address
from daskps.stores.peer.protocol import (
    BODY_SEAL_NBYTES,
    Channel,
    Keys,
    connect,
    receive_exactly,
)

if TYPE_CHECKING:
    from daskps.stores.keys import PeerKey

# Small enough to stay in the processor's cache between the network, the hash and the file.
RECEIVE_NBYTES = 1 << 20
# Connections to one server that are kept without a request.
IDLE_CONNECTIONS_AT_MOST = 8


class PeerChannels:
    """Connections to the servers of other hosts.

    Parameters
    ----------
    keys
        The cluster's.

    Notes
    -----
    Thread-safe: each request has a connection to itself, which is kept for the next one.
    Usable in a forked process, which opens connections of its own.
    """

    def __init__(self, keys: Keys):
        self._keys = keys
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: dict[Address, list[Channel]] = {}

    def close(self) -> None:
        """Close all connections that wait for a request."""
        if self._process == os.getpid():
            with self._lock:
                idle, self._idle = self._idle, {}
            for channel in (c for channels in idle.values() for c in channels):
                channel.close()

    def has(self, key: PeerKey) -> bool:
        """Whether an object is on its host."""
        message = {"op": "has", "name": key.name, "nbytes": key.nbytes}
        return bool(self._ask(key.origin, message)["found"])

    def evict(self, key: PeerKey) -> None:
        """Delete an object on its host."""
        self._ask(key.origin, {"op": "evict", "names": [key.name]})

    def fetch(self, key: PeerKey, fd: int) -> bool:
        """Write an object's bytes to a file; False if it is not on its host.

        Raises
        ------
        DamagedError
            If the bytes are not those of the object.
        OSError
            If its host cannot be reached, or there is no room.
        """
        message = {"op": "get", "name": key.name, "nbytes": key.nbytes}
        channel, answer = self._request(key.origin, message)
        try:
            if answer["found"]:
                self._receive(channel, key, fd)
        except BaseException:
            channel.close()
            raise
        self._give_back(key.origin, channel)
        return bool(answer["found"])

    def _receive(self, channel: Channel, key: PeerKey, fd: int) -> None:
        digest = self._keys.seal(key.name, key.nbytes)
        slab = memoryview(bytearray(min(RECEIVE_NBYTES, key.nbytes)))
        left = key.nbytes
        while left:
            n = channel.receive_into(slab[:left])
            digest.update(slab[:n])
            write_all(fd, slab[:n])
            left -= n
        seal = receive_exactly(channel.socket, BODY_SEAL_NBYTES)
        if not hmac.compare_digest(digest.digest(), seal):
            raise DamagedError("its bytes are not those that its host has stored")

    def _ask(self, address: Address, message: dict[str, Any]) -> dict[str, Any]:
        channel, answer = self._request(address, message)
        self._give_back(address, channel)
        return answer

    def _request(
        self, address: Address, message: dict[str, Any]
    ) -> tuple[Channel, dict[str, Any]]:
        """A connection, and the answer to a first message over it."""
        idle = self._take(address)
        if idle is not None:
            try:
                return idle, idle.request(message)
            except OSError:
                # It was idle for long, or the server has died: others are no better.
                idle.close()
                self._drop(address)
        channel = connect(address, self._keys)
        try:
            return channel, channel.request(message)
        except BaseException:
            channel.close()
            raise

    def _take(self, address: Address) -> Channel | None:
        if self._process != os.getpid():
            self._reset()  # the connections are our parent's
        with self._lock:
            idle = self._idle.get(address)
            return idle.pop() if idle else None

    def _give_back(self, address: Address, channel: Channel) -> None:
        with self._lock:
            idle = self._idle.setdefault(address, [])
            if len(idle) < IDLE_CONNECTIONS_AT_MOST:
                idle.append(channel)
                return
        channel.close()

    def _drop(self, address: Address) -> None:
        with self._lock:
            idle = self._idle.pop(address, [])
        for channel in idle:
            channel.close()
