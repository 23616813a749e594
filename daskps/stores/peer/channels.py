"""Connections to the servers of other hosts. Runs in every process that reads."""

from __future__ import annotations

import os
import threading
from typing import Any

from daskps.stores.interfaces import Address
from daskps.stores.peer.protocol import Channel, Keys, connect

# Connections to one server that are kept without a request.
IDLE_CONNECTIONS_AT_MOST = 8
# How long (seconds) a host may take to take a connection: one lost packet more or less.
CONNECT_SECONDS = 3.5


class PeerChannels:
    """Connections to the servers of other hosts, and to the owner.

    Parameters
    ----------
    keys
        The cluster's.

    Attributes
    ----------
    keys
        The same.

    Notes
    -----
    Thread-safe: each request has a connection to itself, which is kept for the next one.
    Usable in a forked process, which opens connections of its own.
    """

    keys: Keys

    def __init__(self, keys: Keys):
        self.keys = keys
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

    def ask(self, address: Address, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message, and wait for the answer.

        Raises
        ------
        OSError
            If nobody answers there.
        """
        channel, answer = self.request(address, message)
        self.give_back(address, channel)
        return answer

    def request(
        self, address: Address, message: dict[str, Any]
    ) -> tuple[Channel, dict[str, Any]]:
        """A connection, and the answer to a first message over it.

        The caller closes it, or gives it back.
        """
        idle = self._take(address)
        if idle is not None:
            try:
                return idle, idle.request(message)
            except OSError:
                # It was idle for long, or the server has died: others are no better.
                idle.close()
                self._drop(address)
        channel = connect(address, self.keys, CONNECT_SECONDS)
        try:
            return channel, channel.request(message)
        except BaseException:
            channel.close()
            raise

    def give_back(self, address: Address, channel: Channel) -> None:
        """Keep a connection over which nothing is under way."""
        with self._lock:
            idle = self._idle.setdefault(address, [])
            if len(idle) < IDLE_CONNECTIONS_AT_MOST:
                idle.append(channel)
                return
        channel.close()

    def _take(self, address: Address) -> Channel | None:
        if self._process != os.getpid():
            self._reset()  # the connections are our parent's
        with self._lock:
            idle = self._idle.get(address)
            return idle.pop() if idle else None

    def _drop(self, address: Address) -> None:
        with self._lock:
            idle = self._idle.pop(address, [])
        for channel in idle:
            channel.close()
