"""Takes connections of a ``peer://`` store. Runs on the scheduler and in servers.

Uses the standard library and BLAKE3 alone: the server imports it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

from daskps.stores.peer.protocol import Channel, Keys, RefusedError, accept

logger = logging.getLogger(__name__)

# So many connections may be about to prove that they have the key. Others wait.
UNPROVED_CONNECTIONS_AT_MOST = 64
# When (seconds) to try again if a connection could not be taken.
ACCEPT_AGAIN_SECONDS = 0.05


class Listener:
    """Serves each connection in a thread, once it has proved that it has the key.

    Parameters
    ----------
    sock
        Listening.
    keys
        The cluster's.
    serve
        Called with each channel; it may raise OSError. The channel is closed afterwards.
    """

    def __init__(
        self, sock: socket.socket, keys: Keys, serve: Callable[[Channel], None]
    ):
        self._socket = sock
        self._keys = keys
        self._serve = serve
        self._unproved = threading.BoundedSemaphore(UNPROVED_CONNECTIONS_AT_MOST)
        self._closed = False
        self._start(self._run)

    def close(self) -> None:
        """Take no more connections. Those that there are stay."""
        self._closed = True
        # To close it would not wake the thread that waits.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _start(self, run: Callable[..., None], *args: socket.socket) -> None:
        threading.Thread(target=run, args=args, name="daskps-peer", daemon=True).start()

    def _run(self) -> None:
        while not self._closed:
            self._unproved.acquire()
            try:
                sock, _ = self._socket.accept()
            except OSError:
                self._unproved.release()
                # Closed, or the other end has gone again, or too many files are open.
                time.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            try:
                self._start(self._handle, sock)
            except RuntimeError:  # there are too many threads
                sock.close()
                self._unproved.release()
                time.sleep(ACCEPT_AGAIN_SECONDS)

    def _handle(self, sock: socket.socket) -> None:
        with sock:
            try:
                channel = accept(sock, self._keys)
            except RefusedError as e:
                logger.info("A connection was refused: %s", e)
                return
            except OSError:
                return  # it has gone again
            finally:
                self._unproved.release()
            try:
                self._serve(channel)
            except OSError as e:
                logger.debug("A connection has ended: %s", e)
