"""Where an object that is pushed meets who waits for it. Runs in servers.

A host that nobody can connect to connects itself. Its server says for whom it comes, and
what it sends goes on to a process of this host, which waits as if it had asked for it.

Uses the standard library and BLAKE3 alone: the server imports it.
"""

from __future__ import annotations

import queue
import threading
from typing import NamedTuple

from daskps.stores.peer import chunks
from daskps.stores.peer.protocol import Channel


class Pushes:
    """Those that processes of this host wait for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}

    def wait(self, ticket: str, seconds: float, to: Channel) -> None:
        """Hand on what is pushed for a ticket, or say that nothing was in this time.

        Raises
        ------
        OSError
            If one of the two has gone. Nothing more can be sent to either.
        """
        waiting = _Waiting(queue.SimpleQueue(), threading.Event())
        with self._lock:
            self._waiting[ticket] = waiting
        try:
            to.send({"waits": True})
            try:
                source = waiting.channels.get(timeout=seconds)
            except queue.Empty:
                to.send({"pushed": False})
                return
            answer = source.receive()
            to.send({"pushed": True, **answer})
            if answer["found"]:
                chunks.forward(source, to, answer["nbytes"])
        finally:
            with self._lock:
                del self._waiting[ticket]
            waiting.done.set()

    def arrived(self, ticket: str, source: Channel) -> None:
        """Somebody comes for a ticket; returns when all is handed on."""
        with self._lock:
            waiting = self._waiting.get(ticket)
        if waiting is not None:
            waiting.channels.put(source)
            waiting.done.wait()


class _Waiting(NamedTuple):
    channels: queue.SimpleQueue[Channel]
    done: threading.Event
