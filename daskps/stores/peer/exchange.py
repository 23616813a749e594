"""Messages of many connections in one thread. Runs on the scheduler.

A thousand hosts stay connected to the owner of a store: a thread for each would cost more
than what they say.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from daskps.stores.peer.protocol import Channel, Conversation

logger = logging.getLogger(__name__)

RECEIVE_NBYTES = 1 << 16
# Not an error of a socket that does not wait: there is nothing now.
_NOT_NOW = (
    BlockingIOError,
    InterruptedError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
)


class Exchange:
    """Sends and receives messages, and calls back.

    All that is called back is called in the exchange's own thread, and must not wait.

    Parameters
    ----------
    name
        Of the thread.
    tick
        Called every `seconds`.
    seconds
        See `tick`.
    """

    def __init__(self, name: str, tick: Callable[[], None], seconds: float):
        self._tick, self._seconds = tick, seconds
        self._selector = selectors.DefaultSelector()
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._connections: set[Connection] = set()
        self._stopped = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[[], None]) -> None:
        """Have something called soon. Thread-safe."""
        self._calls.append(function)
        # If it is full, it will wake up anyway; if it is closed, nobody listens any more.
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def add(self, channel: Channel, owner: Callable[[Connection], Listening]) -> None:
        """Take a connection over. Thread-safe."""
        self.call(lambda: self._add(channel, owner))

    def stop(self) -> None:
        """Close all connections. Only in the exchange's thread."""
        self._stopped = True

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection."""
        return not self._connections

    def _add(self, channel: Channel, owner: Callable[[Connection], Listening]) -> None:
        channel.socket.setblocking(False)
        connection = Connection(channel, self)
        self._connections.add(connection)
        self._selector.register(channel.socket, selectors.EVENT_READ, connection)
        connection.listening = owner(connection)
        connection.is_readable()  # what came while it proved itself

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.channel.socket)
        connection.channel.close()

    def _watch(self, connection: Connection, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(connection.channel.socket, events, connection)

    def _run(self) -> None:
        due = time.monotonic() + self._seconds
        while not self._stopped:
            for key, events in self._selector.select(max(0.0, due - time.monotonic())):
                if key.data is None:
                    self._answer_calls()
                    continue
                if events & selectors.EVENT_WRITE:
                    key.data.is_writable()
                if events & selectors.EVENT_READ:
                    key.data.is_readable()
            if time.monotonic() >= due:
                due = time.monotonic() + self._seconds
                self._tick()
        for connection in list(self._connections):
            self._drop(connection)
        self._selector.close()
        self._woken.close()
        self._wake.close()

    def _answer_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._calls:
            self._calls.popleft()()


class Listening:
    """Who has to do with a connection."""

    def heard(self, message: dict[str, Any]) -> None:
        """A message has come."""

    def lost(self) -> None:
        """The connection is no more."""


class Connection:
    """One of an exchange. Used in its thread only.

    Attributes
    ----------
    listening
        Who is told of messages.
    """

    listening: Listening

    def __init__(self, channel: Channel, exchange: Exchange):
        self.channel = channel
        self.listening = Listening()
        self._exchange = exchange
        self._in = bytearray()
        self._out = bytearray()
        self._closed = False

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, now or when there is room."""
        if not self._closed:
            was_waiting = bool(self._out)
            self._out += self.channel.conversation.pack(message)
            if not was_waiting:
                self.is_writable()
                if self._out and not self._closed:
                    self._exchange._watch(self, writing=True)

    def close(self) -> None:
        """End it, and tell who has to do with it. Again: does nothing."""
        if not self._closed:
            self._closed = True
            self._exchange._drop(self)
            self.listening.lost()

    def is_writable(self) -> None:
        """Send what there is room for."""
        try:
            while self._out:
                sent = self.channel.socket.send(self._out)
                del self._out[:sent]
        except _NOT_NOW:
            return
        except OSError:
            self.close()
            return
        self._exchange._watch(self, writing=False)

    def is_readable(self) -> None:
        """Take what has come."""
        try:
            while not self._closed:
                data = self.channel.socket.recv(RECEIVE_NBYTES)
                if not data:
                    self.close()
                    return
                self._in += data
                self._take_messages()
        except _NOT_NOW:
            return
        except OSError as e:
            logger.debug("A connection has ended: %s", e)
            self.close()

    def _take_messages(self) -> None:
        conversation, head = self.channel.conversation, Conversation.HEAD_NBYTES
        while len(self._in) >= head and not self._closed:
            end = head + conversation.nbytes(self._in[:head])
            if len(self._in) < end:
                return
            message = conversation.unpack(self._in[:head], self._in[head:end])
            del self._in[:end]
            self.listening.heard(message)
