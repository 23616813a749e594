"""Holds what a client has stored, until its graph is on its way. Runs on the client."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from distributed.protocol.serialize import ToPickle

from daskps.client.reporting import tell_with_next
from daskps.dask_private.connections import (
    When,
    connection,
    is_closing,
    send_to_scheduler,
)
from daskps.exceptions import ClusterError
from daskps.messages import HOLD, RELEASE, STORED
from daskps.objects import finalizers
from daskps.references.nodes import ObjectId
from daskps.stores import opened

if TYPE_CHECKING:
    from distributed import Client

# A graph that comes sooner after another one waits to be sent together with more, as
# Dask's clients have all of them wait (distributed 2026.8.0). The first one would wait for
# what was sent just before it, since storing takes a moment: a round trip would take 10 ms
# longer than in plain Dask, where both are one message.
TOGETHER_SECONDS = 0.01


class ClientKeeper:
    """Tells the scheduler what this client holds, over one connection.

    An object is in one of three states for as long as it has a handle:

    ===========  =============  ================================  ========================
    State        Who evicts it  Event                             What follows
    ===========  =============  ================================  ========================
    stored       this client    :meth:`stored`, :meth:`hold`      *on its way*
    ..                          released                          evicted here
    on its way   this client    the connection has the message    *announced*
    ..                          the connection was lost           *stored*
    ..                          the client is closing             *stored*
    ..                          released                          decided in the next state
    ..                          released, the client is closed    evicted here
    announced    the scheduler  :meth:`stored`, :meth:`hold`      *announced*, once more
    ..                          released                          ``RELEASE`` is sent
    ..                          released, the client is closing,  nothing: the scheduler has
                                or the connection was lost        released all that it held
    ===========  =============  ================================  ========================

    The graph follows what is on its way. The event loop sends it, and sees later what was
    released later: so the next state is there by then. What the scheduler was not told of
    it cannot evict; it may have forgotten this client by then.

    Parameters
    ----------
    client
        The client; the keeper does not keep it alive.

    Notes
    -----
    Thread-safe. The store stays open in this process for as long as there is a keeper,
    which catalog and handles keep alive, since the client may have to evict.
    """

    def __init__(self, client: Client):
        self._client = weakref.ref(client)
        self._connection = connection(client)
        self._announced: set[ObjectId] = set()
        #: Announced, and released: to be sent in one message.
        self._to_release: list[ObjectId] = []
        #: When a graph may be sent at once again.
        self._wait_until = 0.0

    def closes(self, store: str) -> None:
        """Close this store, which was opened in this process, after the last use."""
        # Stores that are open when the process ends are closed by themselves.
        release = weakref.finalize(self, finalizers.call_later, opened.release, store)
        release.atexit = False

    def stored(self, objects: list[tuple[ObjectId, int]]) -> None:
        self._announce(STORED, objects)

    def hold(self, objects: list[tuple[ObjectId, int]]) -> None:
        now = time.monotonic()
        at_once = now > self._wait_until
        when = When.WITH_NEXT_AT_ONCE if at_once else When.WITH_NEXT
        self._announce(HOLD, objects, when)
        self._wait_until = now + TOGETHER_SECONDS

    def _announce(
        self, op: str, objects: list[tuple[ObjectId, int]], when: When = When.NOW
    ) -> None:
        client = self._client()
        if client is None or is_closing(client):
            raise client_closed("values were stored")
        over = self._over(client)
        if connection(client) is not over:
            raise connection_lost("values were stored")

        def done(sent: bool) -> None:
            # A client that is closing may send this after its last word to the scheduler.
            if sent and not is_closing(client):
                self._announced.update(id for id, _ in objects)
                if when is not When.NOW:
                    # From here: it would wake the event loop once more for each graph.
                    tell_with_next(client, over, {id.store for id, _ in objects})

        message = {"op": op, "objects": ToPickle(objects)}
        send_to_scheduler(client, over, message, when, done)

    def _over(self, client: Client) -> Any:
        """The connection; None before there is one, when messages wait for the first."""
        if self._connection is None:
            self._connection = connection(client)
        return self._connection

    def release(self, objects: list[ObjectId]) -> None:
        # The garbage collector calls this at any point, perhaps while this thread holds a
        # lock: so the event loop does the rest.
        released = deque(objects)
        client = self._client()
        if client is not None:
            # RuntimeError: the loop is closed, the client with it.
            with contextlib.suppress(RuntimeError):
                client.loop.add_callback(self._released, released)
            # A client is closed before its loop stops. If it is not closed yet, the loop
            # will come to the callback.
            if client.status != "closed":
                return
        self._released(released)

    def _released(self, released: deque[ObjectId]) -> None:
        """Look at each object once: the event loop of a closed client may do so, too."""
        # IndexError: none is left.
        with contextlib.suppress(IndexError):
            while True:
                id = released.popleft()
                if id in self._announced:
                    self._announced.discard(id)
                    self._tell_later(id)
                else:
                    finalizers.evict_later(*id)

    def _tell_later(self, id: ObjectId) -> None:
        """Release an object on the scheduler, with others that the event loop has now."""
        client = self._client()
        if client is None or is_closing(client):
            return
        if not self._to_release:
            client.loop.add_callback(self._tell)
        self._to_release.append(id)

    def _tell(self) -> None:
        objects, self._to_release = self._to_release, []
        client = self._client()
        if client is not None and not is_closing(client):
            message = {"op": RELEASE, "objects": ToPickle(objects)}
            send_to_scheduler(client, self._over(client), message)


def connection_lost(meanwhile: str) -> ClusterError:
    """The error of a graph that was not sent since the connection was lost."""
    return ClusterError(
        f"The connection to the scheduler was lost while {meanwhile}. Submit the "
        "computation again."
    )


def client_closed(meanwhile: str) -> ClusterError:
    """The error of a graph that was not sent since the client was closed."""
    return ClusterError(
        f"The client was closed while {meanwhile}. The graph was not sent. Submit the "
        "computation again, with another client."
    )
