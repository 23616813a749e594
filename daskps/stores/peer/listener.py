"""Takes connections of a ``peer://`` store. Runs on the scheduler and in servers.

One thread waits for all that have not proved yet that they have the key. So connections
that say nothing cost no more than a file descriptor each, for a second, and keep nobody out.

Uses the standard library and BLAKE3 alone: the server imports it.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable

from daskps.stores.peer.protocol import (
    PROOF_SECONDS,
    Channel,
    Keys,
    Newcomer,
    RefusedError,
)

logger = logging.getLogger(__name__)

# So many connections may be about to prove that they have the key. One more takes the place
# of the oldest, once that has had so long (seconds): others wait.
UNPROVED_CONNECTIONS_AT_MOST = 128
UNDISTURBED_SECONDS = 0.1
# When (seconds) to try again if a connection could not be taken.
ACCEPT_AGAIN_SECONDS = 0.05


class Listener:
    """Takes connections, and has each served once it has proved that it has the key.

    Parameters
    ----------
    sock
        Listening.
    keys
        The cluster's.
    serve
        Called with each channel; it may raise OSError.
    in_threads
        Whether `serve` is called in a thread for each channel, which is closed afterwards.
        Otherwise it must not wait, and has to close the channel.
    """

    #: The oldest first.
    _unproved: dict[Newcomer, None]
    _pause_until: float
    _is_listening: bool

    def __init__(
        self,
        sock: socket.socket,
        keys: Keys,
        serve: Callable[[Channel], None],
        in_threads: bool = True,
    ):
        self._socket = sock
        self._keys = keys
        self._serve = serve
        self._in_threads = in_threads
        self._selector = selectors.DefaultSelector()
        self._unproved = {}
        self._pause_until = 0.0
        self._is_listening = False
        self._closed = False
        self._closing = threading.Lock()
        sock.setblocking(False)
        threading.Thread(target=self._run, name="daskps-peer", daemon=True).start()

    def close(self) -> None:
        """Take no more connections. Those that there are stay. Again: does nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            # Wakes the thread that waits, which closes it.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _start(self, newcomer: Newcomer) -> None:
        if not self._in_threads:
            # Its proof is short enough not to have to wait.
            try:
                self._serve(newcomer.channel())
            except OSError:
                newcomer.socket.close()
            return
        threading.Thread(
            target=self._handle, args=(newcomer,), name="daskps-peer", daemon=True
        ).start()

    def _run(self) -> None:
        try:
            while not self._closed:
                for key, _ in self._selector.select(self._until_something_is_due()):
                    if key.data is None:
                        self._accept()
                    else:
                        self._hear(key.data)
            for newcomer in list(self._unproved):
                self._drop(newcomer)
        finally:
            # Not while it is shut down: it may be somebody else's file by then.
            with self._closing:
                self._closed = True
                self._socket.close()
            self._selector.close()

    def _until_something_is_due(self) -> float | None:
        """Do what is due now; seconds until something else will be."""
        now = time.monotonic()
        while self._unproved and self._oldest.since + PROOF_SECONDS <= now:
            self._drop(self._oldest)
        again = self._pause_until
        if len(self._unproved) >= UNPROVED_CONNECTIONS_AT_MOST:
            again = max(again, self._oldest.since + UNDISTURBED_SECONDS)
        self._listen(again <= now)
        due = [again] if again > now else []
        if self._unproved:
            due.append(self._oldest.since + PROOF_SECONDS)
        return min(due) - now if due else None

    @property
    def _oldest(self) -> Newcomer:
        return next(iter(self._unproved))

    def _listen(self, listening: bool) -> None:
        if listening and not self._is_listening:
            self._selector.register(self._socket, selectors.EVENT_READ)
        elif self._is_listening and not listening:
            self._selector.unregister(self._socket)
        self._is_listening = listening

    def _accept(self) -> None:
        if len(self._unproved) >= UNPROVED_CONNECTIONS_AT_MOST:
            self._drop(self._oldest)
        try:
            sock, _ = self._socket.accept()
        except OSError:
            # Closed, or the other end has gone again, or too many files are open.
            self._pause_until = time.monotonic() + ACCEPT_AGAIN_SECONDS
            return
        try:
            newcomer = Newcomer(sock, self._keys)
        except OSError:
            sock.close()
            return
        self._unproved[newcomer] = None
        self._selector.register(newcomer.socket, newcomer.event, newcomer)

    def _drop(self, newcomer: Newcomer) -> None:
        self._forget(newcomer)
        newcomer.socket.close()

    def _forget(self, newcomer: Newcomer) -> None:
        del self._unproved[newcomer]
        self._selector.unregister(newcomer.socket)

    def _hear(self, newcomer: Newcomer) -> None:
        if newcomer not in self._unproved:
            return  # it was dropped for another one that came at the same time
        try:
            if not newcomer.has_proved():
                self._selector.modify(newcomer.socket, newcomer.event, newcomer)
                return
        except OSError as e:
            if isinstance(e, RefusedError):
                logger.info("A connection was refused: %s", e)
            self._drop(newcomer)
            return
        self._forget(newcomer)
        try:
            self._start(newcomer)
        except RuntimeError:  # there are too many threads
            newcomer.socket.close()
            self._pause_until = time.monotonic() + ACCEPT_AGAIN_SECONDS

    def _handle(self, newcomer: Newcomer) -> None:
        with newcomer.socket:
            try:
                self._serve(newcomer.channel())
            except OSError as e:
                logger.debug("A connection has ended: %s", e)
